"""A run's result as tables in the terminal, and as plain data."""

from typing import TYPE_CHECKING, Any

from fedpact.cli.common import grid
from fedpact.engine import words
from fedpact.engine.evaluation import Evaluation
from fedpact.engine.result import Result
from fedpact.report.clients import ClientTable

if TYPE_CHECKING:
    from rich.table import Table

_MOST_CLIENTS = 20
_MOST_FAILURES = 10


def metric_table(evaluation: Evaluation) -> "Table":
    """Return each metric over all held-out rows, its mean over clients, and the client served worst."""
    summary = evaluation.summary()
    shown = {name: value for name, value in evaluation.metrics.items() if not name.endswith("_error")}
    if not evaluation.clients:
        return grid(
            ["on held-out rows", "all rows"],
            [[words.label(name), words.score(name, value)] for name, value in shown.items()],
            (0,),
        )
    rows = [
        [
            words.label(name),
            words.score(name, value),
            words.score(name, summary[name].mean),
            words.score(name, summary[name].worst),
            summary[name].worst_client or words.MISSING,
        ]
        for name, value in shown.items()
    ]
    return grid(["on held-out rows", "all rows", "mean of clients", "worst", "worst client"], rows, (0, 4))


def client_table(result: Result) -> tuple["Table", str]:
    """Return what each client did and how well it is served; of many, those served worst; and a note on that."""
    table = ClientTable.of(result, _MOST_CLIENTS)
    return grid(table.head, table.rows()), table.note


def failure_table(result: Result) -> tuple["Table", str]:
    """Return the last failures with their reasons, and a note if there were more."""
    failures = result.failures[["round", "client", "reason"]]
    rows = [
        [str(round), str(id), str(why)]
        for round, id, why in failures.tail(_MOST_FAILURES).itertuples(index=False)
    ]
    note = (
        f"The last {_MOST_FAILURES} of {len(failures):,} failures." if len(failures) > _MOST_FAILURES else ""
    )
    return grid(["failure in round", "client", "reason"], rows, (1, 2)), note


def note_table(result: Result) -> tuple["Table", str]:
    """Return what is to be known of clients' rows, and a note if that is said of more clients."""
    rows = [[id, why] for id, why in list(result.notes.items())[:_MOST_CLIENTS]]
    more = len(result.notes) - len(rows)
    return grid(["client", "its rows"], rows, (0, 1)), f"And of {more:,} more clients." if more else ""


def result_data(result: Result) -> dict[str, Any]:
    """Return a result as plain data, for programs."""
    evaluation = result.evaluation
    return {
        "name": result.job.name,
        "digest": result.job.digest,
        "stopped": result.stopped,
        "rounds": len(result.history),
        "seconds": result.seconds,
        "download_bytes": result.download_bytes,
        "upload_bytes": result.upload_bytes,
        "metrics": dict(evaluation.metrics) if evaluation else {},
        "over_clients": {name: vars(each) for name, each in evaluation.summary().items()}
        if evaluation
        else {},
        "clients": result.clients.to_dict(orient="index"),
        "privacy": result.privacy.to_json(),
        "failures": result.failures.to_dict(orient="records"),
        "notes": dict(result.notes),
    }
