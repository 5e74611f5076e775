"""What privacy for each image costs in accuracy: Fashion-MNIST dealt to 20 clients that train by DP-SGD.

python -m benchmarks.private_image_records
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import fedpact as fp
from benchmarks.fashion import accuracy, dealt
from benchmarks.private_images import softmax
from fedpact.privacy.solve import noise_for

CLIENTS, ROUNDS, STEPS, BATCH = 20, 10, 20, 128
# All clients have nearly as many images, some 2,800 of them.
ALPHA = 1000.0
NORM = 4.0
DELTA = 1e-5
EPSILONS = (1.0, 2.0, 4.0, 8.0, None)


def algorithm(noise: float | None) -> fp.FedAvg:
    """Return local training with this noise multiplier; None for none."""
    dp = None if noise is None else fp.RecordDP(norm=NORM, noise_multiplier=noise)
    return fp.FedAvg(lr=0.5, local_steps=STEPS, batch_size=BATCH, weighting="uniform", dp=dp)


def noise_of(epsilon: float, rows: int) -> float:
    """Return the noise multiplier with which all rounds stay within ε for an image of a client with so many."""
    return noise_for(lambda noise: [algorithm(noise).record_release(rows, ROUNDS)], epsilon, DELTA)


def main(words: Sequence[str]) -> int:
    """Measure, and print the table as Markdown."""
    argparse.ArgumentParser(
        prog="python -m benchmarks.private_image_records", description=__doc__
    ).parse_args(words)
    clients = dealt(CLIENTS, ALPHA)
    fewest = min(clients.size(id) for id in clients.ids(0))
    print("| ε | accuracy | z | ε of the statement |\n|---:|---:|---:|---:|")
    for epsilon in EPSILONS:
        noise = None if epsilon is None else noise_of(epsilon, fewest)
        result = fp.train(
            softmax(0),
            clients,
            algorithm=algorithm(noise),
            rounds=ROUNDS,
            evaluate_every=0,
            engine="in_process",
            progress=False,
        )
        spent = "" if epsilon is None else f"{result.privacy.at(DELTA).epsilon:.2f}"
        label, z = ("no noise", "") if epsilon is None else (f"{epsilon:g}", f"{noise:.3g}")
        print(f"| {label} | {accuracy(result):.3f} | {z} | {spent} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
