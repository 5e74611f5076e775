"""Start-up times in seconds, best of five: what a user waits for before anything happens."""

import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import fedpact (bar: 0.3)": [sys.executable, "-c", "import fedpact"],
    "import fedpact and its train (pandas not yet)": [sys.executable, "-c", "import fedpact; fedpact.train"],
    "fedpact --help (bar: 0.4)": [sys.executable, "-m", "fedpact", "--help"],
}


def measure() -> dict[str, float]:
    return {name: min(_seconds(command) for _ in range(5)) for name, command in COMMANDS.items()}


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start
