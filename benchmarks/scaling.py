"""How Fedpact scales: rounds per second over the cohort, the model, the population and the workers.

python -m benchmarks scaling
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.against import Entry, once
from benchmarks.contestants import CONTESTANTS, OURS
from benchmarks.contestants.common import Run, cores, count
from benchmarks.environments import environment
from benchmarks.machine import machine
from benchmarks.options import several
from benchmarks.pictures import draw_scaling
from benchmarks.report import WARM_UP, Spread, seconds_per_round, wide_console
from benchmarks.workloads import WORKLOADS, Workload, cache_folder, load_weights, prepare

_LIMIT_S = 900.0


@dataclass(frozen=True)
class Curve:
    """One quantity that is varied while the others stay.

    Args:
        name: what it is called on the command line.
        title: over which the rounds are drawn.
        unit: what its axis says.
        base: the workload.
        varied: the workload's field, or "workers".
        sizes: its values.
        timed_rounds: rounds behind the warm-up: the more, the shorter they are.
    """

    name: str
    title: str
    unit: str
    base: Workload
    varied: str
    sizes: Sequence[int]
    timed_rounds: int = 5

    def run(self, size: int, engine: str, data: Path) -> Run:
        """Return the run for one of the sizes."""
        run = Run(self.base, WARM_UP + self.timed_rounds, cores(), data, engine=engine)
        if self.varied == "workers":
            return replace(run, workers=size, engine="workers")
        varied: dict[str, Any] = {self.varied: size}
        return replace(run, workload=replace(self.base, **varied))


def curves() -> list[Curve]:
    """Return what is varied."""
    network, table, images = WORKLOADS["D"], WORKLOADS["C"], WORKLOADS["A"]
    # Two rows a client: a million clients take 250 MB on disk.
    small = replace(table, rows=2, cohort=100)
    workers = [count for count in (1, 2, 4, 8, 16, 32, 64) if count <= cores()]
    return [
        Curve("cohort", "D over the cohort", "clients a round", network, "cohort", (10, 30, 100, 300, 1000)),
        Curve("model", "D over the model", "parameters", network, "hidden", (25, 50, 100, 200, 400, 800)),
        Curve(
            "population",
            "C over the population",
            "clients, 100 of them a round",
            small,
            "clients",
            (1_000, 10_000, 100_000, 1_000_000),
            timed_rounds=50,
        ),
        Curve("workers", "A over the workers", "worker processes", images, "workers", workers),
    ]


def main(words: Sequence[str]) -> int:
    """Measure, print, write the figures and draw them; return the exit status."""
    known = {curve.name: curve for curve in curves()}
    parser = argparse.ArgumentParser(prog="python -m benchmarks scaling", description=__doc__)
    parser.add_argument(
        "--curves",
        type=several("curve", known),
        default=list(known),
        help=f"of {', '.join(known)}, with commas; all if none is named",
    )
    parser.add_argument("--repeats", type=count, default=3, help="runs of each size, in alternation")
    parser.add_argument("--engine", default="auto", help="Fedpact's engine, where the workers are not varied")
    parser.add_argument(
        "--data", type=Path, default=cache_folder() / "workloads", help="folder of the workloads"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("results"), help="folder for figures, picture and logs"
    )
    arguments = parser.parse_args(words)
    console = wide_console()
    measured = [
        measure(
            known[name], arguments.repeats, arguments.engine, arguments.data.resolve(), arguments.out, console
        )
        for name in arguments.curves
    ]
    content = {
        "benchmark": "scaling",
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "machine": machine(),
        "engine": arguments.engine,
        "curves": measured,
    }
    path = arguments.out / f"scaling-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    drawn = [curve for curve in measured if curve["sizes"]]
    if drawn:
        draw_scaling(drawn, path.with_suffix(".png"))
    console.print(f"{path} and {path.with_suffix('.png').name}", highlight=False)
    return 0 if len(drawn) == len(measured) else 1


def measure(
    curve: Curve, repeats: int, engine: str, data: Path, out: Path, console: Console
) -> dict[str, Any]:
    """Return a curve: its sizes, and for each the median, least and most seconds a round; failed sizes left out."""
    console.print(curve.title, style="bold", highlight=False)
    ours, here = CONTESTANTS[OURS], environment(CONTESTANTS[OURS], data)
    runs = {size: curve.run(size, engine, data) for size in curve.sizes}
    seconds: dict[int, list[float]] = {size: [] for size in curve.sizes}
    for run in runs.values():
        prepare(run.workload, data)
    for repeat in range(repeats):
        for size, run in runs.items():
            log = out / "logs" / f"scaling-{curve.name}-{size}-{repeat + 1}.log"
            figures = once(Entry(ours, run, ours.title, here), log, _LIMIT_S)
            if "failure" in figures:
                console.print(
                    f"  {size:,}: {figures['failure']}", highlight=False, markup=False, soft_wrap=True
                )
            else:
                seconds[size].append(seconds_per_round(figures))
    spreads = {size: Spread.of(times) for size, times in seconds.items() if times}
    for size, spread in spreads.items():
        console.print(f"  {size:>9,} {curve.varied}: {spread} s a round", highlight=False)
    return {
        "name": curve.name,
        "title": curve.title,
        "unit": curve.unit,
        "sizes": [_shown(curve, runs[size], size) for size in spreads],
        "seconds": [spread.middle for spread in spreads.values()],
        "spreads": [vars(spread) for spread in spreads.values()],
    }


def _shown(curve: Curve, run: Run, size: int) -> int:
    """Return the size as it is drawn: of a network, its parameters."""
    if curve.varied != "hidden":
        return size
    return sum(array.size for array in load_weights(run.workload, run.data).values())
