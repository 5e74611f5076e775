import json
import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpact.core.errors import ConfigError
from fedpact.core.registry import Registry
from fedpact.core.settings import (
    check_choice,
    check_counts,
    check_flags,
    check_numbers,
    check_part,
    check_texts,
    number_in,
)


@runtime_checkable
class Lens(Protocol):
    def focus(self) -> float: ...


@dataclass(frozen=True)
class Wide:
    """A lens."""

    degrees: float

    def focus(self) -> float:
        return 1 / self.degrees


@dataclass(frozen=True)
class Normal:
    """A lens."""

    def focus(self) -> float:
        return 1.0


@dataclass(frozen=True)
class Film:
    """No lens."""


LENSES = Registry("part", {cls.__name__: f"{__name__}:{cls.__name__}" for cls in (Wide, Normal, Film)})


@dataclass(frozen=True)
class Camera:
    zoom: Any = None
    frames: Any = None
    mode: Any = None
    lens: Any = None


@pytest.mark.parametrize("value", [1, "no", None])
def test_a_flag_is_true_or_false_and_nothing_that_counts_as_such(value: Any) -> None:
    check_flags(Camera(zoom=True, frames=False), "zoom", "frames")
    with pytest.raises(ConfigError, match=rf'Camera: zoom is "?{value}"?; it must be True or False'):
        check_flags(Camera(zoom=value), "zoom")


def zoomed(value: Any, **limits: Any) -> Any:
    camera = Camera(zoom=value)
    check_numbers(camera, "zoom", **limits)
    return camera.zoom


def refusal(check: Any, *arguments: Any, **limits: Any) -> str:
    with pytest.raises(ConfigError) as error:
        check(*arguments, **limits)
    return str(error.value)


@given(st.floats(0, allow_infinity=False) | st.integers(0, 2**60))
def test_number_within_its_range_is_kept_as_an_equal_float(number: Any) -> None:
    for written in (number, np.float64(number)):
        kept = zoomed(written)
        assert type(kept) is float
        assert kept == float(number)


def test_equal_numbers_are_written_alike() -> None:
    assert len({json.dumps(zoomed(one)) for one in (1, 1.0, np.float32(1), np.int8(1), np.float64(1))}) == 1


@pytest.mark.parametrize(
    "value",
    ["1", True, np.True_, None, math.nan, math.inf, -1e-300, 10**400, 1j, [1.0], np.ones(1)],
    ids=repr,
)
def test_what_is_no_finite_number_is_refused(value: Any) -> None:
    assert "; it must be a number, 0 or more." in refusal(zoomed, value)


@pytest.mark.parametrize(
    ("value", "limits", "sentence"),
    [
        (0, {"positive": True}, "Camera: zoom is 0; it must be a positive number."),
        (1, {"below": 1}, "Camera: zoom is 1; it must be a number, 0 or more and below 1."),
        (1.5, {"at_most": 1}, "Camera: zoom is 1.5; it must be a number, 0 or more and at most 1."),
        (
            2,
            {"positive": True, "at_most": 1, "optional": True},
            "Camera: zoom is 2; it must be a positive number and at most 1, or None.",
        ),
        ("1", {}, 'Camera: zoom is "1"; it must be a number, 0 or more.'),
        (float, {}, "Camera: zoom is the class float; it must be a number, 0 or more."),
    ],
)
def test_refusal_names_the_part_the_setting_the_value_and_the_range(
    value: Any, limits: dict[str, Any], sentence: str
) -> None:
    assert refusal(zoomed, value, **limits) == sentence


def test_limits_themselves_are_taken_or_not() -> None:
    assert zoomed(1, at_most=1) == 1
    assert zoomed(0) == 0
    assert zoomed(math.nextafter(1, 0), below=1) < 1
    assert zoomed(None, optional=True) is None


def test_what_is_no_text_is_refused() -> None:
    check_texts(Camera(mode="night"), "mode")
    assert refusal(check_texts, Camera(mode=5), "mode") == "Camera: mode is 5; it must be text."


def test_number_of_a_pair_is_named_by_its_place() -> None:
    assert number_in(Camera(), "zoom[1]", np.float32(0.5), below=1) == 0.5
    assert refusal(number_in, Camera(), "zoom[1]", 1, below=1).startswith("Camera: zoom[1] is 1; it must be")


@pytest.mark.parametrize("value", [0, -1, 2.0, "2", True, None, math.nan], ids=repr)
def test_what_is_no_count_is_refused(value: Any) -> None:
    assert "it must be a whole number, 1 or more." in refusal(check_counts, Camera(frames=value), "frames")


def test_count_is_kept_as_an_int() -> None:
    camera = Camera(frames=np.int64(3))
    check_counts(camera, "frames")
    assert (type(camera.frames), camera.frames) == (int, 3)
    check_counts(Camera(), "frames", optional=True)


def test_choice_is_kept_as_the_option_is_written() -> None:
    text, number = Camera(mode=np.str_("night")), Camera(mode=np.int64(2))
    check_choice(text, "mode", ("day", "night"))
    check_choice(number, "mode", (1, 2))
    assert (type(text.mode), type(number.mode)) == (str, int)


@pytest.mark.parametrize(
    ("value", "options", "sentence"),
    [
        ("nigth", ("day", "night"), 'mode is "nigth"; it must be "day" or "night". Did you mean "night"?'),
        (True, (1, 2), "mode is True; it must be 1 or 2."),
        (None, (1, 2), "mode is None; it must be 1 or 2."),
        (np.ones(2), (1, 2), "it must be 1 or 2."),
    ],
)
def test_what_is_no_option_is_refused_with_the_options(value: Any, options: Any, sentence: str) -> None:
    assert sentence in refusal(check_choice, Camera(mode=value), "mode", options)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("Normal", 'Camera: lens is "Normal"; give fp.Normal().'),
        (Normal, "Camera: lens is the class Normal; give fp.Normal()."),
        (Wide, "Camera: lens is the class Wide; give fp.Wide(degrees=...)."),
        (0.5, "Camera: lens is 0.5; give one of fp.Wide(degrees=...), fp.Normal(), or one of your own."),
        ("normale", 'of your own. Did you mean "Normal"?'),
        (Film(), "lens is Film(); give one of fp.Wide(degrees=...), fp.Normal(), or"),
    ],
)
def test_what_is_no_part_is_refused_with_what_to_write(value: Any, sentence: str) -> None:
    assert sentence in refusal(check_part, Camera(lens=value), "lens", Lens, LENSES)


def test_part_of_the_protocol_is_taken() -> None:
    camera = Camera(lens=Wide(90))
    check_part(camera, "lens", Lens, LENSES)
    assert camera.lens == Wide(90)
