"""Accuracy at ε = 1, 2, 4, 8 and without privacy: logistic regression on the heart data of four hospitals.

Records are protected by DP-SGD at each hospital, against everybody; clients by clipped updates and noise at the server,
against whoever sees the models. Means and standard deviations over several runs.

python -m benchmarks.private_training [--runs 20] [--delta 1e-5]
"""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

import fedpact as fp
from fedpact.privacy.events import Gaussian, Release
from fedpact.privacy.solve import noise_for

EPSILONS = (1.0, 2.0, 4.0, 8.0)
ROUNDS, STEPS, BATCH, RATE, NORM = 15, 10, 16, 0.3, 1.0
# Rounds of noise among four clients are dear.
CLIENT_ROUNDS, CLIENT_NORM = 4, 0.5


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--delta", type=float, default=1e-5)
    options = parser.parse_args(arguments)
    clients = fp.datasets.heart()
    print(f"heart, {len(clients)} hospitals, delta {options.delta:g}, accuracy of {options.runs} runs\n")
    print("| ε | a record | noise | a client | noise |\n|---|---|---|---|---|")
    for epsilon in EPSILONS:
        record, client = (noise_for(released, epsilon, options.delta) for released in (of_record, of_client))
        found = [
            spread([train(clients, seed, **how) for seed in range(options.runs)])
            for how in ({"dp": fp.RecordDP(NORM, record)}, {"noise": client})
        ]
        print(f"| {epsilon:g} | {found[0]} | {record:.2f} | {found[1]} | {client:.2f} |", flush=True)
    plain = [train(clients, 0), train(clients, 0, rounds=CLIENT_ROUNDS)]
    print(f"| ∞ | {plain[0]:.3f} | 0 | {plain[1]:.3f} | 0 |")


def algorithm(dp: fp.RecordDP | None = None) -> fp.FedAvg:
    return fp.FedAvg(lr=RATE, local_steps=STEPS, batch_size=BATCH, weighting="uniform", dp=dp)


def train(
    clients: Any,
    seed: int,
    dp: fp.RecordDP | None = None,
    noise: float | None = None,
    rounds: int = ROUNDS,
) -> float:
    result = fp.train(
        fp.models.Logistic(),
        clients,
        preprocess=[fp.Impute("median"), fp.Standardize()],
        algorithm=algorithm(dp),
        channel=[] if noise is None else [fp.Clip(CLIENT_NORM), fp.GaussianNoise(noise)],
        rounds=rounds if noise is None else CLIENT_ROUNDS,
        evaluate_every=0,
        engine="in_process",
        progress=False,
        seed=seed,
    )
    return float(result.history["accuracy"].iloc[-1])


def of_record(noise: float) -> list[Release]:
    """Return what the smallest hospital releases about a record."""
    smallest = min(len(client.train) for client in fp.datasets.heart())
    release = algorithm(fp.RecordDP(NORM, noise)).record_release(smallest, ROUNDS)
    assert release is not None
    return [release]


def of_client(noise: float) -> list[Release]:
    return [Release(Gaussian(noise), count=CLIENT_ROUNDS)]


def spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values):.3f}"


if __name__ == "__main__":
    main()
