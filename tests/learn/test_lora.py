"""Low-rank adapters: only they are trained and sent, and merged into the layers they compute the same."""

from typing import Any

import numpy as np
import pytest

import fedpact as fp
from fedpact.core.errors import ConfigError, ModelError
from fedpact.core.rows import ClientData, Rows
from fedpact.learn.lora import LoRALinear, lora, merge_lora

torch = pytest.importorskip("torch")


def network() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))


def trained(module: Any) -> list[str]:
    return [name for name, parameter in module.named_parameters() if parameter.requires_grad]


def stirred(module: Any) -> Any:
    """The module with adapters that change something."""
    torch.manual_seed(1)
    for part in module.modules():
        if isinstance(part, LoRALinear):
            torch.nn.init.normal_(part.lora_b, std=0.1)
    return module


def test_a_layer_adds_the_scaled_low_rank_change_by_hand() -> None:
    base = torch.nn.Linear(2, 1)
    base.weight.data[:], base.bias.data[:] = torch.tensor([[1.0, 2.0]]), 0.5
    layer = LoRALinear(base, rank=1, alpha=3.0)
    layer.lora_a.data[:], layer.lora_b.data[:] = torch.tensor([[1.0, -1.0]]), 2.0
    # (1, 2)·(3, 1) + 0.5 = 5.5, and 3/1 · 2 · (3 − 1) = 12.
    assert layer(torch.tensor([3.0, 1.0])).item() == 17.5
    torch.testing.assert_close(layer.weight, torch.tensor([[7.0, -4.0]]))
    assert layer.merged()(torch.tensor([3.0, 1.0])).item() == 17.5


def test_before_training_it_computes_what_the_module_does_with_adapters_drawn_from_the_seed() -> None:
    module, x = network(), torch.randn(5, 64)
    adapted = lora(module, rank=4)
    assert torch.equal(adapted(x), module(x))
    again, other = lora(module, rank=4), lora(module, rank=4, seed=1)
    assert torch.equal(adapted[0].lora_a, again[0].lora_a)
    assert not torch.equal(adapted[0].lora_a, other[0].lora_a)
    assert adapted[0].lora_a.abs().max() <= 1 / 8
    # A uniform number within ±1/√64 has the standard deviation 1/√(3·64).
    assert adapted[0].lora_a.std().item() == pytest.approx(1 / np.sqrt(192), rel=0.1)


def test_adapters_alone_are_trained_and_what_is_named_besides() -> None:
    module = network()
    before = trained(module)
    assert trained(lora(module)) == ["0.lora_a", "0.lora_b", "2.lora_a", "2.lora_b"]
    assert trained(lora(module, targets="0")) == ["0.lora_a", "0.lora_b"]
    assert trained(lora(module, also="2.*")) == ["0.lora_a", "0.lora_b", "2.weight", "2.bias"]
    assert trained(module) == before


def test_a_merged_module_has_the_architecture_and_the_outputs() -> None:
    module, x = network(), torch.randn(50, 64)
    adapted = stirred(lora(module, rank=3, alpha=6))
    merged = merge_lora(adapted)
    assert [type(part) for part in merged] == [type(part) for part in module]
    assert merged.state_dict().keys() == module.state_dict().keys()
    torch.testing.assert_close(merged(x), adapted(x))
    assert not torch.allclose(merged(x), module(x))
    module.load_state_dict(merged.state_dict())


def test_attention_and_transformer_layers_heed_their_adapters_in_training_and_in_evaluation() -> None:
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    x = torch.randn(3, 5, 16)
    adapted = stirred(lora(layer, rank=2))
    assert {name for name in trained(adapted) if name.endswith("_b")} == {
        "self_attn.out_proj.lora_b",
        "linear1.lora_b",
        "linear2.lora_b",
    }
    expected = merge_lora(adapted).train()(x)
    torch.testing.assert_close(adapted.train()(x), expected)
    with torch.no_grad():
        # Here torch has a faster way, which reads the weights of layers instead of calling them.
        torch.testing.assert_close(adapted.eval()(x), expected, atol=1e-5, rtol=1e-5)
    adapted.train()(x).sum().backward()
    assert adapted.self_attn.out_proj.lora_b.grad.abs().max() > 0


def test_a_module_that_is_one_layer_and_a_layer_that_is_used_twice_are_adapted() -> None:
    one = torch.nn.Linear(4, 2)
    assert isinstance(lora(one), LoRALinear)
    assert isinstance(merge_lora(lora(one)), torch.nn.Linear)
    twice = torch.nn.Sequential(layer := torch.nn.Linear(4, 4), torch.nn.ReLU(), layer)
    adapted = stirred(lora(twice))
    assert adapted[0] is adapted[2]
    merged, x = merge_lora(adapted), torch.randn(3, 4)
    assert merged[0] is merged[2]
    torch.testing.assert_close(merged(x), adapted(x))


@pytest.fixture(scope="module")
def digits() -> list[ClientData]:
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x[order] / 16).astype(np.float32), y[order]
    return [
        ClientData(str(i), Rows(x[i:1200:4], y[i:1200:4]), Rows(x[1200 + i :: 4], y[1200 + i :: 4]))
        for i in range(4)
    ]


OPTIONS: dict[str, Any] = {"algorithm": fp.FedAvg(lr=0.01, local_epochs=2, optimizer=fp.Adam()), "rounds": 5}


def test_training_sends_adapters_alone_leaves_the_rest_its_bits_and_learns(digits: list[ClientData]) -> None:
    module = network()
    result = fp.train(lora(module, rank=4, alpha=8), digits, engine="in_process", **OPTIONS)
    # (64 + 32) · 4 and (32 + 10) · 4 numbers in float32, and two for the record, of four clients.
    assert result.history["upload_bytes"].tolist() == [4 * ((96 + 42) * 4 * 4 + 16)] * 5
    assert result.history["upload_bytes"].iloc[0] < 0.25 * 4 * (64 * 32 + 32 + 32 * 10 + 10) * 4
    assert result.history["accuracy"].iloc[-1] > 0.75
    assert result.history["accuracy"].iloc[-1] > result.history["accuracy"].iloc[0] + 0.2
    end = result.model
    for adapted, original in ((end[0], module[0]), (end[2], module[2])):
        assert torch.equal(adapted.base.weight, original.weight)
        assert torch.equal(adapted.base.bias, original.bias)
        assert adapted.lora_b.abs().max() > 0
    x = torch.from_numpy(digits[0].test.x)
    merged = merge_lora(end)
    torch.testing.assert_close(merged(x), end(x))
    predicted = result.fitted.predict_proba(digits[0].test.x)
    np.testing.assert_allclose(merged(x).softmax(1).numpy(), predicted, atol=1e-5)


def test_clients_that_are_trained_side_by_side_learn_the_same(digits: list[ClientData]) -> None:
    ends = [
        fp.train(lora(network(), rank=4), digits, engine=engine, **(OPTIONS | {"rounds": 1})).fitted.weights
        for engine in ("in_process", "batched")
    ]
    np.testing.assert_allclose(ends[0].flats[0], ends[1].flats[0], atol=1e-4)


def test_a_job_tells_adapters_of_another_rank_or_scale_apart() -> None:
    made = [lora(network(), rank, alpha) for rank, alpha in ((4, 8), (4, 16), (2, 8), (4, 8))]
    described = [fp.models.Torch(module).describe() for module in made]
    assert described[0] == described[3]
    assert described[0] != described[1] != described[2] != described[0]


def test_what_cannot_be_adapted_is_refused() -> None:
    with pytest.raises(ModelError, match=r'no linear layer of the module fits "quer\?"\. There are "0", "2"'):
        lora(network(), targets="quer?")
    with pytest.raises(ModelError, match=r'no parameter of the module fits "head\.\*"'):
        lora(network(), also="head.*")
    with pytest.raises(ModelError, match="no linear layer of the module fits"):
        lora(torch.nn.Conv2d(1, 2, 3))
    with pytest.raises(ModelError, match="Sequential has no adapters to merge"):
        merge_lora(network())
    with pytest.raises(ConfigError, match="rank is 0; it must be a whole number, 1 or more"):
        lora(network(), rank=0)
    with pytest.raises(ConfigError, match="alpha is 0; it must be a positive number"):
        lora(network(), alpha=0)
