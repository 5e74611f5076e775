"""What this machine does with Fedpact alone: `python -m benchmarks [name ...] [--json FILE]`."""

import argparse
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import machine

NAMES = ("startup", "exact_sum", "noise", "heart", "population", "homomorphic")
HINT = """\
Against other simulators:  python -m benchmarks --workload C --against pfl,fedjax  (make bench ARGS="--workload C ...")
More:                      preparation, scaling, profile, report; each says what it takes with --help"""


def main(words: Sequence[str]) -> int:
    """Measure and print those that are named, or all; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=HINT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="name", type=_name, help=f"of {', '.join(NAMES)}; or all")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args(words)
    figures: dict[str, Any] = {"machine": machine()}
    for name in arguments.names or NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        print(f"{name}: {(module.__doc__ or '').splitlines()[0]}")
        figures[name] = module.measure()
        for label, value in figures[name].items():
            print(f"  {label:<58} {value:.4g}" if isinstance(value, float) else f"  {label:<58} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))
    if not arguments.names:
        print(HINT)
    return 0


def _name(text: str) -> str:
    if text not in NAMES:
        known = ", ".join((*NAMES, "against", "preparation", "scaling", "profile", "report"))
        raise argparse.ArgumentTypeError(f'there is no benchmark "{text}"; known: {known}')
    return text
