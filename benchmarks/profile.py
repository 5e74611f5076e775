"""Where a round's time goes, beside the time that its steps take when they are written out by hand.

    python -m benchmarks profile --workload A

A timer interrupts training every millisecond; the time since the last interrupt counts for the innermost part of
Fedpact that is at work. Everything happens in one thread of one process, so that the shares add up; worker processes
do the same, each with its share of the cohort. The floor is the least of what `floor` and `stacked` need there for the
training steps of a round alone: no client is chosen or loaded, and nothing is summed.
"""

import argparse
import json
import re
import signal
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any

from benchmarks.contestants.common import Clock, Run, add_sizes, sized
from benchmarks.machine import machine
from benchmarks.options import several
from benchmarks.report import WARM_UP
from benchmarks.workloads import WORKLOADS, Workload, cohorts, prepare

_INTERVAL_S = 0.001
# Those that have one process.
_ENGINES = ("in_process", "batched")
OTHER = "other"
# What a frame works at, by its module and function. Frames of which nothing is said here, such as those of torch or of
# fedpact.core.vector, work for whoever has called them.
_WORK: Sequence[tuple[str, str, str]] = (
    ("choose", r"fedpact\.engine\.sampler", ".*"),
    ("load", r"fedpact\.(data\..*|populations|core\.rows|engine\.(population|prefetch|preparation))", ".*"),
    ("sum", r"fedpact\.(core\.(exact|sums|messages)|engine\.work)", ".*"),
    ("server", r"fedpact\.algorithms\.(?!local_sgd|optimizers|stacked).*", "server|server_step"),
    ("train", r"fedpact\.(learn\..*|algorithms\.(local_sgd|optimizers|stacked))", ".*"),
    ("update", r"fedpact\.algorithms\..*", ".*"),
    (OTHER, r"fedpact\.engine\..*", ".*"),
)
PHASES = ("choose", "load", "train", "update", "sum", "server", OTHER)


class Sampler:
    """Counts seconds for what the main thread is at.

    Attributes:
        seconds: phase → seconds.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._known: dict[tuple[str, str], str | None] = {}
        self._last = time.perf_counter()

    def restart(self) -> None:
        """Forget what was counted."""
        self.seconds.clear()
        self._last = time.perf_counter()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count while the context lasts."""
        before = signal.signal(signal.SIGALRM, self._count)
        self.restart()
        signal.setitimer(signal.ITIMER_REAL, _INTERVAL_S, _INTERVAL_S)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _count(self, number: int, frame: FrameType | None) -> None:
        # Python handles a signal once the C function at work has returned, and several as one: what counts is time.
        now = time.perf_counter()
        self.seconds[self._phase(frame)] += now - self._last
        self._last = now

    def _phase(self, frame: FrameType | None) -> str:
        while frame is not None:
            place = frame.f_globals.get("__name__", ""), frame.f_code.co_name
            if place not in self._known:
                self._known[place] = phase_of(*place)
            if (phase := self._known[place]) is not None:
                return phase
            frame = frame.f_back
        return OTHER


def phase_of(module: str, function: str) -> str | None:
    """Return what a function works at; None if it works for its caller."""
    for phase, modules, functions in _WORK:
        if re.fullmatch(modules, module) and re.fullmatch(functions, function):
            return phase
    return None


class Watch(Clock):
    """Counts from the end of the warm-up to the end of the last round."""

    def __init__(self, sampler: Sampler, rounds: int) -> None:
        super().__init__()
        self._sampler = sampler
        self._rounds = rounds
        self.seconds: Mapping[str, float] = {}

    def tick(self) -> None:
        """Note the end of a round."""
        super().tick()
        if len(self.ticks) == WARM_UP + 1:
            self._sampler.restart()
        elif len(self.ticks) == self._rounds + 1:
            self.seconds = dict(self._sampler.seconds)


def measure(run: Run) -> dict[str, Any]:
    """Return seconds a round: in all, of each phase, and of the floor."""
    import torch

    from benchmarks.contestants.fedpact import train

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        sampler = Sampler()
        watch = Watch(sampler, run.rounds)
        with sampler.running():
            train(run, watch)
        timed = run.rounds - WARM_UP
        floors = {
            "by hand": by_hand(run),
            **({"stacked": stacked(run)} if run.workload.letter in "CD" else {}),
        }
    finally:
        torch.set_num_threads(threads)
    return {
        "workload": run.workload.letter,
        "engine": run.engine,
        "precision": run.precision,
        "round": (watch.ticks[-1] - watch.ticks[WARM_UP]) / timed,
        "phases": {phase: watch.seconds.get(phase, 0.0) / timed for phase in PHASES},
        "floors": floors,
    }


def by_hand(run: Run) -> float:
    """Return the seconds that the training steps of a round take, one client after another."""
    from benchmarks.contestants.floor import FlatModel
    from benchmarks.torch_models import model, tensors

    workload, held = run.workload, FlatModel(model(run.workload, run.data))
    x, y = tensors(workload, run.data)
    start = held.flat.clone()

    def train(clients: Any) -> None:
        for client in clients:
            held.flat.copy_(start)
            held.epoch(workload, x[client], y[client])

    return _seconds(train, workload, run.rounds)


def stacked(run: Run) -> float:
    """Return the seconds that the training steps of a round take, many clients at once."""
    import torch

    from benchmarks.contestants.stacked import TOGETHER, Stack
    from benchmarks.torch_models import tensors

    stack = Stack(run)
    x, y = tensors(run.workload, run.data)
    start = stack.named(stack.start)

    def train(cohort: Any) -> None:
        for clients in torch.from_numpy(cohort).split(TOGETHER[run.workload.letter]):
            stack.epoch(start, x[clients], y[clients])

    return _seconds(train, run.workload, run.rounds)


def _seconds(train: Any, workload: Workload, rounds: int) -> float:
    """Return the median of the seconds that some cohorts take."""
    times = []
    for cohort in cohorts(workload, rounds):
        start = time.perf_counter()
        train(cohort)
        times.append(time.perf_counter() - start)
    return median(times)


def markdown(figures: Sequence[Mapping[str, Any]]) -> str:
    """Return the figures as a Markdown table: shares of a round, and how far it is from the floor."""
    headings = ["", "engine", "s / round", *PHASES, "floor, s", "round / floor"]
    rows = [headings, ["---", "---", *["---:"] * (len(headings) - 2)]]
    for measured in figures:
        whole, floor = measured["round"], min(measured["floors"].values())
        shares = [f"{seconds / whole:.1%}" for seconds in measured["phases"].values()]
        engine = " ".join(
            [measured["engine"], *([measured["precision"]] if measured["precision"] != "full" else [])]
        )
        rows.append(
            [measured["workload"], engine, f"{whole:.3g}", *shares, f"{floor:.3g}", f"{whole / floor:.2f}"]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main(words: Sequence[str]) -> int:
    """Measure and print a table; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks profile", description=__doc__)
    parser.add_argument(
        "--workload",
        type=several("workload", WORKLOADS),
        default=list(WORKLOADS),
        help="A to E, with commas; all if none is named",
    )
    parser.add_argument(
        "--engine",
        type=several("engine", _ENGINES),
        default=list(_ENGINES),
        help=f"of {', '.join(_ENGINES)}; all if none is named",
    )
    parser.add_argument("--precision", choices=("full", "bf16"), default="full")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    add_sizes(parser)
    arguments = parser.parse_args(words)
    figures = []
    if arguments.precision != "full" and "C" in arguments.workload:
        parser.error(
            "C is a regression in numpy, in float64 on the CPU: choose other workloads with --workload."
        )
    for letter in arguments.workload:
        workload = sized(letter, arguments)
        prepare(workload, arguments.data)
        rounds = max(arguments.rounds or workload.rounds, WARM_UP + 3)
        run = Run(workload, rounds, 1, arguments.data, precision=arguments.precision)
        for engine in arguments.engine:
            figures.append(measure(replace(run, engine=engine)))
    print(markdown(figures))
    if arguments.json:
        content = {"benchmark": "profile", "machine": machine(), "figures": figures}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0
