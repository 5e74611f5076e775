from fractions import Fraction

import numpy as np
import pytest

from fedpact.core.errors import ConfigError
from fedpact.data.units import MOLAR_MASSES, conversion, rule_of, same_unit

# The factors that laboratories print, to the digits that they print (AMA Manual of Style, 11th ed., table 17.5).
PRINTED = [
    ("glucose", "mg/dL", "mmol/L", 0.0555),
    ("cholesterol", "mg/dL", "mmol/L", 0.0259),
    ("triglycerides", "mg/dL", "mmol/L", 0.0113),
    ("creatinine", "mg/dL", "µmol/L", 88.4),
    ("urea nitrogen", "mg/dL", "mmol/L", 0.357),
    ("uric acid", "mg/dL", "mmol/L", 0.0595),
    ("bilirubin", "mg/dL", "µmol/L", 17.104),
    ("calcium", "mg/dL", "mmol/L", 0.25),
    ("iron", "µg/dL", "µmol/L", 0.179),
    ("magnesium", "mg/dL", "mmol/L", 0.411),
    ("phosphorus", "mg/dL", "mmol/L", 0.323),
    ("lactate", "mg/dL", "mmol/L", 0.111),
]


@pytest.mark.parametrize(("substance", "source", "target", "factor"), PRINTED)
def test_factor_is_the_one_that_laboratories_print(
    substance: str, source: str, target: str, factor: float
) -> None:
    assert float(conversion(source, target, substance).factor) == pytest.approx(factor, rel=5e-3)


@pytest.mark.parametrize("substance", MOLAR_MASSES)
def test_there_and_back_is_the_same_number(substance: str) -> None:
    there, back = conversion("mg/dL", "nmol/mL", substance), conversion("nmol/ml", "mg/dl", substance)
    assert there.factor * back.factor == 1


@pytest.mark.parametrize(
    ("source", "target", "value", "expected"),
    [
        ("°F", "°C", 212.0, 100.0),
        ("C", "°F", 37.0, 98.6),
        ("K", "°C", 0.0, -273.15),
        ("mmHg", "kPa", 760.0, 101.325),
        ("lb", "kg", 1.0, 0.45359237),
        ("ft", "in", 1.0, 12.0),
        ("%", "1", 50.0, 0.5),
        ("d", "h", 2.0, 48.0),
        ("g/L", "mg/dL", 1.0, 100.0),
        ("mmol/L", "µmol/mL", 3.0, 3.0),
    ],
)
def test_other_units_are_linear_too(source: str, target: str, value: float, expected: float) -> None:
    assert conversion(source, target).apply(np.array([value]))[0] == pytest.approx(expected, rel=1e-6)


def test_a_missing_value_stays_missing() -> None:
    assert np.isnan(conversion("mg/dL", "g/L").apply(np.array([np.nan]))[0])


@pytest.mark.parametrize(
    ("a", "b"), [("mg/dl", "mg/dL"), ("μmol/L", "µmol/L"), ("umol/l", "µmol/L"), (None, None)]
)
def test_units_are_one_however_they_are_written(a: str | None, b: str | None) -> None:
    assert same_unit(a, b)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("mg/dL", "mmol/L"), "name the substance"),
        (("mg/dL", "mmol/L", "glucos"), 'Did you mean "glucose"?'),
        (("mg/dL", "kg"), "mass concentration, and kg of mass"),
        (("furlong", "m"), '"furlong" is no unit known here'),
    ],
)
def test_a_rule_that_is_not_known_is_refused(arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
        conversion(*arguments)


def test_a_declared_rule_is_taken_as_written() -> None:
    assert rule_of(0.1, 2).factor == Fraction(1, 10)
    assert rule_of(1.8, 32).words() == "× 1.8 + 32"


@pytest.mark.parametrize("rule", [(0, 1), (float("nan"), 0), ("x", 0), (float("inf"), 0)])
def test_a_rule_that_is_none_is_refused(rule: tuple[object, object]) -> None:
    with pytest.raises(ConfigError):
        rule_of(*rule)
