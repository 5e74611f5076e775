"""Names for the parts of a job: a registry turns {"name": "FedAvg", "lr": 0.1} into an object and back."""

import dataclasses
import importlib
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fedpact.core.errors import ConfigError, DependencyError, FedpactError, suggest

Spec = dict[str, Any]

# Of a field for a setting that a part was given later: a specification does not name it at its default, and jobs that
# were approved before keep their digest.
LATER: Mapping[str, Any] = types.MappingProxyType({"later": True})

# Which extra of the package installs a library.
_EXTRAS = {
    "torch": "torch",
    "sklearn": "sklearn",
    "matplotlib": "plot",
    "tenseal": "he",
    "gmpy2": "he",
    "dp_accounting": "privacy",
    "imblearn": "imbalance",
}


class Registry:
    """Parts of one kind by name, imported when first asked for.

    Args:
        what: the kind of part, for messages ("algorithm").
        entries: name → "module:attribute"; each is a frozen dataclass whose fields are its settings.
        parts: the registry of the parts that these parts are made of (optimisers inside an algorithm).
        recursive: whether these parts may be made of one another.
    """

    def __init__(
        self,
        what: str,
        entries: Mapping[str, str],
        parts: "Registry | None" = None,
        recursive: bool = False,
    ) -> None:
        self.what = what
        self._entries = dict(entries)
        self._parts = self if recursive else parts

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def load(self, name: str) -> Any:
        """Return the class of this name; "package.module:Class" names one that is not registered.

        Raises:
            ConfigError: there is none; the nearest name is suggested.
            DependencyError: it needs a library that is not installed.
        """
        if ":" in name:
            return self._imported(name)
        folded = {entry.casefold(): entry for entry in self._entries}
        if name.casefold() not in folded:
            raise ConfigError(
                f'there is no {self.what} "{name}".{suggest(name, self._entries)} '
                f"Known: {', '.join(sorted(self._entries))}."
            )
        module, _, attribute = self._entries[folded[name.casefold()]].partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if error.name not in _EXTRAS:
                raise
            raise DependencyError(
                f'the {self.what} "{name}" needs {error.name}: pip install "fedpact[{_EXTRAS[error.name]}]".'
            ) from None

    def _imported(self, name: str) -> Any:
        module, _, attribute = name.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(f'the {self.what} "{name}" cannot be imported: {error}.') from None
        if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
            raise ConfigError(f'"{name}" is no {self.what}: it must be a frozen dataclass.')
        return found

    def may_be_left_out(self, name: str, setting: str, value: Any) -> bool:
        """Return whether a setting of this part has this value where it is not given; False where that is unknown."""
        try:
            fields = {field.name: field for field in dataclasses.fields(self.load(name))}
        except FedpactError:
            # Of a library that is not installed here, or of a class of the user's that is elsewhere.
            return False
        return setting in fields and fields[setting].default is value

    def summary(self, name: str) -> str:
        """Return the first line of the part's documentation."""
        return (self.load(name).__doc__ or "").strip().split("\n")[0]

    def build(self, spec: Spec | str) -> Any:
        """Return the object that a specification describes.

        Raises:
            ConfigError: the name, a setting or a setting's type is wrong.
        """
        spec = {"name": spec} if isinstance(spec, str) else dict(spec)
        name = spec.pop("name", None)
        if not isinstance(name, str):
            raise ConfigError(f'the {self.what} needs a "name"; got {spec if name is None else name}.')
        cls = self.load(name)
        settings = {field.name: field for field in dataclasses.fields(cls) if field.init}
        hints = typing.get_type_hints(cls)
        arguments = {}
        for key, value in spec.items():
            if key not in settings:
                raise ConfigError(
                    f'{self.what} {name} has no setting "{key}".{suggest(key, settings)} '
                    f"It has: {', '.join(settings) or 'none'}."
                )
            value = _as_hinted(value, hints[key])
            if self._parts is not None and _describes_part(value, hints[key]):
                value = self._parts.build(value if isinstance(value, str) else dict(value))
            if isinstance(value, list):
                value = tuple(value)
            if not _fits(value, hints[key]):
                raise ConfigError(
                    f'{self.what} {name}: "{key}" is {value!r}; it must be {_spell(hints[key])}.'
                )
            arguments[key] = value
        for key, field in settings.items():
            if key not in arguments and field.default is field.default_factory is dataclasses.MISSING:
                raise ConfigError(f'{self.what} {name} needs "{key}" ({_spell(hints[key])}); add it.')
        try:
            return cls(**arguments)
        except TypeError as error:
            raise ConfigError(f"{self.what} {name}: {error}.") from None

    def describe(self, part: Any) -> Spec:
        """Return the specification of an object: its name and all its settings.

        An object of a class that is not registered is named by where its class is: "package.module:Class".

        Raises:
            ConfigError: the object is no dataclass.
        """
        if not dataclasses.is_dataclass(part) or isinstance(part, type):
            raise ConfigError(
                f"{part!r} is no {self.what}; give one of {', '.join(sorted(self._entries))}, or an instance of a "
                "frozen dataclass of your own."
            )
        name = type(part).__name__
        if name not in self._entries or type(part) is not self.load(name):
            name = f"{type(part).__module__}:{type(part).__qualname__}"
        spec: Spec = {"name": name}
        hints = typing.get_type_hints(type(part))
        for field in dataclasses.fields(part):
            if not field.init:
                continue
            value = getattr(part, field.name)
            if "later" in field.metadata and value == field.default:
                continue
            if self._parts is not None and dataclasses.is_dataclass(value):
                value = self._parts.describe(value)
            value = _as_hinted(value, hints[field.name])
            spec[field.name] = list(value) if isinstance(value, tuple) else value
        return spec


def _as_hinted(value: Any, hint: Any) -> Any:
    """Return numpy's numbers as Python's, an int as a float where a float is wanted, and "none" as None."""
    if isinstance(value, np.generic):
        value = value.item()
    options = _options(hint)
    if value == "none" and type(None) in options and str not in options:
        # TOML has no word of its own for it.
        return None
    if isinstance(value, int) and not isinstance(value, bool) and float in options and int not in options:
        return float(value)
    return value


def _options(hint: Any) -> tuple[Any, ...]:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def _describes_part(value: Any, hint: Any) -> bool:
    options = _options(hint)
    wanted = any(
        getattr(option, "_is_protocol", False) or dataclasses.is_dataclass(option) for option in options
    )
    return wanted and (isinstance(value, Mapping) or (isinstance(value, str) and str not in options))


def _spell(hint: Any) -> str:
    if len(options := _options(hint)) > 1:
        return " or ".join(_spell(option) for option in options)
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    if hint is type(None):
        return "None"
    return str(hint) if typing.get_args(hint) else getattr(hint, "__name__", str(hint))


def _fits(value: Any, hint: Any) -> bool:
    """Check values against int, float, bool, str, None, parts and unions; leave richer types to the class."""
    options = _options(hint)
    if len(options) > 1:
        return any(_fits(value, option) for option in options)
    if typing.get_origin(hint) is typing.Literal:
        return any(value == option and type(value) is type(option) for option in typing.get_args(hint))
    if hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (bool, str):
        return isinstance(value, hint)
    if getattr(hint, "_is_protocol", False):
        return all(hasattr(value, name) for name in vars(hint) if not name.startswith("_"))
    if isinstance(value, bool | int | float | str) or value is None:
        # A plain value where a container is wanted.
        return hint is Any
    return True
