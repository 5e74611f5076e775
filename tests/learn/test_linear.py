"""Regressions against torch autograd in float64, finite differences and scikit-learn's predictions."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedpact.core.errors import DataError, ModelError
from fedpact.core.model import GradientModel, HessianModel, Schema
from fedpact.core.rows import Rows
from fedpact.core.seeds import Seed
from fedpact.core.vector import Vector
from fedpact.learn import linear
from fedpact.learn.linear import Linear, Logistic, RegressionModel, Softmax

torch = pytest.importorskip("torch")

N, D, K = 30, 4, 3
SEED = Seed.of(0)
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(N, D))
LABELS: dict[str, NDArray[Any]] = {
    "binary": RANDOM.integers(0, 2, N),
    "multiclass": RANDOM.integers(0, K, N),
    "regression": RANDOM.normal(size=N),
}
CLASSES = {"binary": (0, 1), "multiclass": tuple(range(K)), "regression": ()}
SPECS: list[Any] = [Linear(), Linear(0.3), Logistic(), Logistic(0.3), Softmax(), Softmax(0.3)]
every_regression = pytest.mark.parametrize("spec", SPECS, ids=repr)


def build(spec: Any) -> RegressionModel:
    return spec.build(Schema(spec.kind, (D,), CLASSES[spec.kind]))


def somewhere(model: RegressionModel) -> Vector:
    weights = Vector.zeros(model.layout)
    weights.flats[0][:] = np.random.default_rng(1).normal(size=model.layout.size)
    return weights


def torch_loss(spec: Any, flat: Any, x: Any, y: Any, l2: float) -> Any:
    """Return the mean loss, as torch has it, at flat weights laid out as coef, then intercept."""
    functional = torch.nn.functional
    outputs = K if spec.kind == "multiclass" else 1
    coef, intercept = flat[: outputs * D].reshape(outputs, D), flat[outputs * D :]
    scores = torch.as_tensor(x) @ coef.T + intercept
    penalty = 0.5 * l2 * (coef**2).sum()
    if spec.kind == "multiclass":
        return functional.cross_entropy(scores, torch.as_tensor(y)) + penalty
    y = torch.as_tensor(y, dtype=torch.float64)
    if spec.kind == "binary":
        return functional.binary_cross_entropy_with_logits(scores[:, 0], y) + penalty
    return 0.5 * functional.mse_loss(scores[:, 0], y) + penalty


def gradient(model: RegressionModel, weights: Vector, rows: Rows, index: Any = None) -> tuple[float, Any]:
    session = model.session()
    session.load(weights)
    session.bind(rows, SEED)
    loss = session.gradient(index)
    return loss, session.gradients[0].copy()


@every_regression
@pytest.mark.parametrize(
    "index", [None, np.array([3, 17, 4]), np.array([5])], ids=["all", "batch", "one row"]
)
def test_gradient_is_that_of_autograd(spec: Any, index: Any) -> None:
    model, y = build(spec), LABELS[spec.kind]
    weights = somewhere(model)
    flat = torch.tensor(weights.flats[0], requires_grad=True)
    chosen = slice(None) if index is None else index
    expected = torch_loss(spec, flat, X[chosen], y[chosen], spec.l2)
    expected.backward()
    loss, found = gradient(model, weights, Rows(X, y), index)
    # The loss of Newton and of every other report has no penalty in it, and this one neither.
    reported = torch_loss(spec, flat, X[chosen], y[chosen], 0.0)
    assert loss == pytest.approx(reported.item(), abs=1e-12)
    assert found == pytest.approx(flat.grad.numpy(), abs=1e-12)


@every_regression
def test_gradient_is_that_of_finite_differences(spec: Any) -> None:
    model, rows = build(spec), Rows(X, LABELS[spec.kind])
    weights, penalty = somewhere(model), spec.l2 * model.penalised()

    def objective(weights: Vector) -> float:
        return gradient(model, weights, rows)[0] + 0.5 * penalty @ weights.flats[0] ** 2

    _, found = gradient(model, weights, rows)
    for i in range(model.layout.size):
        above, below = weights.copy(), weights.copy()
        above.flats[0][i] += 1e-5
        below.flats[0][i] -= 1e-5
        slope = (objective(above) - objective(below)) / 2e-5
        assert found[i] == pytest.approx(slope, abs=1e-7)


@every_regression
def test_curvature_is_the_sum_of_losses_gradients_and_hessians_without_the_penalty(spec: Any) -> None:
    model, y = build(spec), LABELS[spec.kind]
    weights = somewhere(model)
    flat = torch.tensor(weights.flats[0], requires_grad=True)

    def summed(flat: Any) -> Any:
        return N * torch_loss(spec, flat, X, y, 0.0)

    loss, slope, hessian = model.curvature(weights, Rows(X, y))
    assert loss == pytest.approx(summed(flat).item(), rel=1e-12)
    assert slope == pytest.approx(torch.autograd.functional.jacobian(summed, flat).numpy(), abs=1e-11)
    # Row by row and column by column in the order of the flat weights, which is not that of computation in softmax.
    assert hessian == pytest.approx(torch.autograd.functional.hessian(summed, flat).numpy(), abs=1e-11)


@every_regression
def test_curvature_gives_what_the_session_gives(spec: Any) -> None:
    model, rows = build(spec), Rows(X, LABELS[spec.kind])
    weights = somewhere(model)
    loss, slope, _ = model.curvature(weights, rows)
    penalty = spec.l2 * model.penalised()
    session_loss, session_slope = gradient(model, weights, rows)
    assert loss / N == pytest.approx(session_loss, abs=1e-12)
    assert slope / N + penalty * weights.flats[0] == pytest.approx(session_slope, abs=1e-12)


@every_regression
def test_penalty_is_on_coefficients_and_not_on_intercepts(spec: Any) -> None:
    model = build(spec)
    mask = Vector.zeros(model.layout)
    mask.flats[0][:] = model.penalised()
    assert np.all(mask["coef"] == 1)
    assert np.all(mask["intercept"] == 0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("spec", [Logistic(), Softmax()], ids=repr)
@pytest.mark.parametrize("size", [1e3, 1e8, 1e150])
def test_huge_scores_do_not_overflow(spec: Any, size: float) -> None:
    model, rows = build(spec), Rows(X, LABELS[spec.kind])
    weights = somewhere(model)
    weights.flats[0][:] *= size
    loss, slope = gradient(model, weights, rows)
    summed, total, hessian = model.curvature(weights, rows)
    predicted = model.predict(weights, X)
    for numbers in (loss, slope, summed, total, hessian, predicted):
        assert np.all(np.isfinite(numbers))
    assert np.all((predicted >= 0) & (predicted <= 1))


@every_regression
def test_predictions_are_those_of_scikit_learn_with_the_same_weights(spec: Any) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    model = build(spec)
    weights = somewhere(model)
    if spec.kind == "regression":
        like = linear_model.LinearRegression()
        like.coef_, like.intercept_ = weights["coef"], weights["intercept"]
        expected = like.predict(X)
    else:
        like = linear_model.LogisticRegression()
        like.classes_ = np.array(CLASSES[spec.kind])
        like.coef_ = np.atleast_2d(weights["coef"])
        like.intercept_ = np.atleast_1d(weights["intercept"])
        expected = like.predict_proba(X)
        expected = expected[:, 1] if spec.kind == "binary" else expected
    assert model.predict(weights, X) == pytest.approx(expected, abs=1e-14)


@given(st.integers(0, 2**63 - 1))
def test_uniform_weights_are_drawn_from_the_seed_within_the_bound_of_torch(seed: int) -> None:
    model = Logistic(init="uniform").build(Schema("binary", (D,), (0, 1)))
    weights = model.initial(Seed.of(seed))
    assert np.all(np.abs(weights.flats[0]) <= 1 / np.sqrt(D))
    assert len(set(weights.flats[0])) == D + 1
    assert weights == model.initial(Seed.of(seed))


def test_uniform_weights_are_distributed_as_those_of_torch() -> None:
    # The bound of torch.nn.Linear's weights, and of its bias, is 1/√d: a uniform variance of 1/(3·d).
    model = Softmax(init="uniform").build(Schema("multiclass", (100,), tuple(range(50))))
    layer = torch.nn.Linear(100, 50)
    ours, theirs = model.initial(SEED)["coef"], layer.weight.detach().numpy()
    assert ours.var() == pytest.approx(theirs.var(), rel=0.1) == pytest.approx(1 / 300, rel=0.1)


def test_weights_start_from_zero() -> None:
    assert not np.any(build(Logistic()).initial(SEED).flats[0])


@every_regression
def test_it_gives_gradients_and_hessians(spec: Any) -> None:
    assert isinstance(build(spec), GradientModel)
    assert isinstance(build(spec), HessianModel)


@pytest.mark.parametrize(
    ("spec", "kind", "sentence"),
    [
        (
            Logistic(),
            "multiclass",
            "Logistic predicts two classes, but .* three or more classes; use Softmax",
        ),
        (Softmax(), "binary", "use Logistic"),
        (Logistic(), "regression", "the labels are numbers; use Linear"),
        (Linear(), "binary", "use Logistic"),
    ],
)
def test_labels_of_another_kind_are_refused_with_the_model_that_fits(
    spec: Any, kind: Any, sentence: str
) -> None:
    with pytest.raises(ModelError, match=sentence):
        spec.build(Schema(kind, (D,), CLASSES[kind]))


def test_examples_that_are_not_flat_are_refused() -> None:
    with pytest.raises(ModelError, match=r"flat rows of numbers; these examples have shape \(28, 28\)"):
        Softmax().build(Schema("multiclass", (28, 28), (0, 1, 2)))


@every_regression
def test_rows_without_labels_are_refused(spec: Any) -> None:
    model = build(spec)
    with pytest.raises(DataError, match="without labels"):
        model.session().bind(Rows(X), SEED)
    with pytest.raises(DataError, match="without labels"):
        model.curvature(somewhere(model), Rows(X))


@every_regression
@pytest.mark.parametrize("index", [np.array([3, 17, 4]), slice(2, 9), None], ids=["batch", "slice", "all"])
def test_rows_that_are_read_where_they_are_have_the_same_gradient(
    spec: Any, index: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = build(spec), Rows(X, LABELS[spec.kind])
    loss, expected = gradient(model, somewhere(model), rows, index)
    # Seven rows at a time, and at the end two.
    monkeypatch.setattr(linear, "_MOST_COPIED", 7 * D)
    found = gradient(model, somewhere(model), rows, index)
    if index is None:
        np.testing.assert_allclose(found[1], expected, rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(found[0], loss, rtol=1e-13)
    else:
        assert found[0] == loss
        assert np.array_equal(found[1], expected)


@every_regression
def test_curvature_of_rows_that_are_read_where_they_are_is_the_same(
    spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = build(spec), Rows(X, LABELS[spec.kind])
    expected = model.curvature(somewhere(model), rows)
    monkeypatch.setattr(linear, "_MOST_COPIED", 7 * D)
    for found, wanted in zip(model.curvature(somewhere(model), rows), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("spec", [Logistic(), Softmax(), Linear()], ids=repr)
def test_many_rows_are_not_copied(spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = 200_000
    monkeypatch.setattr(linear, "_MOST_COPIED", 1 << 18)
    x = np.zeros((rows, 20))
    model = spec.build(Schema(spec.kind, (20,), CLASSES[spec.kind]))
    session, y = model.session(), np.resize(LABELS[spec.kind], rows)
    tracemalloc.start()
    session.bind(Rows(x, y), SEED)
    session.gradient(np.arange(64))
    session.clipped(np.arange(64), 1.0)
    model.curvature(session.store(), Rows(x, y))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Labels are made ready for the loss, and the features stay where they are.
    assert most < x.nbytes / 2
