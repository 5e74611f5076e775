"""Registries: a job's parts by name, there and back, and what is wrong in words."""

import json
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from fedpact.algorithms import ALGORITHMS, PARTS
from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.optimizers import SGD, Adam
from fedpact.algorithms.schedules import CosineDecay, Warmup
from fedpact.channel import TRANSFORMS
from fedpact.core.errors import ConfigError, DependencyError
from fedpact.core.registry import Registry
from fedpact.data import STEPS
from fedpact.engine.stop import STOP_RULES
from fedpact.learn import LOSSES, MODELS
from fedpact.learn.focal import Focal


def through_json(spec):
    return json.loads(json.dumps(spec))


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_every_algorithm_survives_being_written_down(name):
    algorithm = ALGORITHMS.build(name)
    spec = ALGORITHMS.describe(algorithm)
    assert spec["name"] == name
    assert ALGORITHMS.build(through_json(spec)) == algorithm
    assert ALGORITHMS.describe(ALGORITHMS.build(through_json(spec))) == spec


@pytest.mark.parametrize("registry", [ALGORITHMS, PARTS, TRANSFORMS, STEPS, STOP_RULES], ids=lambda r: r.what)
def test_every_name_leads_to_a_class_of_that_name_with_a_summary(registry):
    for name in registry:
        assert registry.load(name).__name__ == name
        assert registry.summary(name)


def test_parts_within_parts_survive_being_written_down():
    algorithm = FedAvg(
        lr=0.1,
        optimizer=SGD(momentum=0.9, nesterov=True),
        server_optimizer=Adam(eps=1e-3),
        lr_schedule=Warmup(3, then=CosineDecay(20)),
    )
    spec = ALGORITHMS.describe(algorithm)
    assert spec["lr_schedule"]["then"]["name"] == "CosineDecay"
    assert ALGORITHMS.build(through_json(spec)) == algorithm


def test_a_part_may_be_given_by_its_name_alone():
    assert ALGORITHMS.build({"name": "FedAvg", "server_optimizer": "Adam"}).server_optimizer == Adam()


def test_a_setting_that_takes_one_kind_of_part_builds_it():
    focal = MODELS.build({"name": "Logistic", "loss": {"name": "Focal", "gamma": 1}})
    assert focal.loss == Focal(1.0)
    assert MODELS.build(through_json(MODELS.describe(focal))) == focal


@dataclass(frozen=True)
class Either:
    loss: str | Focal = "log loss"


def test_a_setting_that_takes_text_as_well_keeps_it():
    models = Registry("model", {"Either": f"{__name__}:Either"}, LOSSES)
    assert models.build({"name": "Either", "loss": "Focal"}).loss == "Focal"
    assert models.build({"name": "Either", "loss": {"name": "Focal"}}).loss == Focal()


def test_names_are_read_in_any_case():
    assert ALGORITHMS.build("fedavg") == FedAvg()
    assert ALGORITHMS.describe(ALGORITHMS.build("FEDAVG"))["name"] == "FedAvg"


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("FedAvgg", r'there is no algorithm "FedAvgg"\. Did you mean "FedAvg"\? Known: Cyclic, '),
        (
            {"name": "FedAvg", "lrr": 1.0},
            r'algorithm FedAvg has no setting "lrr"\. Did you mean "lr"\? It has: lr, ',
        ),
        ({"name": "FedAvg", "lr": "fast"}, "\"lr\" is 'fast'; it must be float"),
        ({"name": "FedAvg", "lr": True}, '"lr" is True; it must be float'),
        ({"name": "FedAvg", "lr": None}, '"lr" is None; it must be float'),
        ({"name": "FedAvg", "lr": [0.1]}, r'"lr" is \(0.1,\); it must be float'),
        ({"name": "FedAvg", "local_steps": 2.5}, r'"local_steps" is 2.5; it must be int or None'),
        ({"name": "FedAvg", "shuffle": 1}, '"shuffle" is 1; it must be bool'),
        (
            {"name": "FedAvg", "weighting": "exampels"},
            "\"weighting\" is 'exampels'; it must be 'examples' or 'uniform'",
        ),
        ({"name": "SCAFFOLD", "option": True}, '"option" is True'),
        (
            {"name": "FedAvg", "server_optimizer": "Adm"},
            r'no optimiser, schedule or privacy "Adm"\. Did you mean "Adam"',
        ),
        ({"name": "FedAvg", "server_optimizer": 3}, '"server_optimizer" is 3; it must be Optimizer'),
        ({"name": "FedAvg", "server_optimizer": "Constant"}, r"is Constant\(\); it must be Optimizer"),
        ({"name": "FedAvg", "lr_schedule": {"name": "Adam"}}, r"is Adam\(.*\); it must be Schedule"),
        (
            {"name": "FedAvg", "server_optimizer": {"lr": 1}},
            r'the optimiser, schedule or privacy needs a "name"; got',
        ),
        (
            {"name": "FedAvg", "server_optimizer": {"name": "Adam", "beta": 1}},
            r'Adam has no setting "beta"\. Did you mean "betas"',
        ),
        ({"name": "FedAvg", "lr": -1.0}, r"FedAvg: lr is -1\.0"),
        ({"name": 3}, r'the algorithm needs a "name"; got 3'),
        ({"lr": 3}, r'the algorithm needs a "name"; got {\'lr\': 3}'),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_specification_is_said(spec, sentence):
    with pytest.raises(ConfigError, match=sentence):
        ALGORITHMS.build(spec)


def test_a_setting_that_is_missing_is_named():
    with pytest.raises(ConfigError, match=r"channel stage Clip needs \"norm\" \(float\); add it"):
        TRANSFORMS.build("Clip")


def test_a_specification_is_left_as_it_was():
    spec = {"name": "FedAvg", "server_optimizer": {"name": "Adam"}}
    ALGORITHMS.build(spec)
    assert spec == {"name": "FedAvg", "server_optimizer": {"name": "Adam"}}


def test_an_int_is_a_float_where_a_float_is_wanted():
    built = ALGORITHMS.build({"name": "FedAvg", "lr": 1, "max_grad_norm": 2, "local_steps": 3})
    assert (type(built.lr), type(built.max_grad_norm), type(built.local_steps)) == (float, float, int)
    one, same = (json.dumps(ALGORITHMS.describe(FedAvg(lr=lr))) for lr in (1, 1.0))
    assert one == same


def test_numpys_numbers_are_written_as_plain_ones():
    spec = ALGORITHMS.describe(FedAvg(lr=np.float32(0.5), local_steps=np.int64(3)))
    assert (through_json(spec)["lr"], through_json(spec)["local_steps"]) == (0.5, 3)
    assert ALGORITHMS.build({"name": "FedAvg", "lr": np.float64(0.5)}).lr == 0.5


def test_a_list_is_a_tuple_in_a_part_and_a_list_in_its_description():
    step = STEPS.build({"name": "Standardize", "columns": ["age", "bmi"]})
    assert step.columns == ("age", "bmi")
    assert STEPS.describe(step)["columns"] == ["age", "bmi"]


@dataclass(frozen=True)
class Proximal(FedAvg):
    mu: float = 0.5


def test_a_class_of_ones_own_is_named_by_its_place_and_built_from_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "own_algorithms", SimpleNamespace(Proximal=Proximal))
    monkeypatch.setattr(Proximal, "__module__", "own_algorithms")
    described = ALGORITHMS.describe(Proximal(mu=0.25))
    assert described["name"] == "own_algorithms:Proximal"
    assert ALGORITHMS.build(described) == Proximal(mu=0.25)


def test_another_class_of_a_registered_name_is_not_taken_for_it():
    impostor = dataclass(frozen=True)(type("FedAvg", (), {"__module__": "elsewhere"}))
    assert ALGORITHMS.describe(impostor()) == {"name": "elsewhere:FedAvg"}


@pytest.mark.parametrize("name", ["no_such_module:X", "json:nothing", ":X"])
def test_a_place_that_cannot_be_imported_is_named(name):
    with pytest.raises(ConfigError, match=f'the algorithm "{name}" cannot be imported'):
        ALGORITHMS.build(name)


def test_only_a_dataclass_is_built_from_its_place():
    with pytest.raises(ConfigError, match='"os:system" is no algorithm: it must be a frozen dataclass'):
        ALGORITHMS.build({"name": "os:system"})


def test_what_is_no_dataclass_cannot_be_described():
    with pytest.raises(ConfigError, match="is no algorithm; give one of"):
        ALGORITHMS.describe(FedAvg)


def test_none_can_be_spelt_in_a_file():
    assert ALGORITHMS.build({"name": "FedAvg", "batch_size": "none"}) == FedAvg(batch_size=None)


def test_a_part_whose_library_is_not_installed_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "fedpact.learn.torch", raising=False)
    with pytest.raises(
        DependencyError, match=r'the model "Torch" needs torch: pip install "fedpact\[torch\]"'
    ):
        MODELS.load("Torch")
