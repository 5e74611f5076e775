"""The arrays of a torch module in flat buffers: what travels, what is frozen, and views of both."""

import copy
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fedpact.core.errors import ModelError
from fedpact.core.vector import STORAGE, Entry, Layout, Vector

_DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in STORAGE}


def _named(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and the buffers of the state dictionary, tied ones under each of their names."""
    saved = module.state_dict().keys()
    buffers = ((name, b) for name, b in module.named_buffers(remove_duplicate=False) if name in saved)
    return dict(chain(module.named_parameters(remove_duplicate=False), buffers))


def buffer_places(module: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Iterate over all buffers: the full name, the submodule that holds it, and its name there."""
    for prefix, owner in module.named_modules(remove_duplicate=False):
        for key in owner._buffers:
            yield f"{prefix}.{key}" if prefix else key, owner, key


def layouts(module: nn.Module) -> tuple[Layout, Layout]:
    """Return the layout of what travels, and that of the frozen parameters.

    Raises:
        ModelError: an array has no values yet or a dtype that cannot travel, or two parameters share memory.
    """
    tensors = _named(module)
    names: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        if is_lazy(tensor) or tensor.is_meta:
            raise ModelError(f'"{name}" has no values yet; run the module on an example beforehand.')
        names.setdefault(id(tensor), []).append(name)
    travelling: list[Entry] = []
    frozen: list[Entry] = []
    memory: dict[int, str] = {}
    for name, *aliases in names.values():
        tensor, shape = tensors[name], tuple(tensors[name].shape)
        dtype = str(tensor.dtype).removeprefix("torch.")
        if not isinstance(tensor, nn.Parameter):
            travelling.append(Entry(name, shape, dtype, "buffer", tuple(aliases)))
            continue
        other = memory.setdefault(tensor.data_ptr(), name)
        if other != name and tensor.numel():
            raise ModelError(
                f'"{name}" and "{other}" are two parameters in the same memory; to tie them, assign one '
                "parameter to both names."
            )
        entry = Entry(name, shape, dtype, "parameter", tuple(aliases))
        (travelling if tensor.requires_grad else frozen).append(entry)
    return Layout(travelling), Layout(frozen)


def views(buffer: Tensor, layout: Layout) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return a buffer's flat tensors, and its arrays by each of their names; all share its memory."""
    flats, arrays = [], {}
    for segment in layout.segments:
        flat = buffer[segment.start : segment.stop].view(_DTYPES[segment.dtype])
        flats.append(flat)
        start = 0
        for entry in segment.entries:
            # Autograd counts the writes to a tensor and all its views; with `data` each array has its own count.
            array = flat[start : start + entry.size].view(entry.shape).data
            arrays.update(dict.fromkeys((entry.name, *entry.aliases), array))
            start += entry.size
    return flats, arrays


def gather(layout: Layout, module: nn.Module) -> Vector:
    """Return copies of a module's arrays in a layout."""
    vector, tensors = Vector.zeros(layout), _named(module)
    for name, array in views(torch.from_numpy(vector.buffer), layout)[1].items():
        array.copy_(tensors[name].detach())
    return vector


def shared(array: NDArray[Any], dtype: Any) -> Tensor:
    """Return the array as a tensor in the same memory, unless it is of another dtype or not writable."""
    return torch.from_numpy(np.require(array, dtype, ["C", "W"]))


def copied(module: nn.Module) -> nn.Module:
    """Return a copy.

    Raises:
        ModelError: the module cannot be copied.
    """
    try:
        return copy.deepcopy(module)
    except Exception as error:
        raise ModelError(f"the module {type(module).__name__} cannot be copied: {error}") from error


def resting(module: nn.Module) -> list[nn.Module]:
    """Return the submodules that are in evaluation mode, unless the whole module is."""
    return [part for part in module.modules() if not part.training] if module.training else []


def set_training(module: nn.Module, still: Iterable[nn.Module]) -> None:
    """Put a module into training mode, but for these of its submodules."""
    module.train()
    for part in still:
        part.training = False


def redraw(module: nn.Module) -> None:
    """Draw the trained parameters anew from the global generators, by each submodule's `reset_parameters`.

    Raises:
        ModelError: a parameter is drawn by none of them.
    """

    def reset(part: nn.Module) -> None:
        # Attention and transformer layers of torch call theirs _reset_parameters.
        for name in ("reset_parameters", "_reset_parameters"):
            if hasattr(part, name):
                getattr(part, name)()

    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    for _, parameter in trained:
        parameter.data.fill_(torch.nan)
    with torch.no_grad():
        module.apply(reset)
    for name, parameter in trained:
        if parameter.data.isnan().any():
            raise ModelError(
                f'"{name}" cannot be drawn from the seed: no reset_parameters sets it. Give its module this '
                'method, or use init="as_given".'
            )
