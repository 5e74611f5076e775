"""Checks of a part's settings: each is refused in one sentence, and kept as plain Python in one way of writing it.

A part is a frozen dataclass whose fields are its settings; it calls these from its `__post_init__`. What is
kept is a plain float or int: 0 is 0.0, so that a job has one digest, and no numpy scalar promotes float32 weights.
"""

import dataclasses
import math
from numbers import Integral, Real
from typing import Any

from fedpact.core.errors import ConfigError, suggest
from fedpact.core.registry import Registry


def check_numbers(
    part: Any,
    *names: str,
    positive: bool = False,
    below: float = math.inf,
    at_most: float = math.inf,
    optional: bool = False,
) -> None:
    """Check that settings are finite numbers, 0 or more, and keep them as floats.

    Args:
        part: the part, a frozen dataclass.
        names: its settings.
        positive: whether 0 is refused.
        below: what they must be below.
        at_most: the largest number.
        optional: whether None is taken too.

    Raises:
        ConfigError: a setting is no number, or out of its range.
    """
    for name in names:
        value = getattr(part, name)
        if value is not None or not optional:
            number = number_in(part, name, value, positive, below, at_most, optional)
            object.__setattr__(part, name, number)


def number_in(
    part: Any,
    name: str,
    value: Any,
    positive: bool = False,
    below: float = math.inf,
    at_most: float = math.inf,
    optional: bool = False,
) -> float:
    """Return a number as a float; for what is not itself a setting, such as one of a pair. See `check_numbers`.

    Raises:
        ConfigError: it is no number, or out of its range.
    """
    number = _float(value)
    if 0 <= number < below and number <= at_most and number < math.inf and (number or not positive):
        return number
    needed = "a positive number" if positive else "a number, 0 or more"
    if below < math.inf:
        needed += f" and below {below:g}"
    if at_most < math.inf:
        needed += f" and at most {at_most:g}"
    raise _refusal(part, name, value, needed, optional)


def check_counts(part: Any, *names: str, optional: bool = False) -> None:
    """Check that settings are whole numbers, 1 or more, and keep them as ints.

    Args:
        part: the part, a frozen dataclass.
        names: its settings.
        optional: whether None is taken too.

    Raises:
        ConfigError: a setting is no whole number, or below 1.
    """
    for name in names:
        value = getattr(part, name)
        if value is None and optional:
            continue
        if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < 1:
            raise _refusal(part, name, value, "a whole number, 1 or more", optional)
        object.__setattr__(part, name, int(value))


def check_flags(part: Any, *names: str) -> None:
    """Check that settings are True or False.

    Raises:
        ConfigError: one is neither.
    """
    for name in names:
        value = getattr(part, name)
        if not isinstance(value, bool):
            raise _refusal(part, name, value, "True or False", optional=False)


def check_texts(part: Any, *names: str) -> None:
    """Check that settings are text.

    Raises:
        ConfigError: one is something else.
    """
    for name in names:
        value = getattr(part, name)
        if not isinstance(value, str):
            raise _refusal(part, name, value, "text", optional=False)


def check_choice(part: Any, name: str, options: tuple[Any, ...]) -> None:
    """Check that a setting is one of these options, and keep it as the option is written.

    Raises:
        ConfigError: it is none of them.
    """
    value = getattr(part, name)
    # True is equal to 1 and yet another option.
    if isinstance(value, str | Integral) and not isinstance(value, bool) and value in options:
        object.__setattr__(part, name, options[options.index(value)])
        return
    raise ConfigError(
        f"{_said(part, name, value)}; it must be {' or '.join(map(_spelt, options))}."
        f"{suggest(str(value), map(str, options))}"
    )


def check_part(part: Any, name: str, wanted: type, known: Registry) -> None:
    """Check that a setting is itself a part of the kind wanted, and not the name or the class of one.

    Args:
        part: the part, a frozen dataclass.
        name: its setting.
        wanted: the protocol that it must have.
        known: the parts to name in the message.

    Raises:
        ConfigError: it is something else; the sentence says what to write.
    """
    value = getattr(part, name)
    if isinstance(value, wanted) and not isinstance(value, type):
        return
    fitting = {entry: cls for entry in known if issubclass(cls := known.load(entry), wanted)}
    given = value.__name__ if isinstance(value, type) else value
    if isinstance(given, str) and given in fitting:
        raise ConfigError(f"{_said(part, name, value)}; give {_written(fitting[given])}.")
    hint = suggest(given, fitting) if isinstance(given, str) else ""
    options = ", ".join(map(_written, fitting.values()))
    raise ConfigError(f"{_said(part, name, value)}; give one of {options}, or one of your own.{hint}")


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _refusal(part: Any, name: str, value: Any, needed: str, optional: bool) -> ConfigError:
    return ConfigError(f"{_said(part, name, value)}; it must be {needed}{', or None' if optional else ''}.")


def _said(part: Any, name: str, value: Any) -> str:
    shown = f"the class {value.__name__}" if isinstance(value, type) else _spelt(value)
    return f"{type(part).__name__}: {name} is {shown}"


def _spelt(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _written(cls: type) -> str:
    needed = [
        field.name
        for field in dataclasses.fields(cls)
        if field.default is field.default_factory is dataclasses.MISSING
    ]
    return f"fp.{cls.__name__}({', '.join(f'{name}=...' for name in needed)})"
