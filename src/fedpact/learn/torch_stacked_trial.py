"""How a torch module's clients are trained side by side, found out by trying: two clients, against each alone."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedpact.core.seeds import Seed
from fedpact.learn.torch_dropout import Masks, masks_of
from fedpact.learn.torch_modules import gather
from fedpact.learn.torch_stacked_layers import Cohort, Recording, by_name
from fedpact.learn.torch_stacked_ways import Mapped, MaskShapes, Way, Written, by_row, training_copy

if TYPE_CHECKING:
    from fedpact.learn.torch import TorchModel

# Between two ways to add float32 numbers up.
_TOLERANCE = 1e-3
# How far the two clients' weights are from those that the module came with.
_SPREAD = 0.05


def settled(model: "TorchModel") -> tuple[Callable[["TorchModel"], Way], bool] | str:
    """Return what makes the faster way that computes what each client alone would, and whether it may fill batches up.

    Where there is none, return why, in a clause.
    """
    if model.spec.precision == "fp16":
        return "in float16 each client's loss has a scale of its own"
    if model.spec.augment:
        return "images are augmented client by client"
    for segment in model.layout.segments:
        name = segment.entries[0].name
        if segment.role == "buffer":
            return f'the module has a buffer that training may change, "{name}"'
        if segment.dtype not in ("float32", "float64"):
            return f'the parameter "{name}" is {segment.dtype}'
    refusal, exact = "", _in_full_precision(model)
    makers: tuple[Callable[[TorchModel], Way], ...] = (Written.of, Mapped)
    for make in makers:
        try:
            way = make(model)
            tried = way
            if exact is not model:
                # It has to run; but two ways to round to three digits would agree in nothing.
                _together(_Sample(model, [3, 3]), way)
                tried = Mapped(exact)
            if _agrees(_Sample(exact, [3, 3]), tried):
                return make, by_row(model) is not None and _fills(exact, tried)
            refusal = "side by side the module's gradients are not those of each client alone"
        except Exception as error:
            refusal = _clause(error)
    return refusal


def _in_full_precision(model: "TorchModel") -> "TorchModel":
    if model.spec.precision == "full":
        return model
    twin = copy.copy(model)
    twin.spec = replace(model.spec, precision="full")
    return twin


def _fills(model: "TorchModel", way: Way) -> bool:
    """Return whether a row that does not count changes nothing, as it would where a module reads the whole batch."""
    try:
        # A copy of one row alone is no other batch to a mean; but a module may do with a single row what it likes.
        return all(_agrees(_Sample(model, sizes), way) for sizes in ([4, 3], [4, 1]))
    except Exception:
        return False


class _Sample:
    """Two clients with weights of their own, and a batch of so many rows for each."""

    def __init__(self, model: "TorchModel", sizes: list[int]) -> None:
        random = Seed.of(2).generator()
        self.model = model
        self.sizes = np.array(sizes)
        self.seeds = [Seed.of(0), Seed.of(1)]
        flats = [
            flat + _SPREAD * random.standard_normal((2, flat.size)).astype(flat.dtype)
            for flat in gather(model.layout, model._template).flats
        ]
        tensors = [torch.from_numpy(flat).to(model.device) for flat in flats]
        self.weights = by_name(tensors, model.layout.segments)
        self.x, self.y = _examples(model, random, max(sizes))
        for place, size in enumerate(sizes):
            self.x[place, size:], self.y[place, size:] = self.x[place, 0], self.y[place, 0]


def _together(sample: _Sample, way: Way) -> dict[str, Tensor]:
    """Return the gradients of both clients, computed side by side."""
    gradients = {name: torch.zeros_like(weight) for name, weight in sample.weights.items()}
    cohort = Cohort(sample.weights, sample.sizes, [Masks(seed) for seed in sample.seeds])
    with torch.no_grad(), _batched_alone():
        way.descend(sample.x.clone(), sample.y, cohort, Recording(gradients))
    return gradients


def _agrees(sample: _Sample, way: Way) -> bool:
    """Return whether the clients' gradients are those of each alone."""
    together = _together(sample, way)
    for place, (size, seed) in enumerate(zip(sample.sizes.tolist(), sample.seeds, strict=True)):
        own = {name: weight[place] for name, weight in sample.weights.items()}
        x, y = sample.x[place, :size], sample.y[place, :size]
        alone = _gradients_alone(sample.model, own, x, y, Masks(seed))
        scale = max(float(gradient.norm()) for gradient in alone.values())
        for name, expected in alone.items():
            error = (together[name][place] - expected).norm()
            if not error <= _TOLERANCE * (expected.norm() + _TOLERANCE * scale):
                return False
    return True


def _gradients_alone(
    model: "TorchModel", weights: dict[str, Tensor], x: Tensor, y: Tensor, masks: Masks
) -> dict[str, Tensor]:
    """Return the gradients of one client's mean loss, by autograd.

    Raises:
        BufferError: the module has other buffers afterwards.
    """
    module = training_copy(model, model.device)
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
    source = masks_of(module) or Masks()
    drawn = [masks.draw(shape, p).to(model.device) for shape, p in MaskShapes(model).of(len(x))]
    with torch.enable_grad(), source.feed(drawn):
        loss = model.loss(model.run(lambda x: functional_call(module, leaves, (x,)), x.clone()), y)
    found = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    _check_buffers(module, before)
    return dict(zip(leaves, found, strict=True))


def _check_buffers(module: nn.Module, before: dict[str, Tensor]) -> None:
    for name, buffer in module.named_buffers():
        if name not in before or not torch.equal(buffer, before[name]):
            raise BufferError(f'the module has a buffer that training changes, "{name}"')


def _examples(model: "TorchModel", random: np.random.Generator, rows: int) -> tuple[Tensor, Tensor]:
    """Return examples and labels of two clients [2, rows, ...]; whole numbers are 0 and 1."""
    schema, traits = model.schema, model.traits
    numbers = random.random((2, rows, *schema.shape))
    x = torch.from_numpy(numbers if traits.floats is not None else np.rint(numbers))
    labels = random.integers(0, max(2, traits.outputs), (2, rows, *schema.positions))
    y = model.targets(labels)
    return x.to(model.device, traits.floats or torch.int64), y.to(model.device)


@contextmanager
def _batched_alone() -> Iterator[None]:
    """Let `vmap` fail on an operation that it can only run for one client after another."""
    settings: Any = torch._C._functorch
    outer = settings._is_vmap_fallback_enabled()
    settings._set_vmap_fallback_enabled(False)
    try:
        yield
    finally:
        settings._set_vmap_fallback_enabled(outer)


def _clause(error: Exception) -> str:
    """Return why a module could not be tried, in a clause."""
    text = str(error)
    if isinstance(error, BufferError):
        return text
    if "randomness error mode" in text:
        return "the module draws random numbers other than by torch.nn.Dropout"
    if "data-dependent control flow" in text:
        return "what the module does depends on its numbers"
    first = text.strip().split("\n")[0].removesuffix(".")
    return f"torch cannot run the module for many clients at once ({first})"
