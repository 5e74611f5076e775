"""Local training against torch.optim loops over the same batches, in float64."""

import tracemalloc
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.fedprox import FedProx
from fedpact.algorithms.local_sgd import _clip
from fedpact.algorithms.optimizers import SGD, Adam, Optimizer
from fedpact.algorithms.schedules import StepDecay
from fedpact.core.errors import ClientError
from fedpact.core.model import Schema
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.core.vector import Vector
from fedpact.learn.linear import RegressionModel, RegressionSession
from fedpact.learn.score_losses import ScoreLoss
from tests.federation import SEED, Quadratics, run_rounds, split

torch = pytest.importorskip("torch")

Index = NDArray[np.int64] | None

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(50, 3))
Y = (X @ [1.0, -2.0, 0.5] + RANDOM.normal(size=50) > 0).astype(np.int64)
CLIENT = ClientData("a", Rows(X, Y))


class Watched(RegressionModel):
    """A logistic regression that notes the rows of each of its steps."""

    def __init__(self) -> None:
        super().__init__(Schema("binary", (3,), (0, 1)), 0.0, "zeros", ScoreLoss("binary"))
        self.steps: list[Index] = []

    def session(self) -> "WatchedSession":
        return WatchedSession(self, self.steps)


class WatchedSession(RegressionSession):
    def __init__(self, model: RegressionModel, steps: list[Index]) -> None:
        super().__init__(model)
        self._steps = steps

    def gradient(self, index: Index) -> float:
        self._steps.append(index)
        return super().gradient(index)


def train(algorithm: FedAvg, rounds: int = 1, clients: list[ClientData] | None = None) -> Vector:
    return run_rounds(algorithm, Watched(), clients or [CLIENT], rounds).model


def batches(algorithm: FedAvg, rows: int = 50, seed: Seed = SEED) -> list[NDArray[np.int64]]:
    """Return the rows of each step of a client's round."""
    model = Watched()
    start = model.initial(seed)
    algorithm.local_training(model, start, Rows(X[:rows], Y[:rows]), 0, seed)
    return [np.arange(rows) if index is None else index for index in model.steps]


def torch_loop(
    order: Iterable[NDArray[np.int64]],
    optimizer: Callable[[Any], Any],
    start: NDArray[np.float64] | None = None,
    max_norm: float | None = None,
) -> NDArray[np.float64]:
    """Return the coefficients and the intercept that torch trains on these batches."""
    weights = torch.zeros(4, dtype=torch.float64) if start is None else torch.tensor(start)
    weights.requires_grad_()
    steps = optimizer([weights])
    x, y = torch.tensor(X), torch.tensor(Y, dtype=torch.float64)
    for index in order:
        steps.zero_grad()
        scores = x[index] @ weights[:3] + weights[3]
        torch.nn.functional.binary_cross_entropy_with_logits(scores, y[index]).backward()
        if max_norm is not None:
            torch.nn.utils.clip_grad_norm_([weights], max_norm)
        steps.step()
    return weights.detach().numpy()


def in_order(size: int) -> list[NDArray[np.int64]]:
    return [np.arange(i, min(i + size, 50)) for i in range(0, 50, size)]


def test_one_epoch_of_one_client_is_sgd_over_its_rows_in_order() -> None:
    trained = train(FedAvg(lr=0.3, local_epochs=1, batch_size=8, shuffle=False))
    expected = torch_loop(in_order(8), lambda w: torch.optim.SGD(w, lr=0.3))
    assert trained.flats[0] == pytest.approx(expected, abs=1e-9)


def test_one_epoch_is_what_is_trained_if_neither_steps_nor_epochs_are_given() -> None:
    assert train(FedAvg()) == train(FedAvg(local_epochs=1))


@pytest.mark.parametrize(
    ("optimizer", "like"),
    [
        (SGD(momentum=0.9), lambda w: torch.optim.SGD(w, lr=0.05, momentum=0.9)),
        (SGD(weight_decay=0.1), lambda w: torch.optim.SGD(w, lr=0.05, weight_decay=0.1)),
        (Adam(), lambda w: torch.optim.Adam(w, lr=0.05)),
    ],
    ids=["momentum", "weight decay", "Adam"],
)
def test_local_optimiser_steps_as_that_of_torch_on_the_same_shuffled_batches(
    optimizer: Optimizer, like: Callable[[Any], Any]
) -> None:
    algorithm = FedAvg(lr=0.05, local_epochs=3, batch_size=16, optimizer=optimizer)
    model = Watched()
    trained = run_rounds(algorithm, model, [CLIENT], 1).model
    assert len(model.steps) == 12
    expected = torch_loop([index for index in model.steps if index is not None], like)
    assert trained.flats[0] == pytest.approx(expected, abs=1e-9)


def test_local_optimiser_starts_anew_every_round() -> None:
    algorithm = FedAvg(lr=0.1, local_steps=4, batch_size=None, optimizer=SGD(momentum=0.9))
    everything = [np.arange(50)] * 4
    once = torch_loop(everything, lambda w: torch.optim.SGD(w, lr=0.1, momentum=0.9))
    twice = torch_loop(everything, lambda w: torch.optim.SGD(w, lr=0.1, momentum=0.9), start=once)
    assert train(algorithm, rounds=2).flats[0] == pytest.approx(twice, abs=1e-9)


def test_gradients_are_scaled_down_to_max_grad_norm() -> None:
    algorithm = FedAvg(lr=0.5, local_steps=10, batch_size=None, max_grad_norm=0.05)
    expected = torch_loop([np.arange(50)] * 10, lambda w: torch.optim.SGD(w, lr=0.5), max_norm=0.05)
    # torch divides by the norm + 1e-6.
    assert train(algorithm).flats[0] == pytest.approx(expected, abs=1e-5)
    assert np.linalg.norm(train(algorithm).flats[0]) == pytest.approx(10 * 0.5 * 0.05, rel=1e-2)


def test_gradients_within_max_grad_norm_are_left_as_they_are() -> None:
    assert train(FedAvg(max_grad_norm=1e3)) == train(FedAvg())


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize(
    ("dtype", "gradient", "max_norm"),
    # In float16 300² is infinite, and so are 1e20² and, as 0, 1e-25² in float32.
    [("float16", 300.0, 1.0), ("float32", 1e20, 1.0), ("float32", 1e-25, 1e-30), ("float64", 3.0, 6.0)],
)
def test_max_grad_norm_holds_where_squares_do_not_fit_the_dtype(
    library: str, dtype: str, gradient: float, max_norm: float
) -> None:
    array: Any = np.full(16, gradient, dtype)
    if library == "torch":
        array = torch.from_numpy(array)
    # Four gradients of four elements have the norm of one of 16.
    parts = [array[i : i + 4] for i in range(0, 16, 4)]
    expected = np.full(16, max_norm / 4)
    _clip(parts, max_norm)
    assert np.asarray(array) == pytest.approx(expected, rel=2e-3 if dtype == "float16" else 1e-6)


@pytest.mark.parametrize("make", [np.ones, torch.ones], ids=["numpy", "torch"])
def test_max_grad_norm_measures_a_large_gradient_without_a_copy_of_it(make: Any) -> None:
    gradient = make(2_000_000)
    tracemalloc.start()
    _clip([gradient], 1.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert gradient[-1] == pytest.approx(2_000_000**-0.5)
    # numpy's arrays are traced: two blocks of 2 MiB, where the gradient has 16 MB.
    assert peak < 5_000_000


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("convert", [np.array, torch.tensor], ids=["numpy", "torch"])
def test_gradient_that_is_not_finite_is_not_clipped_to_nothing_but_refused(convert: Any, bad: float) -> None:
    with pytest.raises(ClientError, match=r"norm of the gradient is (nan|inf); lower the learning rate"):
        _clip([convert([1.0, bad])], 1.0)


def test_last_batch_of_an_epoch_is_not_one_row_which_batch_norm_could_not_take() -> None:
    from fedpact.learn.torch import Torch

    module = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))
    model = Torch(module).build(Schema("binary", (3,), (0, 1)))
    # 33 rows in batches of 32 are 17 and 16.
    state = run_rounds(FedAvg(lr=0.1), model, split(X[:33], Y[:33], [33]), 1)
    assert state.model["0.num_batches_tracked"] == 2


def test_199_rows_in_batches_of_4_are_49_of_4_and_then_one_of_3() -> None:
    x, y = np.resize(X, (199, 3)), np.resize(Y, 199)
    model = Watched()
    FedAvg(batch_size=4).local_training(model, model.initial(SEED), Rows(x, y), 0, SEED)
    assert [len(index) for index in model.steps if index is not None] == [4] * 49 + [3]


@pytest.mark.parametrize("scalar", [np.float64, np.float32])
def test_numpy_scalar_as_a_rate_gives_the_same_bits_as_its_value(scalar: Any) -> None:
    from fedpact.learn.torch import Torch

    model = Torch(torch.nn.Linear(3, 1)).build(Schema("binary", (3,), (0, 1)))

    def trained(number: Any) -> Vector:
        algorithm = FedProx(lr=number, server_lr=number, mu=number, max_grad_norm=number)
        return run_rounds(algorithm, model, split(X, Y, [20, 30]), 2).model

    assert trained(scalar(0.3)) == trained(float(scalar(0.3)))


def test_schedule_multiplies_the_rate_by_round() -> None:
    algorithm = FedAvg(lr=0.4, local_steps=1, batch_size=None, lr_schedule=StepDecay(every=2, rate=0.5))
    weights = np.zeros(4)
    for lr in (0.4, 0.4, 0.2, 0.2, 0.1):
        weights = torch_loop([np.arange(50)], lambda w, lr=lr: torch.optim.SGD(w, lr=lr), start=weights)
    assert train(algorithm, rounds=5).flats[0] == pytest.approx(weights, abs=1e-9)


@given(rows=st.integers(1, 50), size=st.integers(1, 60), epochs=st.integers(1, 3), shuffle=st.booleans())
def test_every_epoch_sees_every_row_once_and_its_last_batch_has_the_rest(
    rows: int, size: int, epochs: int, shuffle: bool
) -> None:
    steps = batches(FedAvg(local_epochs=epochs, batch_size=size, shuffle=shuffle), rows)
    per_epoch = -(-rows // size)
    assert len(steps) == epochs * per_epoch
    for epoch in range(epochs):
        parts = steps[epoch * per_epoch : (epoch + 1) * per_epoch]
        sizes = [len(part) for part in parts]
        if rows % size == 1 and per_epoch > 1 and size > 2:
            assert sizes[:-2] == [size] * (per_epoch - 2)
            # A rest of one row and the batch before are dealt out anew.
            assert sum(sizes[-2:]) == size + 1
            assert 0 <= sizes[-2] - sizes[-1] <= 1
        else:
            assert sizes[:-1] == [size] * (per_epoch - 1)
        assert sorted(np.concatenate(parts)) == list(range(rows))


def test_every_epoch_has_an_order_of_its_own() -> None:
    steps = batches(FedAvg(local_epochs=2, batch_size=10))
    assert not np.array_equal(np.concatenate(steps[:5]), np.concatenate(steps[5:]))


def test_rows_are_taken_as_they_lie_without_shuffling() -> None:
    steps = batches(FedAvg(local_epochs=2, batch_size=10, shuffle=False))
    assert np.array_equal(np.concatenate(steps), np.tile(np.arange(50), 2))


@given(st.integers(1, 40))
def test_local_steps_go_on_into_the_next_epoch(steps: int) -> None:
    taken = batches(FedAvg(local_steps=steps, batch_size=20))
    assert [len(part) for part in taken] == [(20, 20, 10)[i % 3] for i in range(steps)]
    whole = batches(FedAvg(local_epochs=14, batch_size=20))
    assert all(np.array_equal(a, b) for a, b in zip(taken, whole, strict=False))


def test_no_batch_size_is_a_step_along_the_gradient_of_all_rows() -> None:
    expected = torch_loop([np.arange(50)] * 3, lambda w: torch.optim.SGD(w, lr=0.1))
    trained = train(FedAvg(lr=0.1, local_epochs=3, batch_size=None))
    assert trained.flats[0] == pytest.approx(expected, abs=1e-9)


def test_metrics_are_the_summed_loss_and_the_number_of_rows_seen() -> None:
    model = Watched()
    trained = FedAvg(lr=0.0, local_epochs=2, batch_size=16).local_training(
        model, model.initial(SEED), CLIENT.train, 0, SEED
    )
    # At weights of 0 every row's log loss is log 2.
    assert trained.metrics == {"loss": pytest.approx(100 * np.log(2)), "rows": 100}
    assert trained.steps == 8


def test_result_depends_on_the_seed_alone() -> None:
    clients = split(X, Y, [5, 15, 30])
    algorithm = FedAvg(lr=0.1, batch_size=4)

    def result(clients: list[ClientData], seed: int) -> Vector:
        return run_rounds(algorithm, Watched(), clients, 3, seed=Seed.of(seed)).model

    assert result(clients, 1) == result(clients, 1)
    assert result(clients, 1) == result(clients[::-1], 1)
    assert result(clients, 1) != result(clients, 2)


@pytest.mark.parametrize(("weighting", "expected"), [("examples", 5.0), ("uniform", 4.0)])
def test_mean_is_weighted_by_examples_or_by_none(weighting: Any, expected: float) -> None:
    # With lr = 1 a full step on a/2·‖w − b‖² with a = 1 ends at b: (100·1 + 200·4 + 300·7) / 600 = 5; 12 / 3 = 4.
    rows = np.concatenate([np.full(100, 1.0), np.full(200, 4.0), np.full(300, 7.0)])[:, None]
    clients = split(rows, np.ones(600), [100, 200, 300])
    algorithm = FedAvg(lr=1.0, local_steps=1, batch_size=None, weighting=weighting)
    assert run_rounds(algorithm, Quadratics([0.0]), clients, 1).model["w"][0] == expected
