from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpact.channel.secure_sum import SecureSum
from fedpact.core.errors import ChannelError
from fedpact.core.rows import ClientData, Rows
from fedpact.data.preprocess.estimate import Columnwise, Estimating, reply
from fedpact.engine.asking import Asking
from fedpact.engine.masked_sums import masked
from fedpact.engine.population import InMemory


@dataclass(frozen=True)
class Totals(Columnwise):
    """Adds up whole numbers, of several shapes, as they are."""

    def client(self, model: Any, task: Any, data: ClientData, kept: Any, seed: Any) -> Any:
        numbers = data.train.x
        return reply(task, data, {"a": numbers, "b": numbers.reshape(-1, 1)[:2]}), kept

    def server(self, model: Any, state: Estimating, aggregate: Any) -> Estimating:
        return Estimating(state.round + 1, (aggregate.sum("a").tolist(), aggregate.sum("b").tolist()))

    def fitted(self, state: Estimating) -> Any:
        return state.found


# Of four of these the sum is an int64.
whole = st.integers(-(2**61), 2**61 - 1)


@settings(max_examples=15)
@given(
    st.lists(st.lists(whole, min_size=3, max_size=3), min_size=3, max_size=4),
    st.sampled_from([16, 20, 24, 32]),
)
def test_sums_under_a_mask_are_those_in_clear(rows: list[list[int]], bits: int) -> None:
    clients = InMemory(
        ClientData(str(i), Rows(np.array(numbers, np.int64))) for i, numbers in enumerate(rows)
    )
    total = [sum(column) for column in zip(*rows, strict=True)]
    hidden = Asking(clients, SecureSum(bits=bits)).fitted(Totals(("x",)), "totals")
    assert hidden == (total, [[each] for each in total[:2]])
    assert hidden == Asking(clients, None).fitted(Totals(("x",)), "totals")


def test_of_a_masked_update_nothing_is_summed_in_clear() -> None:
    algorithm, channel = masked(Totals(("x",)), SecureSum(), 3)
    task = algorithm.task(algorithm.init(None, None))
    data = ClientData("a", Rows(np.array([1, 2, 3])))
    update, _ = algorithm.client(None, task, data, {}, None)
    assert not update.summed
    assert update.answer is None
    assert channel.mask is not None


def test_more_clients_than_the_ring_holds_are_refused() -> None:
    with pytest.raises(ChannelError, match="4096 clients are too many for the 16 bits of SecureSum"):
        masked(Totals(("x",)), SecureSum(bits=16), 4096)
