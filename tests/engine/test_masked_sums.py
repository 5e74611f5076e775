from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fedpact as fp
from fedpact.channel.channel import Channel
from fedpact.channel.secure_sum import SecureSum
from fedpact.core.errors import ChannelError, DataError
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.data.preprocess.columns import as_categories, in_order
from fedpact.data.preprocess.estimate import Columnwise, Estimating, reply
from fedpact.data.summary.frequent import AllCategories
from fedpact.engine.asking import Asking
from fedpact.engine.masked_sums import MaskedSums, hide_sums
from fedpact.engine.population import InMemory
from fedpact.engine.work import Rules, Setting


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


def setting(clients: InMemory) -> Setting:
    algorithm = Totals(("x",))
    return Setting(algorithm, None, clients, Channel((), algorithm), Rules(), Seed.of(0))


def test_of_a_masked_update_nothing_is_summed_in_clear() -> None:
    data = [ClientData(id, Rows(np.array([1, 2, 3]))) for id in "abc"]
    plain = setting(InMemory(data))
    task = plain.algorithm.task(plain.algorithm.init(None, Seed.of(0)))
    hidden = hide_sums(SecureSum(dropout=0.5), plain, task)
    update, _ = hidden.algorithm.client(None, task, data[0], {}, Seed.of(0))
    assert not update.summed
    assert update.answer is None
    assert hidden.channel.mask == SecureSum()
    assert hide_sums(SecureSum(), plain, replace(task, answers="collect")) is plain


@dataclass(frozen=True)
class Halves(Totals):
    """Adds up what are no whole numbers."""

    def client(self, model: Any, task: Any, data: ClientData, kept: Any, seed: Any) -> Any:
        return reply(task, data, {"a": data.train.x / 2}), kept


def test_statistics_that_are_no_whole_numbers_are_refused_and_not_cut_off() -> None:
    data = ClientData("a", Rows(np.array([1, 2, 3])))
    task = Halves(("x",)).task(Estimating())
    with pytest.raises(TypeError, match="Cannot cast"):
        MaskedSums(Halves(("x",)), 16).client(None, task, data, {}, Seed.of(0))


def test_more_clients_than_the_ring_holds_are_refused() -> None:
    many = InMemory(ClientData(str(i), Rows(np.array([i]))) for i in range(4096))
    plain = setting(many)
    task = plain.algorithm.task(plain.algorithm.init(None, Seed.of(0)))
    with pytest.raises(ChannelError, match="4096 clients are too many for the 16 bits of SecureSum"):
        hide_sums(SecureSum(bits=16), plain, task)


@dataclass(frozen=True)
class Watched(SecureSum):
    """A mask that remembers what leaves the clients."""

    sent: ClassVar[list[Any]] = []

    def encode_integers(self, update: Any, context: Any) -> Any:
        masked = super().encode_integers(update, context)
        self.sent.append((update, masked))
        return masked


def test_under_a_mask_preparation_is_fitted_to_the_same_bits_and_no_part_of_a_sum_is_seen() -> None:
    hospitals = fp.datasets.breast_cancer()
    steps = [
        fp.Impute("median"),
        fp.YeoJohnson(columns=["mean area"]),
        fp.Standardize(),
        fp.PCA(n_components=5),
    ]
    settings = {"preprocess": steps, "rounds": 1, "progress": False}
    Watched.sent.clear()
    hidden = fp.train(
        fp.models.Logistic(),
        hospitals,
        channel=[fp.Clip(1.0), Watched(max_weight=1000, dropout=0.3)],
        **settings,
    )
    clear = fp.train(fp.models.Logistic(), hospitals, channel=[fp.Clip(1.0)], **settings)
    found, same = (each.fitted.preparation.to_json() for each in (hidden, clear))
    assert found == same
    asked = [update for update, _ in Watched.sent if update.kind == "statistics"]
    # Eight rounds of the median and more, of four clients.
    assert len(asked) > 4 * 20
    assert not any(update.summed or update.answer for update in asked)
    assert all(masked.integers.ring_bits == 32 for _, masked in Watched.sent)
    told = hidden.privacy.in_clear
    assert "the sums over all clients that preparation was fitted from" in told
    assert "the sums that preparation was fitted from" in clear.privacy.in_clear


def wards(seed: int, names: Any, rows: int = 40) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    columns = {"ward": draw.choice(names, rows), "floor": draw.integers(0, 3, rows).astype(str)}
    return pd.DataFrame(
        {**columns, "stays": draw.choice([1.5, 2.0, np.nan], rows), "ill": [0, 1] * (rows // 2)}
    )


CATEGORICAL: tuple[Any, ...] = (
    fp.Impute("most_frequent", columns=["stays", "floor"]),
    fp.MergeRare(columns=["ward"], min_share=0.05),
    fp.TargetEncode(columns=["ward"]),
    fp.OneHot(columns=["stays"], categories=None, min_count=3, unknown="infrequent"),
    fp.Ordinal(columns=["floor"]),
)


def test_under_a_mask_no_client_names_its_categories_and_the_same_are_found() -> None:
    clients = fp.clients(
        {id: wards(i, [f"ward {j}" for j in range(i, 40 + i)]) for i, id in enumerate("abcd")}, "ill"
    )
    settings = {"preprocess": CATEGORICAL, "rounds": 1, "progress": False}
    Watched.sent.clear()
    mask = [fp.Clip(1.0), Watched(max_weight=1000)]
    hidden = fp.train(fp.models.Logistic(), clients, channel=mask, **settings)
    clear = fp.train(fp.models.Logistic(), clients, channel=[fp.Clip(1.0)], **settings)
    assert hidden.fitted.preparation.to_json() == clear.fitted.preparation.to_json()
    asked = [update for update, _ in Watched.sent if update.kind == "statistics"]
    assert asked
    assert not any(update.summed or update.answer for update in asked)
    told, also = hidden.privacy.in_clear, clear.privacy.in_clear
    assert "the categories that there are, and how many rows have each" in told
    assert not any(
        "categories" in each
        for each in told
        if each != "the categories that there are, and how many rows have each"
    )
    assert "the names of each client's categories" in also


def test_what_cannot_be_found_under_a_mask_is_told() -> None:
    long = {id: wards(0, ["x" * 249, "y"]) for id in "abc"}
    settings = {"channel": [fp.Clip(1.0), fp.SecureSum(max_weight=1000)], "progress": False}
    with pytest.raises(DataError, match=r'client ".".*column "ward" has values of more than 248 bytes'):
        fp.train(fp.models.Logistic(), fp.clients(long, "ill"), preprocess=CATEGORICAL, **settings)
    crowded = AllCategories(("ward",))
    state = Estimating(2, {"counts": [[["a", 3]]], "left": [7]})
    with pytest.raises(DataError, match="more categories than can be found under a mask; declare them"):
        crowded.found(state)


@settings(max_examples=10)
@given(
    st.lists(st.one_of(st.text(max_size=12), st.integers(-9, 9), st.floats(-1, 1)), min_size=1, max_size=60)
)
def test_all_categories_are_found_whatever_they_are(values: list[Any]) -> None:
    table = pd.DataFrame({"x": pd.Series(values, dtype=object)})
    clients = InMemory(ClientData(str(i), Rows(table.iloc[i::3])) for i in range(min(3, len(values))))
    naming = AllCategories(("x",))
    state = Asking(clients, None).state(naming, "categories")
    _, categories = as_categories(table, "x")
    assert naming.found(state) == [in_order(set(categories))]


def test_thousands_of_categories_are_found() -> None:
    table = pd.DataFrame({"x": [f"number {i}" for i in range(4000)]})
    naming = AllCategories(("x",))
    state = Asking(InMemory([ClientData("a", Rows(table))]), None).state(naming, "categories")
    assert set(naming.found(state)[0]) == set(table["x"])
