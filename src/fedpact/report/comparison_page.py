"""A federation beside its alternatives, as one HTML file, with the report of the federation's run."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.engine.words import capital, is_share, label, score
from fedpact.learn.metrics import LARGER_IS_BETTER
from fedpact.report import charts, page
from fedpact.report.comparison import Candidate, Comparison
from fedpact.report.html import footer, run_sections

_STYLES = {"alone": "2", "federation": "1", "pooled": "3"}
_METRICS = {"accuracy": "accuracy", "auc": "AUC", "balanced_accuracy": "balanced accuracy"}


def comparison_page(comparison: Comparison) -> str:
    """Return the page: what there is to see, every number, and how the federation's first run went."""
    federation = comparison.federation
    labels = federation.describe()
    body = [
        *(page.paragraph(text, "verdict") for text in comparison.sentences()),
        page.section(
            "Judged on the same rows",
            page.paragraph(comparison.method(), "quiet"),
            _table(comparison),
            page.charts(_dots(comparison, "accuracy"), _dots(comparison, "log_loss")),
        ),
        page.section("At each hospital", _matrix(comparison)),
        page.section(
            "The data",
            page.paragraph(federation.note),
            page.paragraph(
                f"{federation.source}. Terms: {federation.terms}. Label: {federation.label}.", "quiet"
            ),
        ),
        "<h2>The federation's run" + (", first repetition" if comparison.repeats > 1 else "") + "</h2>",
        *run_sections(comparison.result, labels),
    ]
    return page.page(comparison.study.title, "A federation beside its alternatives", body, footer())


def _table(comparison: Comparison) -> str:
    rows = [
        [each.name, *(score(metric, each.mean(metric)) for metric in _METRICS), each.left]
        for each in comparison.candidates
    ]
    strong = [place for place, each in enumerate(comparison.candidates) if each.kind == "federation"]
    note = "Besides updates, sums left each hospital: to standardise the columns, and to judge the model."
    head = ["trained by", *_METRICS.values(), "what left a hospital"]
    return page.table(head, rows, text_columns=(0, 4), strong=strong) + page.paragraph(note, "quiet")


def _dots(comparison: Comparison, metric: str) -> tuple[str, str, str]:
    title = f"{capital(label(metric))} on all hospitals' held-out rows"
    rows = [
        (each.name, each.values(metric).tolist(), each.mean(metric), _STYLES[each.kind])
        for each in comparison.candidates
    ]
    values = np.concatenate([values for _, values, *_ in rows])
    share = is_share(metric)
    axis = charts.Axis(label(metric), *charts.padded(values, 0.0, 1.0 if share else np.inf), is_share=share)
    better = "Higher is better." if LARGER_IS_BETTER[metric] else "Lower is better."
    text = f"{better} Small: one repetition; large: their mean." if comparison.repeats > 1 else better
    return title, text, charts.dot_rows(title, rows, axis, partial(score, metric))


def _matrix(comparison: Comparison) -> str:
    ids = comparison.federation.ids
    shares = np.array([[each.at(id, "accuracy") for id in ids] for each in comparison.candidates])
    lowest = float(np.nanmin(shares))

    def cells(each: Candidate, row: NDArray[Any]) -> list[str]:
        scaled = (row - lowest) / ((1.0 - lowest) or 1.0)
        return [
            each.name,
            *(
                page.shaded_cell(score("accuracy", v), s)
                for v, s in zip(row, np.nan_to_num(scaled), strict=True)
            ),
        ]

    text = "Accuracy of the model in the row on the held-out rows of the hospital in the column."
    rows = [cells(each, row) for each, row in zip(comparison.candidates, shares, strict=True)]
    return page.table(["trained by", *ids], rows) + page.paragraph(text, "quiet")
