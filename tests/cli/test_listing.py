import json
import os
from pathlib import Path

import pytest

from fedpact.algorithms import ALGORITHMS, PARTS
from fedpact.channel import TRANSFORMS
from fedpact.data import STEPS
from fedpact.data.datasets import DATASETS
from fedpact.data.partitions import PARTITIONS
from fedpact.data.row_sources import ROW_SOURCES
from fedpact.engine.stop import STOP_RULES
from fedpact.learn import AUGMENTATIONS, LOSSES, MODELS
from fedpact.learn.metrics import LARGER_IS_BETTER
from tests.cli.terminal import call, process, said

KINDS = {
    "algorithms": ALGORITHMS,
    "datasets": DATASETS,
    "sources": ROW_SOURCES,
    "transforms": TRANSFORMS,
    "models": MODELS,
    "losses": LOSSES,
    "augmentations": AUGMENTATIONS,
    "optimizers": PARTS,
    "steps": STEPS,
    "partitions": PARTITIONS,
    "stop-rules": STOP_RULES,
    "metrics": LARGER_IS_BETTER,
}


@pytest.mark.parametrize("kind", KINDS)
def test_list_has_every_part_with_a_sentence(kind: str) -> None:
    parts = json.loads(call("list", kind, "--json").stdout)
    assert [part["name"] for part in parts] == list(KINDS[kind])
    for part in parts:
        assert len(part["summary"]) > 15, part
        assert "\n" not in part["summary"]


@pytest.mark.parametrize(
    "kind",
    [
        "algorithms",
        "datasets",
        "sources",
        "losses",
        "augmentations",
        "transforms",
        "steps",
        "partitions",
        "stop-rules",
        "optimizers",
    ],
)
def test_every_setting_says_its_default_its_type_and_what_it_is(kind: str) -> None:
    for part in json.loads(call("list", kind, "--json").stdout):
        for setting in part["settings"]:
            assert setting["default"], (part["name"], setting)
            assert setting["type"], (part["name"], setting)
            assert setting["meaning"], (part["name"], setting)


def test_list_for_people_is_a_line_for_each() -> None:
    shown = process("list", "algorithms").stdout
    for name in ALGORITHMS:
        assert sum(line.startswith(f"{name} ") for line in shown.splitlines()) == 1


def test_verbose_list_has_settings_too() -> None:
    assert "server_lr" not in call("list", "algorithms").stdout
    assert "server_lr" in call("list", "algorithms", "--verbose").stdout


def test_show_has_settings_that_are_inherited() -> None:
    part = json.loads(call("show", "FedProx", "--json").stdout)
    settings = {each["name"]: each for each in part["settings"]}
    assert settings["mu"]["meaning"].startswith("strength of the pull")
    assert settings["lr"]["default"] == str(ALGORITHMS.load("FedProx")().lr)
    assert settings["optimizer"]["default"] == "SGD"
    assert settings["batch_size"]["type"] == "int or none"


@pytest.mark.parametrize("name", ["heart", "Standardize", "Target", "Adam", "auc", "fedavg"])
def test_show_knows_parts_of_every_kind(name: str) -> None:
    ended = call("show", name)
    assert ended.exit_code == 0
    assert name.casefold() in ended.stdout.casefold()


def test_show_names_the_nearest_part() -> None:
    ended = call("show", "Standardise")
    assert ended.exit_code == 3
    assert 'Did you mean "Standardize"?' in ended.stderr


def test_list_names_the_nearest_kind() -> None:
    ended = call("list", "algos")
    assert ended.exit_code == 2
    assert '"algos" is none of algorithms, datasets' in said(ended.stderr)
    assert 'Did you mean "algorithms"?' in said(ended.stderr)
    assert "Value error" not in ended.stderr


def test_models_are_listed_without_the_libraries_that_they_need(tmp_path: Path) -> None:
    for library in ("torch", "sklearn"):
        (tmp_path / f"{library}.py").write_text(f"raise ModuleNotFoundError(name={library!r})")
    ended = process("list", "models", PYTHONPATH=f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    assert ended.returncode == 0, ended.stderr
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("Torch ")]
    assert "torch" in line
