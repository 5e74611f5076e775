"""What comparisons gave, as tables: on the terminal, and in Markdown for the documentation.

python -m benchmarks report results/*.json --markdown
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.contestants import CONTESTANTS, OURS
from benchmarks.options import figures

# Rounds that are not timed: allocations, compilations, and the choice of an engine.
WARM_UP = 2
# Two losses before training are the same within this; they are sums of the same numbers in another order.
SAME_START = 1e-3
# Two losses after training are the same within this, or within this share of what training gained: cohorts,
# shuffles and dropout are drawn by each contestant on its own.
SAME_END = 0.01
SAME_END_SHARE = 0.1
# Cores that others kept busy, from which on a run is marked.
NOISY = 0.2


@dataclass(frozen=True)
class Spread:
    """The median of some figures, and their extremes."""

    middle: float
    least: float
    most: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> "Spread":
        """Return the spread of at least one figure."""
        return cls(median(figures), min(figures), max(figures))

    def __str__(self) -> str:
        if self.least == self.most:
            return f"{self.middle:.3g}"
        return f"{self.middle:.3g} ({self.least:.3g}–{self.most:.3g})"


@dataclass(frozen=True)
class Line:
    """What all runs of a contestant gave.

    Args:
        label: who.
        seconds: per round: over its runs, each of which counts by the median of its timed rounds.
        ratio: its seconds over ours, of each turn; None for ours.
        start_up: seconds from the start of the process to the end of round 1, the median.
        peak_pss_bytes: the most memory of its processes; None where unknown.
        processes: the most that it had.
        cores_used: on average; None where unknown.
        outside_load: cores that others kept busy, in its worst run; None where unknown.
        loss_before: the mean loss with the first weights, the median of its runs;
        loss_after: and with the last.
        runs: how many.
    """

    label: str
    seconds: Spread
    ratio: Spread | None
    start_up: float
    peak_pss_bytes: int | None
    processes: int
    cores_used: float | None
    outside_load: float | None
    loss_before: float
    loss_after: float
    runs: int


def seconds_per_round(run: Mapping[str, Any]) -> float:
    """Return the median of a run's timed rounds; of the last alone where there are no more than the warm-up."""
    rounds: list[float] = run["rounds"]
    return median(rounds[WARM_UP:] or rounds[-1:])


@dataclass(frozen=True)
class Report:
    """One comparison, as it was written down."""

    content: Mapping[str, Any]

    @property
    def ours(self) -> list[str]:
        """The labels of Fedpact's own; the first of them is what the others are held against."""
        return [label for label, said in self.content["contestants"].items() if said["name"] == OURS]

    @property
    def runs(self) -> dict[str, dict[int, Mapping[str, Any]]]:
        """Contestant → turn → run, of those that did not fail; ours first."""
        runs: dict[str, dict[int, Mapping[str, Any]]] = {}
        for run in self.content["runs"]:
            if "failure" not in run:
                runs.setdefault(run["label"], {})[run["repeat"]] = run
        return runs

    @property
    def settings(self) -> dict[str, Mapping[str, Any]]:
        """Contestant → how its last run ran, in its own words."""
        return {run["label"]: run.get("settings", {}) for run in self.content["runs"]}

    @property
    def failures(self) -> dict[str, str]:
        """Contestant → why it is not, or not fully, in the tables."""
        failed = {run["label"]: run["failure"] for run in self.content["runs"] if "failure" in run}
        return {**self.content["absent"], **failed}

    @property
    def complete(self) -> bool:
        """Whether ours ran in every turn, and somebody beside it if anybody was asked for."""
        rivals = self.content["contestants"].keys() - set(self.ours)
        ran = any(label in self.runs for label in rivals) or not (rivals or self.content["absent"])
        return ran and not self.failures.keys() & set(self.ours)

    @property
    def lines(self) -> list[Line]:
        """The contestants' lines, ours first."""
        all_runs, ours = self.runs, next(iter(self.ours), "")
        beside = {label: {} if label == ours else all_runs.get(ours, {}) for label in all_runs}
        return [self._line(label, runs, beside[label]) for label, runs in all_runs.items()]

    def _line(
        self, label: str, runs: Mapping[int, Mapping[str, Any]], ours: Mapping[int, Mapping[str, Any]]
    ) -> Line:
        def known(name: str) -> list[Any]:
            return [run[name] for run in runs.values() if run[name] is not None]

        turns = sorted(runs.keys() & ours.keys())
        ratios = [seconds_per_round(runs[turn]) / seconds_per_round(ours[turn]) for turn in turns]
        return Line(
            label=label,
            seconds=Spread.of([seconds_per_round(run) for run in runs.values()]),
            ratio=Spread.of(ratios) if ratios else None,
            start_up=median(known("start_up")),
            peak_pss_bytes=max(known("peak_pss_bytes"), default=None),
            processes=max(known("processes")),
            cores_used=median(known("cores_used")) if known("cores_used") else None,
            outside_load=max(known("outside_load"), default=None),
            loss_before=median(known("loss_before")),
            loss_after=median(known("loss_after")),
            runs=len(runs),
        )

    def losses(self) -> list[str]:
        """Return in sentences whether all started from the same loss and reached the same one."""
        lines = self.lines
        if len(lines) < 2:
            return []
        start, end = median([a.loss_before for a in lines]), median([a.loss_after for a in lines])
        within = max(SAME_END, SAME_END_SHARE * abs(start - end))
        return [
            _same("start from", start, SAME_START, {line.label: line.loss_before for line in lines}),
            _same(
                f"after {self.content['rounds']} rounds reach",
                end,
                within,
                {line.label: line.loss_after for line in lines},
            ),
        ]


def _same(what: str, loss: float, within: float, losses: Mapping[str, float]) -> str:
    # NaN is within nothing.
    apart = {label: found for label, found in losses.items() if not abs(found - loss) <= within}
    if not apart:
        return f"All {what} the loss {loss:.4f}, within {within:.2g}."
    named = ", ".join(f"{label} {found:.4f}" for label, found in apart.items())
    return f"NOT all {what} the same loss: the median is {loss:.4f}, and further from it than {within:.2g} are {named}."


HEADINGS = ("", "s / round", "theirs / ours", "start, s", "MB", "processes", "cores", "loss")


def cells(line: Line) -> tuple[str, ...]:
    """Return a contestant's line of the table."""
    noisy = "*" if (line.outside_load or 0) > NOISY else ""
    return (
        line.label,
        f"{line.seconds}{noisy}",
        "" if line.ratio is None else str(line.ratio),
        f"{line.start_up:.1f}",
        "" if line.peak_pss_bytes is None else f"{line.peak_pss_bytes / 1e6:,.0f}",
        str(line.processes),
        "" if line.cores_used is None else f"{line.cores_used:.2f}",
        f"{line.loss_before:.3f} → {line.loss_after:.3f}",
    )


def notes(report: Report) -> list[str]:
    """Return what has to be said beside the table, in sentences."""
    said = report.losses()
    if any((line.outside_load or 0) > NOISY for line in report.lines):
        said.append(f"* In a run of these, others kept more than {NOISY:g} cores of the machine busy.")
    said += [
        f"{label}: {settings['ran']}." for label, settings in report.settings.items() if settings.get("ran")
    ]
    said += [f"{label}: {why}" for label, why in report.failures.items()]
    return said


def wide_console() -> Console:
    """Return a console in which a table has its width also where there is no terminal to ask."""
    console = Console()
    return console if console.is_terminal else Console(width=120)


def show(report: Report, path: Path, console: Console) -> None:
    """Print a comparison and draw it beside its file."""
    from benchmarks.pictures import draw_comparison

    table = Table(box=box.SIMPLE_HEAD)
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for line in report.lines:
        table.add_row(*cells(line))
    console.print(table)
    for note in notes(report):
        console.print(
            note, highlight=False, markup=False, soft_wrap=True, style="red" if "NOT" in note else ""
        )
    picture = path.with_suffix(".png")
    if report.lines:
        draw_comparison([report], picture)
        console.print(f"{path} and {picture.name}", highlight=False)


def markdown(report: Report) -> str:
    """Return a comparison as a section of a Markdown page."""
    rows = [HEADINGS, ("---", *["---:"] * (len(HEADINGS) - 1)), *map(cells, report.lines)]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    # What is written by hand, and further settings of ours, run in the environment of the first of ours.
    installed = {
        label: said["versions"]
        for label, said in report.content["contestants"].items()
        if label in report.ours[:1] or CONTESTANTS[said["name"]].package
    }
    listed = "; ".join(
        f"{label}: {', '.join(map(' '.join, each.items()))}" for label, each in installed.items()
    )
    # A star would begin a list of its own.
    said = "\n".join("- " + note.replace("*", "\\*") for note in [*notes(report), f"Versions: {listed}."])
    return f"### {_title(report)}\n\n{_setting(report)}\n\n{table}\n\n{said}\n"


def _title(report: Report) -> str:
    return f"{report.content['workload']['letter']}: {report.content['workload']['title']}"


def _setting(report: Report) -> str:
    workload, content = report.content["workload"], report.content
    machine = content["machine"]
    return (
        f"{workload['model']}; {workload['cohort']} of {workload['clients']:,} clients a round, {workload['rows']} "
        f"rows each, batches of {workload['batch_size']}: {workload['steps']:,} steps a round. {machine['cores']} "
        f"cores of {machine['processor']}, {machine['memory_GiB']} GiB, {content['device']}, {content['date']}; "
        f"{content['rounds']} rounds a run, the first {WARM_UP} not timed; median (least–most) of "
        f"{max(line.runs for line in report.lines)} in alternation."
    )


def main(words: Sequence[str]) -> int:
    """Print comparisons that were written down earlier, and draw them in one picture if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks report", description=__doc__)
    parser.add_argument("files", nargs="+", type=figures, help="what comparisons have written")
    parser.add_argument("--markdown", action="store_true", help="as Markdown")
    parser.add_argument("--picture", type=Path, help="draw all of them into this file")
    arguments = parser.parse_args(words)
    compared = {
        path: Report(content) for path, content in arguments.files if content["benchmark"] == "against"
    }
    console = wide_console()
    for path, report in compared.items():
        if arguments.markdown:
            print(markdown(report))
        else:
            show(report, path, console)
    if arguments.picture:
        from benchmarks.pictures import draw_comparison

        draw_comparison(list(compared.values()), arguments.picture)
    return 0
