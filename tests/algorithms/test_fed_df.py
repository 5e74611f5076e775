"""Distillation from an ensemble: soft labels by hand, models that differ, masks, files, and what is refused."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedpact as fp
from fedpact.algorithms import ALGORITHMS
from fedpact.algorithms.fed_df import FedDF
from fedpact.channel.channel import Channel
from fedpact.channel.clip import Clip
from fedpact.channel.secure_sum import SecureSum
from fedpact.core.errors import ConfigError, DataError, ModelError
from fedpact.core.job import Job
from fedpact.core.model import Schema
from fedpact.core.rows import ClientData, Rows
from fedpact.core.vector import Vector
from fedpact.engine.in_process import InProcess
from fedpact.engine.population import InMemory
from fedpact.engine.rounds import hold_round
from fedpact.engine.work import Rules, Setting
from fedpact.learn.linear import Linear, Logistic, Softmax
from fedpact.learn.naive_bayes import GaussianNB
from fedpact.learn.torch import Torch
from tests.federation import SEED, run_rounds

torch = pytest.importorskip("torch")

THREE = Schema("multiclass", (1,), (0, 1, 2))
LOG2 = np.log(2.0)
PUBLIC = np.array([[-LOG2], [0.0], [LOG2]], np.float32)
ROWS = Rows(np.zeros((2, 1), np.float32), np.array([0, 2]))


def module_with(weight: list[float], bias: list[float]) -> Any:
    module = torch.nn.Linear(1, 3)
    module.weight.data[:, 0], module.bias.data[:] = torch.tensor(weight), torch.tensor(bias)
    return module


def by_hand(**settings: Any) -> tuple[FedDF, list[ClientData]]:
    """Two clients that do not move: one has the logits (x, 0, −x), the other (ln 2, 0, 0)."""
    models = {
        "a": Torch(module_with([1, 0, -1], [0, 0, 0])),
        "b": Torch(module_with([0, 0, 0], [LOG2, 0, 0])),
    }
    settings = {"lr": 0.0, "local_steps": 1, "lessons": "ensemble", "public": PUBLIC, **settings}
    return FedDF(models=models, **settings), [ClientData(id, ROWS) for id in "ab"]


def test_soft_labels_are_the_softmax_of_the_mean_logits_at_the_temperature() -> None:
    # The mean logits are ((x + ln 2)/2, 0, −x/2), at T = 1/2 twice that: e to it is (2eˣ, 1, e⁻ˣ), which for
    # x = −ln 2, 0, ln 2 is (1, 1, 2), (2, 1, 1) and (4, 1, 1/2).
    algorithm, clients = by_hand(temperature=0.5)
    state = run_rounds(algorithm, Softmax().build(THREE), clients, 1)
    expected = [[1 / 4, 1 / 4, 1 / 2], [1 / 2, 1 / 4, 1 / 4], [8 / 11, 2 / 11, 1 / 11]]
    np.testing.assert_allclose(algorithm.soft_labels(state.scores), expected, rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_student_comes_to_predict_the_ensemble_that_it_can_express(temperature: float) -> None:
    algorithm, clients = by_hand(temperature=temperature, server_lr=0.02, server_steps=1500)
    model = Softmax().build(THREE)
    state = run_rounds(algorithm, model, clients, 1)
    # At the temperature 1, and for a point that is not among the public ones, x = 2·ln 2: (2·√2, 1, 1/2), as above.
    powers = np.array([2 * np.sqrt(2), 1, 1 / 2])
    predicted = model.predict(state.model, np.array([[2 * LOG2]]))[0]
    np.testing.assert_allclose(predicted, powers / powers.sum(), atol=2e-3)


def test_weights_by_examples_weigh_the_logits() -> None:
    # Of client b three rows, of a one: the first logit at x = 0 is 3/4·ln 2, less the mean of the three.
    algorithm, _ = by_hand(weighting="examples")
    clients = [
        ClientData("a", Rows(ROWS.x[:1], ROWS.y[:1])),
        ClientData("b", Rows(np.zeros((3, 1), np.float32), np.array([0, 1, 2]))),
    ]
    state = run_rounds(algorithm, Softmax().build(THREE), clients, 1)
    assert state.scores["scores"][1, 0] == pytest.approx(0.75 * LOG2 * 2 / 3, rel=1e-6)


def test_what_clients_are_sent_is_the_lesson_that_is_asked_for() -> None:
    algorithm, clients = by_hand(server_steps=10)
    model = Softmax().build(THREE)
    taught = run_rounds(replace(algorithm, lessons="student"), model, clients, 1)
    np.testing.assert_allclose(
        taught.scores["scores"], model.scores(taught.model, PUBLIC), rtol=1e-5, atol=1e-7
    )
    ensembles = [
        run_rounds(replace(algorithm, lessons=lessons), model, clients, 2).scores
        for lessons in ("ensemble", "none")
    ]
    # With a rate of 0 nobody learns anything, and the ensemble stays what it was, but for rounding.
    np.testing.assert_allclose(ensembles[0]["scores"], ensembles[1]["scores"], atol=1e-6)


def test_clients_learn_from_the_lesson_before_they_train() -> None:
    algorithm, clients = by_hand(lr=0.5, lesson_epochs=30, batch_size=None)
    model, spread = Softmax().build(THREE), {}
    for lessons in ("ensemble", "none"):
        kept: dict[str, Mapping[str, Vector]] = {}
        run_rounds(replace(algorithm, lessons=lessons), model, clients, 3, kept=kept)
        spread[lessons] = np.abs(
            predictions(algorithm, model, kept, "a") - predictions(algorithm, model, kept, "b")
        )
    assert spread["ensemble"].max() < 0.5 * spread["none"].max()


def predictions(algorithm: FedDF, model: Any, kept: Any, client: str) -> Any:
    own = algorithm.model_of(client, model)
    weights = Vector.zeros(own.layout)
    weights.buffer[:] = kept[client]["model"]["bytes"][: own.layout.nbytes]
    return own.predict(weights, PUBLIC)


def test_a_client_has_the_model_of_its_name_or_of_the_longest_pattern_or_the_jobs() -> None:
    models = {"ward-*": Softmax(0.1), "ward-1*": Softmax(0.2), "ward-12": Softmax(0.3)}
    algorithm, model = FedDF(public=PUBLIC, models=models), Softmax().build(THREE)
    l2 = [algorithm.model_of(id, model).l2 for id in ("ward-12", "ward-13", "ward-2", "other")]
    assert l2 == [0.3, 0.2, 0.1, 0.0]


# Digits of ten classes: each client has plenty of rows of half of them, and next to none of the others.
@pytest.fixture(scope="module")
def digits() -> tuple[list[ClientData], Any]:
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    random = np.random.default_rng(0)
    order = random.permutation(len(x))
    x, y = (x[order] / 16).astype(np.float32), y[order]
    clients = []
    for id, classes in {"a": range(5), "b": range(3, 8), "c": (6, 7, 8, 9, 0)}.items():
        own = 800 + np.flatnonzero(np.isin(y[800:], classes) | (random.random(len(y) - 800) < 0.02))
        clients.append(ClientData(id, Rows(x[own], y[own]), Rows(x[:400], y[:400])))
    return clients, x[400:800]


def mlp(hidden: int) -> Any:
    torch.manual_seed(hidden)
    return torch.nn.Sequential(torch.nn.Linear(64, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 10))


LOCAL: dict[str, Any] = {"lr": 0.2, "local_epochs": 5, "batch_size": 16}


def distilling(public: Any, **settings: Any) -> FedDF:
    settings = {**LOCAL, "server_steps": 200, **settings}
    return FedDF(public=public, models={"a": Softmax(), "b": Torch(mlp(32))}, **settings)


def test_student_of_clients_with_different_models_beats_what_each_learns_alone(digits: Any) -> None:
    clients, public = digits
    result = fp.train(mlp(24), clients, algorithm=distilling(public), rounds=4, engine="in_process")
    assert result.evaluation is not None
    student = result.evaluation.metrics["accuracy"]
    for client, model in zip(clients, (Softmax(), mlp(32), mlp(24)), strict=True):
        alone = fp.train(
            model, [client], algorithm=fp.FedAvg(**LOCAL), rounds=4, engine="in_process", evaluate_every=0
        )
        assert alone.evaluation is not None
        assert student > alone.evaluation.metrics["accuracy"] + 0.2
    # What travels are 400 public rows of ten scores in float32, and two numbers for the record: no model.
    assert result.history["upload_bytes"].tolist() == [3 * (400 * 10 * 4 + 16)] * 4


def test_under_a_secure_sum_the_scores_are_those_in_clear_up_to_the_grid(digits: Any) -> None:
    clients, public = digits
    algorithm, model = (
        distilling(public, local_epochs=1),
        Torch(mlp(8)).build(Schema("multiclass", (64,), tuple(range(10)))),
    )
    means = []
    for stages in ([Clip(1000.0)], [Clip(1000.0), SecureSum()]):
        channel = Channel(stages, algorithm)
        setting = Setting(algorithm, model, InMemory(clients), channel, Rules(), SEED)
        task = algorithm.task(algorithm.init(model, SEED))
        outcome = hold_round(InProcess(), setting, task, {}, 0)
        means.append(outcome.aggregate.means["scores"]["scores"])
    # Of 32 bits, sums of three values of up to 1000 leave 19 for the fraction.
    assert 0 < np.abs(means[0] - means[1]).max() <= 2.0**-19
    assert np.abs(means[0]).max() > 1


def test_a_run_that_is_resumed_ends_with_the_same_bits(digits: Any, tmp_path: Path) -> None:
    clients, public = digits

    def train(folder: str, rounds: int, resume: bool = False) -> Any:
        algorithm = distilling(public, local_epochs=1, server_steps=20)
        options: dict[str, Any] = {"folder": tmp_path / folder, "resume": resume, "engine": "in_process"}
        return fp.train(mlp(24), clients, algorithm=algorithm, rounds=rounds, **options)

    whole = train("whole", 4)
    train("parts", 2)
    assert train("parts", 4, resume=True).fitted.weights == whole.fitted.weights


def test_workers_give_the_same_bits(digits: Any) -> None:
    clients, public = digits
    algorithm = distilling(public, local_epochs=1, server_steps=20)
    ends = [
        fp.train(mlp(24), clients, algorithm=algorithm, rounds=2, engine=engine).fitted.weights
        for engine in ("in_process", "workers")
    ]
    assert ends[0] == ends[1]


def test_a_job_holds_the_digest_of_the_public_rows_and_clients_models_as_plain_data(digits: Any) -> None:
    clients, public = digits
    algorithm = distilling(public, local_epochs=1, server_steps=1)
    job = fp.train(Softmax(), clients, algorithm=algorithm, rounds=1, engine="in_process").job
    assert job.algorithm["models"]["a"] == {"name": "Softmax", "l2": 0.0, "init": "zeros"}
    assert job.algorithm["models"]["b"]["architecture"] == "torch.nn.modules.container.Sequential"
    other = public.copy()
    other[0, 0] += 1
    assert (
        job.algorithm["public"]["sha256"]
        == distilling(public).public.sha256
        != distilling(other).public.sha256
    )
    assert Job.of(job.model_dump()).digest == job.digest


def test_a_job_reads_its_public_rows_from_a_file_that_must_be_the_same(digits: Any, tmp_path: Path) -> None:
    clients, public = digits
    path = tmp_path / "public.npy"
    np.save(path, public)
    settings: dict[str, Any] = {"models": {"*": {"name": "Softmax"}}, "lr": 0.2, "server_steps": 20}
    spec = {"name": "FedDF", "public": str(path), **settings}
    result = fp.train(Softmax(), clients, algorithm=spec, rounds=1, engine="in_process")
    algorithm = FedDF(public=public, **settings)
    given = fp.train(Softmax(), clients, algorithm=algorithm, rounds=1, engine="in_process")
    again = fp.run(result.job, clients, engine="in_process")
    assert again.fitted.weights == result.fitted.weights == given.fitted.weights
    np.save(path, public + 1)
    with pytest.raises(ConfigError, match="is not the one that the job was written for"):
        fp.run(result.job, clients, engine="in_process")


def test_public_rows_of_a_table_are_prepared_as_the_clients_rows_are() -> None:
    clients = fp.datasets.breast_cancer()
    public = clients.clients[0].train.x
    algorithm = fp.FedDF(public=public, lr=0.1, server_lr=0.05, server_steps=200)
    steps = [fp.Standardize()]
    result = fp.train(
        Logistic(), clients, preprocess=steps, algorithm=algorithm, rounds=2, engine="in_process"
    )
    assert result.evaluation is not None
    assert result.evaluation.metrics["accuracy"] > 0.9


def test_a_job_that_is_read_elsewhere_asks_for_the_rows_that_were_given_in_python() -> None:
    described = ALGORITHMS.describe(FedDF(public=PUBLIC))
    built = ALGORITHMS.build(described)
    assert built == FedDF(public=PUBLIC)
    with pytest.raises(ConfigError, match=r"the rows of the public set \(SHA-256 .*\) are not here"):
        _ = built.public.examples


def test_public_rows_without_bytes_of_their_own_are_refused() -> None:
    with pytest.raises(ConfigError, match="an array of Python objects, which has no SHA-256; give an array"):
        FedDF(public=np.array([["a", 1], ["b", 2]], dtype=object))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"temperature": 0}, "FedDF: temperature is 0; it must be a positive number"),
        ({"server_steps": 0}, "FedDF: server_steps is 0; it must be a whole number"),
        ({"lessons": "teacher"}, 'FedDF: lessons is "teacher"; it must be "student" or "ensemble" or "none"'),
        ({"models": [Softmax()]}, "FedDF: models is .* give a model for each client or pattern"),
        ({"public": "no-such-file.csv"}, 'the public set "no-such-file.csv" cannot be read'),
    ],
)
def test_wrong_settings_are_refused_in_a_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        FedDF(**settings)


def test_without_public_rows_there_is_nothing_to_distil_on() -> None:
    with pytest.raises(
        ConfigError, match=r"FedDF distils on public rows and has none: give them, FedDF\(public="
    ):
        run_rounds(FedDF(), Softmax().build(THREE), by_hand()[1], 1)


def test_public_rows_of_another_shape_are_refused() -> None:
    clients = [ClientData("a", Rows(np.eye(3, dtype=np.float32), np.arange(3)))]
    with pytest.raises(
        DataError, match=r"the public set: the examples have shape \[1\]; the model is made for \[3\]"
    ):
        fp.train(Softmax(), clients, algorithm=FedDF(public=PUBLIC), rounds=1, engine="in_process")


def test_models_that_cannot_be_taught_are_refused() -> None:
    with pytest.raises(ModelError, match=r"here there is a number to predict\. Use FedAvg"):
        FedDF(public=PUBLIC).init(Linear().build(Schema("regression", (1,))), SEED)
    with pytest.raises(ModelError, match="and the student is a GaussianNBModel; choose another"):
        FedDF(public=PUBLIC).init(GaussianNB().build(THREE), SEED)
    algorithm = FedDF(public=PUBLIC, models={"a": GaussianNB()})
    with pytest.raises(ModelError, match='and the model of "a" is a GaussianNBModel; choose another'):
        run_rounds(algorithm, Softmax().build(THREE), by_hand()[1], 1)
    algorithm = FedDF(public=PUBLIC, models={"a": module_with([0, 0, 0], [0, 0, 0])})
    with pytest.raises(
        ModelError, match=r'the model of "a" is a Linear, which is no specification; give one of fp\.'
    ):
        run_rounds(algorithm, Softmax().build(THREE), by_hand()[1], 1)
