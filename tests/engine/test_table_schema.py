"""A job's table schema: compared before anything is computed, and kept to in training, tests and predictions."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import fedpact as fp
from fedpact.core.errors import ConfigError, DataError
from fedpact.core.job import Job
from fedpact.core.rows import ClientData, Rows
from fedpact.data.declared import as_declared
from fedpact.engine.train import complete
from fedpact.report.toml import job_toml

WANTED = fp.TableSchema.from_toml("""
[[column]]
name = "patient"
kind = "id"

[[column]]
name = "glucose"
kind = "numeric"
unit = "mmol/L"
substance = "glucose"
range = [0, inf]

[[column]]
name = "sex"
kind = "category"
categories = [0, 1, 9]

[[column]]
name = "ill"
kind = "label"
""")
MILLIGRAMS = WANTED.with_column("glucose", unit="mg/dL")
# Of glucose, C6H12O6: 180.156 g/mol, and 10 dL are a litre.
MG_PER_DL = 18.0156
SETTINGS = {
    "preprocess": [fp.Impute("mean", columns=["glucose"]), fp.Standardize(), fp.OneHot()],
    "algorithm": fp.Newton(),
    "rounds": 4,
    "progress": False,
}


def table(rows, seed, factor=1.0):
    rng = np.random.default_rng(seed)
    glucose = rng.normal(6, 1.5, rows)
    ill = glucose + rng.normal(0, 1, rows) > 7
    sexes = rng.choice([0, 1, 9], rows)
    return pd.DataFrame(
        {"patient": np.arange(rows), "glucose": glucose * factor, "sex": sexes, "ill": ill.astype(int)}
    )


def hospitals(factor=MG_PER_DL, **options):
    return fp.clients({"lyon": table(120, 1, factor), "nice": table(80, 2)}, "ill", **options)


def weights(result):
    return result.weights.buffer.view(np.float64)


def test_clients_convert_their_own_units_in_training_rows_and_in_test_rows():
    found = fp.train(
        fp.models.Logistic(), hospitals(schemas={"lyon": MILLIGRAMS}), table_schema=WANTED, **SETTINGS
    )
    same = fp.train(fp.models.Logistic(), hospitals(factor=1.0), table_schema=WANTED, **SETTINGS)
    np.testing.assert_allclose(weights(found), weights(same), rtol=1e-9)
    assert found.evaluation.metrics["log_loss"] == pytest.approx(
        same.evaluation.metrics["log_loss"], rel=1e-6
    )
    raw = fp.train(fp.models.Logistic(), hospitals(), table_schema=WANTED, **SETTINGS)
    assert np.abs(weights(raw) - weights(same)).max() > 0.1


def test_ids_are_no_features_and_categories_may_be_written_as_numbers():
    result = fp.train(fp.models.Logistic(), hospitals(1.0), table_schema=WANTED, **SETTINGS)
    assert result.fitted.preparation.schema.features == ("glucose", "sex=0", "sex=1", "sex=9")


def test_a_saved_model_predicts_rows_as_the_schema_declares_them(tmp_path):
    result = fp.train(
        fp.models.Logistic(), hospitals(schemas={"lyon": MILLIGRAMS}), table_schema=WANTED, **SETTINGS
    )
    result.save(tmp_path)
    rows = table(50, 3).drop(columns="ill")
    loaded = fp.Fitted.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.predict(rows), result.predict(rows))
    assert (loaded.predict(rows) == table(50, 3)["ill"]).mean() > 0.7


def test_conflicts_are_told_in_one_table_before_any_client_trains():
    lacking = table(80, 2).drop(columns="sex")
    clients = fp.clients({"lyon": table(120, 1, MG_PER_DL), "nice": lacking}, "ill")
    asked = []
    with pytest.raises(DataError) as caught:
        fp.train(
            fp.models.Logistic(),
            clients,
            table_schema=WANTED.with_column("glucose", range=(0, 30)),
            on_round=asked.append,
            **SETTINGS,
        )
    assert not asked
    lines = [" ".join(line.split()) for line in str(caught.value).splitlines()]
    assert "client column what differs suggested mend" in lines
    assert any(line.startswith("nice sex is missing add it") for line in lines)
    assert any(line.startswith("lyon glucose has values outside 0 to 30 look at the unit") for line in lines)


def test_what_clients_know_of_their_tables_is_compared_without_a_schema_of_the_job_too():
    clients = hospitals(1.0, schemas={"lyon": MILLIGRAMS, "nice": WANTED})
    with pytest.raises(DataError, match=r"glucose .*mg/dL"):
        fp.train(fp.models.Logistic(), clients, **SETTINGS)


def test_a_job_file_names_the_schema_and_what_each_client_knows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table(120, 1, MG_PER_DL).to_csv("lyon.csv", index=False)
    table(80, 2).to_csv("nice.csv", index=False)
    (tmp_path / "wanted.toml").write_text(WANTED.to_toml())
    (tmp_path / "lyon.toml").write_text(MILLIGRAMS.to_toml())
    (tmp_path / "job.toml").write_text("""
table_schema = "wanted.toml"
rounds = 4
preprocess = ["Standardize", "OneHot"]
model = "Logistic"
algorithm = "Newton"
[data]
label = "ill"
clients = { lyon = "lyon.csv", nice = "nice.csv" }
schemas = { lyon = "lyon.toml" }
""")
    job = Job.from_toml("job.toml")
    result = fp.run(job, progress=False)
    own = hospitals(schemas={"lyon": MILLIGRAMS})
    settings = {**SETTINGS, "preprocess": [fp.Standardize(), fp.OneHot()]}
    same = fp.train(fp.models.Logistic(), own, table_schema="wanted.toml", **settings)
    np.testing.assert_array_equal(weights(result), weights(same))
    assert result.job.table_schema == tuple(WANTED.to_json())
    # What a client knows of its own table is its own, and no part of what is approved.
    assert result.job.digest == replace_schemas(result.job).digest == same.job.digest
    assert complete(Job.from_toml(written(result.job, tmp_path))).digest == result.job.digest


def replace_schemas(job):
    return job.model_copy(update={"data": {**job.data, "schemas": {"nice": "nice.toml"}}})


def written(job, folder):
    (folder / "again.toml").write_text(job_toml(job))
    return folder / "again.toml"


def test_a_resumed_run_converts_as_before(tmp_path):
    def train(rounds, **options):
        return fp.train(
            fp.models.Logistic(),
            hospitals(schemas={"lyon": MILLIGRAMS}),
            table_schema=WANTED,
            **{**SETTINGS, "rounds": rounds, **options},
        )

    train(2, folder=tmp_path)
    resumed = train(4, folder=tmp_path, resume=True)
    np.testing.assert_array_equal(weights(resumed), weights(train(4)))


def test_a_description_knows_what_the_federation_does():
    own = {"lyon": MILLIGRAMS, "nice": WANTED}
    summary = fp.describe(hospitals(schemas=own), schema=WANTED, label="ill")
    same = fp.describe(hospitals(1.0), schema=WANTED, label="ill")
    means = [found.table.loc["glucose", "mean"] for found in (summary, same)]
    assert means[0] == pytest.approx(means[1], rel=1e-9)


def test_images_beside_a_schema_stay_as_they_are():
    rng = np.random.default_rng(0)
    rows = Rows(rng.normal(size=(6, 2, 2)), np.array([0, 1] * 3))
    data = ClientData("a", rows)
    kept = as_declared(fp.TableSchema.infer(rows), {}, data)
    assert kept.train is rows


def test_a_schema_of_no_client_is_refused():
    with pytest.raises(
        DataError, match=r'a schema for "lion", and there is no such client\. Did you mean "lyon"'
    ):
        hospitals(schemas={"lion": MILLIGRAMS})
    clients = hospitals(schemas={"lyon": MILLIGRAMS})
    assert dict(clients[:1].schemas) == {"lyon": MILLIGRAMS}
    assert not clients[1:].schemas
    with pytest.raises(DataError, match="no such client"):
        replace(clients, clients=clients.clients[1:])


@pytest.mark.parametrize(
    ("schema", "error", "message"),
    [
        ("elsewhere.toml", DataError, "there is no file"),
        ([{"name": "age", "kind": "numerical"}], ConfigError, 'kind is "numerical".*"numeric"'),
    ],
)
def test_what_is_no_schema_is_refused(schema, error, message):
    job = Job.of({"model": "Logistic", "algorithm": "Newton", "table_schema": schema})
    with pytest.raises(error, match=message):
        fp.run(job, hospitals(1.0), progress=False)


def test_the_privacy_statement_says_that_columns_were_compared():
    result = fp.train(fp.models.Logistic(), hospitals(1.0), table_schema=WANTED, **SETTINGS)
    told = "the units of each client's columns, and what its own schema says of ranges and categories"
    assert told in result.privacy.in_clear
    without = fp.train(fp.models.Logistic(), hospitals(1.0), **SETTINGS)
    assert told not in without.privacy.in_clear
