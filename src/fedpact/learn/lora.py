"""LoRA: of a pretrained module only low-rank changes of its linear layers are trained, and only these travel.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, equation (3): h = W₀·x + (alpha/rank)·B·A·x.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedpact.core.errors import ModelError
from fedpact.core.patterns import Patterns, check_patterns, fits
from fedpact.core.seeds import Seed
from fedpact.core.settings import check_counts, check_numbers
from fedpact.learn.torch_frozen import no_name_fits, rest_frozen
from fedpact.learn.torch_modules import copied


class LoRALinear(nn.Module):
    """A frozen linear layer W₀, and a trained change (alpha/rank)·B·A of its weight.

    What reads `weight` and `bias` instead of calling the layer, as attention of torch does, reads those in effect.

    Args:
        base: the layer; it is frozen in place.
        rank: of the change.
        alpha: the change is multiplied by alpha / rank.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.rank = rank
        self.alpha = alpha
        check_counts(self, "rank")
        check_numbers(self, "alpha", positive=True)
        self.base = base.requires_grad_(False)
        self.in_features = base.in_features
        self.out_features = base.out_features
        like = base.weight
        self.lora_a = nn.Parameter(like.new_empty(self.rank, self.in_features))
        self.lora_b = nn.Parameter(like.new_empty(self.out_features, self.rank))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw A uniformly from ±1/√in, and make B zero: the change is zero at first."""
        bound = 1 / math.sqrt(self.in_features)
        nn.init.uniform_(self.lora_a, -bound, bound, generator=generator)
        nn.init.zeros_(self.lora_b)

    @property
    def scale(self) -> float:
        """What the change B·A is multiplied by: alpha / rank."""
        return self.alpha / self.rank

    @property
    def weight(self) -> Tensor:
        """The weight that the layer has in effect [out, in]."""
        return self.base.weight + self.scale * (self.lora_b @ self.lora_a)

    @property
    def bias(self) -> Tensor | None:
        """The bias [out], or None."""
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return W₀·x + bias + (alpha/rank)·B·A·x."""
        change = functional.linear(functional.linear(x, self.lora_a), self.lora_b)
        outputs: Tensor = self.base(x)
        return outputs + self.scale * change

    def merged(self) -> nn.Linear:
        """Return the linear layer that computes the same."""
        layer: nn.Linear = copied(self.base)  # type: ignore[assignment]
        layer.weight = nn.Parameter(self.weight.detach().clone(), requires_grad=False)
        return layer

    def extra_repr(self) -> str:
        """Return the settings, which a job's digest of the module covers."""
        return f"rank={self.rank}, alpha={self.alpha:g}"


def lora(
    module: nn.Module,
    rank: int = 8,
    alpha: float = 16.0,
    targets: Patterns = "*",
    also: Patterns = (),
    seed: int = 0,
) -> nn.Module:
    """Return a copy of a module of which only low-rank changes of linear layers are trained.

    All its own parameters are frozen, but for those that `also` names: they are constants of the model, which every
    client has and no update holds. Normalising layers that are not trained stay in evaluation mode (see `fp.freeze`).
    Until it is trained the copy computes what the module does. `merge_lora` gives a module without adapters.

    Args:
        module: a module, usually pretrained.
        rank: of the changes.
        alpha: they are multiplied by alpha / rank.
        targets: a pattern for the names of linear layers, such as "*.query", or several.
        also: patterns for the names of parameters that are trained as they are, such as "head.*"; layers that have one
            get no adapter.
        seed: of the numbers that the changes start from.

    Raises:
        ConfigError: a setting is out of its range.
        ModelError: no linear layer fits, or the module cannot be copied.

    Examples:
        >>> from torch import nn
        >>> adapted = lora(nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2)), rank=4, also="2.*")
        >>> [name for name, p in adapted.named_parameters() if p.requires_grad]
        ['0.lora_a', '0.lora_b', '2.weight', '2.bias']
    """
    chosen, trained = check_patterns(targets, "lora: targets"), check_patterns(also, "lora: also")
    module = copied(module)
    parameters = list(module.named_parameters(remove_duplicate=False))
    kept = {id(parameter) for name, parameter in parameters if fits(name, trained)}
    if trained and not kept:
        raise no_name_fits("parameter", trained, [name for name, _ in parameters])
    for _, parameter in parameters:
        parameter.requires_grad_(id(parameter) in kept)
    layers = {
        name: layer
        for name, layer in module.named_modules(remove_duplicate=False)
        if isinstance(layer, nn.Linear) and kept.isdisjoint(map(id, layer.parameters()))
    }
    adapters: dict[int, LoRALinear] = {}
    for name, layer in layers.items():
        if not fits(name, chosen):
            continue
        if id(layer) not in adapters:
            adapter = LoRALinear(layer, rank, alpha)
            generator = torch.Generator(layer.weight.device)
            adapter.reset_parameters(generator.manual_seed(Seed.of(seed).child("lora", name).integer()))
            adapters[id(layer)] = adapter.train(layer.training)
        module = _with(module, name, adapters[id(layer)])
    if not adapters:
        raise no_name_fits("linear layer", chosen, list(layers))
    rest_frozen(module)
    return module


def merge_lora(module: nn.Module) -> nn.Module:
    """Return a copy of a module with every adapter merged into its layer: the module's architecture as it was.

    Raises:
        ModelError: there is no adapter.
    """
    module = copied(module)
    adapters = [
        (name, part)
        for name, part in module.named_modules(remove_duplicate=False)
        if isinstance(part, LoRALinear)
    ]
    if not adapters:
        raise ModelError(
            f"{type(module).__name__} has no adapters to merge; give a module that lora made, or what came of its "
            "training."
        )
    layers: dict[int, nn.Linear] = {}
    for name, adapter in adapters:
        module = _with(module, name, layers.setdefault(id(adapter), adapter.merged()))
    return module


def _with(module: nn.Module, name: str, part: nn.Module) -> nn.Module:
    """Return a module with another part of this name, exchanged in place; the part itself for the name of the whole."""
    if not name:
        return part
    owner, _, key = name.rpartition(".")
    module.get_submodule(owner).add_module(key, part)
    return module
