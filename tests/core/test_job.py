"""Jobs: one canonical text for one computation, and a sentence for each mistake."""

import json
import subprocess
import sys

import numpy as np
import pytest

from fedpact.core.errors import ConfigError
from fedpact.core.job import Job, canonical_json

SETTINGS = {
    "name": "heart",
    "seed": 7,
    "data": {"name": "heart"},
    "model": {"name": "Logistic", "l2": 0.01},
    "algorithm": {"name": "FedAvg", "lr": 0.1, "local_epochs": 1},
    "preprocess": [{"name": "Impute", "strategy": "median"}, {"name": "Standardize"}],
    "channel": [{"name": "Clip", "norm": 1.0}],
    "rounds": 5,
    "cohort": 0.5,
    "quorum": 2,
    "timeout_s": 30.0,
    "update_range": 1024.0,
    "stop": [{"name": "Target", "metric": "accuracy", "value": 0.85}],
    "evaluate_every": 2,
    "initial": "start.safetensors",
    "initial_sha256": "a" * 64,
}
CHANGED = {
    "name": "lung",
    "seed": 8,
    "data": {"name": "lung"},
    "model": {"name": "Logistic", "l2": 0.02},
    "algorithm": {"name": "FedAvg", "lr": 0.2, "local_epochs": 1},
    "preprocess": [{"name": "Standardize"}, {"name": "Impute", "strategy": "median"}],
    "channel": [],
    "rounds": 6,
    "table_schema": [{"name": "age", "kind": "numeric"}],
    "cohort": 1,
    "sampling": "poisson",
    "quorum": 0.5,
    "timeout_s": None,
    "update_range": 2048.0,
    "stop": [],
    "evaluate_every": 1,
    "evaluate_cohort": 20,
    "initial": "elsewhere.safetensors",
    "initial_sha256": "b" * 64,
}
# This must never change: owners have approved jobs by it.
GOLDEN_DIGEST = "074b2fa192b85a42588cc2fd631a23869295154b6fe89361d7a693f4c231988d"


def reversed_keys(data):
    if isinstance(data, dict):
        return {key: reversed_keys(data[key]) for key in reversed(data)}
    return [reversed_keys(item) for item in data] if isinstance(data, list) else data


def test_a_jobs_digest_is_the_one_it_always_was():
    assert Job.of(SETTINGS).digest == GOLDEN_DIGEST


@pytest.mark.parametrize(
    "setting", [{"sampling": "fixed"}, {"evaluate_cohort": None}, {"table_schema": None}]
)
def test_a_setting_that_was_added_later_says_nothing_at_its_default(setting):
    assert Job.of({**SETTINGS, **setting}).digest == GOLDEN_DIGEST
    (name,) = setting
    assert f'"{name}"' not in Job.of(SETTINGS).canonical()


def test_a_jobs_digest_is_the_same_in_another_process():
    code = f"from fedpact.core.job import Job; print(Job.of({SETTINGS!r}).digest)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == GOLDEN_DIGEST


def test_canonical_json_does_not_depend_on_the_order_of_keys():
    assert Job.of(reversed_keys(SETTINGS)).canonical() == Job.of(SETTINGS).canonical()


def test_canonical_json_is_sorted_and_has_no_spaces():
    text = Job.of({"model": "Logistic", "algorithm": "FedAvg", "name": "Herz"}).canonical()
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    assert text.startswith('{"algorithm":{"name":"FedAvg"},"channel":[],"cohort":null,')


def test_canonical_json_is_utf_8_and_not_escaped():
    assert '"name":"心脏"' in Job.of({**SETTINGS, "name": "心脏"}).canonical()


@pytest.mark.parametrize("field", Job.model_fields)
def test_the_digest_changes_with_every_field_but_the_place_of_a_model_file(field):
    changed = Job.of({**SETTINGS, field: CHANGED[field]}).digest != Job.of(SETTINGS).digest
    assert changed == (field != "initial")


@pytest.mark.parametrize("field", Job.model_fields)
def test_the_lineage_does_not_change_with_name_length_and_stop_rules(field):
    changed = Job.of({**SETTINGS, field: CHANGED[field]}).lineage != Job.of(SETTINGS).lineage
    free = {"name", "rounds", "stop", "evaluate_every", "evaluate_cohort", "initial"}
    assert changed == (field not in free)


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (
            {"clients": {"a": "a.csv"}, "label": "ill"},
            {"clients": {"b": "b.csv", "c": "c.csv"}, "label": "ill"},
        ),
        ({"table": "all.csv", "by": "site", "label": "ill"}, {"clients": {"a": "a.csv"}, "label": "ill"}),
        ({"name": "heart", "variant": "full", "seed": 1}, {"name": "heart", "variant": "full", "test": 0.5}),
        ({"clients": {"a": "a.csv"}, "label": "ill", "test": 0.5}, {"label": "ill"}),
    ],
)
def test_the_digest_does_not_say_where_rows_are_or_how_they_are_split(here, there):
    assert Job.of({**SETTINGS, "data": here}).digest == Job.of({**SETTINGS, "data": there}).digest


@pytest.mark.parametrize("other", [{"label": "hiv"}, {"label": "ill", "columns": ["age"]}, {"name": "heart"}])
def test_the_digest_says_what_is_read(other):
    files = {"clients": {"a": "a.csv"}}
    read = Job.of({**SETTINGS, "data": {**files, "label": "ill"}})
    assert (
        read.digest != Job.of({**SETTINGS, "data": other if "name" in other else {**files, **other}}).digest
    )


def test_a_whole_number_and_a_share_are_different_cohorts():
    one, all_ = Job.of({**SETTINGS, "cohort": 1}), Job.of({**SETTINGS, "cohort": 1.0})
    assert (type(one.cohort), type(all_.cohort)) == (int, float)
    assert one.digest != all_.digest


def test_parts_may_be_given_by_name_and_lists_of_one_without_a_list():
    job = Job.of(
        {
            "model": "Logistic",
            "algorithm": "FedAvg",
            "preprocess": "Standardize",
            "stop": {"name": "TimeLimit"},
        }
    )
    assert job.model == {"name": "Logistic"}
    assert job.preprocess == ({"name": "Standardize"},)
    assert job.stop == ({"name": "TimeLimit"},)


def test_numpys_numbers_are_plain_ones():
    plain = Job.of(SETTINGS)
    job = Job.of(
        {
            **SETTINGS,
            "seed": np.int64(7),
            "rounds": np.int32(5),
            "cohort": np.float64(0.5),
            "model": {"name": "Logistic", "l2": np.float64(0.01)},
        }
    )
    assert job.digest == plain.digest
    assert Job.of({**SETTINGS, "cohort": np.int64(3)}).cohort == 3


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"algoritm": "FedAvg"}, r'a job has no setting "algoritm"\. Did you mean "algorithm"\?'),
        ({"rounds": 0}, r'job setting "rounds" is 0: Input should be greater than or equal to 1'),
        ({"rounds": "many"}, "job setting \"rounds\" is 'many'"),
        ({"rounds": 2.5}, 'job setting "rounds" is 2.5'),
        ({"cohort": 0}, 'job setting "cohort" is 0: must be a whole number of clients, or a share'),
        ({"cohort": 1.5}, 'job setting "cohort" is 1.5: must be'),
        ({"cohort": -0.5}, 'job setting "cohort" is -0.5: must be'),
        ({"quorum": 0.0}, 'job setting "quorum" is 0.0: must be'),
        ({"cohort": "half"}, "job setting \"cohort\" is 'half': must be"),
        ({"cohort": True}, 'job setting "cohort" is True: must be'),
        ({"quorum": None}, 'job setting "quorum.*" is None'),
        ({"timeout_s": 0}, 'job setting "timeout_s" is 0'),
        ({"update_range": 0}, 'job setting "update_range" is 0'),
        ({"update_range": 1e300}, r'job setting "update_range" is 1e\+300'),
        ({"evaluate_every": -1}, 'job setting "evaluate_every" is -1'),
        ({"model": 3}, 'job setting "model" is 3'),
        ({"stop": [3]}, 'job setting "stop.0" is 3'),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_job_is_said(changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Job.of({**SETTINGS, **changes})


def test_all_mistakes_are_named_at_once():
    with pytest.raises(ConfigError) as error:
        Job.of({"modle": "Logistic", "rounds": 0})
    text = str(error.value)
    for part in (
        '"modle". Did you mean "model"?',
        'the job has no "model"',
        'no "algorithm"',
        '"rounds" is 0',
    ):
        assert part in text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=repr)
@pytest.mark.parametrize("field", ["timeout_s", "update_range", "cohort", "quorum"])
def test_numbers_that_json_cannot_hold_are_refused(field, value):
    with pytest.raises(ConfigError, match=f'job setting "{field}'):
        Job.of({**SETTINGS, field: value})


@pytest.mark.parametrize(
    "spec", [{"name": "L", "l2": float("nan")}, {"name": "L", "inner": {"eps": [1.0, float("inf")]}}]
)
def test_numbers_that_json_cannot_hold_are_refused_within_parts(spec):
    for field, value in {
        "model": spec,
        "algorithm": spec,
        "channel": [spec],
        "stop": spec,
        "data": spec,
    }.items():
        with pytest.raises(ConfigError, match=f'job setting "{field}" .*: numbers must be finite'):
            Job.of({**SETTINGS, field: value})


@pytest.mark.parametrize(
    "value", [{1, 2}, b"bytes", object(), {1: "one"}], ids=["set", "bytes", "object", "whole keys"]
)
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(ConfigError, match='job setting "model"'):
        Job.of({**SETTINGS, "model": {"name": "L", "x": value}})


def test_canonical_json_refuses_nan():
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"x": float("nan")})


TOML = """
name = "heart"
seed = 7
rounds = 5
model = "Logistic"
[algorithm]
name = "FedAvg"
lr = 0.1
[[preprocess]]
name = "Standardize"
"""


def test_a_toml_file_is_the_same_job(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text(TOML, encoding="utf-8")
    assert Job.from_toml(path) == Job.of(
        {
            "name": "heart",
            "seed": 7,
            "rounds": 5,
            "model": "Logistic",
            "algorithm": {"name": "FedAvg", "lr": 0.1},
            "preprocess": ["Standardize"],
        }
    )


def test_settings_of_a_toml_file_can_be_overridden(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text(TOML, encoding="utf-8")
    job = Job.from_toml(
        path,
        {
            "rounds": 9,
            "algorithm.lr": 0.5,
            "algorithm.server_optimizer.name": "Adam",
            "model.l2": 0.1,
            "data.name": "x",
        },
    )
    assert job.rounds == 9
    assert job.algorithm == {"name": "FedAvg", "lr": 0.5, "server_optimizer": {"name": "Adam"}}
    assert job.model == {"name": "Logistic", "l2": 0.1}
    assert job.data == {"name": "x"}


def test_an_override_below_a_number_is_refused(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text(TOML, encoding="utf-8")
    with pytest.raises(ConfigError, match=r'"rounds.max" cannot be set: "rounds" is 5'):
        Job.from_toml(path, {"rounds.max": 3})
    with pytest.raises(ConfigError, match=r'no setting "algoritm"\. Did you mean "algorithm"'):
        Job.from_toml(path, {"algoritm.lr": 3})


def test_a_job_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r'there is no job file ".*missing.toml"'):
        Job.from_toml(tmp_path / "missing.toml")
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory"):
        Job.from_toml(tmp_path)
    for content in (b"rounds = = 3", b"\xff\xfe"):
        path = tmp_path / "job.toml"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r'job.toml" is not valid TOML: '):
            Job.from_toml(path)


def test_a_job_cannot_be_changed():
    job = Job.of(SETTINGS)
    with pytest.raises(ValueError, match="frozen"):
        job.rounds = 3
