"""Many regressions side by side: each client's numbers are those of its own session, which is checked against torch."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.stacked import train_stacked
from fedpact.core.errors import DataError
from fedpact.core.model import Schema, StackableModel
from fedpact.core.rows import ClientData, ClientStack, Rows
from fedpact.core.seeds import Seed
from fedpact.core.stack import Stack
from fedpact.core.vector import Vector
from fedpact.learn.focal import Focal
from fedpact.learn.joined import rounded_up
from fedpact.learn.linear import Linear, Logistic, RegressionModel, Softmax

D, K = 4, 3
WEIGHED: dict[str, Any] = {"class_weight": {0: 0.5, 1: 7}}
SPECS: list[Any] = [
    *(Linear(0.3), Logistic(), Logistic(0.3), Softmax(), Softmax(0.3)),
    *(
        Logistic(**WEIGHED),
        Softmax(0.3, **WEIGHED),
        Logistic(loss=Focal(1.5)),
        Softmax(loss=Focal(), **WEIGHED),
    ),
]
every_regression = pytest.mark.parametrize("spec", SPECS, ids=repr)
SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=6)


def build(spec: Any) -> RegressionModel:
    classes = {"binary": (0, 1), "multiclass": tuple(range(K)), "regression": ()}
    return spec.build(Schema(spec.kind, (D,), classes[spec.kind]))


def clients_of(model: RegressionModel, sizes: list[int]) -> list[ClientData]:
    random = np.random.default_rng(sum(sizes))
    made = []
    for i, n in enumerate(sizes):
        y = (
            random.normal(size=n)
            if not model.schema.classes
            else random.integers(0, len(model.schema.classes), n)
        )
        made.append(ClientData(str(i), Rows(random.normal(size=(n, D)), y)))
    return made


def somewhere(model: RegressionModel, seed: int = 1) -> Vector:
    weights = Vector.zeros(model.layout)
    weights.flats[0][:] = np.random.default_rng(seed).normal(size=model.layout.size)
    return weights


def no_seeds() -> list[Seed]:
    raise AssertionError("a regression draws nothing")


def alone(
    model: RegressionModel, weights: Vector, rows: Rows, index: NDArray[np.int64]
) -> tuple[NDArray[np.float64], float]:
    session = model.session()
    session.load(weights)
    session.bind(rows, Seed.of(0))
    loss = session.gradient(index)
    return session.gradients[0], loss


@every_regression
@settings(max_examples=20)
@given(sizes=SIZES, fill=st.integers(0, 3), data=st.data())
def test_gradients_and_losses_are_each_clients_own(spec: Any, sizes: list[int], fill: int, data: Any) -> None:
    model = build(spec)
    clients, session = clients_of(model, sizes), model.stacked()
    taken = [data.draw(st.integers(1, n)) for n in sizes]
    chosen = [np.random.default_rng(n).permutation(n)[:k] for n, k in zip(sizes, taken, strict=True)]
    index = np.zeros((len(sizes), max(taken) + fill), np.int64)
    for row, rows in zip(index, chosen, strict=True):
        row[:] = rows[0]
        row[: len(rows)] = rows
    session.load(somewhere(model), clients, no_seeds)
    session.weights[0][:] += np.arange(len(sizes))[:, None] / 10
    losses = session.gradient(0, index, np.array(taken))
    for place, weights in enumerate(session.models().rows()):
        gradient, loss = alone(model, weights, clients[place].train, chosen[place])
        np.testing.assert_allclose(session.slopes().row(place).flats[0], gradient, rtol=1e-12, atol=1e-12)
        assert losses[place] == pytest.approx(loss, rel=1e-12)


@every_regression
def test_all_rows_are_taken_without_an_index(spec: Any) -> None:
    model = build(spec)
    clients, session = clients_of(model, [5, 5, 5]), model.stacked()
    session.load(somewhere(model), clients, no_seeds)
    losses = session.gradient(1, None, np.array([5, 5]))
    for place in (1, 2):
        gradient, loss = alone(model, somewhere(model), clients[place].train, np.arange(5))
        np.testing.assert_allclose(session.gradients[0][place], gradient, rtol=1e-12, atol=1e-12)
        assert losses[place - 1] == pytest.approx(loss, rel=1e-12)


@every_regression
def test_only_the_clients_asked_for_are_computed(spec: Any) -> None:
    model = build(spec)
    session = model.stacked()
    session.load(somewhere(model), clients_of(model, [5, 5, 5]), no_seeds)
    session.gradients[0][:] = 7.0
    session.gradient(1, np.array([[0, 1]]), np.array([2]))
    assert (session.gradients[0][[0, 2]] == 7.0).all()
    assert not (session.gradients[0][1] == 7.0).any()


@pytest.mark.parametrize("spec", [Linear(), Logistic(0.1), Softmax()], ids=repr)
@settings(max_examples=15)
@given(sizes=st.lists(st.integers(1, 30), min_size=2, max_size=8), batch=st.sampled_from([None, 3, 8]))
def test_a_clients_bits_do_not_depend_on_who_is_beside_it(spec: Any, sizes: list[int], batch: Any) -> None:
    model = build(spec)
    clients, seeds = clients_of(model, sizes), [Seed.of(i) for i in range(len(sizes))]
    algorithm = FedAvg(lr=0.1, batch_size=batch, local_epochs=2)

    def changes(places: list[int]) -> dict[int, Vector]:
        chosen, drawn = [clients[i] for i in places], [seeds[i] for i in places]
        trained = train_stacked(algorithm, model, somewhere(model), chosen, 0, drawn)
        vectors = trained.changes.rows()
        return {places[i]: vector for i, vector in zip(trained.order.tolist(), vectors, strict=True)}

    everybody = list(range(len(sizes)))
    half = len(sizes) // 2
    assert changes(everybody) == {**changes(everybody[:half]), **changes(everybody[half:])}


def test_clients_in_one_array_are_the_same_clients() -> None:
    model = build(Logistic())
    clients = clients_of(model, [6, 6, 6])
    x, y = (np.stack([getattr(client.train, name) for client in clients]) for name in "xy")
    stack = ClientStack([client.id for client in clients], x, y)
    seeds = [Seed.of(i) for i in range(3)]
    found = [
        train_stacked(FedAvg(batch_size=4), model, somewhere(model), each, 0, seeds).changes.rows()
        for each in (clients, stack)
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("batch", [None, 4])
@pytest.mark.parametrize("spec", [Linear(), Logistic(0.1), Softmax()], ids=repr)
def test_narrower_floats_give_the_bits_of_the_same_numbers_in_float64(spec: Any, batch: int | None) -> None:
    model, algorithm = build(spec), FedAvg(batch_size=batch, local_epochs=2)
    narrow = [
        ClientData(client.id, Rows(client.train.x.astype(np.float32), client.train.y))
        for client in clients_of(model, [6, 6, 9])
    ]
    wide = [ClientData(each.id, Rows(each.train.x.astype(np.float64), each.train.y)) for each in narrow]
    seeds = [Seed.of(i) for i in range(3)]

    def together(clients: list[ClientData]) -> list[Vector]:
        return train_stacked(algorithm, model, somewhere(model), clients, 0, seeds).changes.rows()

    def one_by_one(clients: list[ClientData]) -> list[Vector]:
        return [
            algorithm.local_training(model, somewhere(model), client.train, 0, seed).model
            for client, seed in zip(clients, seeds, strict=True)
        ]

    assert together(narrow) == together(wide)
    assert one_by_one(narrow) == one_by_one(wide)


@every_regression
def test_vectors_of_a_round_are_taken_as_they_are(spec: Any) -> None:
    model = build(spec)
    session, stack = model.stacked(), Stack.of([somewhere(model, 1), somewhere(model, 2)], model.layout)
    assert session.arrays(stack)[0].shape == (2, model.layout.size)
    assert session.arrays(somewhere(model))[0].shape == (model.layout.size,)


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        (Rows(np.zeros((3, D))), DataError),
        (Rows(np.zeros((3, D)), np.zeros(2, int)), DataError),
        (Rows(np.zeros((3, D + 1)), np.zeros(3, int)), ValueError),
        (Rows(np.zeros((3, D)), np.array([0, 1, K])), IndexError),
        (Rows(np.full((3, D), "a"), np.zeros(3, int)), ValueError),
    ],
    ids=["no labels", "too few labels", "too many columns", "no such class", "text"],
)
def test_rows_that_do_not_fit_are_refused(rows: Rows, error: type[Exception]) -> None:
    model = build(Softmax())
    with pytest.raises(error):
        model.stacked().load(somewhere(model), [*clients_of(model, [3]), ClientData("b", rows)], no_seeds)


def test_examples_that_all_have_another_shape_are_refused() -> None:
    model = build(Logistic())
    clients = [ClientData("a", Rows(np.zeros((3, D + 1)), np.zeros(3, int)))]
    with pytest.raises(DataError, match=r"shape \(5,\); the model takes \(4,\)"):
        model.stacked().load(somewhere(model), clients, no_seeds)


def test_a_regression_can_always_be_stacked() -> None:
    model = build(Logistic())
    assert isinstance(model, StackableModel)
    assert model.unstackable() is None
    assert model.stacked() is model.stacked()


def test_sizes_are_rounded_up_to_three_bits() -> None:
    sizes = np.arange(1, 5000)
    rounded = rounded_up(sizes)
    assert rounded[:20].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 10, 10, 12, 12, 14, 14, 16, 16, 20, 20, 20, 20]
    assert (rounded >= sizes).all()
    assert (rounded <= 1.25 * sizes).all()
    assert (rounded_up(rounded) == rounded).all()
