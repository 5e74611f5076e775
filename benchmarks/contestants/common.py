"""What every contestant's script reads from its command line, and the one line that it prints at its end."""

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from benchmarks.workloads import WORKLOADS, Workload, cache_folder

# What the line begins with, among all that a simulator prints of its own.
MARK = "BENCHMARK "
_SIZES = ("clients", "rows", "cohort", "hidden")


@dataclass(frozen=True)
class Run:
    """What a contestant is to do.

    Args:
        workload: the workload, in the sizes wanted.
        rounds: how many.
        workers: the number of processes or actors, where it has such.
        data: where the workloads' files are.
        engine: Fedpact's engine.
        precision: "full" or "bf16".
        device: "cpu" or "cuda".
    """

    workload: Workload
    rounds: int
    workers: int
    data: Path
    engine: str = "auto"
    precision: str = "full"
    device: str = "cpu"

    def arguments(self) -> list[str]:
        """Return the command line that says this."""
        sizes = {name: size for name in _SIZES if (size := getattr(self.workload, name))}
        others = {field.name: getattr(self, field.name) for field in fields(self)[1:]}
        pairs = {"workload": self.workload.letter, **sizes, **others}
        return [word for name, value in pairs.items() for word in (f"--{name}", str(value))]


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count(text: str) -> int:
    """Read a whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'"{text}" is no whole number of 1 or more')
    return int(text)


def workers_for(asked: int | None, device: str) -> int:
    """Return the number of workers asked for; else one for each core, or a single one where a GPU computes."""
    return asked or (cores() if device == "cpu" else 1)


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """Add the options that change a workload's sizes."""
    parser.add_argument("--clients", type=count, help="size of the population")
    parser.add_argument("--rows", type=count, help="training rows of each client")
    parser.add_argument("--cohort", type=count, help="clients a round")
    parser.add_argument("--hidden", type=count, help="units in each hidden layer (workload D)")
    parser.add_argument("--rounds", type=count, help="rounds in a run, warm-up included")
    parser.add_argument(
        "--data", type=Path, default=cache_folder() / "workloads", help="folder of the workloads"
    )


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add the option that says how many processes there are."""
    parser.add_argument("--workers", type=count, help="processes; one per core, or one on a GPU")


def sized(letter: str, arguments: argparse.Namespace) -> Workload:
    """Return the workload of this letter in the sizes asked for."""
    asked = {name: getattr(arguments, name) for name in _SIZES}
    return replace(WORKLOADS[letter], **{name: size for name, size in asked.items() if size is not None})


def asked(words: Sequence[str] | None = None) -> Run:
    """Return what a contestant's command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workload", choices=WORKLOADS, required=True)
    add_sizes(parser)
    add_workers(parser)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="full")
    parser.add_argument("--device", default="cpu")
    # torchrun and Ray start scripts with words of their own.
    arguments, _ = parser.parse_known_args(words)
    workload = sized(arguments.workload, arguments)
    return Run(
        workload=workload,
        rounds=arguments.rounds or workload.rounds,
        workers=workers_for(arguments.workers, arguments.device),
        data=arguments.data,
        engine=arguments.engine,
        precision=arguments.precision,
        device=arguments.device,
    )


class Clock:
    """The times at which training began and each round ended, as seconds since the epoch."""

    def __init__(self) -> None:
        self.ticks: list[float] = []

    def tick(self) -> None:
        """Note the beginning, and then the end of each round."""
        self.ticks.append(time.time())

    def report(self, loss_before: float, loss_after: float, **settings: Any) -> None:
        """Print what the contestant has to say, as one line.

        Args:
            loss_before: the mean loss over the judged clients with the first weights;
            loss_after: and with the last.
            settings: how it ran.
        """
        said = {
            "ticks": self.ticks,
            "loss_before": loss_before,
            "loss_after": loss_after,
            "settings": settings,
        }
        print(MARK + json.dumps(said), flush=True)
