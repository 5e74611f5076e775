"""Classifiers that learn from class probabilities: gradients against torch's own, scores against predictions."""

import copy
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedpact.core.model import Schema, TeachableModel
from fedpact.core.rows import Rows
from fedpact.core.seeds import Seed
from fedpact.core.vector import Vector
from fedpact.learn.linear import Logistic, Softmax
from fedpact.learn.torch import Torch

torch = pytest.importorskip("torch")
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(12, 4))
BINARY, THREE = Schema("binary", (4,), (0, 1)), Schema("multiclass", (4,), (0, 1, 2))


def linear_module(outputs: int) -> Any:
    torch.manual_seed(outputs)
    return torch.nn.Linear(4, outputs).double()


MODELS = {
    "Logistic": Logistic(0.1).build(BINARY),
    "Softmax": Softmax(0.1).build(THREE),
    "one logit": Torch(linear_module(1)).build(BINARY),
    "two logits": Torch(linear_module(2)).build(BINARY),
    "three logits": Torch(linear_module(3)).build(THREE),
}
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def weights_of(model: Any) -> Vector:
    weights = Vector.zeros(model.layout)
    weights.flats[0][:] = np.random.default_rng(1).normal(size=model.layout.size)
    return weights


def labels_for(model: Any) -> NDArray[np.float64]:
    return np.random.default_rng(2).dirichlet(np.ones(len(model.schema.classes)), len(X))


def logits(model: Any, flat: Any) -> Any:
    """The logits [n, classes] of torch, from flat weights: the rows of the matrix, then the intercepts."""
    outputs = len(flat) // 5
    scores = torch.tensor(X) @ flat[: 4 * outputs].reshape(outputs, 4).T + flat[4 * outputs :]
    return torch.cat([-scores / 2, scores / 2], dim=1) if outputs == 1 else scores


@every_model
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_loss_and_gradient_are_those_of_torchs_divergence(model: Any, temperature: float) -> None:
    weights, labels = weights_of(model), labels_for(model)
    session = model.taught(temperature).session()
    session.load(weights)
    session.bind(Rows(X, labels), Seed.of(0))
    loss = session.gradient(None)

    flat = torch.tensor(weights.flats[0], requires_grad=True)
    divergence = torch.nn.KLDivLoss(reduction="batchmean")
    expected = temperature**2 * divergence(
        (logits(model, flat) / temperature).log_softmax(1), torch.tensor(labels)
    )
    expected.backward()
    penalty = getattr(model, "l2", 0.0) * np.where(np.arange(flat.numel()) < flat.numel() // 5 * 4, 1, 0)
    assert loss == pytest.approx(expected.item())
    np.testing.assert_allclose(
        np.asarray(session.gradients[0]),
        flat.grad.numpy() + penalty * weights.flats[0],
        rtol=1e-9,
        atol=1e-12,
    )


@every_model
def test_softmax_of_the_scores_is_what_the_model_predicts(model: Any) -> None:
    weights = weights_of(model)
    scores = model.scores(weights, X)
    np.testing.assert_allclose(scores.sum(axis=1), 0, atol=1e-12)
    predicted = model.predict(weights, X)
    probabilities = np.stack([1 - predicted, predicted], axis=1) if predicted.ndim == 1 else predicted
    np.testing.assert_allclose(torch.tensor(scores).softmax(1).numpy(), probabilities, rtol=1e-9)


def test_steps_along_the_gradient_lower_the_divergence_in_float32() -> None:
    model = Torch(torch.nn.Linear(4, 3)).build(THREE)
    session = model.taught(1.0).session()
    session.load(model.initial(Seed.of(0)))
    session.bind(Rows(X.astype(np.float32), labels_for(model)), Seed.of(0))
    before = session.gradient(np.arange(12))
    session.descend(None, 0.1)
    assert session.gradient(None) < before


@every_model
def test_a_model_that_was_taught_still_learns_from_labels_as_before(model: Any) -> None:
    labels = RANDOM.integers(0, len(model.schema.classes), len(X))

    def gradient() -> NDArray[Any]:
        session = model.session()
        session.load(weights_of(model))
        session.bind(Rows(X, labels), Seed.of(0))
        session.gradient(None)
        return np.asarray(session.gradients[0]).copy()

    before = gradient()
    taught = model.taught(2.0).session()
    taught.load(model.initial(Seed.of(1)))
    taught.bind(Rows(X, labels_for(model)), Seed.of(0))
    taught.gradient(None)
    np.testing.assert_array_equal(gradient(), before)


def test_classifiers_can_be_taught_and_copies_of_them_too() -> None:
    for model in MODELS.values():
        assert isinstance(model, TeachableModel)
        twin = copy.deepcopy(model.taught(2.0))
        session = twin.session()
        session.load(weights_of(model))
        session.bind(Rows(X, labels_for(model)), Seed.of(0))
        original = model.taught(2.0).session()
        original.load(weights_of(model))
        original.bind(Rows(X, labels_for(model)), Seed.of(0))
        assert session.gradient(None) == original.gradient(None)
