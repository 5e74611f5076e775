"""Claims about the files of torch modules: where training starts from, and what a finished run is loaded into."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import fedpact as fp
from fedpact.core.errors import ModelError
from tests.engine.runs import two_classes

CLIENTS = two_classes(width=3)


def network() -> nn.Module:
    """Return a network with other weights each time: a frozen layer, batch-norm statistics, a tied weight."""
    layers = [
        nn.Linear(3, 3),
        nn.BatchNorm1d(3),
        nn.Tanh(),
        nn.Linear(3, 3),
        nn.Linear(3, 3),
        nn.Linear(3, 1),
    ]
    layers[4].weight = layers[3].weight
    module = nn.Sequential(*layers)
    module[0].requires_grad_(False)
    return module


def with_body_of(module: nn.Module) -> nn.Module:
    """Return a network with the frozen layer of this one, and trained weights of its own."""
    other = network()
    other[0].load_state_dict(module[0].state_dict())
    return other


def train(module: Any, **settings: Any) -> fp.Result:
    return fp.train(module, CLIENTS, algorithm=fp.FedAvg(lr=0.1, local_steps=5), rounds=2, **settings)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> fp.Result:
    return train(network(), folder=tmp_path_factory.mktemp("run") / "run")


@pytest.fixture
def file(run: fp.Result, tmp_path: Path) -> Path:
    run.fitted.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_training_from_a_state_dict_is_training_from_the_module_that_has_it(tmp_path: Path) -> None:
    module = network()
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    from_file = train(with_body_of(module), initial=tmp_path / "weights.pt")
    assert from_file.weights == train(module).weights


def test_training_goes_on_from_the_model_file_of_a_run(run: fp.Result, file: Path) -> None:
    from_file = train(with_body_of(run.model), initial=file)
    assert from_file.weights == train(run.model).weights != run.weights


def test_training_starts_from_trained_weights_alone(tmp_path: Path) -> None:
    module = network()
    trained = {
        name: array for name, array in module.state_dict().items() if name[0] != "0" and name != "4.weight"
    }
    save_file(trained, tmp_path / "head.safetensors")
    from_file = train(with_body_of(module), initial=tmp_path / "head.safetensors")
    assert from_file.weights == train(module).weights


def test_training_does_not_start_from_other_frozen_weights(file: Path) -> None:
    with pytest.raises(ModelError, match=r'has other values for "0\.weight", which is frozen in this model'):
        train(network(), initial=file)


def test_a_saved_run_is_loaded_into_another_module_with_its_frozen_weights(
    run: fp.Result, file: Path
) -> None:
    loaded = fp.Fitted.load(file, with_body_of(run.model))
    x = CLIENTS[0].test.x
    np.testing.assert_array_equal(loaded.predict_proba(x), run.predict_proba(x))
    for name, array in loaded.export().state_dict().items():
        assert torch.equal(array, run.model.state_dict()[name])


def test_a_module_with_other_frozen_weights_is_refused(file: Path) -> None:
    with pytest.raises(ModelError, match=r'has other values for "0\.weight", which is frozen in this model'):
        fp.Fitted.load(file, network())


def test_a_module_with_a_frozen_weight_that_the_run_did_not_have_is_refused(
    run: fp.Result, file: Path
) -> None:
    module = with_body_of(run.model)
    module[5].scale = nn.Parameter(torch.ones(1), requires_grad=False)
    with pytest.raises(ModelError, match=r'does not fit this model: it lacks "5\.scale" \(1,\)'):
        fp.Fitted.load(file, module)


def test_a_module_in_which_nothing_is_frozen_takes_every_weight_from_the_file(
    run: fp.Result, file: Path
) -> None:
    loaded = fp.Fitted.load(file, network().requires_grad_(True))
    x = CLIENTS[0].test.x
    np.testing.assert_array_equal(loaded.predict_proba(x), run.predict_proba(x))


def test_loading_leaves_the_module_that_is_given_as_it_is(run: fp.Result, file: Path) -> None:
    module = with_body_of(run.model)
    before = copy.deepcopy(module.state_dict())
    fp.Fitted.load(file, module)
    assert all(torch.equal(array, before[name]) for name, array in module.state_dict().items())


def test_a_loaded_module_predicts_under_the_loss_that_it_was_trained_with(tmp_path: Path) -> None:
    module = nn.Linear(3, 1)
    run = train(fp.models.Torch(module, "poisson"), folder=tmp_path)
    x = CLIENTS[0].test.x
    # The outputs are logarithms of the rate.
    expected = run.model(torch.from_numpy(x).float()).exp().detach().numpy()[:, 0]
    np.testing.assert_allclose(fp.Result.load(tmp_path, model=module).predict(x), expected, rtol=1e-6)
