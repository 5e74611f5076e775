"""Units of measurement, and the linear rules by which values go from one to another.

Concentrations by mass (mg/dL) and by amount of substance (mmol/L) differ by the molar mass of what is measured, so a
rule between the two names the substance. Molar masses are sums of the standard atomic weights (CIAAW, 2021) of its
formula; for triglycerides, which are many substances, the 885.7 g/mol of triolein that laboratories agree on.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, suggest

MOLAR_MASSES: dict[str, Fraction] = {
    "bilirubin": Fraction("584.673"),
    "calcium": Fraction("40.078"),
    "cholesterol": Fraction("386.664"),
    "creatinine": Fraction("113.12"),
    "glucose": Fraction("180.156"),
    "iron": Fraction("55.845"),
    "lactate": Fraction("90.078"),
    "magnesium": Fraction("24.305"),
    "phosphorus": Fraction("30.974"),
    "triglycerides": Fraction("885.7"),
    "urea": Fraction("60.056"),
    "urea nitrogen": Fraction("28.014"),
    "uric acid": Fraction("168.112"),
}
"""Substance → g/mol. Of urea nitrogen, the two nitrogen atoms of a molecule of urea."""

_PREFIXES = {
    "k": Fraction(1000),
    "": Fraction(1),
    "d": Fraction(1, 10),
    "c": Fraction(1, 100),
    "m": Fraction(1, 1000),
    "u": Fraction(1, 10**6),
    "n": Fraction(1, 10**9),
    "p": Fraction(1, 10**12),
}
_CONCENTRATION = re.compile(r"(k|d|c|m|u|n|p|)(g|mol)/(d|c|m|u|n|)l", re.IGNORECASE)
# Unit → what it is a unit of, and value · factor + offset in the first unit of that.
_OTHERS: dict[str, tuple[str, Fraction, Fraction]] = {
    "m": ("length", Fraction(1), Fraction(0)),
    "cm": ("length", Fraction(1, 100), Fraction(0)),
    "mm": ("length", Fraction(1, 1000), Fraction(0)),
    "km": ("length", Fraction(1000), Fraction(0)),
    "in": ("length", Fraction("0.0254"), Fraction(0)),
    "ft": ("length", Fraction("0.3048"), Fraction(0)),
    "kg": ("mass", Fraction(1), Fraction(0)),
    "g": ("mass", Fraction(1, 1000), Fraction(0)),
    "mg": ("mass", Fraction(1, 10**6), Fraction(0)),
    "lb": ("mass", Fraction("0.45359237"), Fraction(0)),
    "oz": ("mass", Fraction("0.028349523125"), Fraction(0)),
    "pa": ("pressure", Fraction(1), Fraction(0)),
    "hpa": ("pressure", Fraction(100), Fraction(0)),
    "kpa": ("pressure", Fraction(1000), Fraction(0)),
    "bar": ("pressure", Fraction(100_000), Fraction(0)),
    "mmhg": ("pressure", Fraction("133.322387415"), Fraction(0)),
    "s": ("time", Fraction(1), Fraction(0)),
    "min": ("time", Fraction(60), Fraction(0)),
    "h": ("time", Fraction(3600), Fraction(0)),
    "d": ("time", Fraction(86400), Fraction(0)),
    "k": ("temperature", Fraction(1), Fraction(0)),
    "°c": ("temperature", Fraction(1), Fraction("273.15")),
    "°f": ("temperature", Fraction(5, 9), Fraction("459.67") * Fraction(5, 9)),
    "1": ("share", Fraction(1), Fraction(0)),
    "%": ("share", Fraction(1, 100), Fraction(0)),
}


@dataclass(frozen=True)
class Rule:
    """A linear rule: value · factor + offset.

    Args:
        factor: not 0.
        offset: added behind it.
    """

    factor: Fraction
    offset: Fraction = Fraction(0)

    def apply(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return values in the other unit; a missing one stays missing."""
        return values * float(self.factor) + float(self.offset)

    def words(self) -> str:
        """Return the rule as one writes it: "× 0.0555", "× 1.8 + 32"."""
        sign = "+" if self.offset > 0 else "−"
        shift = f" {sign} {abs(float(self.offset)):.6g}" if self.offset else ""
        return f"× {float(self.factor):.6g}{shift}"


def same_unit(a: str | None, b: str | None) -> bool:
    """Return whether two ways of writing are of one unit: "mg/dl" and "mg/dL" are, and so are "ug/L" and "µg/L".

    >>> same_unit("mmHg", "mm Hg")
    True
    """
    return a == b or (a is not None and b is not None and _spelt(a) == _spelt(b))


def conversion(source: str, target: str, substance: str | None = None) -> Rule:
    """Return the rule from one unit to another.

    Args:
        source: the unit of the values: a concentration (mg/dL, µmol/L, ...), or one of length, mass, pressure, time,
            temperature (°C, °F, K) or share (%, 1).
        target: the unit wanted.
        substance: one of `MOLAR_MASSES`, for a rule between mass and amount of substance.

    Raises:
        ConfigError: a unit or the substance is not known, or the units measure different things.

    >>> round(float(conversion("mg/dL", "mmol/L", "glucose").factor), 5)
    0.05551
    """
    if same_unit(source, target):
        return Rule(Fraction(1))
    (what, factor, offset), (wanted, per, shift) = (_read(unit) for unit in (source, target))
    if {what, wanted} == {"mass concentration", "molar concentration"}:
        if substance is None:
            raise ConfigError(
                f"between {source} and {target} lies the molar mass of what is measured: name the substance, one of "
                f"{', '.join(MOLAR_MASSES)}, or declare a factor."
            )
        mass = molar_mass(substance)
        factor = factor / mass if what == "mass concentration" else factor * mass
    elif what != wanted:
        raise ConfigError(f"{source} is a unit of {what}, and {target} of {wanted}: none becomes the other.")
    return Rule(factor / per, (offset - shift) / per)


def molar_mass(substance: str) -> Fraction:
    """Return the g/mol of a substance.

    Raises:
        ConfigError: it is not known.
    """
    if substance not in MOLAR_MASSES:
        hint = suggest(substance, MOLAR_MASSES) or f" There are {', '.join(MOLAR_MASSES)}."
        raise ConfigError(f'the molar mass of "{substance}" is not known here.{hint} Else declare a factor.')
    return MOLAR_MASSES[substance]


def rule_of(factor: Any, offset: Any = 0) -> Rule:
    """Return the rule that somebody declares.

    Raises:
        ConfigError: these are no finite numbers, or the factor is 0.
    """
    try:
        rule = Rule(*(Fraction(str(number)) for number in (factor, offset)))
    except (ValueError, ZeroDivisionError):
        raise ConfigError(
            f"a rule has two finite numbers, and these are {factor!r} and {offset!r}."
        ) from None
    if not rule.factor:
        raise ConfigError("the factor of a rule is 0, which would make all values one; give another.")
    return rule


def _spelt(unit: str) -> str:
    spelt = unit.strip().replace(" ", "").replace("µ", "u").replace("μ", "u").casefold()
    return {"c": "°c", "f": "°f", "degc": "°c", "degf": "°f", "mcg/l": "ug/l", "mcg/ml": "ug/ml"}.get(
        spelt, spelt
    )


def _read(unit: str) -> tuple[str, Fraction, Fraction]:
    """Return what a unit measures, and value · factor + offset in g/L, mol/L or the first unit of that."""
    spelt = _spelt(unit)
    if spelt in _OTHERS:
        return _OTHERS[spelt]
    found = _CONCENTRATION.fullmatch(spelt)
    if found is None:
        known = ["mg/dL", "g/L", "mmol/L", "µmol/L", *_OTHERS]
        raise ConfigError(
            f'"{unit}" is no unit known here.{suggest(unit, known)} Declare a factor for it, or use a concentration '
            f"such as mg/dL or mmol/L, or one of {', '.join(_OTHERS)}."
        )
    above, what, below = found.groups()
    kind = "mass concentration" if what == "g" else "molar concentration"
    return kind, _PREFIXES[above] / _PREFIXES[below], Fraction(0)
