"""Four hospitals train a diagnosis model under masks and noise: `python examples/private_hospitals`.

First each hospital is protected as a whole, which among four costs more accuracy than they have; then each patient. At
the end stands what either costs.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np

import fedpact as fp
from fedpact.privacy.events import Release
from fedpact.privacy.ledger import Budget, Ledger
from fedpact.privacy.solve import noise_for, solve

EPSILONS = (1.0, 2.0, 4.0, 8.0)
DELTA = 1e-5
HOSPITAL_ROUNDS, PATIENT_ROUNDS = 3, 5

# What a physician calls usual, and by how much people differ: out of no patient's record.
USUAL = {"age": (50, 10), "trestbps": (130, 20), "chol": (200, 100), "thalach": (140, 25), "oldpeak": (1, 1)}


def hospitals() -> list[fp.ClientData]:
    """Return Cleveland, Hungary, Switzerland and Long Beach, scaled by numbers that tell nothing about a patient."""
    return [
        fp.ClientData(each.id, scaled(each.train), scaled(cast(fp.Rows, each.test)))
        for each in fp.datasets.heart()
    ]


def scaled(rows: fp.Rows) -> fp.Rows:
    """Return rows whose measurements are deviations from the usual, and whose yes and no are ±1/2."""
    middle, spread = np.array([USUAL.get(column, (0.5, 1)) for column in rows.x.columns]).T
    return fp.Rows((rows.x - middle) / spread, rows.y)


def hospital_noise(epsilon: float) -> float:
    """Return the noise multiplier with which a hospital's part in all rounds stays within ε."""
    # A sum of integers is accounted for by Rényi divergences; 1 % of ε is left for what rounding adds.
    return solve(
        clients=4,
        rounds=HOSPITAL_ROUNDS,
        epsilon=0.99 * epsilon,
        delta=DELTA,
        sampling="all",
        accountant="rdp",
    ).noise_multiplier


def protect_hospitals(
    clients: Sequence[fp.ClientData], noise: float | None, ledger: Ledger | None = None
) -> fp.Result:
    """Train so that the model tells little about any one hospital; without noise, so that masks alone protect it."""
    return fp.train(
        fp.models.Logistic(),
        clients,
        algorithm=fp.FedAvg(lr=0.1, local_epochs=5, batch_size=10, weighting="uniform"),
        channel=[fp.Clip(1.0), *([fp.SkellamNoise(noise)] if noise else []), fp.SecureSum()],
        rounds=HOSPITAL_ROUNDS,
        evaluate_every=0,
        ledger=ledger,
        name="protected hospitals",
        progress=False,
    )


def dp_sgd(noise: float | None) -> fp.FedAvg:
    """Return what each hospital does on its own rows: 20 steps on some 16 patients, each with noise."""
    dp = fp.RecordDP(norm=0.5, noise_multiplier=noise) if noise else None
    return fp.FedAvg(lr=0.3, local_steps=20, batch_size=16, weighting="uniform", dp=dp)


def patient_noise(clients: Sequence[fp.ClientData], epsilon: float) -> float:
    """Return the noise multiplier that keeps patients of the smallest hospital, the likeliest to be drawn, within ε."""
    smallest = min(len(each.train) for each in clients)

    def releases(noise: float) -> list[Release]:
        return [cast(Release, dp_sgd(noise).record_release(smallest, PATIENT_ROUNDS))]

    return noise_for(releases, epsilon, DELTA)


def protect_patients(clients: Sequence[fp.ClientData], noise: float | None) -> fp.Result:
    """Train so that the model tells little about any one patient."""
    return fp.train(
        fp.models.Logistic(),
        clients,
        algorithm=dp_sgd(noise),
        channel=[fp.Clip(3.0), fp.SecureSum()],
        rounds=PATIENT_ROUNDS,
        evaluate_every=0,
        name="protected patients",
        progress=False,
    )


def accuracy(result: fp.Result) -> float:
    """Return the accuracy over the rows that the hospitals hold aside: under masks there is no other."""
    return cast(fp.Evaluation, result.evaluation).metrics["accuracy"]


def main() -> None:
    """Train both ways, print the statements, and what each ε costs."""
    parser = argparse.ArgumentParser(prog="python examples/private_hospitals", description=__doc__)
    parser.add_argument(
        "--repeats", type=int, default=20, help="runs at each ε, of which the mean is printed"
    )
    repeats = parser.parse_args().repeats
    clients = hospitals()
    with TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.jsonl", Budget(8.0, DELTA, population="four hospitals"))
        result = protect_hospitals(clients, hospital_noise(8.0), ledger)
        print("Hospitals protected\n", result.privacy, "", sep="\n")
        print(result.history[["clients", "clip.norm", "clip.clipped", "noise.std", "upload_bytes"]], "\n")
        spent = ledger.spent()
        print(
            f"The ledger has {len(ledger.charges())} charges: epsilon {spent.epsilon:.2f} at delta {spent.delta:g}."
        )
        try:
            protect_hospitals(clients, hospital_noise(8.0), ledger)
        except fp.errors.PrivacyError as refusal:
            print(f"A second training: {refusal}\n")

    result = protect_patients(clients, patient_noise(clients, 2.0))
    print("Patients protected\n", result.privacy, "", sep="\n")

    print(f"Accuracy at each epsilon (delta {DELTA:g}): mean ± standard deviation of {repeats} runs\n")
    print(f"{'epsilon':>8}{'hospitals protected':>24}{'patients protected':>24}")
    for epsilon in (*EPSILONS, None):
        ways = (
            partial(protect_hospitals, clients, hospital_noise(epsilon) if epsilon else None),
            partial(protect_patients, clients, patient_noise(clients, epsilon) if epsilon else None),
        )
        runs = [np.array([accuracy(train()) for _ in range(repeats)]) for train in ways]
        cells = "".join(f"{f'{each.mean():.3f} ± {each.std():.3f}':>24}" for each in runs)
        print(f"{f'{epsilon:g}' if epsilon else 'none':>8}{cells}", flush=True)


if __name__ == "__main__":
    main()
