"""Clients trained side by side answer what each answers alone, up to rounding: for every algorithm and setting."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.fedopt import FedAdam, FedAvgM
from fedpact.algorithms.fedprox import FedProx
from fedpact.algorithms.fedsgd import FedSGD
from fedpact.algorithms.local_sgd import Plan
from fedpact.algorithms.optimizers import SGD, Adagrad, Adam, RMSprop
from fedpact.algorithms.scaffold import SCAFFOLD
from fedpact.algorithms.schedules import CosineDecay, ExponentialDecay
from fedpact.algorithms.stacked import rows_of, train_stacked
from fedpact.channel.channel import Channel
from fedpact.channel.clip import Clip
from fedpact.core.algorithm import ClientState
from fedpact.core.errors import DataError
from fedpact.core.model import Array, Schema
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.core.vector import Vector
from fedpact.engine.batched import Batched, why_not
from fedpact.engine.in_process import InProcess
from fedpact.engine.population import InMemory
from fedpact.engine.rounds import hold_round
from fedpact.engine.work import Rules, Setting
from fedpact.learn.linear import Linear, Logistic, Softmax
from tests.federation import SEED

ROUNDS = 5
# One row, lone last rows, fewer rows than a batch, as many, and several batches with and without a rest.
SIZES = [1, 2, 7, 9, 10, 11, 20, 21, 25, 31]


@dataclass(frozen=True)
class Run:
    """What rounds left.

    Args:
        start: the model before them.
        state: the algorithm's state.
        kept: what clients keep.
        metrics: of the last round.
    """

    start: Vector
    state: Any
    kept: Mapping[str, ClientState]
    metrics: Mapping[str, float]


def run(engine: Any, algorithm: Any, model: Any, clients: list[ClientData], stages: Any = ()) -> Run:
    channel = Channel(stages, algorithm, model.layout)
    setting = Setting(algorithm, model, InMemory(clients), channel, Rules(), SEED)
    state = algorithm.init(model, SEED)
    start, kept = state.model, dict[str, ClientState]()
    for number in range(ROUNDS):
        outcome = hold_round(engine, setting, algorithm.task(state), kept, number)
        assert not outcome.failures
        state = algorithm.server(model, state, outcome.aggregate)
        kept.update(outcome.kept)
    return Run(start, state, kept, outcome.aggregate.metrics)


def numbers(vector: Vector) -> Any:
    return np.concatenate([flat.astype(np.float64) for flat in vector.flats])


def check_same(algorithm: Any, model: Any, clients: list[ClientData], stages: Any = ()) -> None:
    """Check that rounds side by side leave what they leave one by one."""
    engine = Batched()
    engine._alone = None  # type: ignore[assignment] # nobody is to be trained one by one after all
    together, alone = (run(each, algorithm, model, clients, stages) for each in (engine, InProcess()))
    assert engine.describe() == "batched, in this process"
    expected = numbers(alone.state.model)
    # In relation to the model, and more strictly to how far it went.
    assert np.abs(numbers(together.state.model) - expected).max() <= 1e-5 * np.abs(expected).max()
    far = np.linalg.norm(expected - numbers(alone.start))
    assert np.linalg.norm(numbers(together.state.model) - expected) <= 1e-4 * far
    assert together.metrics == pytest.approx(alone.metrics, rel=1e-5)
    assert together.kept.keys() == alone.kept.keys()
    for client, state in alone.kept.items():
        for name, vector in state.items():
            scale = max(vector.norm(), 1e-3)
            assert together.kept[client][name].minus(vector).norm() <= 1e-4 * scale


def clients_of(schema: Schema, sizes: list[int], seed: int = 0) -> list[ClientData]:
    random = np.random.default_rng(seed)
    made = []
    for i, n in enumerate(sizes):
        whole = len(schema.features) > 0
        x = random.integers(0, 9, (n, *schema.shape)) if whole else random.normal(size=(n, *schema.shape))
        y = random.integers(0, len(schema.classes), n) if schema.classes else random.normal(size=n)
        made.append(ClientData(f"c{i}", Rows(x, y)))
    return made


BINARY = Schema("binary", (4,), (0, 1))
THREE = Schema("multiclass", (4,), (0, 1, 2))
NUMBER = Schema("regression", (4,))
IMAGES = Schema("multiclass", (1, 6, 6), (0, 1, 2))
WORDS = Schema("multiclass", (3,), (0, 1, 2), ("a word",))

ALGORITHMS: dict[str, Any] = {
    "FedAvg": FedAvg(lr=0.1, batch_size=10),
    "two epochs": FedAvg(lr=0.1, batch_size=10, local_epochs=2),
    "local steps": FedAvg(lr=0.1, batch_size=10, local_steps=7),
    "whole batches": FedAvg(lr=0.1, batch_size=None, local_epochs=3),
    "without shuffles": FedAvg(lr=0.1, batch_size=4, shuffle=False),
    "batches of one row": FedAvg(lr=0.05, batch_size=1),
    "uniform weights": FedAvg(lr=0.1, batch_size=10, weighting="uniform"),
    "a schedule": FedAvg(lr=0.1, batch_size=10, lr_schedule=ExponentialDecay(0.5)),
    "bounded gradients": FedAvg(lr=0.1, batch_size=10, max_grad_norm=0.2),
    "momentum": FedAvg(lr=0.05, batch_size=10, optimizer=SGD(0.9, nesterov=True, weight_decay=0.01)),
    "Adam": FedAvg(lr=0.01, batch_size=10, optimizer=Adam(eps=1e-3), local_epochs=2),
    "RMSprop": FedAvg(lr=0.01, batch_size=10, optimizer=RMSprop(eps=1e-3, momentum=0.5)),
    "Adagrad": FedAvg(lr=0.05, batch_size=10, optimizer=Adagrad(beta1=0.5, eps=1e-3)),
    "FedProx": FedProx(lr=0.1, batch_size=10, mu=0.5),
    "FedAvgM": FedAvgM(lr=0.1, batch_size=10),
    "FedAdam": FedAdam(lr=0.1, batch_size=10, server_lr=0.01),
    "SCAFFOLD I": SCAFFOLD(lr=0.1, batch_size=10, option=1),
    "SCAFFOLD II": SCAFFOLD(lr=0.1, batch_size=10, local_epochs=2),
    "SCAFFOLD at a rate of 0": SCAFFOLD(lr=0.1, batch_size=10, lr_schedule=CosineDecay(3)),
    "FedSGD": FedSGD(lr=0.5),
    "FedSGD of batches": FedSGD(lr=0.5, batch_size=9),
    "FedSGD of batches of all": FedSGD(lr=0.5, batch_size=40, weighting="uniform"),
}
every_algorithm = pytest.mark.parametrize("name", ALGORITHMS)


@every_algorithm
@pytest.mark.parametrize(
    ("spec", "schema"),
    [(Linear(0.1), NUMBER), (Logistic(0.1), BINARY), (Softmax(init="uniform"), THREE)],
    ids=["linear", "logistic", "softmax"],
)
def test_regressions_side_by_side_are_regressions_alone(name: str, spec: Any, schema: Schema) -> None:
    check_same(ALGORITHMS[name], spec.build(schema), clients_of(schema, SIZES))


def torch_models() -> dict[str, tuple[Any, Schema]]:
    torch = pytest.importorskip("torch")
    from fedpact.learn.torch import Torch

    nn = torch.nn

    class Words(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.drop, self.out = nn.Embedding(9, 5), nn.Dropout(0.2), nn.Linear(5, 3)

        def forward(self, x: Any) -> Any:
            return self.out(self.drop(self.embed(x)).mean(dim=1))

    mlp = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.25), nn.Linear(6, 3))
    cnn = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25), nn.Flatten(), nn.Linear(12, 3)
    )
    return {
        "mlp": (Torch(mlp, init="seed"), THREE),
        "cnn": (Torch(cnn, init="seed"), IMAGES),
        "embedding": (Torch(Words(), init="seed"), WORDS),
    }


@every_algorithm
def test_perceptrons_with_dropout_side_by_side_are_perceptrons_alone(name: str) -> None:
    spec, schema = torch_models()["mlp"]
    check_same(ALGORITHMS[name], spec.build(schema), clients_of(schema, SIZES))


@pytest.mark.parametrize("kind", ["cnn", "embedding"])
@pytest.mark.parametrize("name", ["two epochs", "SCAFFOLD I", "Adam", "FedSGD of batches"])
def test_other_modules_with_dropout_side_by_side_are_modules_alone(name: str, kind: str) -> None:
    spec, schema = torch_models()[kind]
    check_same(ALGORITHMS[name], spec.build(schema), clients_of(schema, SIZES[1::2]))


@pytest.mark.parametrize("kind", ["logistic", "mlp"])
def test_clipped_changes_side_by_side_are_clipped_changes_alone(kind: str) -> None:
    spec, schema = (Logistic(), BINARY) if kind == "logistic" else torch_models()[kind]
    check_same(ALGORITHMS["two epochs"], spec.build(schema), clients_of(schema, SIZES), (Clip(0.05),))


@settings(max_examples=25)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    batch=st.sampled_from([None, 1, 2, 7, 30]),
    steps=st.integers(1, 9),
    by_steps=st.booleans(),
)
def test_regressions_of_any_sizes_and_steps_are_those_of_each_alone(
    sizes: list[int], batch: int | None, steps: int, by_steps: bool
) -> None:
    length = {"local_steps": steps} if by_steps else {"local_epochs": 1 + steps // 4}
    algorithm = FedAvg(lr=0.1, batch_size=batch, **length)
    check_same(algorithm, Logistic().build(BINARY), clients_of(BINARY, sizes, seed=sum(sizes)))


@settings(max_examples=10)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5), batch=st.sampled_from([None, 3, 8]))
def test_modules_of_any_sizes_are_those_of_each_alone(sizes: list[int], batch: int | None) -> None:
    spec, schema = torch_models()["mlp"]
    algorithm = FedAvg(lr=0.1, batch_size=batch, local_epochs=2)
    check_same(algorithm, spec.build(schema), clients_of(schema, sizes, seed=sum(sizes)))


def test_tensors_that_stay_on_their_device_give_what_numpys_arrays_give(monkeypatch: Any) -> None:
    # A device of its own keeps its tensors; here the CPU is told to.
    torch = pytest.importorskip("torch")
    spec, schema = torch_models()["mlp"]
    clients = clients_of(schema, SIZES)
    for name in ("FedAvg", "SCAFFOLD I", "SCAFFOLD II", "FedSGD", "bounded gradients", "FedProx", "Adam"):
        algorithm, stages = ALGORITHMS[name], () if "SCAFFOLD" in name else (Clip(0.5),)
        expected = run(Batched(), algorithm, spec.build(schema), clients, stages)
        model = spec.build(schema)
        monkeypatch.setattr(model.stacked(), "_in_numpy", False)
        found = run(Batched(), algorithm, model, clients, stages)
        assert isinstance(model.stacked().models().flats[0], torch.Tensor)
        np.testing.assert_allclose(
            numbers(found.state.model), numbers(expected.state.model), rtol=1e-5, atol=1e-7
        )


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 20)), min_size=1, max_size=8), st.integers(1, 20)
)
def test_a_plan_of_many_clients_has_the_batches_of_each(clients: list[tuple[int, int]], size: int) -> None:
    algorithm = FedAvg(batch_size=size)
    plans = [algorithm.plan(n) for n, _ in clients]
    places = [place % plan.per_epoch for plan, (_, place) in zip(plans, clients, strict=True)]
    names = ("rows", "size", "per_epoch", "total", "lent")
    many = Plan(*(np.array([getattr(plan, name) for plan in plans]) for name in names))
    starts, stops = many.batch(np.array(places))
    batches = [plan.batch(place) for plan, place in zip(plans, places, strict=True)]
    assert list(zip(starts.tolist(), stops.tolist(), strict=True)) == batches


@given(st.integers(1, 200), st.integers(1, 40))
def test_the_batches_of_an_epoch_are_all_rows_once(n: int, size: int) -> None:
    plan = FedAvg(batch_size=size).plan(n)
    batches = [range(*plan.batch(place)) for place in range(plan.per_epoch)]
    assert [row for batch in batches for row in batch] == list(range(n))
    # A lone row takes half of a batch of three or more.
    assert size < 3 or n == 1 or min(map(len, batches)) > 1


def test_a_client_without_rows_is_refused() -> None:
    clients = [*clients_of(BINARY, [3]), ClientData("empty", Rows(np.zeros((0, 4)), np.zeros(0, int)))]
    with pytest.raises(DataError, match="there are no training rows"):
        rows_of(clients)
    model = Logistic().build(BINARY)
    with pytest.raises(DataError, match="there are no training rows"):
        train_stacked(FedAvg(), model, model.initial(SEED), clients, 0, [SEED] * 2)


@dataclass(frozen=True, kw_only=True)
class Pulled(FedAvg):
    """A correction of one's own, and no word about many clients."""

    def correct(self, gradient: Array, weights: Array, anchors: Mapping[str, Array]) -> None:
        gradient += 0.3 * (weights - anchors["start"])


@dataclass(frozen=True, kw_only=True)
class Twice(FedAvg):
    """Trains twice, which only its `client` knows."""

    def client(self, model: Any, task: Any, data: Any, kept: Any, seed: Seed) -> Any:
        super().client(model, task, data, kept, seed)
        return super().client(model, task, data, kept, seed)


def setting(algorithm: Any) -> Setting:
    model = Logistic().build(BINARY)
    clients = InMemory(clients_of(BINARY, [3]))
    return Setting(algorithm, model, clients, Channel((), algorithm), Rules(), SEED)


def test_a_correction_of_ones_own_is_batched_as_it_is() -> None:
    assert why_not(setting(Pulled())) is None
    check_same(Pulled(lr=0.1, batch_size=10), Logistic().build(BINARY), clients_of(BINARY, SIZES))


def test_a_client_of_ones_own_is_not_batched() -> None:
    assert why_not(setting(Twice())) == 'Twice changes "client" for one client and not "clients" for many'
