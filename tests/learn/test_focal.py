"""Focal loss: the paper's formula, its gradients by autograd, and numbers of any size."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fedpact as fp
from fedpact.core.errors import ConfigError
from fedpact.core.model import Schema
from fedpact.core.rows import Rows
from fedpact.core.seeds import Seed
from fedpact.engine.models import describe_model, model_of
from fedpact.engine.train import complete
from fedpact.learn import MODELS
from fedpact.learn.focal import Focal
from fedpact.learn.linear import Logistic, Softmax
from fedpact.learn.score_losses import ScoreLoss
from fedpact.report.toml import job_toml
from tests.engine.runs import two_classes
from tests.federation import run_rounds, split

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from fedpact.learn.torch import Torch  # noqa: E402
from fedpact.learn.torch_losses import focal, loss_and_link  # noqa: E402

TWO = Schema("binary", (3,), (0, 1))
THREE = Schema("multiclass", (3,), (0, 1, 2))
GAMMAS = [0.0, 0.3, 1.0, 2.0, 5.0]
every_gamma = pytest.mark.parametrize("gamma", GAMMAS)


def as_in_the_paper(gamma: float, scores: Tensor, labels: Tensor) -> Tensor:
    """Return −(1 − p)^γ·log p of each row, as equation 4 reads."""
    if scores.ndim == 1:
        p = torch.where(labels > 0, torch.sigmoid(scores), 1 - torch.sigmoid(scores))
    else:
        p = scores.softmax(1).gather(1, labels[:, None]).squeeze(1)
    return -((1 - p) ** gamma) * p.log()


def scores_and_labels(classes: int, n: int = 12, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    random = np.random.default_rng(seed)
    scores = random.normal(size=n if classes == 2 else (n, classes), scale=3)
    return scores, random.integers(0, classes, n)


@every_gamma
@pytest.mark.parametrize("classes", [2, 4])
def test_torchs_loss_and_its_gradient_are_those_of_the_formula(gamma: float, classes: int) -> None:
    numbers, labels = scores_and_labels(classes)
    y = torch.from_numpy(labels.astype(float) if classes == 2 else labels)
    found = []
    for loss in (focal, as_in_the_paper):
        scores = torch.from_numpy(numbers).requires_grad_()
        rows = loss(gamma, scores, y)
        found.append((rows.detach(), torch.autograd.grad(rows.sum(), scores)[0]))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@every_gamma
@pytest.mark.parametrize("classes", [2, 4])
def test_torchs_gradient_is_that_of_differences(gamma: float, classes: int) -> None:
    numbers, labels = scores_and_labels(classes, 5)
    y = torch.from_numpy(labels.astype(float) if classes == 2 else labels)
    assert torch.autograd.gradcheck(
        lambda scores: focal(gamma, scores, y), torch.from_numpy(numbers).requires_grad_()
    )


@every_gamma
@pytest.mark.parametrize("classes", [2, 4])
def test_a_linear_models_loss_and_slopes_are_torchs(gamma: float, classes: int) -> None:
    numbers, labels = scores_and_labels(classes)
    scores = torch.from_numpy(numbers).requires_grad_()
    y = torch.from_numpy(labels.astype(float) if classes == 2 else labels)
    rows = as_in_the_paper(gamma, scores, y)
    (slopes,) = torch.autograd.grad(rows.sum(), scores)
    own = ScoreLoss("binary" if classes == 2 else "multiclass", gamma)
    targets = labels.astype(float) if classes == 2 else np.eye(classes)[labels]
    np.testing.assert_allclose(own.losses(numbers, targets), rows.detach(), rtol=1e-9)
    np.testing.assert_allclose(own.slopes(numbers, targets), slopes, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("classes", [2, 4])
def test_a_row_that_is_all_but_certain_keeps_the_digits_of_its_loss(gamma: float, classes: int) -> None:
    # The own class is ahead by 50, and 1 − p, or q, is below float64's rounding of p: −log p is q, and q^γ·q is left.
    q = (classes - 1) * np.exp(-50.0)
    scores = np.array([50.0]) if classes == 2 else np.array([[50.0] + [0.0] * (classes - 1)])
    targets = np.ones(1) if classes == 2 else np.eye(classes)[[0]]
    own = ScoreLoss("binary" if classes == 2 else "multiclass", gamma)
    np.testing.assert_allclose(own.losses(scores, targets), q ** (gamma + 1), rtol=1e-12)
    slope = own.slopes(scores, targets)[0]
    np.testing.assert_allclose(np.ravel(slope)[0], -(gamma + 1) * q ** (gamma + 1), rtol=1e-12)
    y = torch.ones(1) if classes == 2 else torch.zeros(1, dtype=torch.int64)
    np.testing.assert_allclose(focal(gamma, torch.from_numpy(scores), y), q ** (gamma + 1), rtol=1e-12)


@every_gamma
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("size", [80.0, 1e4])
def test_large_scores_give_finite_losses_and_gradients(gamma: float, classes: int, size: float) -> None:
    numbers = np.array([size, -size, size, -size])
    if classes == 3:
        numbers = np.stack([numbers, -numbers, np.zeros(4)], axis=1)
    labels = np.array([0, 0, 1, 1])
    scores = torch.from_numpy(numbers.astype(np.float32)).requires_grad_()
    y = torch.from_numpy(labels if classes == 3 else labels.astype(np.float32))
    rows = focal(gamma, scores, y)
    (gradient,) = torch.autograd.grad(rows.sum(), scores)
    assert rows.isfinite().all()
    assert gradient.isfinite().all()
    own = ScoreLoss("multiclass" if classes == 3 else "binary", gamma)
    targets = np.eye(3)[labels] if classes == 3 else labels.astype(float)
    assert np.isfinite(own.losses(numbers, targets)).all()
    # What is far on the wrong side is a log loss: its slope by the own class's score is −1.
    row = 1 if classes == 3 else 0
    wrong = own.slopes(numbers, targets)[row]
    assert np.isclose(np.abs(wrong).max(), 1.0)
    np.testing.assert_allclose(gradient[row], wrong, rtol=1e-5, atol=1e-6)


def test_gamma_0_is_the_cross_entropy_itself() -> None:
    for schema, outputs, name in ((TWO, 1, "bce"), (TWO, 2, "cross_entropy"), (THREE, 3, "cross_entropy")):
        assert loss_and_link(Focal(0), schema, outputs)[0] is loss_and_link(name, schema, outputs)[0]


def test_gamma_0_is_the_log_loss_of_a_linear_model_to_the_bit() -> None:
    x, y = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 3
    found = []
    for spec in (Softmax(), Softmax(loss=Focal(0))):
        session = spec.build(THREE).session()
        session.bind(Rows(x, y), Seed.of(0))
        found.append((session.gradient(None), session.gradients[0].tobytes()))
    assert found[0] == found[1]


@settings(max_examples=30)
@given(gamma=st.floats(0.1, 5), margin=st.floats(0.5, 6))
def test_a_well_predicted_row_counts_less_than_by_the_log_loss(gamma: float, margin: float) -> None:
    well, badly, y = np.array([margin]), np.array([-margin]), np.ones(1)
    focal_loss, log_loss = ScoreLoss("binary", gamma), ScoreLoss("binary")

    def share(scores: NDArray[np.float64]) -> float:
        return float((focal_loss.losses(scores, y) / log_loss.losses(scores, y))[0])

    assert share(well) < share(badly) < 1


def test_the_papers_alpha_is_a_class_weight() -> None:
    # Equation 5: −α·(1 − p)^γ·log p, with α = 0.25 for the objects and 0.75 for the background.
    spec = Logistic(class_weight={0: 0.75, 1: 0.25}, loss=Focal(2.0))
    session = spec.build(TWO).session()
    session.weights[0][:] = [0.5, -1.0, 2.0, 0.3]
    x, y = np.random.default_rng(0).normal(size=(9, 3)), np.arange(9) % 2
    session.bind(Rows(x, y), Seed.of(0))
    scores = torch.from_numpy(x @ [0.5, -1.0, 2.0] + 0.3)
    alpha = torch.from_numpy(np.where(y, 0.25, 0.75))
    expected = (alpha * as_in_the_paper(2.0, scores, torch.from_numpy(y))).mean()
    assert session.gradient(None) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize(("outputs", "schema"), [(1, TWO), (2, TWO), (3, THREE)])
def test_a_torch_sessions_gradient_is_autograds(outputs: int, schema: Schema) -> None:
    torch.manual_seed(0)
    module = nn.Linear(3, outputs)
    random = np.random.default_rng(1)
    x, y = (
        random.normal(size=(10, 3)).astype(np.float32),
        random.integers(0, 2 if outputs < 3 else 3, 10),
    )
    model = Torch(module, loss=Focal(1.5)).build(schema)
    session = model.session()
    session.load(model.initial(Seed.of(0)))
    session.bind(Rows(x, y), Seed.of(0))
    loss = session.gradient(None)
    scores = module(torch.from_numpy(x))
    expected = as_in_the_paper(1.5, scores[:, 0] if outputs == 1 else scores, torch.from_numpy(y)).mean()
    module.zero_grad()
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    own = torch.cat([p.grad.reshape(-1) for p in module.parameters()])
    torch.testing.assert_close(session.gradients[0], own, rtol=1e-4, atol=1e-6)


def test_predictions_under_it_are_probabilities() -> None:
    model = Torch(nn.Linear(3, 3), loss=Focal()).build(THREE)
    probabilities = model.predict(model.initial(Seed.of(0)), np.ones((4, 3), np.float32))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("given", [Focal(2.0), "Focal", "focal", {"name": "Focal", "gamma": 2}])
def test_it_is_written_down_alike_however_it_is_named(given: Any) -> None:
    factory = {"module": "torch.nn:Linear", "options": {"in_features": 3, "out_features": 3}}
    described = describe_model(model_of({"name": "Torch", "loss": given, **factory}))
    assert described["loss"] == {"name": "Focal", "gamma": 2.0}
    assert model_of(json.loads(json.dumps(described))) == Torch(loss=Focal(2.0), **factory)
    softmax = describe_model(MODELS.build({"name": "Softmax", "loss": given}))
    assert softmax["loss"] == {"name": "Focal", "gamma": 2.0}
    assert MODELS.build(softmax) == Softmax(loss=Focal(2.0))


def test_a_job_file_has_it_as_a_table(tmp_path: Any) -> None:
    path = tmp_path / "job.toml"
    path.write_text(
        'rounds = 2\nalgorithm = {name = "FedAvg", lr = 0.1}\n'
        '[model]\nname = "Logistic"\nloss = {name = "Focal", gamma = 1.5}\nclass_weight = {"0" = 1, "1" = 5}\n'
    )
    by_file = fp.run(fp.Job.from_toml(path), two_classes())
    model = fp.models.Logistic(loss=fp.Focal(1.5), class_weight={0: 1, 1: 5})
    by_call = fp.train(model, two_classes(), algorithm=fp.FedAvg(lr=0.1), rounds=2)
    assert by_file.weights == by_call.weights
    assert by_file.job.digest == by_call.job.digest
    path.write_text(job_toml(by_call.job))
    assert complete(fp.Job.from_toml(path)).digest == by_call.job.digest


def test_gradient_descent_follows_it_and_newton_refuses() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(40, 3)), random.integers(0, 2, 40)
    model = Logistic(loss=Focal()).build(TWO)
    state = run_rounds(fp.FedSGD(lr=2.0), model, split(x, y, [30, 10]), 200)
    session = model.session()
    session.load(state.model)
    session.bind(Rows(x, y), Seed.of(0))
    session.gradient(None)
    assert np.abs(session.gradients[0]).max() < 1e-3
    with pytest.raises(ConfigError, match="the focal loss is not convex; use an algorithm that follows"):
        fp.Newton().init(model, Seed.of(0))
    assert fp.Newton().init(Logistic(loss=Focal(0)).build(TWO), Seed.of(0)).round == 0


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match="gamma is -1"):
        Focal(-1)
    with pytest.raises(ConfigError, match=r"Logistic: loss is .*fp.Focal\(gamma=...\)"):
        Logistic(loss=functional.cross_entropy)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match='there is no loss "Fokal"'):
        MODELS.build({"name": "Logistic", "loss": "Fokal"})
    with pytest.raises(ConfigError, match=r"loss is 'fokal'.* Focal"):
        Torch(nn.Linear(1, 2), loss="fokal")
    with pytest.raises(fp.errors.ModelError, match="does not fit a regression label"):
        Torch(nn.Linear(3, 1), loss=Focal()).build(Schema("regression", (3,)))
