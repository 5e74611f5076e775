"""DP-SGD: what one record can change, the noise that hides it, and how batches are drawn."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpact.algorithms import ALGORITHMS
from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.fedopt import FedAdam
from fedpact.algorithms.fedprox import FedProx
from fedpact.algorithms.optimizers import SGD, Adam
from fedpact.algorithms.record_dp import RecordDP, poisson_batch, secret_seed
from fedpact.algorithms.scaffold import SCAFFOLD
from fedpact.algorithms.stacked import train_stacked
from fedpact.core.errors import ConfigError, ModelError
from fedpact.core.model import Schema
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.core.vector import Vector
from fedpact.learn.linear import Linear, Logistic, Softmax
from fedpact.privacy.accounting import account
from fedpact.privacy.events import Everyone, Gaussian, Poisson, Release
from tests.federation import SEED, Quadratics, quadratic, run_rounds, split

DP = RecordDP(norm=1.0, noise_multiplier=1.1)
# As good as none: a sum of 20 rows then has noise of 10^-6.
SILENT = RecordDP(norm=1e4, noise_multiplier=1e-10)
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(20, 3))
KINDS = {"regression": (Linear, ()), "binary": (Logistic, (0, 1)), "multiclass": (Softmax, (0, 1, 2))}
every_kind = pytest.mark.parametrize("kind", KINDS)


def regression(kind: Any, features: int = 3, l2: float = 0.0) -> Any:
    specification, classes = KINDS[kind]
    return specification(l2, init="uniform").build(Schema(kind, (features,), classes))


def labels(kind: str, count: int = 20) -> Any:
    return (
        RANDOM.normal(size=count) if kind == "regression" else RANDOM.integers(0, len(KINDS[kind][1]), count)
    )


def session_of(model: Any, rows: Rows) -> Any:
    session = model.session()
    session.load(model.initial(SEED))
    session.bind(rows, SEED)
    return session


def trained(algorithm: Any, model: Any, rows: Rows, rounds: int = 1) -> Vector:
    return run_rounds(algorithm, model, [ClientData("a", rows)], rounds).model


@every_kind
@pytest.mark.parametrize("norm", [0.1, 1.0, 1e9])
def test_clipped_sum_of_a_regression_is_that_of_a_loop_over_single_rows_by_autograd(
    kind: str, norm: float
) -> None:
    torch = pytest.importorskip("torch")
    model, y = regression(kind), labels(kind)
    session = session_of(model, Rows(X, y))
    weights = [torch.tensor(model.initial(SEED)[name], requires_grad=True) for name in ("coef", "intercept")]
    total = 0.0
    for row, label in zip(torch.from_numpy(X), torch.from_numpy(y), strict=True):
        score = weights[0] @ row + weights[1]
        if kind == "regression":
            loss = (score - label) ** 2 / 2
        elif kind == "binary":
            loss = torch.nn.functional.binary_cross_entropy_with_logits(score, label.double())
        else:
            loss = torch.nn.functional.cross_entropy(score, label)
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)])
        total = total + gradient * min(1.0, norm / gradient.norm().item())
    np.testing.assert_allclose(session.clipped(np.arange(20), norm)[0], total.numpy(), rtol=1e-10, atol=1e-12)


numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)


@every_kind
@settings(max_examples=60, deadline=None)
@given(row=st.lists(numbers, min_size=3, max_size=3), norm=st.floats(1e-3, 1e3), data=st.data())
def test_a_record_more_changes_the_sum_by_at_most_the_norm_whatever_is_in_it(
    kind: str, row: list[float], norm: float, data: st.DataObject
) -> None:
    model, y = regression(kind), labels(kind)
    label = data.draw(numbers) if kind == "regression" else data.draw(st.sampled_from(KINDS[kind][1]))
    session = session_of(model, Rows(X, y))
    before = session.clipped(np.arange(20), norm)[0]
    session = session_of(model, Rows(np.vstack([X, row]), np.append(y, label)))
    after = session.clipped(np.arange(21), norm)[0]
    assert np.isfinite(after).all()
    assert np.linalg.norm(after - before) <= norm * (1 + 1e-9)


@every_kind
def test_empty_batch_and_gradients_of_zero_add_nothing(kind: str) -> None:
    session = session_of(regression(kind), Rows(X, labels(kind)))
    assert not session.clipped(np.arange(0), 1.0)[0].any()
    exact = Linear().build(Schema("regression", (3,)))
    assert not session_of(exact, Rows(X, np.zeros(20))).clipped(np.arange(20), 1.0)[0].any()


def test_clipping_is_of_single_records_and_not_of_their_mean() -> None:
    # Gradients of a linear regression at 0 are −y·(x, 1): for x = 1 their norm is |y|·√2.
    model = Linear().build(Schema("regression", (1,)))
    session = session_of(model, Rows(np.ones((3, 1)), np.array([10.0, -10.0, 0.1])))
    expected = -0.1 * np.ones(2)
    np.testing.assert_allclose(session.clipped(np.arange(3), 1.0)[0], expected, atol=1e-12)


def test_noise_of_one_step_has_the_variance_it_says() -> None:
    features, n, batch, lr, dp = 20_000, 40, 10, 0.5, RecordDP(norm=3.0, noise_multiplier=0.7)
    model = Linear().build(Schema("regression", (features,)))
    # All gradients are 0.
    rows = Rows(np.zeros((n, features)), np.zeros(n))
    algorithm = FedAvg(lr=lr, local_steps=1, batch_size=batch, dp=dp)
    change = trained(algorithm, model, rows)["coef"]
    expected = lr * 0.7 * 3.0 / batch
    # Of 20,000 numbers the deviation is right to 0.5 %, and their mean to 1/141 of it: ten and seven times that.
    assert np.std(change) == pytest.approx(expected, rel=0.05)
    assert abs(np.mean(change)) < 0.05 * expected
    assert dp.std(features + 1) == pytest.approx(0.7 * 3.0, rel=2**-9)


def test_noise_is_divided_by_the_expected_size_of_a_batch_whatever_its_size_is() -> None:
    written = []

    class Session:
        def clipped(self, index: Any, norm: float) -> list[Any]:
            return [np.full(50_000, float(len(index)))]

        def set_gradient(self, gradient: Any) -> None:
            written.append(gradient[0])

    for size in (0, 4, 40):
        DP.differentiate(Session(), np.arange(size), 8)  # type: ignore[arg-type]
    for size, gradient in zip((0, 4, 40), written, strict=True):
        assert np.mean(gradient) == pytest.approx(size / 8, abs=0.01)
        assert np.std(gradient) == pytest.approx(1.1 / 8, rel=0.05)


def test_noisy_sums_are_multiples_of_the_grid() -> None:
    step = 2.0**-30
    dp = RecordDP(norm=1.0, noise_multiplier=1.1)
    for sums in ([np.zeros(1000)], [RANDOM.normal(size=1000), np.array([1 / 3])]):
        noisy = np.concatenate(dp.noisy(sums))
        assert np.array_equal(noisy, np.rint(noisy / step) * step)
        assert len(set(noisy.tolist())) > 900


def test_two_runs_with_one_seed_have_other_batches_and_other_noise() -> None:
    rows = Rows(X, labels("regression"))
    algorithm = FedAvg(local_steps=2, batch_size=5, dp=DP)
    first, again = (trained(algorithm, regression("regression"), rows) for _ in range(2))
    assert first != again
    assert not np.array_equal(poisson_batch(1000, 100), poisson_batch(1000, 100))
    assert secret_seed() != secret_seed()


def test_every_record_is_in_a_batch_by_a_coin_of_its_own() -> None:
    n, expected, draws = 50, 10, 20_000
    members = np.zeros((draws, n), bool)
    for draw in range(draws):
        members[draw, poisson_batch(n, expected)] = True
    rate = expected / n
    # Each rate is right to 0.0028 (one standard deviation), each correlation to 0.007.
    assert np.abs(members.mean(axis=0) - rate).max() < 6 * 0.0028
    correlations = np.corrcoef(members.T) - np.eye(n)
    assert np.abs(correlations).max() < 6 * 0.0071
    # A batch of a fixed size would have a variance of 0; of binomial sizes the variance's deviation is 1 %.
    sizes = members.sum(axis=1)
    assert np.var(sizes) == pytest.approx(n * rate * (1 - rate), rel=0.07)


@pytest.mark.parametrize(("n", "expected"), [(7, 7), (3, 10)])
def test_batch_as_large_as_the_client_is_all_of_it(n: int, expected: int) -> None:
    assert poisson_batch(n, expected).tolist() == list(range(n))


def test_private_training_reports_no_loss() -> None:
    model, rows = regression("binary"), Rows(X, labels("binary"))
    algorithm = FedAvg(local_steps=2, dp=DP)
    task = algorithm.task(algorithm.init(model, SEED))
    update, _ = algorithm.client(model, task, ClientData("a", rows), {}, SEED)
    assert update.metrics == {}


@every_kind
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"optimizer": SGD(momentum=0.9, weight_decay=0.01)},
        {"optimizer": Adam()},
        {"lr": 0.3, "local_epochs": 3},
    ],
    ids=str,
)
def test_without_clipping_and_noise_it_is_gradient_descent_penalty_included(kind: str, settings: Any) -> None:
    model, rows = regression(kind, l2=0.5), Rows(X, labels(kind))
    private, plain = (
        trained(FedAvg(batch_size=None, dp=dp, **settings), model, rows, 3).buffer.view(np.float64)
        for dp in (SILENT, None)
    )
    # Where a gradient is 0 Adam steps by noise, be it ever so small.
    np.testing.assert_allclose(private, plain, atol=1e-4)


@pytest.mark.parametrize("make", [FedProx, SCAFFOLD, FedAdam], ids=lambda make: make.__name__)
def test_other_algorithms_correct_what_is_private(make: Any) -> None:
    model, y = regression("binary"), labels("binary")
    clients = split(X, y, [8, 12])
    more = {"mu": 0.7} if make is FedProx else {}
    private, plain = (
        run_rounds(
            make(lr=0.5, local_steps=4, batch_size=None, dp=dp, **more), model, clients, 4, kept={}
        ).model
        for dp in (SILENT, None)
    )
    np.testing.assert_allclose(private["coef"], plain["coef"], atol=1e-4)
    assert not np.allclose(
        plain["coef"],
        run_rounds(FedAvg(lr=0.5, local_steps=4, batch_size=None), model, clients, 4).model["coef"],
        1e-3,
    )


def test_what_a_client_releases_is_its_rate_its_steps_and_its_rounds() -> None:
    by_steps = FedAvg(local_steps=10, batch_size=8, dp=DP)
    assert by_steps.record_release(80, 3) == Release(Gaussian(1.1), Poisson(0.1), 30)
    assert by_steps.record_release(8, 3) == Release(Gaussian(1.1), Everyone(), 30)
    by_epochs = FedAvg(local_epochs=2, batch_size=8, dp=DP)
    # Of 20 rows an epoch has three batches, and each record is in one with probability 8/20.
    assert by_epochs.record_release(20, 5) == Release(Gaussian(1.1), Poisson(0.4), 2 * 3 * 5)
    assert FedAvg(batch_size=None, dp=DP).record_release(20, 5) == Release(Gaussian(1.1), Everyone(), 5)
    assert FedAvg().record_release(20, 5) is None


def test_epsilon_of_the_mnist_tutorial_of_tensorflow_privacy_by_this_path() -> None:
    pytest.importorskip("dp_accounting")
    # N = 60,000, batches of 256, σ = 1.1, 60 epochs or 14,062 steps, δ = 1e-5.
    algorithm = FedAvg(batch_size=256, local_steps=14_062, dp=RecordDP(norm=1.0, noise_multiplier=1.1))
    found = account([algorithm.record_release(60_000, 1)], 1e-5)  # type: ignore[list-item]
    assert (found.accountant, found.epsilon) == ("pld", pytest.approx(2.3816, abs=1e-3))


def test_job_file_names_it_and_gets_it_back() -> None:
    spec = {"name": "FedAvg", "dp": {"name": "RecordDP", "norm": 1, "noise_multiplier": 1.1}}
    built = ALGORITHMS.build(spec)
    assert built.dp == DP
    assert ALGORITHMS.build(ALGORITHMS.describe(built)) == built
    assert ALGORITHMS.build({"name": "FedAvg", "dp": "none"}).dp is None


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: RecordDP(0.0, 1.0), "RecordDP: norm is 0.0; it must be a positive number"),
        (lambda: RecordDP(1.0, 0.0), "RecordDP: noise_multiplier is 0.0; it must be a positive number"),
        (lambda: RecordDP(1.0, 1e9), "noise_multiplier is 1000000000.0; .* at most"),
        (
            lambda: FedAvg(dp="RecordDP"),
            r"dp is \"RecordDP\"; give fp\.RecordDP\(norm=\.\.\., noise_multiplier",
        ),
        (lambda: FedAvg(dp=1.1), r"FedAvg: dp is 1\.1; give one of fp\.RecordDP"),
        (lambda: FedAvg(dp=DP, max_grad_norm=1.0), "FedAvg: dp clips .*; leave max_grad_norm out"),
        (lambda: FedProx(dp=DP, shuffle=False), "FedProx: dp draws every record .*; leave shuffle out"),
        (
            lambda: SCAFFOLD(dp=DP, option=1),
            "gradient of all its rows, in which dp hides no record; leave option at 2",
        ),
    ],
)
def test_setting_that_cannot_be_is_refused(make: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make()


def test_model_without_gradients_of_single_records_is_refused() -> None:
    with pytest.raises(
        ModelError, match="dp clips the gradients of single records, which this model does not give"
    ):
        run_rounds(FedAvg(dp=DP), Quadratics([0.0]), [quadratic("a", 1.0, 4.0)], 1)


def test_model_that_fits_by_its_own_means_is_refused() -> None:
    pytest.importorskip("sklearn")
    from sklearn.linear_model import SGDClassifier

    from fedpact.learn.sklearn import Sklearn

    model = Sklearn(SGDClassifier()).build(Schema("binary", (3,), (0, 1)))
    with pytest.raises(ModelError, match="which SklearnModel does not give; use a torch module"):
        run_rounds(FedAvg(dp=DP), model, split(X, labels("binary"), [20]), 1)


def test_training_side_by_side_is_refused_rather_than_done_without_privacy() -> None:
    model, clients = regression("binary"), split(X, labels("binary"), [8, 12])
    with pytest.raises(
        ConfigError, match="FedAvg trains no clients side by side: with dp every client draws"
    ):
        train_stacked(FedAvg(dp=DP), model, model.initial(SEED), clients, 0, [Seed.of(0), Seed.of(1)])
