"""How good a model is on held-out rows, as a section of a report: metrics, curves, the confusion matrix."""

from typing import Any

import numpy as np

from fedpact.engine import words
from fedpact.engine.evaluation import Evaluation
from fedpact.learn.metrics import calibration_curve, roc_curve
from fedpact.report import charts, page

_MOST_CLASSES = 12
_COLOURS = ("1", "2", "3", "4", "5", "6")


def held_out_section(evaluation: Evaluation, classes: list[str]) -> str:
    """Return the section, as HTML.

    Args:
        evaluation: of the final model.
        classes: what the classes are called; none for a regression.
    """
    title = "On held-out rows"
    if not evaluation.total_rows:
        return page.section(title, _not_judged(evaluation))
    return page.section(
        title,
        _metrics(evaluation),
        page.charts(_roc(evaluation, classes), _calibration(evaluation, classes)),
        _confusion(evaluation, classes),
        _not_judged(evaluation),
    )


def _metrics(evaluation: Evaluation) -> str:
    summary = evaluation.summary()
    rows = []
    for name, value in evaluation.metrics.items():
        if name.endswith("_error"):
            continue
        over = summary.get(name)
        cells = [words.MISSING] * 3
        if over is not None:
            cells = [words.score(name, each) for each in (over.mean, over.std, over.worst)]
        rows.append(
            [
                words.capital(words.label(name)),
                words.score(name, value),
                *cells,
                (over and over.worst_client) or words.MISSING,
                words.METRICS[name].meaning,
            ]
        )
    head = ["metric", "all rows", "mean of clients", "deviation", "worst", "worst client", "what it says"]
    return page.table(head, rows, text_columns=(0, 5, 6))


def _roc(evaluation: Evaluation, classes: list[str]) -> tuple[str, str, str] | None:
    scores = evaluation.sums.get("scores")
    if scores is None:
        return None
    several = scores.ndim == 3
    numbers: list[int | None] = list(range(min(len(scores), len(_COLOURS)))) if several else [None]
    lines = [charts.Line("", np.array([0.0, 1.0]), np.array([0.0, 1.0]), "muted", dashed=True)]
    for place, label in enumerate(numbers):
        false_positive, true_positive = roc_curve(evaluation.sums, label)
        if not (np.isfinite(false_positive).all() and np.isfinite(true_positive).all()):
            continue
        corners = _corners(false_positive, true_positive)
        lines.append(charts.Line("", false_positive[corners], true_positive[corners], _COLOURS[place]))
    if len(lines) == 1:
        return None
    which = "class 1" if len(classes) < 2 else f'class "{classes[1]}"'
    text = "Dashed: chance."
    if several:
        coloured = ", ".join(classes[: len(numbers)])
        text = f"Each class against the rest ({coloured}). {text}"
    title = "ROC curves" if several else f"ROC curve of {which}"
    text = f"Area {words.number(evaluation.metrics['auc'])}. {text}"
    x, y = charts.Axis("false positive rate", 0, 1), charts.Axis("true positive rate", 0, 1)
    return title, text, charts.line_chart(title, lines, x, y)


def _corners(x: Any, y: Any) -> Any:
    """Return where a curve of many steps turns; the points between lie on straight lines."""
    dx, dy = np.diff(x), np.diff(y)
    moved = np.flatnonzero((dx != 0) | (dy != 0)) + 1
    points = np.concatenate([[0], moved])
    a, b = np.diff(x[points]), np.diff(y[points])
    turns = np.flatnonzero(np.abs(a[:-1] * b[1:] - a[1:] * b[:-1]) > 1e-15) + 1
    return np.unique(points[np.concatenate([[0], turns, [len(points) - 1]])])


def _calibration(evaluation: Evaluation, classes: list[str]) -> tuple[str, str, str] | None:
    if "calibration_rows" not in evaluation.sums:
        return None
    curve = calibration_curve(evaluation.sums)
    marks = 2 + 6 * np.sqrt(curve.rows / curve.rows.max())
    lines = [
        charts.Line("", np.array([0.0, 1.0]), np.array([0.0, 1.0]), "muted", dashed=True),
        charts.Line("", curve.mean_predicted, curve.observed_share, "1", marks=marks),
    ]
    text = "On the dashed line, of rows given 80 % as many come true. Larger points hold more rows."
    of = " of the predicted class" if len(classes) > 2 else ""
    x, y = charts.Axis(f"predicted probability{of}", 0, 1), charts.Axis("observed share", 0, 1)
    return "Calibration", text, charts.line_chart("Calibration", lines, x, y)


def _confusion(evaluation: Evaluation, classes: list[str]) -> str:
    matrix = evaluation.sums.get("confusion")
    if matrix is None or not 2 <= len(classes) <= _MOST_CLASSES:
        return ""
    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    rows = [
        [name, *(page.shaded_cell(words.number(n), p) for n, p in zip(counts, share, strict=True))]
        for name, counts, share in zip(classes, matrix, shares, strict=True)
    ]
    text = (
        "Held-out rows by true class (down) and predicted class (across); the darker, the larger its share."
    )
    return page.table(["true \\ predicted", *classes], rows, kind="matrix") + page.paragraph(text, "quiet")


def _not_judged(evaluation: Evaluation) -> str:
    if not evaluation.failures:
        return ""
    text = "These clients could not judge the model and are in none of the numbers above:"
    return page.paragraph(text) + page.table(
        ["client", "reason"], evaluation.failures.items(), text_columns=(0, 1)
    )
