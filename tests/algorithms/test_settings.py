"""What algorithms refuse, and the sentences they say it in."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedpact.algorithms.cyclic import Cyclic
from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.fedopt import FedAdam
from fedpact.algorithms.fedprox import FedProx
from fedpact.algorithms.fedsgd import FedSGD
from fedpact.algorithms.newton import Newton
from fedpact.algorithms.one_shot import OneShot
from fedpact.algorithms.optimizers import SGD, Adam
from fedpact.algorithms.scaffold import SCAFFOLD
from fedpact.algorithms.schedules import CosineDecay
from fedpact.channel.clip import Clip
from fedpact.channel.noise import GaussianNoise
from fedpact.core.errors import ConfigError, DataError, ModelError
from fedpact.core.model import FittingModel, Schema
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.core.vector import Entry, Layout, Vector
from fedpact.learn.linear import Linear, Logistic, Softmax
from fedpact.learn.naive_bayes import GaussianNB, MultinomialNB
from tests.federation import Quadratics, quadratic, run_rounds, split

SCHEMA = Schema("binary", (2,), (0, 1))
CLIENTS = split(np.arange(20.0).reshape(10, 2), np.arange(10) % 2, [4, 6])


class Majority:
    """A model that fits by its own means: one number, the mean label of the rows seen last."""

    schema = SCHEMA
    layout = Layout([Entry("mean", (), "float64")])

    def initial(self, seed: Seed) -> Vector:
        return Vector.zeros(self.layout)

    def predict(self, weights: Vector, x: Any) -> NDArray[np.float64]:
        return np.full(len(x), weights["mean"])

    def fit(self, weights: Vector, rows: Rows, epochs: int, seed: Seed) -> tuple[Vector, float]:
        return Vector.from_arrays({"mean": np.mean(rows.y)}, self.layout), 0.5


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: FedAvg(local_steps=1, local_epochs=1), "FedAvg: give local_steps or local_epochs, not both"),
        (lambda: FedAvg(batch_size=0), "FedAvg: batch_size is 0; it must be a whole number, 1 or more"),
        (lambda: FedAvg(local_steps=0), "local_steps is 0; it must be a whole number, 1 or more"),
        (lambda: Cyclic(local_epochs=-1), "Cyclic: local_epochs is -1; it must be a whole number, 1 or more"),
        (lambda: FedAvg(local_epochs=0.5), "local_epochs is 0.5; it must be a whole number, 1 or more"),
        (lambda: FedAvg(max_grad_norm=0.0), "max_grad_norm is 0.0; it must be a positive number, or None"),
        (lambda: FedAvg(lr=-0.1), "lr is -0.1; it must be a number, 0 or more"),
        (lambda: FedAvg(lr=float("nan")), "lr is nan; it must be a number, 0 or more"),
        (lambda: FedAdam(server_lr=0.0), "FedAdam: server_lr is 0.0; it must be a positive number"),
        (lambda: FedAvg(weighting="rows"), 'weighting is "rows"; it must be "examples" or "uniform"'),
        (lambda: FedProx(mu=-1.0), "FedProx: mu is -1.0; it must be a number, 0 or more"),
        (lambda: FedProx(local_steps=1, local_epochs=1), "FedProx: give local_steps or local_epochs"),
        (lambda: SCAFFOLD(optimizer=Adam()), r"plain SGD steps: leave optimizer at SGD\(\)"),
        (lambda: SCAFFOLD(optimizer=SGD(momentum=0.9)), "without momentum or weight decay"),
        (lambda: SCAFFOLD(option=3), "SCAFFOLD: option is 3; it must be 1 or 2"),
        (lambda: SCAFFOLD(lr=0.0), "SCAFFOLD: lr is 0.0; it must be a positive number"),
        (lambda: FedSGD(lr=0.0), "FedSGD: lr is 0.0; it must be a positive number"),
        (
            lambda: FedSGD(batch_size=0),
            "FedSGD: batch_size is 0; it must be a whole number, 1 or more, or None",
        ),
        (lambda: FedSGD(weighting="rows"), 'FedSGD: weighting is "rows"'),
        (lambda: Newton(tolerance=0.0), "Newton: tolerance is 0.0; it must be a positive number"),
        (lambda: Logistic(l2=-1.0), "Logistic: l2 is -1.0; it must be a number, 0 or more"),
        (lambda: Softmax(init="ones"), 'Softmax: init is "ones"; it must be "zeros" or "uniform"'),
    ],
)
def test_setting_out_of_range_is_refused(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make()


NUMBERS = [
    (FedAvg, "lr"),
    (FedAvg, "max_grad_norm"),
    (FedAvg, "server_lr"),
    (FedProx, "mu"),
    (SCAFFOLD, "lr"),
    (FedSGD, "lr"),
    (Newton, "tolerance"),
    (Linear, "l2"),
    (Logistic, "l2"),
    (Softmax, "l2"),
    (GaussianNB, "var_smoothing"),
    (MultinomialNB, "alpha"),
    (Clip, "norm"),
    (GaussianNoise, "multiplier"),
]
every_number = pytest.mark.parametrize(("part", "name"), NUMBERS)


@every_number
@pytest.mark.parametrize("value", ["0.1", float("inf"), True, [0.1], 10**400], ids=repr)
def test_what_is_no_finite_number_is_refused_everywhere_in_one_sentence(
    part: Any, name: str, value: Any
) -> None:
    with pytest.raises(ConfigError, match=f"{part.__name__}: {name} is .*; it must be a (positive )?number"):
        part(**{name: value})


@every_number
def test_numbers_are_kept_as_plain_floats(part: Any, name: str) -> None:
    for number in (np.float64(0.3), np.float32(0.5), np.int64(2), 2):
        kept = getattr(part(**{name: number}), name)
        assert (type(kept), kept) == (float, number)


@pytest.mark.parametrize(
    ("algorithm", "name"),
    [(FedAvg, "batch_size"), (FedAvg, "local_steps"), (FedAvg, "local_epochs"), (FedSGD, "batch_size")],
)
def test_counts_are_kept_as_plain_ints_and_true_is_none(algorithm: Any, name: str) -> None:
    kept = getattr(algorithm(**{name: np.int64(3)}), name)
    assert (type(kept), kept) == (int, 3)
    with pytest.raises(ConfigError, match=f"{name} is True; it must be a whole number, 1 or more, or None"):
        algorithm(**{name: True})


@pytest.mark.parametrize("algorithm", [FedAvg, FedSGD])
@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("server_optimizer", "Adam", r'server_optimizer is "Adam"; give fp\.Adam\(\)\.'),
        ("server_optimizer", Adam, r"server_optimizer is the class Adam; give fp\.Adam\(\)\."),
        ("server_optimizer", "Adan", r'give one of fp\.SGD\(\), .* Did you mean "Adam"\?'),
        ("server_optimizer", CosineDecay(3), r"give one of fp\.SGD\(\), "),
        ("lr_schedule", 0.5, r"lr_schedule is 0\.5; give one of fp\.Constant\(\), "),
        ("lr_schedule", CosineDecay, r"give fp\.CosineDecay\(rounds=\.\.\.\)\."),
    ],
)
def test_name_or_class_of_a_part_is_refused_with_what_to_write(
    algorithm: Any, setting: str, value: Any, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        algorithm(**{setting: value})


def test_local_optimiser_is_checked_as_the_servers_is() -> None:
    with pytest.raises(ConfigError, match=r'FedAvg: optimizer is "Adam"; give fp\.Adam\(\)\.'):
        FedAvg(optimizer="Adam")  # type: ignore[arg-type]


def test_optimiser_and_schedule_of_ones_own_are_taken() -> None:
    class Signs:
        def slots(self) -> dict[str, float]:
            return {}

        def step(self, weights: Any, gradient: Any, slots: Any, count: int, lr: float) -> None:
            weights -= lr * np.sign(gradient)

    class Halving:
        def factor(self, round: int) -> float:
            return np.float64(0.5**round)

    algorithm = FedAvg(lr=0.5, local_steps=1, batch_size=None, optimizer=Signs(), lr_schedule=Halving())
    state = run_rounds(algorithm, Quadratics([0.0]), [quadratic("a", 1.0, 4.0)], 2)
    assert state.model["w"][0] == 0.5 + 0.25


@pytest.mark.parametrize(
    "algorithm", [FedAvg(), FedAvg(batch_size=None), FedSGD(), FedSGD(batch_size=2)], ids=repr
)
def test_client_without_rows_is_refused_in_a_sentence(algorithm: Any) -> None:
    client = ClientData("a", Rows(np.empty((0, 2)), np.empty(0, np.int64)))
    task = algorithm.task(algorithm.init(LOGISTIC, Seed.of(0)))
    with pytest.raises(DataError, match="there are no training rows; leave this client out"):
        algorithm.client(LOGISTIC, task, client, {}, Seed.of(0))


LOGISTIC, BAYES, FITTING = Logistic().build(SCHEMA), GaussianNB().build(SCHEMA), Majority()


@pytest.mark.parametrize(
    ("algorithm", "model", "sentence"),
    [
        (Newton(), BAYES, r"Newton needs a model with a Hessian \(Linear, .*\); GaussianNBModel has none"),
        (Newton(), Quadratics([0.0, 0.0]), "Quadratics has none"),
        (OneShot(), LOGISTIC, r"OneShot needs a model that is solved from sums .*RegressionModel is not"),
        (FedSGD(), FITTING, "FedSGD needs gradients, which Majority does not give; use FedAvg"),
        (FedAvg(), BAYES, "FedAvg trains by gradients; GaussianNBModel has none. Use OneShot"),
        (FedProx(), FITTING, "FedProx corrects gradients, but Majority trains by its own means; use FedAvg"),
        (SCAFFOLD(), FITTING, "SCAFFOLD corrects gradients, but Majority trains"),
        (FedAvg(local_steps=3), FITTING, "local_steps of FedAvg would have no effect"),
        (FedAvg(lr=0.5, batch_size=8), FITTING, "lr, batch_size of FedAvg would have no effect"),
    ],
)
def test_model_that_an_algorithm_cannot_train_ends_the_run(algorithm: Any, model: Any, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        run_rounds(algorithm, model, CLIENTS, 1)


def test_model_that_fits_by_its_own_means_is_averaged() -> None:
    assert isinstance(FITTING, FittingModel)
    state = run_rounds(FedAvg(local_epochs=2), FITTING, CLIENTS, 1)
    assert state.model["mean"] == pytest.approx(0.5)
