"""Claims about whole runs: what decides their bits, what labels they take, and that a job is the same as a call."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression

import fedpact as fp
from fedpact.core.errors import ConfigError
from fedpact.store.modelfile import save_model
from tests.engine.runs import as_tables, outcome, same_bits, two_classes

LOCAL: dict[str, Any] = {"lr": 0.3, "local_epochs": 2, "batch_size": 4}
ALGORITHMS = {
    "FedAvg": fp.FedAvg(**LOCAL),
    "FedAdam": fp.FedAdam(**LOCAL),
    "SCAFFOLD": fp.SCAFFOLD(**LOCAL),
    "Cyclic": fp.Cyclic(**LOCAL),
    "FedProx": fp.FedProx(**LOCAL, mu=0.1),
}


def train(clients: Any = None, **changed: Any) -> fp.Result:
    chosen = {"algorithm": fp.FedAvg(**LOCAL), "rounds": 4, **changed}
    return fp.train(fp.models.Logistic(), clients or two_classes(), **chosen)


def cohort_of(algorithm: Any) -> int | None:
    """Return a cohort, unless the algorithm chooses itself whom it asks."""
    return None if isinstance(algorithm, fp.Cyclic) else 3


@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS)
def test_same_seed_gives_the_same_bits(algorithm: Any) -> None:
    runs = [train(algorithm=algorithm, cohort=cohort_of(algorithm), seed=5) for _ in range(2)]
    assert same_bits(outcome(runs[0]), outcome(runs[1]))


@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS)
def test_another_seed_gives_other_weights(algorithm: Any) -> None:
    assert train(algorithm=algorithm, seed=5).weights != train(algorithm=algorithm, seed=6).weights


def test_seed_decides_who_is_asked() -> None:
    asked = {tuple(train(cohort=2, seed=seed).clients["rounds"]) for seed in range(6)}
    assert len(asked) > 1


def test_initial_weights_are_drawn_from_the_seed() -> None:
    model, still = fp.models.Logistic(init="uniform"), fp.FedAvg(lr=0)
    one, same, other = (
        fp.train(model, two_classes(), algorithm=still, rounds=1, seed=seed).weights for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other


@settings(max_examples=10)
@given(order=st.permutations(range(4)), algorithm=st.sampled_from(list(ALGORITHMS.values())))
def test_order_of_the_clients_in_the_list_does_not_matter(order: list[int], algorithm: Any) -> None:
    clients = as_tables(two_classes())
    chosen = {"algorithm": algorithm, "cohort": cohort_of(algorithm), "preprocess": fp.Standardize()}
    assert same_bits(outcome(train([clients[i] for i in order], **chosen)), outcome(train(clients, **chosen)))


def test_order_of_the_columns_at_a_client_does_not_matter() -> None:
    clients = as_tables(two_classes())
    rows = clients[1].train
    turned = replace(clients[1], train=fp.Rows(rows.x[["r", "p", "q"]], rows.y))
    chosen = {"preprocess": fp.Standardize(), "rounds": 2}
    changed = train([clients[0], turned, *clients[2:]], **chosen)
    assert same_bits(outcome(changed), outcome(train(clients, **chosen)))


def test_iterator_of_clients_and_a_population_are_as_good_as_a_list() -> None:
    expected = outcome(train())
    assert same_bits(outcome(train(iter(two_classes()))), expected)
    assert same_bits(outcome(train(fp.InMemory(two_classes()))), expected)
    assert same_bits(outcome(train(fp.Federation(tuple(two_classes())))), expected)


def test_parts_may_be_given_as_names_and_settings() -> None:
    clients = as_tables(two_classes())
    objects = fp.train(
        fp.models.Logistic(l2=0.1),
        clients,
        algorithm=fp.FedAvg(lr=1.0, optimizer=fp.SGD(momentum=0.5)),
        preprocess=[fp.Standardize()],
        channel=[fp.Clip(0.5)],
        stop=[fp.Target("accuracy", 2.0)],
        rounds=2,
    )
    plain = fp.train(
        {"name": "Logistic", "l2": 0.1},
        clients,
        algorithm={"name": "FedAvg", "lr": 1, "optimizer": {"name": "SGD", "momentum": 0.5}},
        preprocess="Standardize",
        channel={"name": "Clip", "norm": 0.5},
        stop={"name": "Target", "metric": "accuracy", "value": 2},
        rounds=2,
    )
    assert plain.job == objects.job
    assert same_bits(outcome(plain), outcome(objects))


def test_one_part_may_be_given_without_a_list() -> None:
    clients = as_tables(two_classes())
    alone = train(clients, preprocess=fp.Standardize(), channel=fp.Clip(0.5), stop=fp.TimeLimit(1e6))
    listed = train(clients, preprocess=[fp.Standardize()], channel=[fp.Clip(0.5)], stop=[fp.TimeLimit(1e6)])
    assert alone.job == listed.job
    assert alone.weights == listed.weights


JOB = """
name = "lungs"
seed = 3
rounds = 3
cohort = 2
preprocess = ["Standardize"]
channel = [{ name = "Clip", norm = 1 }]
evaluate_every = 2

[data]
table = "rows.csv"
by = "hospital"
label = "ill"
test = 0.25

[model]
name = "Logistic"
l2 = 0.01

[algorithm]
name = "FedProx"
lr = 0.1
local_epochs = 1
batch_size = 8

[[stop]]
name = "NoImprovement"
metric = "log_loss"
patience = 3
"""


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tables = [c.train.x.assign(ill=c.train.y, hospital=c.id) for c in as_tables(two_classes(rows=30))]
    lines = [tables[0].to_csv(index=False), *(t.to_csv(index=False, header=False) for t in tables[1:])]
    (tmp_path / "rows.csv").write_text("".join(lines))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "rows.csv"


def trained_with_objects(table: Path) -> fp.Result:
    return fp.train(
        fp.models.Logistic(l2=0.01),
        fp.by_column(table, "hospital", "ill"),
        algorithm=fp.FedProx(lr=0.1, local_epochs=1, batch_size=8),
        preprocess=[fp.Standardize()],
        channel=[fp.Clip(1.0)],
        stop=[fp.NoImprovement("log_loss", patience=3)],
        rounds=3,
        cohort=2,
        evaluate_every=2,
        seed=3,
        name="lungs",
    )


def test_job_from_a_file_gives_the_bits_and_the_digest_of_the_call_with_objects(table: Path) -> None:
    Path("job.toml").write_text(JOB)
    job = fp.Job.from_toml("job.toml")
    by_file, by_call = fp.run(job), trained_with_objects(table)
    assert same_bits(outcome(by_file), outcome(by_call))
    assert by_file.job.data == job.data
    assert by_file.job.digest == by_call.job.digest


def test_job_with_clients_of_its_own_has_the_digest_of_the_call(table: Path) -> None:
    by_call = trained_with_objects(table)
    settings = json.loads(by_call.job.canonical())
    by_job = fp.run(fp.Job.of(settings), fp.by_column(table, "hospital", "ill"))
    assert by_job.job.digest == by_call.job.digest
    assert same_bits(outcome(by_job), outcome(by_call))


def test_settings_left_at_their_defaults_do_not_change_the_digest() -> None:
    terse = fp.Job.of({"model": "Logistic", "algorithm": {"name": "FedAvg", "lr": 1}, "rounds": 1})
    by_call = fp.train(fp.models.Logistic(), two_classes(), algorithm=fp.FedAvg(lr=1.0), rounds=1)
    assert fp.run(terse, two_classes()).job.digest == by_call.job.digest


def test_numbers_of_numpy_are_numbers() -> None:
    ours = train(algorithm=fp.FedAvg(lr=0.5, local_epochs=2), rounds=2)
    theirs = train(algorithm=fp.FedAvg(lr=np.float32(0.5), local_epochs=np.int64(2)), rounds=np.int64(2))
    assert theirs.job.digest == ours.job.digest
    assert theirs.weights == ours.weights


def test_run_started_by_a_call_is_resumed_by_its_job(tmp_path: Path) -> None:
    train(folder=tmp_path, rounds=2)
    settings = json.loads((tmp_path / "job.json").read_bytes())
    resumed = fp.run(fp.Job.of({**settings, "rounds": 4}), two_classes(), folder=tmp_path, resume=True)
    assert same_bits(outcome(resumed), outcome(train()))


def test_model_trains_by_its_own_algorithm_where_none_is_named() -> None:
    named = {
        model: fp.train(getattr(fp.models, model)(), two_classes(), rounds=1).job.algorithm["name"]
        for model in ("Logistic", "GaussianNB")
    }
    assert named == {"Logistic": "FedAvg", "GaussianNB": "OneShot"}


def test_run_goes_on_exactly_from_the_weights_of_a_model_file(tmp_path: Path) -> None:
    # Steps along the gradient of all rows draw nothing from the seed, so two rounds are one and one more.
    steps = fp.FedAvg(lr=0.5, local_steps=1, batch_size=None)
    first = train(algorithm=steps, rounds=1)
    first.fitted.save(tmp_path / "model.safetensors")
    second = train(algorithm=steps, rounds=1, initial=tmp_path / "model.safetensors")
    assert second.weights == train(algorithm=steps, rounds=2).weights


def test_model_file_is_where_a_run_starts_whatever_the_seed(tmp_path: Path) -> None:
    trained = train(rounds=2)
    trained.save(tmp_path)
    still = train(algorithm=fp.FedAvg(lr=0), rounds=1, initial=str(tmp_path / "model.safetensors"), seed=9)
    assert still.weights == trained.weights


def test_initial_weights_of_a_stranger_are_taken_by_their_names(tmp_path: Path) -> None:
    clients = two_classes()
    x = np.concatenate([c.train.x for c in clients])
    y = np.concatenate([c.train.y for c in clients])
    theirs = LogisticRegression().fit(x, y)
    from fedpact.core.vector import Vector

    arrays = Vector.from_arrays({"coef": theirs.coef_[0], "intercept": np.float64(theirs.intercept_[0])})
    save_model(tmp_path / "theirs.safetensors", arrays, {})
    start = train(algorithm=fp.FedAvg(lr=0), rounds=1, initial=tmp_path / "theirs.safetensors")
    np.testing.assert_allclose(start.predict_proba(x), theirs.predict_proba(x), rtol=1e-12)


def relabelled(labels: Any) -> list[fp.ClientData]:
    def of(rows: fp.Rows | None) -> fp.Rows:
        assert rows is not None
        return fp.Rows(rows.x, np.asarray(labels)[rows.y])

    return [fp.ClientData(c.id, of(c.train), of(c.test)) for c in two_classes()]


@pytest.mark.parametrize(
    "labels",
    [
        ["healthy", "ill"],
        np.array(["healthy", "ill"], object),
        [False, True],
        [1, 2],
        [-5, 7],
        [1.0, 2.0],
        np.array([3, 9], np.uint8),
        np.array([0, 1], np.float32),
        np.array([1, 2], object),
        np.array([False, True], object),
    ],
    ids=repr,
)
def test_two_classes_may_have_any_names_and_predictions_are_these_names(labels: Any) -> None:
    expected = train()
    result = train(relabelled(labels))
    assert result.weights == expected.weights
    x = np.concatenate([c.train.x for c in two_classes()])
    predicted = result.predict(x)
    assert (predicted == np.asarray(labels)[expected.predict(x)]).all()
    assert predicted.dtype.kind in ("U" if isinstance(labels[0], str) else "i")


def test_classes_are_in_the_order_of_their_names_whoever_has_them() -> None:
    clients = relabelled(["b", "a"])
    # The first client has one of the two classes only.
    one = clients[0].train
    few = fp.ClientData("a", one.take(np.flatnonzero(one.y == "b")), clients[0].test)
    result = train([few, *clients[1:]])
    assert result.fitted.preparation.labels.classes == ("a", "b")


def iris(labels: Any = (0, 1, 2)) -> list[fp.ClientData]:
    x, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], np.asarray(labels)[y[order]]
    parts = [slice(0, 50), slice(50, 80), slice(80, 150)]
    return [
        fp.ClientData(str(i), fp.Rows(x[part][10:], y[part][10:]), fp.Rows(x[part][:10], y[part][:10]))
        for i, part in enumerate(parts)
    ]


@pytest.mark.parametrize("labels", [(0, 1, 2), (10, 20, 30), ("setosa", "versicolor", "virginica")])
def test_three_classes_by_newton_are_those_of_scikit_learn_on_the_pooled_rows(labels: Any) -> None:
    clients = iris(labels)
    x = np.concatenate([c.train.x for c in clients])
    y = np.concatenate([c.train.y for c in clients])
    result = fp.train(fp.models.Softmax(l2=0.01), clients, algorithm=fp.Newton(), rounds=50)
    theirs = LogisticRegression(C=1 / (0.01 * len(x)), tol=1e-10, max_iter=10_000).fit(x, y)
    np.testing.assert_allclose(result.predict_proba(x), theirs.predict_proba(x), atol=1e-6)
    assert (result.predict(x) == theirs.predict(x)).all()
    assert result.stopped == "the algorithm has converged"


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.float32, np.float64, object])
def test_whole_numbers_are_numbers_to_a_linear_model(dtype: Any) -> None:
    clients = iris(np.array([1, 5, 6], dtype))
    x = np.concatenate([c.train.x for c in clients])
    y = np.concatenate([c.train.y for c in clients]).astype(np.float64)
    result = fp.train(fp.models.Linear(), clients, algorithm=fp.Newton(), rounds=10)
    theirs = LinearRegression().fit(x, y)
    np.testing.assert_allclose(result.predict(x), theirs.predict(x), atol=1e-9)
    assert result.evaluation is not None
    assert {"rmse", "mae", "r2"} <= result.evaluation.metrics.keys()


def test_target_ends_the_run_in_the_round_that_reaches_it() -> None:
    free = train(rounds=8).history["accuracy"]
    target = float(free.iloc[3:].max())
    first = int(free[free >= target].index[0])
    stopped = train(rounds=8, stop=fp.Target("accuracy", target))
    assert len(stopped.history) == first
    assert stopped.stopped == f"accuracy reached {target:.4g} (target {target:g})"


def test_time_limit_ends_the_run() -> None:
    assert len(train(rounds=1000, stop=fp.TimeLimit(1e-9)).history) == 1


def test_first_of_several_rules_ends_the_run() -> None:
    rules = [fp.Target("accuracy", 2.0), fp.TimeLimit(1e-9), fp.NoImprovement("log_loss")]
    assert "limit 1e-09 s" in train(stop=rules).stopped


@pytest.mark.parametrize("evaluate_every", [1, 2, 3, 0])
def test_model_is_evaluated_every_so_many_rounds_and_at_the_end(evaluate_every: int) -> None:
    evaluated = train(rounds=7, evaluate_every=evaluate_every).history["accuracy"].notna()
    expected = {n for n in range(1, 8) if evaluate_every and n % evaluate_every == 0} | {7}
    assert set(evaluated.index[evaluated]) == expected


def test_how_often_the_model_is_evaluated_does_not_change_it() -> None:
    assert train(evaluate_every=1).weights == train(evaluate_every=3).weights


def test_clients_without_test_rows_are_trained_on_and_the_run_has_no_evaluation() -> None:
    clients = [fp.ClientData(c.id, c.train) for c in two_classes()]
    result = train(clients)
    assert result.evaluation is None
    assert result.weights == train().weights
    assert "accuracy" not in result.history


def test_metric_that_nobody_can_measure_is_no_reason_to_wait(tmp_path: Path) -> None:
    clients = [fp.ClientData(c.id, c.train) for c in two_classes()]
    with pytest.raises(
        ConfigError, match="accuracy is looked at after every round, but no client holds rows aside"
    ):
        train(clients, stop=fp.Target("accuracy", 0.9))
    with pytest.raises(
        ConfigError, match="log_loss is looked at after every round, but no client holds rows"
    ):
        train(clients, keep=fp.Keep(best="log_loss"), folder=tmp_path)
    with pytest.raises(ConfigError, match="accuracy is looked at after every round, but evaluate_every=0"):
        train(stop=fp.NoImprovement("accuracy"), evaluate_every=0)
    with pytest.raises(
        ConfigError, match=r"evaluate_every=5 evaluates after the last one only; .* between 1 and 4"
    ):
        train(stop=fp.NoImprovement("accuracy"), evaluate_every=5)
    with pytest.raises(ConfigError, match="nowhere to keep checkpoints"):
        train(keep=fp.Keep(last=1))
    with pytest.raises(ConfigError, match='"rmse" is not a metric of a binary evaluation'):
        train(stop=fp.Target("rmse", 0.1))
    assert len(train(clients, stop=fp.Target("train_loss", 1e-9)).history) == 4


def test_on_round_sees_every_record_as_it_is_made() -> None:
    seen: list[Any] = []
    result = train(on_round=lambda record: seen.append(dict(record)), rounds=3)
    assert [record.pop("round") for record in seen] == [1, 2, 3]
    assert seen == result.history.to_dict(orient="records")
