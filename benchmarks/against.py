"""Fedpact against its peers: the same work from the same weights, in alternation, in one session.

    python -m benchmarks --workload A --against pfl,flower

Each run is a process of its own. They take turns (ours, pfl, Flower, ours, pfl, ...), so that a machine that slows
down slows all of them; ratios are taken within a turn.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.contestants import ALIASES, CONTESTANTS, OURS, Contestant
from benchmarks.contestants.common import MARK, Run, add_sizes, add_workers, count, sized, workers_for
from benchmarks.environments import Environment, UnavailableError, environment
from benchmarks.machine import machine
from benchmarks.options import listed, several
from benchmarks.processes import Ran, run, wait_for_idle
from benchmarks.report import Report, seconds_per_round, show, wide_console
from benchmarks.workloads import WORKLOADS, cache_folder, prepare

ROOT = Path(__file__).parents[1]
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Entry:
    """A contestant with settings of its own.

    Args:
        contestant: who.
        run: what it is to do.
        label: what it is called in tables.
        environment: where it is installed.
    """

    contestant: Contestant
    run: Run
    label: str
    environment: Environment


@dataclass
class Session:
    """What is being compared, and where it leaves its traces.

    Args:
        entries: who takes part, ours first.
        logs: the folder for what contestants print.
        limit_s: how long one run may take.
        idle_wait_s: how long to wait, before each run, for the machine to be idle.
    """

    entries: Sequence[Entry]
    logs: Path
    limit_s: float
    idle_wait_s: float
    console: Console

    def turns(self, repeats: int) -> list[dict[str, Any]]:
        """Let all take turns; who fails does not run again."""
        done: list[dict[str, Any]] = []
        failed: set[str] = set()
        for repeat, entry in product(range(repeats), self.entries):
            if entry.label in failed:
                continue
            wait_for_idle(self.idle_wait_s)
            name = f"{entry.run.workload.letter}-{entry.label.replace(' ', '-')}-{repeat + 1}.log"
            outcome = {"label": entry.label, "repeat": repeat, **once(entry, self.logs / name, self.limit_s)}
            done.append(outcome)
            if "failure" in outcome:
                failed.add(entry.label)
            self.console.print(
                f"  {repeat + 1}. {_in_a_line(outcome)}", highlight=False, markup=False, soft_wrap=True
            )
        return done


def main(words: Sequence[str]) -> int:
    """Compare, print a table, and write the figures and a picture; return the exit status."""
    arguments = _parser().parse_args(words)
    arguments.out.mkdir(parents=True, exist_ok=True)
    console, stamp, complete = wide_console(), time.strftime("%Y%m%d-%H%M%S"), True
    for letter in arguments.workload:
        report = compare(letter, arguments, console)
        path = arguments.out / f"{letter}-{stamp}.json"
        path.write_text(json.dumps(report.content, indent=2) + "\n", encoding="utf-8")
        show(report, path, console)
        complete = complete and report.complete
    return 0 if complete else 1


def compare(letter: str, arguments: argparse.Namespace, console: Console) -> Report:
    """Run one workload's contestants and return what they did."""
    workload = sized(letter, arguments)
    console.print(f"{letter}: {workload.title}; {workload.model}", style="bold", highlight=False)
    prepare(workload, arguments.data)
    workers = workers_for(arguments.workers, arguments.device)
    plain = Run(workload, arguments.rounds or workload.rounds, workers, arguments.data.resolve())
    entries, absent = _entries(plain, arguments)
    for label, reason in absent.items():
        console.print(f"  {label}: {reason}", highlight=False, markup=False)
    session = Session(entries, arguments.out / "logs", arguments.limit, arguments.idle_wait, console)
    return Report(
        {
            "benchmark": "against",
            "date": time.strftime("%Y-%m-%d %H:%M"),
            "machine": machine(),
            "workload": {**vars(workload), "shape": list(workload.shape), "steps": workload.steps},
            "rounds": plain.rounds,
            "workers": plain.workers,
            "device": arguments.device,
            "contestants": {
                entry.label: {
                    "name": entry.contestant.name,
                    "how": entry.contestant.how,
                    "versions": dict(entry.environment.versions),
                }
                for entry in entries
            },
            "absent": absent,
            "runs": session.turns(arguments.repeats),
        }
    )


def once(entry: Entry, log: Path, limit_s: float) -> dict[str, Any]:
    """Run a contestant once, and return its figures: seconds, bytes, cores, losses; or why it failed."""
    ran = run(command(entry), _variables(entry.contestant), ROOT, log.resolve(), limit_s)
    figures: dict[str, Any] = {"seconds": ran.seconds}
    said = next((line for line in ran.output.splitlines() if MARK in line), None)
    if said is None or ran.timed_out:
        return {**figures, "failure": _why(ran, limit_s, log)}
    told = json.loads(said.partition(MARK)[2])
    ticks = told.pop("ticks")
    if len(ticks) != entry.run.rounds + 1:
        return {
            **figures,
            "failure": f"it told of {max(0, len(ticks) - 1)} rounds, not {entry.run.rounds}; see {log}",
        }
    return {
        **figures,
        "start_up": ticks[1] - ran.start,
        "rounds": [end - start for start, end in pairwise(ticks)],
        "peak_pss_bytes": ran.peak_pss_bytes(until=ticks[-1]),
        "processes": max(sample.processes for sample in ran.samples),
        "cores_used": ran.cores_used,
        "outside_load": ran.outside_load,
        **told,
    }


def command(entry: Entry) -> list[str]:
    """Return the command that runs a contestant."""
    python, module = str(entry.environment.python), f"benchmarks.contestants.{entry.contestant.name}"
    if entry.contestant.torchrun:
        started = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={entry.run.workers}"]
        return [python, *started, "-m", module, *entry.run.arguments()]
    return [python, "-m", module, *entry.run.arguments()]


def _variables(contestant: Contestant) -> dict[str, str]:
    """Return the environment variables of a contestant: all start from their libraries' defaults."""
    variables = {name: value for name, value in os.environ.items() if name not in _THREADS}
    path = [str(ROOT)]
    if contestant.name == OURS and os.environ.get("PYTHONPATH"):
        path.append(os.environ["PYTHONPATH"])
    variables["PYTHONPATH"] = os.pathsep.join(path)
    variables.update(FLWR_TELEMETRY_ENABLED="0", TF_CPP_MIN_LOG_LEVEL="3")
    if contestant.one_thread:
        variables["OMP_NUM_THREADS"] = "1"
    return variables


def _entries(plain: Run, arguments: argparse.Namespace) -> tuple[list[Entry], dict[str, str]]:
    """Return who takes part, ours first, and who cannot → why."""
    ours, here = CONTESTANTS[OURS], environment(CONTESTANTS[OURS], arguments.peers)
    entries, absent = [], {}
    for engine, precision in product(arguments.engine, arguments.precision):
        label = _label(engine, precision)
        if plain.workload.letter == "C" and (precision, arguments.device) != ("full", "cpu"):
            absent[label] = "its regression computes in numpy, in float64 on the CPU."
            continue
        settings = replace(plain, engine=engine, precision=precision, device=arguments.device)
        entries.append(Entry(ours, settings, label, here))
    for name in arguments.against:
        rival = CONTESTANTS[name]
        if plain.workload.letter not in rival.workloads:
            absent[rival.title] = f"does not run workload {plain.workload.letter}: {rival.why_not}."
        elif arguments.device != "cpu" and "device" not in rival.options:
            absent[rival.title] = f"is not run on {arguments.device} here."
        else:
            try:
                there = environment(rival, arguments.peers)
            except UnavailableError as reason:
                absent[rival.title] = str(reason)
            else:
                entries.append(Entry(rival, replace(plain, device=arguments.device), rival.title, there))
    return entries, absent


def _label(engine: str, precision: str) -> str:
    words = [
        CONTESTANTS[OURS].title,
        *([engine] if engine != "auto" else []),
        *([precision] if precision != "full" else []),
    ]
    return " ".join(words)


def _why(ran: Ran, limit_s: float, log: Path) -> str:
    if ran.timed_out:
        return f"no end within {limit_s:g} s; see {log}"
    lines = [line.strip() for line in ran.output.splitlines() if line.strip()]
    return f"exit status {ran.code}: {lines[-1] if lines else 'it printed nothing'}; see {log}"


def _in_a_line(outcome: dict[str, Any]) -> str:
    if "failure" in outcome:
        return f"{outcome['label']}: {outcome['failure']}"
    return (
        f"{outcome['label']}: {seconds_per_round(outcome):.4g} s a round, {outcome['seconds']:.0f} s in all"
    )


def _parser() -> argparse.ArgumentParser:
    rivals = [name for name in CONTESTANTS if name != OURS]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Run Fedpact and its peers in turns on the same work.",
        epilog=f"peers: {', '.join(f'{name} ({CONTESTANTS[name].how})' for name in rivals)}",
    )
    parser.add_argument(
        "--workload",
        type=several("workload", WORKLOADS),
        required=True,
        help="A to E, several with commas, or all",
    )
    parser.add_argument(
        "--against", type=several("peer", rivals, ALIASES), default=[], help="peers, with commas, or all"
    )
    parser.add_argument("--repeats", type=count, default=5, help="turns")
    parser.add_argument(
        "--engine", type=listed, default=["auto"], help="Fedpact's engine; several with commas"
    )
    parser.add_argument(
        "--precision",
        type=several("precision", ("full", "bf16")),
        default=["full"],
        help="Fedpact's: full, bf16, or both with a comma",
    )
    parser.add_argument("--device", default="cpu", help="cpu, or cuda for those that can")
    add_sizes(parser)
    add_workers(parser)
    parser.add_argument(
        "--peers", type=Path, default=cache_folder() / "peers", help="folder of the peers' environments"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("results"), help="folder for figures, pictures and logs"
    )
    parser.add_argument("--limit", type=float, default=900, help="seconds that one run may take")
    parser.add_argument(
        "--idle-wait", type=float, default=30, help="seconds to wait before a run for an idle machine"
    )
    return parser
