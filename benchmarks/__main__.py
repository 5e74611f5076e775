"""Run benchmarks: `python -m benchmarks [name ...] [--json FILE]`."""

import argparse
import importlib
import json
import platform
from pathlib import Path

NAMES = ("startup", "exact_sum", "heart")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="which; all if none is named")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    figures = {"machine": {"python": platform.python_version(), "processor": platform.processor()}}
    for name in arguments.names or NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        print(f"{name}: {(module.__doc__ or '').splitlines()[0]}")
        figures[name] = module.measure()
        for label, value in figures[name].items():
            print(f"  {label:<58} {value:.4g}" if isinstance(value, float) else f"  {label:<58} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))


main()
