"""The report of a run as one HTML file."""

import platform
from collections.abc import Mapping
from functools import partial
from math import isnan
from typing import TYPE_CHECKING, Any

import numpy as np

import fedpact
from fedpact.core.job import Job
from fedpact.engine import words
from fedpact.engine.evaluation import Evaluation
from fedpact.engine.result import Result
from fedpact.engine.words import many
from fedpact.learn.metrics import LARGER_IS_BETTER
from fedpact.report import charts, page
from fedpact.report.clients import ClientTable
from fedpact.report.docstrings import settings
from fedpact.report.held_out import held_out_section
from fedpact.report.toml import job_toml

if TYPE_CHECKING:
    import pandas as pd

# Above so many clients a bar or a line for each is no longer readable.
_MOST_CLIENTS = 40
_MOST_WORST = 25
_MOST_FAILURES = 50


def run_page(result: Result, labels: "pd.DataFrame | None" = None) -> str:
    """Return the report of a run: one page that needs no other file.

    Args:
        result: the run.
        labels: how often each label occurs at each client, as `Federation.describe` tells; None if not known.
    """
    return page.page(result.job.name, "Report of a federated run", run_sections(result, labels), footer())


def run_sections(result: Result, labels: "pd.DataFrame | None" = None) -> list[str]:
    """Return the sections of a run's report, as HTML."""
    return [
        page.paragraph(verdict(result), "verdict"),
        page.paragraph(f"The run ended because: {result.stopped}.", "quiet"),
        _key_figures(result),
        _training(result),
        _clients(result, labels),
        _held_out(result),
        _failures(result),
        _notes(result),
        page.section("Privacy", *map(page.paragraph, result.privacy.sentences())),
        _settings(result),
    ]


def footer() -> str:
    """Return what wrote a page."""
    return f"Written by Fedpact {fedpact.__version__} with Python {platform.python_version()}."


def verdict(result: Result) -> str:
    """Return how good the model is, in one or two sentences."""
    done = f"After {many(len(result.history), 'round')} with {many(len(result.clients), 'client')}"
    evaluation = result.evaluation
    if evaluation is None:
        return f"{done} there is a model; no client holds rows aside, so nothing here says how good it is."
    if not evaluation.total_rows:
        return f"{done} there is a model; no client could judge it, so nothing here says how good it is."
    rows, found = evaluation.total_rows, evaluation.metrics
    if "accuracy" in found:
        # Rows of the matrix are true classes.
        commonest = float(evaluation.sums["confusion"].sum(axis=1).max()) / rows
        text = (
            f"{done} the model is right on {words.score('accuracy', found['accuracy'])} of "
            f"{many(rows, 'held-out row')}; always naming the commonest class would be right on "
            f"{words.score('accuracy', commonest)}."
        )
    else:
        text = (
            f"{done} the model's predictions are off by {words.number(found['rmse'])} (root mean square) over "
            f"{many(rows, 'held-out row')}; it explains {_explained(found['r2'])} of the label's variance."
        )
    return text + _worst(evaluation)


def _explained(r2: float) -> str:
    if isnan(r2):
        return "an unknown share"
    return "nothing" if r2 <= 0 else f"{100 * r2:.1f} %"


def _worst(evaluation: Evaluation) -> str:
    metric = words.main_metric(evaluation.metrics)
    if metric is None or len(evaluation.clients) < 2:
        return ""
    summary = evaluation.summary()[metric]
    if summary.worst_client is None:
        return ""
    value = words.score(metric, summary.worst)
    return f" It serves {summary.worst_client} worst: {words.label(metric)} {value}."


def _key_figures(result: Result) -> str:
    held_out = result.evaluation.total_rows if result.evaluation else 0
    return page.figures(
        [
            ("rounds", words.count(len(result.history))),
            ("clients", words.count(len(result.clients))),
            ("training rows", words.count(int(np.nansum(result.clients["train_rows"].astype(float))))),
            ("held-out rows", words.count(held_out)),
            ("sent by clients", words.size(result.upload_bytes)),
            ("sent to clients", words.size(result.download_bytes)),
            ("time in rounds", words.duration(result.seconds)),
            ("failures", words.count(len(result.failures))),
        ]
    )


def _training(result: Result) -> str:
    history = result.history
    metric = words.main_metric(history.columns)
    drawn = [
        _over_rounds(
            history, {"": "train_loss"}, "Training loss", "Over the rows that the clients trained on."
        )
    ]
    if metric is not None:
        lines = {"worst client": f"{metric}_worst", "mean of clients": f"{metric}_mean", "all rows": metric}
        better = "higher" if LARGER_IS_BETTER[metric] else "lower"
        title = f"{words.capital(words.label(metric))} on held-out rows"
        drawn.append(_over_rounds(history, lines, title, f"After each evaluated round; {better} is better."))
    return page.section("Training", page.charts(*drawn))


def _over_rounds(
    history: "pd.DataFrame", columns: Mapping[str, str], title: str, text: str
) -> tuple[str, str, str] | None:
    present = {name: column for name, column in columns.items() if column in history.columns}
    if not present or not history[list(present.values())].notna().any(axis=None):
        return None
    rounds = history.index.to_numpy(np.float64)
    styles = dict(zip(columns, ("1",) if len(columns) == 1 else ("2", "muted", "1"), strict=True))
    lines = [
        charts.Line(name, rounds, history[column].to_numpy(np.float64), styles[name])
        for name, column in present.items()
    ]
    metric = list(columns.values())[-1]
    share = words.is_share(metric)
    span = charts.padded(np.concatenate([line.y for line in lines]), *((0.0, 1.0) if share else ()))
    x = charts.Axis("round", 1, max(2.0, float(rounds[-1])), whole=True)
    return title, text, charts.line_chart(title, lines, x, charts.Axis(words.label(metric), *span, share))


def _clients(result: Result, labels: "pd.DataFrame | None") -> str:
    few = len(result.clients) <= _MOST_CLIENTS
    return page.section(
        "Clients",
        page.charts(*(_client_bars(result, labels) if few else _client_histograms(result))),
        _client_table(result),
    )


def _client_bars(result: Result, labels: "pd.DataFrame | None") -> list[tuple[str, str, str]]:
    split = result.clients[["train_rows", "test_rows"]].fillna(0)
    rows = [(str(id), [float(a), float(b)]) for id, a, b in split.itertuples()]
    title = "Rows of each client"
    drawn = [
        (
            title,
            "What each trains on, and what it holds aside.",
            charts.stacked_bars(title, rows, ["training", "held out"], words.number),
        )
    ]
    if labels is not None and (names := [name for name in labels.columns if str(name).startswith("label ")]):
        title = "Labels of each client"
        rows = [
            (str(id), [float(v) for v in labels.loc[id, names]])
            for id in result.clients.index
            if id in labels.index
        ]
        svg = charts.stacked_bars(
            title, rows, [str(name).removeprefix("label ") for name in names], words.number
        )
        drawn.append((title, "How often each label occurs, over all of the client's rows.", svg))
    return drawn


def _client_histograms(result: Result) -> list[tuple[str, str, str]]:
    drawn = []
    metric = words.main_metric(result.clients.columns)
    columns = {"train_rows": "training rows", **({metric: words.label(metric)} if metric else {})}
    for column, name in columns.items():
        values = result.clients[column].dropna().to_numpy(np.float64)
        if len(values):
            title = f"Clients by {name}"
            form = partial(words.score, column)
            svg = charts.histogram(title, values, name, "clients", form, words.is_share(column))
            drawn.append((title, "How many clients there are of each kind.", svg))
    return drawn


def _client_table(result: Result) -> str:
    shown = ClientTable.of(result, _MOST_WORST, _MOST_CLIENTS)
    table = page.table(shown.head, shown.rows(partial(_bar, shown.clients)))
    return table + (page.paragraph(shown.note, "quiet") if shown.note else "")


def _bar(clients: "pd.DataFrame", metric: str, value: float) -> str:
    if words.main_metric([metric]) is None or isnan(value):
        return words.score(metric, value)
    longest = 1.0 if words.is_share(metric) else float(clients[metric].max())
    return page.bar_cell(words.score(metric, value), value / longest if longest else 0.0)


def _held_out(result: Result) -> str:
    if result.evaluation is None:
        return ""
    return held_out_section(
        result.evaluation, [str(each) for each in result.fitted.preparation.labels.classes]
    )


def _failures(result: Result) -> str:
    failures = result.failures
    if failures.empty:
        return ""
    text = ""
    if len(failures) > _MOST_FAILURES:
        text = f"The last {_MOST_FAILURES} of {len(failures):,}; result.json has all of them."
    rows = [
        [words.count(int(round)), str(client), str(reason)]
        for round, client, reason in failures.tail(_MOST_FAILURES)[["round", "client", "reason"]].itertuples(
            index=False
        )
    ]
    note = page.paragraph(text, "quiet") if text else ""
    return page.section(
        "Failures", note, page.table(["round", "client", "reason"], rows, text_columns=(1, 2))
    )


def _notes(result: Result) -> str:
    rows = list(result.notes.items())
    if not rows:
        return ""
    more = len(rows) - _MOST_FAILURES
    text = f"And of {many(more, 'more client')}; result.json has all of them." if more > 0 else ""
    note = page.paragraph(text, "quiet") if text else ""
    return page.section(
        "Notes on clients' rows",
        page.table(["client", "its rows"], rows[:_MOST_FAILURES], text_columns=(0, 1)),
        note,
    )


def _settings(result: Result) -> str:
    job = result.job
    about = settings(Job)
    simple = (
        *("seed", "rounds", "cohort", "sampling", "quorum", "timeout_s", "update_range"),
        *("evaluate_every", "evaluate_cohort", "initial"),
    )
    rows = [[name, _setting(getattr(job, name)), about.get(name, "")] for name in simple]
    parameters = sum(int(np.prod(entry.shape)) for entry in result.weights.layout.entries)
    features = len(result.fitted.preparation.schema.features)
    inputs = f" from {many(features, 'prepared column')}" if features else ""
    return page.section(
        "The job",
        page.paragraph(f"The model has {many(parameters, 'parameter')}{inputs}. The job as a file:"),
        page.code(job_toml(job)),
        page.table(["setting", "value", "what it is"], rows, text_columns=(0, 1, 2)),
        page.paragraph(f"SHA-256 of the job: {job.digest}", "quiet"),
    )


def _setting(value: Any) -> str:
    return "none" if value is None else words.number(value) if isinstance(value, int | float) else str(value)
