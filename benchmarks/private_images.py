"""What privacy for each client costs in accuracy: Fashion-MNIST dealt to 1,000 clients.

python -m benchmarks.private_images [--picture docs/private-images.svg] [--seeds 3]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

import fedpact as fp
from benchmarks.fashion import accuracy, dealt
from benchmarks.svg import save
from fedpact.privacy.accounting import account
from fedpact.privacy.events import Everyone, Gaussian, Poisson, Release, Skellam
from fedpact.privacy.solve import noise_for

if TYPE_CHECKING:
    import torch

    from fedpact.channel.transform import Transform

Who = Literal["central", "distributed", "local"]

CLIENTS, COHORT, ROUNDS = 1000, 200, 60
# Of 200 clients so many answer at the least: together these add all of the noise.
LEAST = 180
DELTA = CLIENTS**-1.1
EPSILONS = (1.0, 2.0, 4.0, 8.0, None)
CLIP = 0.5
PARAMETERS = 7850
# A client's update in steps of the grid: so many that noise on integers costs what Gaussian noise does.
STEPS = 2.0**20


@dataclass(frozen=True)
class Cell:
    """What came of some noise.

    Args:
        noise: its multiplier; None where there was none.
        epsilon: what it costs, by the releases that the run reported.
        accuracies: one for each seed.
    """

    noise: float | None
    epsilon: float
    accuracies: tuple[float, ...]

    def __str__(self) -> str:
        spread = f" ± {np.std(self.accuracies):.3f}" if len(self.accuracies) > 1 else ""
        noise = "" if self.noise is None else f" (z = {self.noise:.3g})"
        return f"{np.mean(self.accuracies):.3f}{spread}{noise}"


def noise_of(who: Who, epsilon: float) -> float:
    """Return the noise multiplier with which all rounds together stay within ε.

    Sampling hides clients from whoever sees the models alone. The server knows whom it asked. And where it sees updates
    one by one, that there is one tells that its client is there: what is hidden is which client it is.
    """

    def releases(noise: float) -> list[Release]:
        if who == "central":
            return [Release(Gaussian(noise), Poisson(COHORT / CLIENTS), ROUNDS)]
        return [Release(Skellam(noise, PARAMETERS**0.5 * STEPS, STEPS), Everyone(), ROUNDS)]

    return noise_for(releases, epsilon, DELTA, "replace_one" if who == "local" else "add_or_remove")


def channel_of(who: Who, noise: float | None) -> list[Transform]:
    """Return the stages."""
    if noise is None:
        return []
    if who == "central":
        return [fp.Clip(CLIP), fp.GaussianNoise(noise)]
    if who == "distributed":
        return [fp.Clip(CLIP), fp.SkellamNoise(noise), fp.SplitTrust(minimum_cohort=LEAST)]
    return [fp.Clip(CLIP), fp.SkellamNoise(noise, where="local")]


def measure(who: Who, epsilon: float | None, seeds: int) -> Cell:
    """Train with the noise that ε takes, once for each seed."""
    noise = None if epsilon is None else noise_of(who, epsilon)
    results = [
        fp.train(
            softmax(seed),
            dealt(CLIENTS, 1.0),
            algorithm=fp.FedAvg(lr=0.15, local_epochs=1, batch_size=10, weighting="uniform"),
            channel=channel_of(who, noise),
            cohort=COHORT,
            sampling="poisson" if who == "central" else "fixed",
            rounds=ROUNDS,
            evaluate_every=0,
            seed=seed,
            engine="batched" if who == "central" or noise is None else "in_process",
            progress=False,
        )
        for seed in range(seeds)
    ]
    spent = float("inf")
    for protection in results[0].privacy.protections:
        spent = account(protection.releases, DELTA, protection.guarantee.relation).epsilon
    return Cell(noise, spent, tuple(map(accuracy, results)))


def softmax(seed: int) -> torch.nn.Module:
    """Return a softmax regression as a torch module, its weights drawn from the seed."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


def draw(columns: dict[Who, list[Cell]], path: Path) -> None:
    """Draw accuracy over ε: a line for whoever adds the noise."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    places = range(len(EPSILONS))
    for (who, cells), colour in zip(columns.items(), ("#00796b", "#e65100", "#607d8b"), strict=True):
        means = [float(np.mean(cell.accuracies)) for cell in cells]
        axes.errorbar(
            places,
            means,
            [float(np.std(cell.accuracies)) for cell in cells],
            marker="o",
            color=colour,
            label=who,
        )
    axes.set_xticks(places, ["no noise" if epsilon is None else f"{epsilon:g}" for epsilon in EPSILONS])
    axes.set_xlabel(f"ε of each client, at δ = {DELTA:.2g}")
    axes.set_ylabel("accuracy on images held out")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, title="who adds the noise")
    save(figure, path)


def main(words: Sequence[str]) -> int:
    """Measure, print the table as Markdown, and draw the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.private_images", description=__doc__)
    parser.add_argument(
        "--seeds", type=int, default=3, help="runs with central noise; of the others there is one"
    )
    parser.add_argument("--picture", type=Path, help="where to draw it, SVG or PNG")
    arguments = parser.parse_args(words)
    seeds: dict[Who, int] = {"central": arguments.seeds, "distributed": 1, "local": 1}
    columns: dict[Who, list[Cell]] = {who: [] for who in seeds}
    print(f"| ε, δ = {DELTA:.2g} | {' | '.join(columns)} |\n|---:|" + "---:|" * len(columns))
    for epsilon in EPSILONS:
        for who, cells in columns.items():
            cells.append(
                columns["central"][-1]
                if epsilon is None and who != "central"
                else measure(who, epsilon, seeds[who])
            )
        label = "no noise" if epsilon is None else f"{epsilon:g}"
        print(f"| {label} | {' | '.join(str(cells[-1]) for cells in columns.values())} |", flush=True)
        print([round(cells[-1].epsilon, 3) for cells in columns.values()], file=sys.stderr)
    if arguments.picture:
        draw(columns, arguments.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
