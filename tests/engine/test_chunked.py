"""Clients that are read in chunks: what is computed of them has the bits of the same rows in memory."""

import errno
import gc
import json
import mmap
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fedpact as fp
from fedpact.core.errors import ConfigError, DataError
from fedpact.core.job import Job
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.data.read import client
from fedpact.data.spool import ArrayFile
from fedpact.engine.in_process import InProcess
from fedpact.engine.population import InMemory, Prepared
from fedpact.engine.preparation import Preparation
from fedpact.engine.preparing import prepare
from fedpact.engine.sources import load_clients
from fedpact.engine.work import Rules
from fedpact.engine.workers import Workers
from tests.engine.runs import same_bits

FILL = (fp.Impute("median"), fp.Impute("most_frequent"))
STEPS: dict[str, tuple[Any, ...]] = {
    "means": (fp.Impute("mean", columns=["age"], indicator=True), FILL[1], fp.Standardize(), fp.OneHot()),
    "medians": (*FILL, fp.MinMax(), fp.Ordinal()),
    "quantiles": (
        *FILL,
        fp.Robust(columns=["age"]),
        fp.Bin(columns=["dose"], n_bins=3),
        fp.OneHot(min_count=3),
    ),
    "powers": (*FILL, fp.YeoJohnson(columns=["age"]), fp.QuantileTransform(columns=["dose"]), fp.Ordinal()),
    "range": (*FILL, fp.MaxAbs(), fp.ClipRange(quantiles=(0.1, 0.9)), fp.Ordinal()),
    "rare": (*FILL, fp.MergeRare(min_count=4), fp.OneHot(unknown="ignore")),
    "regressions": (fp.IterativeImpute(rounds=2), fp.Impute("most_frequent"), fp.Ordinal()),
    "products": (*FILL, fp.Ordinal(), fp.DropCorrelated(0.95), fp.LowVariance(), fp.PCA(n_components=2)),
    "directions": (*FILL, fp.Ordinal(), fp.PCA(n_components=1, solver="randomized")),
    "scores": (*FILL, fp.Ordinal(), fp.SelectBest("f_classif", k=3)),
    "information": (*FILL, fp.Ordinal(), fp.SelectBest("mutual_information", k=2)),
    "words": (*FILL, fp.TfIdf(("note",), vocabulary="agreed"), fp.OneHot()),
    "hashes": (*FILL, fp.HashText(("note",), n_features=4), fp.OneHot()),
    "cleaned": (
        fp.Clean(ranges={"age": (45, None)}, drop=True, flag=True),
        *FILL,
        fp.Standardize(),
        fp.OneHot(),
    ),
}


def stays(rows: int = 36, seed: int = 0) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": np.where(draw.random(rows) < 0.2, np.nan, draw.normal(60, 10, rows)),
            "dose": draw.integers(0, 9, rows),
            "ward": pd.Series(draw.choice(["a", "b", "c"], rows), dtype="str").mask(draw.random(rows) < 0.2),
            "note": draw.choice(["all is well", "not well", "sent home", "all gone home"], rows),
            "ill": draw.integers(0, 2, rows),
        }
    )


def in_memory(chunked: ClientData) -> ClientData:
    """Return a client with the same rows, all of them in memory."""

    def gathered(rows: Any) -> Rows:
        chunks = list(rows.chunks())
        x = pd.concat([chunk.x for chunk in chunks], ignore_index=True)
        return Rows(x, np.concatenate([chunk.y for chunk in chunks]))

    test = None if chunked.test is None else gathered(chunked.test)
    return ClientData(chunked.id, gathered(chunked.train), test)


def pair(chunk_rows: int, seed: int = 0) -> list[ClientData]:
    return [client(id, stays(seed=seed + i), "ill", chunk_rows=chunk_rows) for i, id in enumerate(("a", "b"))]


def preparation(clients: list[ClientData], steps: Any) -> Preparation:
    rules = Rules(fatal=(DataError,))
    return prepare(fp.models.Logistic(), steps, InMemory(clients), InProcess(), rules, Seed.of(0))


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_steps_are_fitted_and_applied_to_the_bits_of_the_rows_in_memory(steps):
    chunked = pair(chunk_rows=13)
    whole = list(map(in_memory, chunked))
    fitted, expected = preparation(chunked, steps), preparation(whole, steps)
    assert json.dumps(fitted.to_json()) == json.dumps(expected.to_json())
    for one, other in zip(chunked, whole, strict=True):
        ours, theirs = fitted.client(one, "float64"), expected.client(other, "float64")
        for rows, others in ((ours.train, theirs.train), (ours.test, theirs.test)):
            assert np.array_equal(rows.x, others.x)
            assert np.array_equal(rows.y, others.y)
            assert (rows.x.dtype, rows.y.dtype) == (others.x.dtype, others.y.dtype)


@settings(max_examples=5, deadline=None)
@given(chunk_rows=st.integers(2, 40), seed=st.integers(0, 99))
def test_no_size_of_chunks_changes_a_bit_of_what_is_fitted(chunk_rows, seed):
    chunked = pair(chunk_rows, seed)
    fitted = preparation(chunked, STEPS["means"])
    assert json.dumps(fitted.to_json()) == json.dumps(
        preparation(list(map(in_memory, chunked)), STEPS["means"]).to_json()
    )


@pytest.mark.parametrize("options", [{}, {"exact": False}, {"channel": [fp.SecureSum()]}], ids=str)
def test_a_description_is_that_of_the_rows_in_memory(options):
    table = stays().assign(seen=pd.date_range("2020", periods=36).strftime("%Y-%m-%d"), never=np.nan)
    chunked = [client(id, table, "ill", chunk_rows=13) for id in ("a", "b", "c")]
    inferred = fp.TableSchema.infer(Rows(table.drop(columns="ill"), table["ill"].to_numpy()), "ill")
    wanted = inferred.with_column("age", unit="h", range=(0, 120))
    own = {"a": inferred.with_column("age", unit="min")}
    found = [
        fp.describe(clients, schema=wanted, own=own, label="ill", **options).to_json()
        for clients in (chunked, list(map(in_memory, chunked)))
    ]
    assert json.dumps(found[0]) == json.dumps(found[1])


def test_schemas_that_differ_are_told_alike():
    table = stays()
    said = []
    for chunk_rows in (7, None):
        clients = [
            client("a", table, "ill", chunk_rows=chunk_rows, test=0),
            client("b", table.assign(dose="high", ward=3.5), "ill", chunk_rows=chunk_rows, test=0),
        ]
        wanted = fp.TableSchema.infer(Rows(table)).with_column("age", range=(50, 70))
        for schema in (None, wanted):
            with pytest.raises(DataError) as refused:
                fp.compare_schemas(clients, schema, label="ill")
            said.append(str(refused.value))
    assert said[:2] == said[2:]


@pytest.mark.parametrize("labels", [[0, 1, 2], ["yes", "no"], [0.5, 1.0, 2.25], list(range(1500))], ids=len)
def test_labels_are_told_as_of_the_rows_in_memory(labels):
    tables = [stays(1600, seed).assign(ill=np.resize(np.array(labels), 1600)) for seed in (0, 1)]
    chunked = [client(str(i), table, "ill", chunk_rows=100) for i, table in enumerate(tables)]
    model = fp.models.Linear() if len(labels) > 1000 or 0.5 in labels else fp.models.Logistic()
    found = [
        prepare(
            model, (fp.Impute("mean"), fp.OneHot()), InMemory(clients), InProcess(), Rules(), Seed.of(0)
        ).labels
        for clients in (chunked, list(map(in_memory, chunked)))
    ]
    assert found[0] == found[1]


def trained(clients: Any, engine: Any = "in_process", **options: Any) -> Any:
    return fp.train(
        fp.models.Logistic(),
        clients,
        preprocess=list(STEPS["means"]) if "preprocess" not in options else options.pop("preprocess"),
        algorithm=fp.FedAvg(local_epochs=1, batch_size=8, lr=0.1),
        rounds=2,
        engine=engine,
        progress=False,
        **options,
    )


def without_note(chunk_rows: int) -> list[ClientData]:
    return [
        client(id, stays(seed=i).drop(columns="note"), "ill", chunk_rows=chunk_rows)
        for i, id in enumerate("abc")
    ]


def test_a_run_ends_with_the_model_of_the_rows_in_memory():
    chunked = without_note(10)
    ours, theirs = trained(chunked), trained(list(map(in_memory, chunked)))
    assert same_bits(ours.model, theirs.model)
    assert ours.evaluation.metrics == theirs.evaluation.metrics


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_run_in_worker_processes_ends_with_the_same_model(start, tmp_path):
    clients = []
    for i, id in enumerate("abc"):
        stays(seed=i).drop(columns="note").to_csv(tmp_path / f"{id}.csv", index=False)
        clients.append(client(id, tmp_path / f"{id}.csv", "ill", chunk_rows=10))
    engine = Workers(2, start=start)
    try:
        assert same_bits(trained(clients, engine).model, trained(clients).model)
    finally:
        engine.close()


def test_a_run_of_a_job_file_reads_in_chunks(tmp_path):
    table = stays().drop(columns="note")
    table.to_csv(tmp_path / "a.csv", index=False)
    data = {"clients": {"a": str(tmp_path / "a.csv")}, "label": "ill", "chunk_rows": 9}
    job = Job.of({"model": {"name": "Logistic"}, "algorithm": {"name": "FedAvg"}, "data": data, "rounds": 1})
    federation = load_clients(job)
    with pytest.raises(DataError, match="is read in chunks"):
        federation["a"].train.x  # noqa: B018
    data = {"table": str(tmp_path / "a.csv"), "by": "ward", "label": "ill", "chunk_rows": 9}
    with pytest.raises(ConfigError, match='no setting "chunk_rows"'):
        load_clients(job.model_copy(update={"data": data}))


def test_a_declared_schema_and_class_weights_and_resampling_are_those_of_the_rows_in_memory():
    table = stays().drop(columns="note")
    schema = fp.TableSchema.infer(Rows(table.drop(columns="ill"), table["ill"].to_numpy()), "ill")
    chunked = without_note(11)
    options = {"table_schema": schema, "preprocess": [*STEPS["means"], fp.OverSample()]}
    ours, theirs = (trained(clients, **options) for clients in (chunked, list(map(in_memory, chunked))))
    assert same_bits(ours.model, theirs.model)


@pytest.mark.parametrize(
    "step", [fp.TargetEncode(), fp.DropDuplicates()], ids=lambda step: type(step).__name__
)
def test_a_step_that_needs_all_rows_at_once_says_so(step):
    with pytest.raises(
        ConfigError, match=f"{type(step).__name__} needs all rows of a client at once.* chunk_rows"
    ):
        trained(without_note(10), preprocess=[step, *STEPS["means"]])


def test_more_categories_than_can_be_are_refused_over_all_chunks():
    table = pd.DataFrame({"name": [f"n{i}" for i in range(10_050)], "ill": np.resize([0, 1], 10_050)})
    with pytest.raises(
        DataError, match=r'client "a": column "name" has 10,0.. different values, and categories are'
    ):
        preparation([client("a", table, "ill", test=0, chunk_rows=2000)], (fp.OneHot(),))


def test_a_bad_value_is_named_by_its_row_among_all_training_rows():
    table = stays().drop(columns="note")
    table.loc[30, "age"] = np.inf
    with pytest.raises(DataError, match=r'client "a".*"age" is infinite in 1 row.*first in row 31;'):
        preparation([client("a", table, "ill", test=0, chunk_rows=10)], STEPS["means"])


def test_a_client_is_named_once_where_its_categories_cannot_be_told():
    table = stays().drop(columns="note")
    table.loc[30, "age"] = np.inf
    with pytest.raises(DataError, match=r'^client "a": column "age" is infinite in 1 row.*first in row 31;'):
        preparation([client("a", table, "ill", test=0, chunk_rows=10)], (fp.OneHot(),))


def test_prepared_rows_are_mapped_and_leave_no_file_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    chunked = without_note(10)
    made = preparation(chunked, STEPS["means"]).client(chunked[0], "float32").train
    assert made.x.dtype == np.float32
    base = made.x.base
    assert isinstance(base.base.obj if isinstance(base.base, memoryview) else base.base, mmap.mmap)
    # Torch shares memory with arrays that may be written to, and copies others.
    assert made.x.flags.writeable
    assert list(tmp_path.iterdir()) == []


def test_rows_are_prepared_once_and_counted_without_being_read():
    chunked = without_note(10)
    asked: list[str] = []

    def noted(data: ClientData) -> ClientData:
        asked.append(data.id)
        return fitted.client(data, "float64")

    fitted = preparation(chunked, STEPS["means"])
    population = Prepared(InMemory(chunked), noted)
    assert population.sizes(["a", "b", "c"]) == [len(each.train) for each in chunked]
    assert list(population.tested(0)) == ["a", "b", "c"]
    assert asked == []
    population.ahead()
    assert population.load("a") is population.load("a")
    assert asked == ["a", "b", "c"]


def test_a_full_disk_is_said_in_a_sentence(monkeypatch, tmp_path):
    stays().to_csv(tmp_path / "t.csv", index=False)

    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(DataError, match=r"No space left on device\. Make room there, or name .* TMPDIR"):
        client("lyon", Path(tmp_path / "t.csv"), "ill", chunk_rows=10)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="takes a file that is always full")
def test_a_disk_that_is_full_at_the_end_is_said_once(monkeypatch):
    unheard: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unheard.append)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: open("/dev/full", "wb"))  # noqa: SIM115
    array = ArrayFile()
    array.add(np.ones((3, 2)))
    with pytest.raises(DataError, match="No space left on device"):
        array.mapped()
    del array
    gc.collect()
    assert unheard == []
