"""The batched engine: failures are each client's own, and what cannot be batched is done one by one and said."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.newton import Newton
from fedpact.algorithms.scaffold import SCAFFOLD
from fedpact.channel.channel import Channel
from fedpact.channel.clip import Clip
from fedpact.channel.noise import GaussianNoise
from fedpact.channel.transform import RoundContext, Transform
from fedpact.core.errors import ConfigError, DataError, ModelError, QuorumError
from fedpact.core.messages import Update
from fedpact.core.model import Schema
from fedpact.core.rows import ClientData, Rows
from fedpact.engine.batched import Batched, why_not
from fedpact.engine.in_process import InProcess
from fedpact.engine.population import InMemory
from fedpact.engine.rounds import Outcome, hold_round
from fedpact.engine.work import Rules, Setting
from fedpact.learn.linear import Logistic, Softmax
from fedpact.learn.naive_bayes import GaussianNB
from tests.federation import SEED

D = 4
BINARY = Schema("binary", (D,), (0, 1))
THREE = Schema("multiclass", (D,), (0, 1, 2))
FEDAVG = FedAvg(lr=0.1, batch_size=4)


def client(id: str, rows: int = 9, seed: int = 0, classes: int = 2) -> ClientData:
    random = np.random.default_rng([seed, rows, *id.encode()])
    return ClientData(id, Rows(random.normal(size=(rows, D)), random.integers(0, classes, rows)))


def clients(count: int = 6, classes: int = 2) -> list[ClientData]:
    return [client(chr(97 + i), 6 + i % 4, classes=classes) for i in range(count)]


class Sparse(InMemory):
    """A population with a client that cannot be loaded, or that says nothing true of its size."""

    def __init__(
        self,
        members: Sequence[ClientData],
        missing: Sequence[str] = (),
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(members)
        self._missing = missing
        self._sizes = sizes or {}
        self.loads: list[str] = []

    def load(self, id: str) -> ClientData:
        self.loads.append(id)
        if id in self._missing:
            raise OSError("the disk is gone")
        return super().load(id)

    def size(self, id: str) -> int:
        return self._sizes.get(id, super().size(id))


def hold(
    engine: Any,
    population: Any,
    *,
    algorithm: Any = FEDAVG,
    model: Any = None,
    stages: Any = (),
    fatal: Any = (),
) -> Outcome:
    model = model or Logistic(init="uniform").build(BINARY)
    if isinstance(population, list):
        population = InMemory(population)
    channel = Channel(stages, algorithm, model.layout)
    setting = Setting(algorithm, model, population, channel, Rules(fatal=fatal), SEED)
    return hold_round(engine, setting, algorithm.task(algorithm.init(model, SEED)), {}, 0)


def check_same(together: Outcome, alone: Outcome) -> None:
    assert together.failures == alone.failures
    assert together.seconds.keys() == alone.seconds.keys()
    assert together.upload_bytes == alone.upload_bytes
    assert together.kept.keys() == alone.kept.keys()
    a, b = together.aggregate, alone.aggregate
    assert (a.kind, a.count, a.weight, a.population) == (b.kind, b.count, b.weight, b.population)
    assert a.metrics == pytest.approx(b.metrics, rel=1e-9)
    for name, mean in b.means.items():
        np.testing.assert_allclose(a.means[name].flats[0], mean.flats[0], rtol=1e-9, atol=1e-12)


def nan_rows(id: str) -> ClientData:
    rows = client(id).train
    x = np.array(rows.x)
    x[3, 1] = np.nan
    return ClientData(id, Rows(x, rows.y))


FAULTS: dict[str, tuple[ClientData, str]] = {
    "a row that is not a number": (nan_rows("bad"), r'client "bad": coef\[0\] is nan'),
    "no labels": (ClientData("bad", Rows(client("bad").train.x)), "without labels"),
    "another shape": (
        ClientData("bad", Rows(np.zeros((5, D + 2)), np.zeros(5, int))),
        "ValueError",
    ),
    "numbers too large": (
        ClientData("bad", Rows(client("bad").train.x * 1e200, client("bad").train.y)),
        "is nan",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("chunk", [None, 1, 2, 3])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_clients_fault_is_its_own_and_is_told_as_one_by_one(fault: str, chunk: int | None) -> None:
    bad, why = FAULTS[fault]
    members = [*clients(3), bad, *clients(6)[3:]]
    together, alone = (hold(engine, members) for engine in (Batched(chunk), InProcess()))
    assert list(together.failures) == ["bad"]
    assert re.search(why, together.failures["bad"])
    assert together.aggregate.count == 6
    check_same(together, alone)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("fault", ["a row that is not a number", "numbers too large"])
def test_a_gradient_that_cannot_be_bounded_leaves_its_client_out(fault: str) -> None:
    algorithm = replace(FEDAVG, max_grad_norm=0.1)
    members = [*clients(3), FAULTS[fault][0]]
    together, alone = (hold(engine, members, algorithm=algorithm) for engine in (Batched(), InProcess()))
    assert list(together.failures) == list(alone.failures) == ["bad"]
    check_same(replace(together, failures=alone.failures), alone)


def test_a_label_that_is_no_class_is_its_clients_fault() -> None:
    model = Softmax().build(THREE)
    bad = ClientData("bad", Rows(np.zeros((5, D)), np.array([0, 1, 2, 3, 0])))
    members = [*clients(4, classes=3), bad]
    together, alone = (hold(engine, members, model=model) for engine in (Batched(), InProcess()))
    assert list(together.failures) == ["bad"]
    check_same(together, alone)


def test_a_client_that_cannot_be_loaded_is_left_out() -> None:
    together, alone = (hold(engine, Sparse(clients(), ["c"])) for engine in (Batched(), InProcess()))
    assert together.failures == {"c": "OSError: the disk is gone"}
    check_same(together, alone)


def test_a_client_without_rows_is_left_out() -> None:
    members = clients()
    population = Sparse(members)
    population._clients["c"] = ClientData("c", Rows(np.zeros((0, D)), np.zeros(0, int)))
    together = hold(Batched(), population)
    assert list(together.failures) == ["c"]
    assert "there are no training rows" in together.failures["c"]
    assert together.aggregate.count == 5


def test_a_client_that_weighs_more_than_it_announced_is_left_out() -> None:
    population = Sparse(clients(), sizes={"b": 2})
    together, alone = (hold(engine, population) for engine in (Batched(), InProcess()))
    assert list(together.failures) == ["b"]
    assert "it has announced 2" in together.failures["b"]
    check_same(together, alone)


def test_when_nobody_answers_every_reason_is_named() -> None:
    with pytest.raises(QuorumError) as raised:
        hold(Batched(), Sparse(clients(2), ["a", "b"]))
    assert raised.value.failures == dict.fromkeys("ab", "OSError: the disk is gone")


def test_errors_that_end_the_round_for_all_do_so() -> None:
    with pytest.raises(DataError, match="without labels"):
        hold(Batched(), [*clients(3), FAULTS["no labels"][0]], fatal=(DataError,))


@pytest.mark.parametrize("chunk", [1, 2, 4, 100])
def test_a_chunk_of_any_size_gives_the_same_sums(chunk: int) -> None:
    members = clients(9)
    assert hold(Batched(chunk), members).aggregate.means == hold(Batched(), members).aggregate.means


def test_clients_are_loaded_once_and_together() -> None:
    population = Sparse(clients(6))
    hold(Batched(), population)
    assert sorted(population.loads) == list("abcdef")


def test_a_chunk_must_be_a_whole_number() -> None:
    with pytest.raises(ConfigError, match="chunk"):
        Batched(0)


@pytest.mark.parametrize("bound", [1e-3, 10.0])
def test_stages_that_know_stacks_give_what_they_give_one_by_one(bound: float) -> None:
    members, algorithm = clients(), replace(FEDAVG, weighting="uniform")
    together, alone = (
        hold(engine, members, algorithm=algorithm, stages=(Clip(bound),))
        for engine in (Batched(), InProcess())
    )
    check_same(together, alone)


def test_noise_keeps_the_metrics_of_a_stack_at_the_clients() -> None:
    algorithm = replace(FEDAVG, weighting="uniform")
    stages = (Clip(1.0), GaussianNoise(1e-9))
    together, alone = (
        hold(engine, clients(), algorithm=algorithm, stages=stages) for engine in (Batched(), InProcess())
    )
    assert together.aggregate.metrics == {}
    for a, b in zip(
        together.aggregate.means["model"].flats, alone.aggregate.means["model"].flats, strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-7)


@dataclass(frozen=True)
class Halve(Transform):
    """A stage that knows updates one at a time alone, and refuses one client's."""

    refused: str = ""

    def encode(self, update: Update, context: RoundContext) -> Update:
        if update.client == self.refused:
            raise ValueError("not this one")
        halved = {name: vector.copy() for name, vector in update.averaged.items()}
        for vector in halved.values():
            for flat in vector.flats:
                flat *= 0.5
        return replace(update, averaged=halved)


@pytest.mark.parametrize("refused", ["", "d"])
def test_stages_that_know_no_stacks_are_given_one_update_at_a_time(refused: str) -> None:
    stages = (Clip(1.0), Halve(refused))
    together, alone = (hold(engine, clients(), stages=stages) for engine in (Batched(), InProcess()))
    assert together.failures == ({refused: "ValueError: not this one"} if refused else {})
    check_same(together, alone)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_client_whose_change_cannot_be_clipped_is_told_so() -> None:
    members = [*clients(3), nan_rows("bad")]
    together, alone = (hold(engine, members, stages=(Clip(1.0),)) for engine in (Batched(), InProcess()))
    assert "the update has norm nan" in together.failures["bad"]
    check_same(together, alone)


def test_what_clients_keep_is_theirs() -> None:
    together, alone = (
        hold(engine, clients(), algorithm=SCAFFOLD(lr=0.1, batch_size=4))
        for engine in (Batched(), InProcess())
    )
    for id, state in alone.kept.items():
        np.testing.assert_allclose(
            together.kept[id]["control"].flats[0], state["control"].flats[0], rtol=1e-9, atol=1e-12
        )


@dataclass(frozen=True, kw_only=True)
class OwnUpdate(FedAvg):
    """Sends something else, which only one client's way knows."""

    def update(self, task: Any, data: Any, trained: Any, more: Any = None) -> Update:
        return replace(super().update(task, data, trained, more), weight=1)


def setting(algorithm: Any, model: Any) -> Setting:
    return Setting(algorithm, model, InMemory(clients(1)), Channel((), algorithm), Rules(), SEED)


NOT_BATCHED: dict[str, tuple[Any, Any, str]] = {
    "an algorithm without clients": (
        Newton(),
        Logistic().build(BINARY),
        "Newton runs each client by itself",
    ),
    "an update of one's own": (
        OwnUpdate(),
        Logistic().build(BINARY),
        'OwnUpdate changes "update" for one client and not "clients" for many',
    ),
    "a model without gradients": (
        FedAvg(),
        GaussianNB().build(BINARY),
        "GaussianNBModel trains each client by itself",
    ),
}


@pytest.mark.parametrize("case", NOT_BATCHED)
def test_what_cannot_be_batched_says_why(case: str) -> None:
    algorithm, model, why = NOT_BATCHED[case]
    assert why_not(setting(algorithm, model)) == why


def test_what_cannot_be_batched_is_run_one_by_one_and_said() -> None:
    engine = Batched()
    together, alone = (hold(each, clients(), algorithm=OwnUpdate(lr=0.1)) for each in (engine, InProcess()))
    assert together.aggregate.means == alone.aggregate.means
    assert engine.describe() == (
        "one by one, in this process, not batched: OwnUpdate changes "
        '"update" for one client and not "clients" for many'
    )


class Faulty:
    """A regression of which no more than so many can be trained side by side."""

    def __init__(self, most: int, error: type[Exception] = MemoryError) -> None:
        self._model = Logistic(init="uniform").build(BINARY)
        self._most = most
        self._error = error
        self.asked: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def stacked(self) -> Any:
        session, load = self._model.stacked(), self._model.stacked().load

        def counting(weights: Any, members: Any, seeds: Any) -> None:
            self.asked.append(len(members))
            if len(members) > self._most:
                raise self._error("too many")
            load(weights, members, seeds)

        return _With(session, counting)


class _With:
    def __init__(self, session: Any, load: Any) -> None:
        self._session = session
        self.load = load

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def test_a_chunk_that_memory_is_short_for_is_halved_and_the_size_remembered() -> None:
    members, model, engine = clients(12), Faulty(3), Batched()
    first = hold(engine, members, model=model)
    assert model.asked == [12, 6, 3, 3, 6, 3, 3]
    check_same(first, hold(InProcess(), members))
    model.asked.clear()
    hold(engine, members, model=model)
    assert model.asked == [3, 3, 3, 3]


def test_a_way_that_fails_where_one_by_one_does_not_is_given_up_and_said() -> None:
    members, model, engine = clients(3), Faulty(0, ZeroDivisionError), Batched()
    check_same(hold(engine, members, model=model), hold(InProcess(), members))
    model.asked.clear()
    hold(engine, members, model=model)
    assert model.asked == []
    assert "failed (ZeroDivisionError: too many)" in engine.describe()
    hold(engine, members)
    assert engine.describe() == "batched, in this process"


def test_mistakes_in_the_job_are_not_looked_for_client_by_client() -> None:
    model = Faulty(0, ModelError)
    with pytest.raises(ModelError, match="too many"):
        hold(Batched(), clients(), model=model)
    assert model.asked == [6]


def test_so_many_clients_go_together_as_their_arrays_leave_room_for() -> None:
    # 1,000 rows of 5 numbers take some 20,000 bytes with the weights; there is room for 2^16.
    members = [client(chr(97 + i), 1000) for i in range(7)]
    model = Faulty(9)
    model._model.stack_bytes = 1 << 16  # type: ignore[misc]
    hold(Batched(), members, model=model)
    assert model.asked == [3, 3, 1]
