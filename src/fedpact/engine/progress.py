"""How far a run is, round by round, on standard error: a bar in a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from math import isnan
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fedpact.engine import words

if TYPE_CHECKING:
    from rich.console import Console

    from fedpact.core.job import Job
    from fedpact.privacy.statement import Statement

# A file or a pipe has no width of its own.
_WIDTH_OF_A_PIPE = 120
_SECONDS_BETWEEN_LINES = 5.0


def console(stream: Any) -> "Console":
    """Return a console that prints text as it is, markup and all."""
    from rich.console import Console

    width = None if stream.isatty() else _WIDTH_OF_A_PIPE
    return Console(file=stream, markup=False, highlight=False, emoji=False, width=width)


def showing_rounds(
    job: "Job", progress: bool | None
) -> "AbstractContextManager[Callable[[Mapping[str, Any]], None]]":
    """Return a context that gives what is to be called with the record of each round of a job.

    Args:
        job: the job.
        progress: whether to show rounds; None for where standard error is a terminal.
    """
    if not _is_shown(progress):
        return nullcontext(lambda record: None)
    watched = (rule["metric"] for rule in job.stop if rule.get("metric", "train_loss") != "train_loss")
    return RoundProgress(job.rounds, next(watched, None))


def show_statement(statement: "Statement", progress: bool | None) -> None:
    """Show the privacy statement of a run that has ended, where its rounds were shown."""
    if _is_shown(progress):
        console(sys.stderr).print(f"Privacy: {statement}")


def _is_shown(progress: bool | None) -> bool:
    return sys.stderr.isatty() if progress is None else progress


class RoundProgress:
    """Shows rounds as they end; to be called with each round's record.

    Args:
        rounds: how many there are to be, at most.
        metric: the metric to show; None for accuracy or RMSE, whichever there is.
    """

    def __init__(self, rounds: int, metric: str | None) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._rounds, self._metric = rounds, metric
        screen = console(sys.stderr)
        self._is_bar = screen.is_terminal
        self._last_line = float("-inf")
        self._bar = Progress(
            TextColumn("{task.fields[round]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TimeRemainingColumn(compact=True),
            console=screen,
            disable=not self._is_bar,
        )
        self._task = self._bar.add_task("preparing the rows", total=rounds, round="")

    def __enter__(self) -> "RoundProgress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Show a round that has ended."""
        number = int(record["round"])
        heading, text = f"round {number}/{self._rounds}", self._words(record)
        self._bar.update(self._task, completed=number, description=text, round=heading)
        is_due = number == self._rounds or time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES
        if not self._is_bar and is_due:
            self._last_line = time.monotonic()
            console(sys.stderr).print(f"{heading}: {text}")

    def _words(self, record: Mapping[str, Any]) -> str:
        parts = [f"loss {words.number(record['train_loss'])}"] if "train_loss" in record else []
        metric = self._metric or words.main_metric(record)
        if metric is not None and not isnan(record.get(metric, float("nan"))):
            parts.append(f"{words.label(metric)} {words.score(metric, record[metric])}")
        asked = record["clients"] + record["failed"]
        parts.append(f"{record['clients']} of {words.many(asked, 'client')}")
        parts.append(f"{words.duration(record['seconds'])} a round")
        return ", ".join(parts)
