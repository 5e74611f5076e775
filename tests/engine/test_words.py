import re

import pytest

from fedpact.engine import words
from fedpact.learn.metrics import LARGER_IS_BETTER


def test_every_metric_has_a_name_and_a_meaning() -> None:
    assert words.METRICS.keys() == LARGER_IS_BETTER.keys() | {"train_loss"}
    for each in words.METRICS.values():
        assert each.label
        assert len(each.meaning) > 10
        assert not re.search(r"\.$", each.meaning)


@pytest.mark.parametrize("value", [None, float("nan")])
def test_what_is_not_known_is_a_dash(value: float | None) -> None:
    assert words.score("accuracy", value) == words.number(value) == "–"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (12, "12"),
        (1234, "1,234"),
        (0.5, "0.500"),
        (-2.5, "-2.5"),
        (float("inf"), "∞"),
        (1e-7, "1e-07"),
    ],
)
def test_numbers_have_about_four_figures(value: float, text: str) -> None:
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_600, "1 MB"), (5.28e3, "5.28 kB"), (2e12, "2 TB")],
)
def test_sizes_have_decimal_units(n_bytes: float, text: str) -> None:
    assert words.size(n_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0001, "0.1 ms"), (0.25, "250 ms"), (0.9999, "1.0 s"), (59.96, "1 min 0 s"), (3600, "1 h 0 min")],
)
def test_times_have_the_unit_that_fits(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_main_metric_is_accuracy_or_rmse() -> None:
    assert words.main_metric(["auc", "accuracy"]) == "accuracy"
    assert words.main_metric(["mae", "rmse"]) == "rmse"
    assert words.main_metric(["train_loss"]) is None
