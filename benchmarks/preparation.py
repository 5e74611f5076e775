"""Tables made ready for a model: imputed, standardised, one-hot encoded over clients; beside scikit-learn on all rows.

    python -m benchmarks preparation                   # 10 clients of 100,000 rows and 30 columns
    python -m benchmarks preparation --rows 1000000 --alone --repeats 1

Fedpact reads one client's Parquet file at a time, again for every statistic; scikit-learn has all rows in one table.
Both end at the same float64 matrix. They take turns, each in a new process with one thread.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.contestants.common import MARK, count
from benchmarks.machine import machine
from benchmarks.processes import wait_for_idle
from benchmarks.report import Spread, wide_console
from benchmarks.workloads import cache_folder

NUMBERS = 22
LEVELS = (4, 6, 8, 12, 16, 20, 30, 40)
MISSING = 0.05
# Contestants whose columns' sums differ by more, relatively, have not made the same matrix.
LARGEST_DIFFERENCE = 1e-9
_ROOT = Path(__file__).parents[1]
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

Turn = Mapping[str, Mapping[str, Any]]


def main(words: Sequence[str]) -> int:
    """Compare, print a table and write the figures; return the exit status."""
    arguments = _parser().parse_args(words)
    folder = arguments.data / f"{arguments.clients}x{arguments.rows}"
    if arguments.run:
        from benchmarks.preparation_runs import RUNS

        print(MARK + json.dumps(RUNS[arguments.run](folder)))
        return 0
    write(folder, arguments.clients, arguments.rows)
    console = wide_console()
    turns: list[Turn] = []
    for repeat in range(arguments.repeats):
        turn = {}
        for name in _names()[: 1 if arguments.alone else None]:
            wait_for_idle(arguments.idle_wait)
            turn[name] = _once(name, arguments)
            console.print(f"  {repeat + 1}. {name}: {turn[name]['seconds']:.3g} s", highlight=False)
        turns.append(turn)
    apart = max(map(largest_difference, turns))
    console.print(_table(turns))
    for line in notes(turns):
        console.print(f"- {line}", highlight=False, soft_wrap=True)
    content = {
        "benchmark": "preparation",
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "machine": machine(),
        "clients": arguments.clients,
        "rows": arguments.rows,
        "turns": turns,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"preparation-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    console.print(str(path), highlight=False)
    return 0 if apart <= LARGEST_DIFFERENCE else 1


def write(folder: Path, clients: int, rows: int) -> None:
    """Write a Parquet file for each client, unless it is there."""
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    for client in range(clients):
        path = folder / f"{client:04d}.parquet"
        if path.exists():
            continue
        random = np.random.default_rng([rows, client])
        columns: dict[str, Any] = {}
        for i in range(NUMBERS):
            values = random.normal(10.0 ** (i % 7 - 3), 10.0 ** (i % 5 - 2), rows)
            values[random.random(rows) < MISSING] = np.nan
            columns[f"number {i}"] = values
        for i, levels in enumerate(LEVELS):
            # The first levels are the most frequent; a small client may lack the last.
            codes = np.minimum((levels * random.random(rows) ** 1.5).astype(np.int64), levels - 1)
            codes[random.random(rows) < MISSING] = levels
            names = np.array([*(f"level {level:02d}" for level in range(levels)), None], object)
            columns[f"category {i}"] = names[codes]
        columns["label"] = random.integers(2, size=rows)
        # Under its own name only once it is whole.
        pd.DataFrame(columns).to_parquet(path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)


def largest_difference(turn: Turn) -> float:
    """Return how far the contestants' matrices differ, each column summed over the sizes of its numbers, relatively."""
    sizes = np.array([figures["sizes"] for figures in turn.values()])
    return float(np.max((sizes.max(axis=0) - sizes.min(axis=0)) / sizes.max(axis=0)))


def notes(turns: Sequence[Turn]) -> list[str]:
    """Return what else there is to say of ours, a sentence a line."""
    own = [next(iter(turn.values())) for turn in turns]
    fit, transform = (Spread.of([each[f"{part}_s"] for each in own]) for part in ("fit", "transform"))
    fitting, transforming, reading = (
        max(each[f"{part}_bytes"] / each["raw_bytes"] for each in own)
        for part in ("fitting", "transforming", "reading")
    )
    passes = ", ".join(f"{what} {passes}" for what, passes in own[0]["passes"].items())
    told = [
        f"Fedpact: {fit} s to fit, {transform} s to transform.",
        f"Passes over the rows: {passes}; and one to transform them.",
        f"Memory above the imports, over one client's raw rows: {fitting:.2f} times them while fitting, "
        f"{transforming:.2f} while transforming, without the matrix that is made, and {reading:.2f} while reading.",
    ]
    if len(turns[0]) > 1:
        apart = max(map(largest_difference, turns))
        told.append(f"The columns' sums of sizes differ by {apart:.0e} of them at most.")
    return told


def _names() -> list[str]:
    from benchmarks.preparation_runs import RUNS

    return list(RUNS)


def _once(name: str, arguments: argparse.Namespace) -> Mapping[str, Any]:
    words = [f"--{each}={getattr(arguments, each)}" for each in ("clients", "rows", "data")]
    command = [sys.executable, "-m", "benchmarks", "preparation", f"--run={name}", *words]
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    variables = {**os.environ, **dict.fromkeys(_THREADS, "1"), "PYTHONPATH": path}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=variables)
    said = next(line for line in done.stdout.splitlines() if line.startswith(MARK))
    told: Mapping[str, Any] = json.loads(said.removeprefix(MARK))
    return told


def _table(turns: Sequence[Turn]) -> Table:
    table = Table("", "s", "theirs / ours", "s with reading", "theirs / ours", "peak, MB")
    for name in turns[0]:
        spent = [_spent(turn, name) for turn in turns]
        ours = [_spent(turn, next(iter(turns[0]))) for turn in turns]
        cells = []
        for mine, theirs in zip(zip(*ours, strict=True), zip(*spent, strict=True), strict=True):
            ratios = [b / a for a, b in zip(mine, theirs, strict=True)]
            cells += [str(Spread.of(theirs)), "" if name == next(iter(turns[0])) else str(Spread.of(ratios))]
        table.add_row(name, *cells, f"{max(turn[name]['peak_bytes'] for turn in turns) / 1e6:,.0f}")
    return table


def _spent(turn: Turn, name: str) -> tuple[float, float]:
    """Return a contestant's seconds, without and with reading."""
    return turn[name]["seconds"], turn[name]["seconds"] + turn[name]["reading_s"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks preparation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--clients", type=count, default=10)
    parser.add_argument("--rows", type=count, default=100_000, help="rows of each client")
    parser.add_argument("--repeats", type=count, default=3, help="turns")
    parser.add_argument(
        "--data", type=Path, default=cache_folder() / "preparation", help="folder of the clients' files"
    )
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for the figures")
    parser.add_argument(
        "--idle-wait", type=float, default=10, help="seconds to wait before a run for an idle machine"
    )
    parser.add_argument(
        "--alone", action="store_true", help="without scikit-learn, whose one table may not fit in memory"
    )
    parser.add_argument("--run", help=argparse.SUPPRESS)
    return parser
