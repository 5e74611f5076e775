"""Frozen parts of a module neither change nor travel, and the module that was given stays as it was."""

from typing import Any

import numpy as np
import pytest

import fedpact as fp
from fedpact.core.errors import ConfigError, ModelError
from fedpact.core.model import Schema
from fedpact.core.rows import ClientData, Rows
from fedpact.learn.torch import Torch
from fedpact.learn.torch_frozen import freeze

torch = pytest.importorskip("torch")


def network() -> Any:
    torch.manual_seed(0)
    body = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU())
    return torch.nn.Sequential(body, torch.nn.Linear(8, 3))


def trained(module: Any) -> list[str]:
    return [name for name, parameter in module.named_parameters() if parameter.requires_grad]


def test_a_copy_is_frozen_and_the_module_is_not() -> None:
    module = network()
    before = trained(module)
    assert trained(freeze(module, exclude="1.*")) == trained(freeze(module, "0.*")) == ["1.weight", "1.bias"]
    assert trained(module) == before


def test_norms_that_are_not_trained_keep_their_statistics_and_others_learn_them() -> None:
    assert not freeze(network(), "0.*")[0][1].training
    assert freeze(network(), "0.0.*")[0][1].training
    # In evaluation mode as a whole a module would be trained as a whole.
    frozen = freeze(network().eval(), "0.*")
    assert frozen.training
    assert not frozen[0][1].training


def test_frozen_parameters_do_not_travel_and_a_stage_keeps_the_norms_statistics_back_too() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(90, 4)).astype(np.float32)
    y = np.argmax(x[:, :3], axis=1)
    clients = [ClientData(str(i), Rows(x[i::3], y[i::3])) for i in range(3)]
    module, frozen = network(), freeze(network(), "0.*")
    options: dict[str, Any] = {
        "algorithm": fp.FedAvg(lr=0.1, local_epochs=3),
        "rounds": 2,
        "engine": "in_process",
    }
    ends = [
        fp.train(frozen, clients, channel=channel, **options) for channel in ([], [fp.Partial(exclude="0.*")])
    ]
    for end in ends:
        for name, tensor in module.state_dict().items():
            assert torch.equal(end.model.state_dict()[name], tensor) == name.startswith("0.")
    assert ends[0].fitted.weights == ends[1].fitted.weights
    # 27 numbers of the head, on cache lines of 16; of the body the two statistics of 8 and their counter besides.
    assert ends[1].history["upload_bytes"].iloc[0] == 3 * (27 * 4 + 16)
    assert ends[0].history["upload_bytes"].iloc[0] > ends[1].history["upload_bytes"].iloc[0]


def test_a_tied_parameter_is_left_by_any_of_its_names() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    module[1].weight = module[0].weight
    assert trained(freeze(module, exclude="1.*")) == ["0.weight", "1.bias"]


def test_patterns_that_make_no_sense_are_refused() -> None:
    with pytest.raises(
        ModelError, match=r'no parameter of the module fits "haed\.\*"\. There are "0\.0\.weight", '
    ):
        freeze(network(), "haed.*")
    with pytest.raises(ModelError, match="freeze leaves nothing to train; name what is to be trained"):
        freeze(network())
    with pytest.raises(ConfigError, match="freeze: include is 3; it must be a pattern"):
        freeze(network(), 3)  # type: ignore[arg-type]


def test_a_frozen_module_is_another_model_than_the_one_it_was_made_of() -> None:
    schema = Schema("multiclass", (4,), (0, 1, 2))
    frozen, whole = (Torch(module) for module in (freeze(network(), "0.*"), network()))
    assert frozen.describe() != whole.describe()
    assert [entry.name for entry in frozen.build(schema).frozen.layout.entries] == [
        "0.0.weight",
        "0.0.bias",
        "0.1.weight",
        "0.1.bias",
    ]
