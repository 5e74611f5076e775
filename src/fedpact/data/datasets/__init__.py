"""Data sets that load as a federation, and the registry that lists them by name."""

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

from fedpact.core.errors import ConfigError, suggest
from fedpact.data.datasets.about import About
from fedpact.data.datasets.breast_cancer import breast_cancer
from fedpact.data.datasets.fashion_mnist import fashion_mnist
from fedpact.data.datasets.heart import heart
from fedpact.data.federation import Federation
from fedpact.data.mock import mock

__all__ = [
    "DATASETS",
    "About",
    "breast_cancer",
    "defaults",
    "describe",
    "fashion_mnist",
    "heart",
    "load",
    "mock",
]

DATASETS: dict[str, str] = {
    "breast_cancer": "fedpact.data.datasets.breast_cancer:breast_cancer",
    "heart": "fedpact.data.datasets.heart:heart",
    "fashion_mnist": "fedpact.data.datasets.fashion_mnist:fashion_mnist",
}
"""Name → "module:function"; the module also has the data set's `ABOUT`."""


def load(name: str, **options: Any) -> Federation:
    """Load a data set by its name, with the options of its function.

    Raises:
        ConfigError: an unknown data set, or an option that it does not have.
        DataError, DependencyError: as the data set's function.
    """
    loader = _loader(name)
    known_options = inspect.signature(loader).parameters
    for option in options:
        if option not in known_options:
            has = suggest(option, known_options) or f" It has {', '.join(known_options)}."
            raise ConfigError(f'Data set "{name}" has no option "{option}".{has}')
    return loader(**options)


def defaults(name: str) -> dict[str, Any]:
    """Return the options of a data set with their defaults.

    Raises:
        ConfigError: an unknown data set.
    """
    return {option: each.default for option, each in inspect.signature(_loader(name)).parameters.items()}


def _loader(name: str) -> Callable[..., Federation]:
    if name not in DATASETS:
        known = ", ".join(DATASETS)
        raise ConfigError(
            f'There is no data set "{name}".{suggest(name, DATASETS) or f" There are {known}."}'
        )
    module, function = DATASETS[name].split(":")
    loader: Callable[..., Federation] = getattr(import_module(module), function)
    return loader


def describe() -> list[About]:
    """Return what is known of each data set, without loading any."""
    return [import_module(entry.split(":")[0]).ABOUT for entry in DATASETS.values()]
