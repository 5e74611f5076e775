"""FLamby's published example of privacy for records, beside Fedpact: heart data of four hospitals.

python -m benchmarks.private_flamby [--runs 20]
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

import numpy as np
import pandas as pd

import fedpact as fp
from fedpact.data.datasets.download import RemoteFile, fetch
from fedpact.privacy.accounting import account
from fedpact.privacy.events import Gaussian, Poisson, Release
from fedpact.privacy.solve import noise_for

PUBLISHED = RemoteFile(
    "dp_results_fed_heart_disease.csv",
    "2139e50f867ea39e8648820a96b956767803084498421f0d8ac7fd1ac1ac2396",
    3317,
    (
        "https://raw.githubusercontent.com/owkin/FLamby/edacf54d5211520583b0133d55ac39b6fda8324b/"
        "flamby/dp_example/results_fed_heart_disease.csv",
    ),
)
DELTA = 1e-4
ROWS = {"Cleveland": 199, "Hungary": 172, "Switzerland": 30, "Long Beach": 85}
BATCH, ROUNDS, UPDATES = 4, 15, 100


def counted(epsilon: float) -> list[float]:
    """Return for each hospital what noise for 15 epochs costs in the 15 · 100 steps that are taken."""
    found = []
    for rows in ROWS.values():
        batches = math.ceil(rows / BATCH)

        def epochs(noise: float, batches: int = batches) -> list[Release]:
            return [Release(Gaussian(noise), Poisson(1 / batches), ROUNDS * batches)]

        taken = Release(Gaussian(noise_for(epochs, epsilon, DELTA)), Poisson(1 / batches), ROUNDS * UPDATES)
        found.append(account([taken], DELTA).epsilon)
    return found


def training(noise: float | None) -> fp.FedAvg:
    """Return the local training: five rounds of 20 steps on some 16 patients."""
    dp = fp.RecordDP(norm=0.5, noise_multiplier=noise) if noise else None
    return fp.FedAvg(lr=0.3, local_steps=20, batch_size=16, weighting="uniform", dp=dp)


def ours(epsilon: float | None, runs: int) -> list[float]:
    """Return the mean accuracy over the hospitals of so many runs."""

    def releases(noise: float) -> list[Release]:
        release = training(noise).record_release(min(ROWS.values()), 5)
        assert release is not None
        return [release]

    noise = noise_for(releases, epsilon, DELTA) if epsilon else None
    results = [
        fp.train(
            fp.models.Logistic(),
            fp.datasets.heart(),
            preprocess=[fp.Standardize()],
            algorithm=training(noise),
            rounds=5,
            evaluate_every=0,
            seed=seed,
            engine="in_process",
            progress=False,
        )
        for seed in range(runs)
    ]
    return [float(result.history["accuracy_mean"].iloc[-1]) for result in results]


def main(words: Sequence[str]) -> int:
    """Print the table, as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.private_flamby", description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args(words).runs
    rows = pd.read_csv(fetch("flamby_reference_results", PUBLISHED))
    print("| ε | published | ε of its 1,500 steps | Fedpact at ε |\n|---:|---:|---:|---:|")
    for epsilon in (0.1, 1.0, 5.0, 10.0, None):
        chosen = (
            rows[rows["e"].isna()] if epsilon is None else rows[(rows["e"] == epsilon) & (rows["d"] == DELTA)]
        )
        steps = counted(epsilon) if epsilon else []
        cost = f"{min(steps):.2g} to {max(steps):.2g}" if steps else ""
        label = f"{epsilon:g}" if epsilon else "no noise"
        print(f"| {label} | {spread(chosen['perf'])} | {cost} | {spread(ours(epsilon, runs))} |", flush=True)
    return 0


def spread(values: Sequence[float] | pd.Series[float]) -> str:
    """Return mean and standard deviation."""
    return f"{np.mean(values):.3f} ± {np.std(values):.3f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
