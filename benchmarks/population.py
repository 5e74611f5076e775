"""Up to a million clients: start-up, seconds per round and peak memory, each run in a process of its own."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

SIZES = (1_000, 100_000, 1_000_000)
COHORT, ROWS, FEATURES, ROUNDS = 100, 10, 20, 12

# Start-up is all that a user waits for before the first round is done: Python, the imports and the first round.
_RUN = """
import json, re, statistics, sys, time
from pathlib import Path
import numpy as np
import fedpact as fp

folder, clients, rounds, cohort = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
x, y = (np.load(f"{folder}/{name}.npy", mmap_mode="r")[:clients] for name in "xy")
ended = []
fp.train(
    fp.models.Logistic(),
    fp.populations.arrays(x, y),
    algorithm=fp.FedAvg(lr=0.1, local_epochs=1, batch_size=10),
    cohort=cohort,
    rounds=rounds,
    evaluate_every=0,
    engine="in_process",
    on_round=lambda record: ended.append(time.time()),
)
rounds_s = [b - a for a, b in zip(ended, ended[1:])]
# Not getrusage, whose peak is also that of the process that started this one.
status = Path("/proc/self/status")
peak_kb = int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) if status.exists() else float("nan")
told = {"first_round_ended": ended[0], "round_s": statistics.median(rounds_s), "peak_mb": peak_kb / 1024}
print(json.dumps(told))
"""


def measure() -> dict[str, float]:
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder))
        for clients in SIZES:
            runs = [_run(folder, clients) for _ in range(3)]
            bars = " (bar: 5)", " (bar: 600)"
            started, memory = bars if clients == SIZES[-1] else ("", "")
            figures[f"{clients:,} clients: s to the end of round 1{started}"] = min(
                r["start_s"] for r in runs
            )
            figures[f"{clients:,} clients: s per round of {COHORT}"] = min(r["round_s"] for r in runs)
            figures[f"{clients:,} clients: peak memory, MB{memory}"] = max(r["peak_mb"] for r in runs)
    figures |= _sampling()
    return figures


def _write(folder: Path) -> None:
    """Write the largest population's rows, a part at a time: 800 MB of examples, of which a run reads its cohorts'."""
    clients = SIZES[-1]
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (clients, ROWS, FEATURES))
    y = np.lib.format.open_memmap(folder / "y.npy", "w+", np.int64, (clients, ROWS))
    random = np.random.default_rng(0)
    for first in range(0, clients, 50_000):
        part = slice(first, min(first + 50_000, clients))
        x[part] = random.standard_normal(x[part].shape, np.float32)
        y[part] = x[part].sum(axis=2) > 0


def _run(folder: str, clients: int) -> dict[str, Any]:
    import time

    start = time.time()
    arguments = [folder, str(clients), str(ROUNDS), str(COHORT)]
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *arguments], check=True, capture_output=True, text=True
    )
    told = json.loads(done.stdout)
    return {**told, "start_s": told["first_round_ended"] - start}


def _sampling() -> dict[str, float]:
    """The sampler alone over ten million names that are made on demand."""
    import time

    from fedpact.core.messages import Cohort
    from fedpact.core.seeds import Seed
    from fedpact.data.populations.names import Numbered
    from fedpact.engine.sampler import choose

    names, seed, times = Numbered(10_000_000), Seed.of(0), []
    for round in range(20):
        start = time.perf_counter()
        choose(Cohort(), names, 1000, round, seed)
        times.append(time.perf_counter() - start)
    return {"10,000,000 names: ms to sample 1,000": 1000 * min(times)}
