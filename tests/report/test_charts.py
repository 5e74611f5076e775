from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpact.report import charts
from tests.report.runs import HOSTILE

SVG = "{http://www.w3.org/2000/svg}"
WHOLE = charts.Axis("x", 1, 10)


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def points(svg: str) -> list[list[tuple[float, float]]]:
    lines = parsed(svg).iter(f"{SVG}polyline")
    return [
        [(float(x), float(y)) for x, y in (p.split(",") for p in line.attrib["points"].split())]
        for line in lines
    ]


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_are_few_round_and_inside(low: float, width: float) -> None:
    found = charts.ticks(low, low + width)
    room = 1e-6 * max(width, abs(low))
    assert len(found) <= 12
    assert all(low - room <= tick <= low + width + room for tick in found)


def test_ticks_are_what_a_person_would_choose() -> None:
    assert charts.ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert charts.ticks(0.913, 0.991, 4) == [0.92, 0.94, 0.96, 0.98]
    assert charts.ticks(1, 3, 6, whole=True) == [1, 2, 3]


def test_numbers_on_an_axis_have_the_same_decimals_and_are_true() -> None:
    marks = charts.Axis("y", 0, 1).marks(about=4)
    assert [text for _, text in marks] == ["0.00", "0.25", "0.50", "0.75", "1.00"]
    assert all(float(text) == value for value, text in marks)
    assert [text for _, text in charts.Axis("y", 0.9, 1, is_share=True).marks(4)][-1] == "100.0 %"


def test_larger_values_are_higher_and_later_ones_further_right() -> None:
    line = charts.Line("", np.array([1.0, 5.0, 10.0]), np.array([0.0, 2.0, 8.0]))
    (drawn,) = points(charts.line_chart("t", [line], WHOLE, charts.Axis("y", 0, 10)))
    (x0, y0), (x1, y1), (x2, y2) = drawn
    assert x0 < x1 < x2
    assert y0 > y1 > y2
    # Places are in proportion: (5 − 1) / (10 − 1) across and 2 / 8 up, to a tenth of a pixel.
    assert (x1 - x0) / (x2 - x0) == pytest.approx(4 / 9, abs=0.001)
    assert (y0 - y1) / (y0 - y2) == pytest.approx(2 / 8, abs=0.001)


def test_gaps_are_bridged_and_a_single_point_is_a_mark() -> None:
    nan = float("nan")
    gap = charts.Line("", np.array([1.0, 2.0, 3.0]), np.array([1.0, nan, 2.0]))
    single = charts.Line("", np.array([1.0, 2.0]), np.array([nan, 2.0]))
    svg = charts.line_chart("t", [gap, single], WHOLE, charts.Axis("y", 0, 10))
    assert [len(line) for line in points(svg)] == [2]
    assert len(list(parsed(svg).iter(f"{SVG}circle"))) == 1


def test_long_lines_are_thinned_and_keep_their_ends() -> None:
    x = np.arange(100_000.0)
    (drawn,) = points(
        charts.line_chart("t", [charts.Line("", x, x)], charts.Axis("", 0, 1e5), charts.Axis("", 0, 1e5))
    )
    assert len(drawn) <= 400
    assert drawn[0][0] == pytest.approx(52, abs=0.1)
    assert drawn[-1][0] > 400


def test_names_at_the_ends_of_lines_do_not_overlap() -> None:
    lines = [
        charts.Line(f"line {i}", np.array([1.0, 10.0]), np.array([1.0, 5.0 + 0.01 * i])) for i in range(5)
    ]
    svg = charts.line_chart("t", lines, WHOLE, charts.Axis("y", 0, 10))
    places = sorted(
        float(t.attrib["y"]) for t in parsed(svg).iter(f"{SVG}text") if (t.text or "").startswith("line")
    )
    assert min(b - a for a, b in pairwise(places)) >= 13.9


def test_bars_are_as_long_as_their_parts() -> None:
    svg = charts.stacked_bars("t", [("a", [10, 30]), ("b", [20, 0])], ["p", "q"], str)
    widths = {
        rect.find(f"{SVG}title").text: float(rect.attrib["width"])  # type: ignore[union-attr]
        for rect in parsed(svg).iter(f"{SVG}rect")
        if rect.find(f"{SVG}title") is not None
    }
    assert widths["a, q: 30"] == pytest.approx(3 * widths["a, p: 10"], abs=0.2)
    assert widths["b, p: 20"] == pytest.approx(2 * widths["a, p: 10"], abs=0.2)
    assert "b, q: 0" not in widths


def test_histogram_holds_every_value() -> None:
    values = np.random.default_rng(0).normal(size=500)
    svg = charts.histogram("t", values, "x", "clients", str, is_share=False)
    hints = [
        title.text or "" for rect in parsed(svg).iter(f"{SVG}rect") for title in rect.iter(f"{SVG}title")
    ]
    assert sum(int(hint.rpartition(": ")[2]) for hint in hints) == 500


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0])
def test_values_that_are_all_the_same_have_a_range_around_them(value: float) -> None:
    low, high = charts.padded([value, value])
    assert low < value < high


def test_text_is_escaped_everywhere() -> None:
    line = charts.Line(HOSTILE, np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    axis = charts.Axis(HOSTILE, 0, 3)
    drawn = [
        charts.line_chart(HOSTILE, [line], axis, axis),
        charts.stacked_bars(HOSTILE, [(HOSTILE, [1.0])], [HOSTILE], lambda _: HOSTILE),
        charts.histogram(HOSTILE, np.arange(5.0), HOSTILE, HOSTILE, lambda _: HOSTILE, is_share=False),
        charts.dot_rows(HOSTILE, [(HOSTILE, [1.0], 1.0, "1")], axis, lambda _: HOSTILE),
    ]
    for svg in drawn:
        root = parsed(svg)
        assert {each.tag for each in root.iter()} <= {
            SVG + name for name in ("svg", "title", "text", "line", "rect", "circle", "polyline")
        }
