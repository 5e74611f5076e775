"""Patterns for the names of a model's arrays and modules, such as "head.*": * for any text, ? for a character."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from fedpact.core.errors import ConfigError

Patterns = str | tuple[str, ...]


def check_patterns(value: Patterns, whose: str) -> tuple[str, ...]:
    """Return one pattern or several as a tuple.

    Args:
        value: what was given.
        whose: what to call it in messages, such as "Partial: include".

    Raises:
        ConfigError: it is no text, or several.
    """
    patterns = (
        (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else None
    )
    if patterns is None or not all(isinstance(pattern, str) and pattern for pattern in patterns):
        raise ConfigError(f'{whose} is {value!r}; it must be a pattern such as "head.*", or a list of such.')
    return patterns


def fits(name: str, patterns: Iterable[str]) -> bool:
    """Return whether a name fits one of the patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)
