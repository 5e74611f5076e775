"""Claims about training on resampled rows: what changes, what does not, what is refused, and what is said."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import fedpact as fp
from fedpact.core.errors import ConfigError, DataError, DependencyError
from fedpact.core.rows import ClientStack
from fedpact.core.seeds import Seed
from fedpact.engine.fitted import Fitted
from fedpact.engine.in_process import InProcess
from fedpact.engine.population import InMemory, Prepared
from fedpact.engine.preparation import Preparation
from fedpact.engine.preparing import prepare
from fedpact.engine.work import Rules
from fedpact.report.html import run_sections
from tests.engine.runs import as_tables, outcome, same_bits

LOCAL: dict[str, Any] = {"lr": 0.3, "local_epochs": 2, "batch_size": 4}
REMEDIES = {
    "over": [fp.OverSample()],
    "over and under": [fp.OverSample(0.3), fp.UnderSample(0.5)],
    "smote": [fp.SMOTE()],
    "borderline": [fp.SMOTE(kind="borderline-1")],
    "adasyn": [fp.ADASYN()],
    "passes": [fp.ExtraPasses()],
}
each_remedy = pytest.mark.parametrize("steps", REMEDIES.values(), ids=list(REMEDIES))


def rare(count: int = 3, rows: int = 40, seed: int = 0) -> list[fp.ClientData]:
    """Return clients "a", "b", … with few rows of class 1: 4, 5, 6, …, and two of each six test rows."""
    random = np.random.default_rng(seed)
    clients = []
    for place in range(count):
        labels = np.repeat([0, 1, 0, 1], [rows + place - (4 + place), 4 + place, 4, 2])
        x = random.normal(size=(len(labels), 3)) + labels[:, None]
        n = rows + place
        clients.append(fp.ClientData(chr(97 + place), fp.Rows(x[:n], labels[:n]), fp.Rows(x[n:], labels[n:])))
    return clients


def prepared(clients: list[fp.ClientData], *steps: Any, model: Any = None) -> Preparation:
    return prepare(model, steps, InMemory(clients), InProcess(), Rules(fatal=(DataError,)), Seed.of(0))


def train(clients: list[fp.ClientData], steps: list[Any], **changed: Any) -> fp.Result:
    settings = {"algorithm": fp.FedAvg(**LOCAL), "rounds": 3, **changed}
    return fp.train(fp.models.Logistic(), clients, preprocess=[fp.Standardize(), *steps], **settings)


def counts(rows: fp.Rows) -> list[int]:
    return np.bincount(np.asarray(rows.y), minlength=2).tolist()


@each_remedy
def test_rows_of_tests_and_predictions_are_left_alone(steps: list[Any]) -> None:
    clients = as_tables(rare())
    plain, resampled = prepared(clients, fp.Standardize()), prepared(clients, fp.Standardize(), *steps)
    for client in clients:
        before, after = plain.client(client, "float64"), resampled.client(client, "float64")
        assert before.test is not None
        assert after.test is not None
        np.testing.assert_array_equal(after.test.x, before.test.x)
        np.testing.assert_array_equal(np.asarray(after.test.y), np.asarray(before.test.y))
        assert len(after.train) != len(before.train)
        assert client.test is not None
        np.testing.assert_array_equal(
            resampled.examples(client.test.x, "float64"), plain.examples(client.test.x, "float64")
        )


@each_remedy
def test_statistics_are_fitted_to_rows_as_they_are(steps: list[Any]) -> None:
    plain, resampled = prepared(rare(), fp.Standardize()), prepared(rare(), fp.Standardize(), *steps)
    assert plain.pipeline == resampled.pipeline


def test_clients_train_on_balanced_rows() -> None:
    preparation = prepared(rare(), fp.Standardize(), fp.OverSample())
    assert [counts(preparation.client(each, "float64").train) for each in rare()] == [[36, 36]] * 3


def test_extra_passes_are_by_the_sums_over_all_clients() -> None:
    # 108 rows of class 0 at all three, 15 of class 1: 108 / 15 = 7.2.
    preparation = prepared(rare(), fp.ExtraPasses())
    assert preparation.class_counts == (108, 15)
    found = [counts(preparation.client(each, "float64").train) for each in rare()]
    assert found == [[36, 28], [36, 35], [36, 42]]


@each_remedy
def test_client_has_the_same_rows_whoever_else_there_is(steps: list[Any]) -> None:
    first, more = rare(2), [*rare(2), fp.ClientData("z", rare(1, seed=9)[0].train)]
    if steps == [fp.ExtraPasses()]:
        more = first[::-1]
    alone, among = (prepared(clients, *steps).client(first[0], "float64") for clients in (first, more))
    assert same_bits(vars(alone.train), vars(among.train))


@each_remedy
@pytest.mark.parametrize("engine", ["workers", "batched"])
def test_engines_train_on_the_same_rows(steps: list[Any], engine: str) -> None:
    here = train(rare(), steps, engine="in_process")
    there = train(rare(), steps, engine=engine, workers=2 if engine == "workers" else None)
    assert there.clients["train_rows"].tolist() == here.clients["train_rows"].tolist()
    if engine == "workers":
        assert same_bits(outcome(there), outcome(here))
    else:
        np.testing.assert_allclose(there.weights.flats[0], here.weights.flats[0], rtol=1e-9)


@each_remedy
def test_order_of_the_clients_does_not_matter(steps: list[Any]) -> None:
    assert same_bits(outcome(train(rare(), steps)), outcome(train(rare()[::-1], steps)))


@each_remedy
def test_run_that_is_stopped_and_resumed_ends_with_the_same_bits(steps: list[Any], tmp_path: Path) -> None:
    def stop(record: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(rare(), steps, folder=tmp_path, on_round=stop)
    resumed = train(rare(), steps, folder=tmp_path, resume=True)
    assert same_bits(outcome(resumed), outcome(train(rare(), steps)))


def test_another_seed_draws_other_rows() -> None:
    a, b = (train(rare(), [fp.SMOTE()], algorithm=fp.Newton(), seed=seed).weights for seed in (0, 1))
    assert a != b


def test_client_counts_as_many_rows_as_it_trains_on() -> None:
    # Doubled at "a" alone, of whose two rows one is repeated: its mean then counts 2·2 and not 3.
    x = np.array([[1.0], [2.0], [3.0]])
    clients = [fp.ClientData("a", fp.Rows(x, [0, 0, 1])), fp.ClientData("b", fp.Rows(-x[:2], [0, 1]))]
    over = fp.train(
        fp.models.Logistic(), clients, preprocess=[fp.OverSample()], algorithm=fp.FedSGD(lr=1.0), rounds=1
    )
    by_hand = [*clients[1:], fp.ClientData("a", fp.Rows(x[[0, 1, 2, 2]], [0, 0, 1, 1]))]
    expected = fp.train(fp.models.Logistic(), by_hand, algorithm=fp.FedSGD(lr=1.0), rounds=1)
    assert over.clients["train_rows"].tolist() == [4, 2]
    assert over.weights == expected.weights


@pytest.mark.parametrize("width", [(), (2, 2)])
def test_arrays_need_no_steps_before_one_that_resamples(width: tuple[int, ...]) -> None:
    x = np.arange(10 * 4, dtype=np.float32).reshape(10, *(width or (4,)))
    clients = [fp.ClientData("a", fp.Rows(x, [0] * 8 + [1] * 2))]
    preparation = prepared(clients, fp.OverSample())
    rows = preparation.client(clients[0], "float32").train
    assert preparation.pipeline is None
    assert rows.x.shape == (16, *(width or (4,)))
    assert set(map(bytes, rows.x[10:])) <= set(map(bytes, x[8:]))


def test_synthetic_rows_of_whole_numbers_need_not_be_whole() -> None:
    x = np.random.default_rng(0).integers(0, 9, size=(30, 2))
    clients = [fp.ClientData("a", fp.Rows(x, [0] * 25 + [1] * 5))]
    rows = prepared(clients, fp.SMOTE()).client(clients[0], "float32").train
    assert rows.x.dtype == np.float32
    assert (rows.x[30:] != np.rint(rows.x[30:])).any()


def test_cohort_in_one_array_is_resampled_client_by_client() -> None:
    x, y = np.random.default_rng(0).normal(size=(4, 4, 2)), np.array([[0, 0, 0, 1]] * 4)
    population = fp.populations.arrays(x, y)
    preparation = prepared([fp.ClientData("a", fp.Rows(x[0], y[0]))], fp.OverSample())
    ids = list(population.ids(0))
    assert isinstance(population.load_many(ids), ClientStack)

    def make(data: fp.ClientData) -> fp.ClientData:
        return preparation.client(data, "float64")

    clients = Prepared(population, make, preparation.row_by_row, resized=True)
    assert [counts(each.train) for each in clients.load_many(ids)] == [[3, 3]] * 4
    assert list(clients.sizes(ids)) == [clients.size(id) for id in ids] == [6] * 4
    again = Prepared(clients, lambda data: data)
    assert [again.size(id) for id in ids] == [6] * 4


def test_steps_that_leave_rows_out_go_before() -> None:
    table = pd.DataFrame({"age": [30.0, 40.0, 50.0, 900.0, 60.0, 70.0]})
    client = fp.ClientData("a", fp.Rows(table, np.array([0, 0, 0, 1, 1, 0])))
    steps = [fp.Clean(ranges={"age": (0, 120)}, drop=True), fp.ExtraPasses()]
    preparation = prepared([client], *steps)
    assert preparation.class_counts == (4, 1)
    rows = preparation.client(client, "float64").train
    assert rows.x[:, 0].tolist() == [30, 40, 50, 60, 70, 60, 60, 60]


def test_preparation_is_the_same_after_json() -> None:
    preparation = prepared(rare(), fp.Standardize(), fp.ExtraPasses())
    again = Preparation.from_json(json.loads(json.dumps(preparation.to_json())))
    assert (again.resampler, again.class_counts, again.notes) == (
        preparation.resampler,
        preparation.class_counts,
        preparation.notes,
    )


def test_model_file_holds_nothing_of_it_and_judges_rows_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = train([*rare(), one_class("lyon", 0)], [fp.SMOTE()])
    result.fitted.save(tmp_path / "model.safetensors")
    monkeypatch.setitem(sys.modules, "imblearn", None)
    loaded = Fitted.load(tmp_path / "model.safetensors")
    assert loaded.preparation.resampler is None
    assert loaded.preparation.notes == {}
    assert result.evaluation is not None
    assert loaded.evaluate(rare()).metrics == result.evaluation.metrics


def one_class(id: str, label: int, test: NDArray[Any] | None = None) -> fp.ClientData:
    x = np.random.default_rng(3).normal(size=(8, 3))
    held_out = None if test is None else fp.Rows(x[: len(test)], test)
    return fp.ClientData(id, fp.Rows(x, np.full(8, label)), held_out)


@each_remedy
def test_result_names_clients_that_lack_a_class(steps: list[Any], tmp_path: Path) -> None:
    clients = [*rare(), one_class("lyon", 0), one_class("nice", 1)]
    result = train(clients, steps, rounds=1, folder=tmp_path)
    assert result.notes == {
        "lyon": 'no training row is of class "1", so there is none to resample or to weigh.',
        "nice": 'no training row is of class "0", so there is none to resample or to weigh.',
    }
    assert fp.Result.load(tmp_path).notes == result.notes
    assert any("lyon" in section and "resample" in section for section in run_sections(result))


def test_class_that_a_client_has_in_test_rows_alone_is_lacking() -> None:
    clients = [*rare(), one_class("lyon", 0, test=np.array([1, 0]))]
    assert list(prepared(clients, fp.OverSample()).notes) == ["lyon"]


def test_nothing_is_said_where_nothing_is_resampled() -> None:
    assert train([*rare(), one_class("lyon", 0)], [], rounds=1).notes == {}


def test_privacy_statement_says_what_the_number_of_rows_tells() -> None:
    told = train(rare(), [fp.UnderSample()], rounds=1).privacy.in_clear
    assert "how many rows each client trains on" in told
    assert "what their number after resampling tells of the balance of a client's labels" in told
    # Of which classes it is, clients say in any case.
    assert any("classes" in each for each in told)
    assert "how many rows each client has" in train(rare(), [], rounds=1).privacy.in_clear


@each_remedy
def test_protection_of_single_records_is_refused_beside_it(steps: list[Any]) -> None:
    private = fp.FedAvg(lr=0.1, local_steps=2, batch_size=4, dp=fp.RecordDP(norm=1.0, noise_multiplier=1.0))
    with pytest.raises(ConfigError, match="protects single records"):
        train(rare(), steps, algorithm=private)


def test_protection_of_clients_is_not() -> None:
    channel = [fp.Clip(1.0), fp.GaussianNoise(multiplier=1.0)]
    result = train(rare(), [fp.SMOTE()], channel=channel, algorithm=fp.FedAvg(**LOCAL, weighting="uniform"))
    assert result.privacy.protections[0].unit == "client"


def test_regression_is_refused() -> None:
    clients = [fp.ClientData("a", fp.Rows(np.ones((4, 1)), np.array([0.5, 1.5, 2.5, 3.5])))]
    with pytest.raises(ConfigError, match="OverSample resamples classes"):
        fp.train(fp.models.Linear(), clients, preprocess=fp.OverSample(), rounds=1)


def test_step_before_one_that_prepares_is_refused() -> None:
    with pytest.raises(ConfigError, match="OverSample resamples prepared training rows; put it at the end"):
        fp.train(fp.models.Logistic(), rare(), preprocess=[fp.OverSample(), fp.Standardize()], rounds=1)


def test_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imblearn", None)
    with pytest.raises(DependencyError, match=r'pip install "fedpact\[imbalance\]"'):
        train(rare(), [fp.SMOTE()])
