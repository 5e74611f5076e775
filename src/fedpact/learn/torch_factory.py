"""Torch modules by the names of their factories, and what is written down of those that were given built."""

import hashlib
import importlib
import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from fedpact.core.errors import ModelError, suggest
from fedpact.learn.torch_modules import gather, layouts, resting


def made_by(factory: str, options: Mapping[str, Any]) -> nn.Module:
    """Return a new module from a factory, "package.module:factory", called with options.

    Raises:
        ModelError: there is no such factory, it fails, or it returns something else.
    """
    place, _, name = factory.partition(":")
    try:
        source = importlib.import_module(place)
    except ImportError as error:
        raise ModelError(f'the factory "{factory}" cannot be imported: {error}.') from error
    if not hasattr(source, name):
        raise ModelError(f'there is no "{name}" in {place}.{suggest(name, dir(source))}')
    try:
        module = getattr(source, name)(**options)
    except Exception as error:
        raise ModelError(f'the factory "{factory}" fails with {dict(options)}: {error}') from error
    if not isinstance(module, nn.Module):
        raise ModelError(f'the factory "{factory}" returns {type(module).__name__}, not a module.')
    return module


def fingerprint(module: nn.Module, weighed: bool) -> dict[str, Any]:
    """Return a module as plain data that differ where what is trained differs; code is not written down.

    Args:
        module: the module.
        weighed: whether the weights that it has now are part of it.
    """
    architecture = type(module)
    layout, frozen = layouts(module)
    # A function is printed with its address, which differs from one process to the next.
    printed = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(module))
    still = set(resting(module))
    structure = [printed, *(name for name, part in module.named_modules() if part in still)]
    return {
        "architecture": f"{architecture.__module__}.{architecture.__qualname__}",
        "structure": _sha256("\n".join(structure).encode()),
        "layout": layout.digest,
        "weights": _sha256(gather(layout, module).buffer.data) if weighed else None,
        "frozen": _sha256(gather(frozen, module).buffer.data) if frozen.entries else None,
    }


def _sha256(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()
