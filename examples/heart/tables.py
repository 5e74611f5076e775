"""Print the tables of docs/heart.md: Fed-Heart-Disease as FLamby published it, and as Fedpact finds it."""

from collections.abc import Sequence
from itertools import combinations

import flamby_by_hand as by_hand
import pandas as pd
from flamby_heart import (
    ADAGRAD_WITHOUT_AVERAGE,
    CENTRES,
    METHODS,
    Scaling,
    accuracies,
    cleveland_alone,
    differ,
    judged,
    newton,
)
from flamby_published import published

import fedpact as fp

PER_CENTRE = ["", *CENTRES, "mean"]
DRAWS = tuple(range(100))


def main() -> None:
    """Print every table, as Markdown."""
    heading(
        "Mean accuracy over the four centres", ["", "published", "scaled per centre", "federated scaling"]
    )
    for name, algorithm in METHODS.items():
        runs = [accuracies(algorithm, scaling) for scaling in ("per centre", "federated")]
        line(name, [mean_cell(table) for table in (published(name), *runs)])
    runs = [accuracies(ADAGRAD_WITHOUT_AVERAGE, scaling) for scaling in ("per centre", "federated")]
    line("fp.FedAdagrad", ["", *map(mean_cell, runs)])

    heading("Published by FLamby", PER_CENTRE)
    for name in METHODS:
        line(name, cells(published(name)))
    heading("Fedpact, every centre scaled by its own rows, as FLamby does", PER_CENTRE)
    by_centre("per centre")
    heading("Fedpact, federated scaling", PER_CENTRE)
    by_centre("federated")

    heading("Cyclic", PER_CENTRE)
    line("published", cells(published("Cyclic")))
    line("FLamby's procedure by hand", cells(by_hand.cyclic()))
    line("Fedpact, Cleveland alone", cells(cleveland_alone()))
    line("Fedpact, Cyclic", cells(accuracies(METHODS["Cyclic"], "per centre")))

    heading(
        "Pairs that differ significantly in the published rows",
        ["", "published", "Fedpact", "significantly so"],
    )
    for one, other in combinations(METHODS, 2):
        if differ(published(one), published(other)):
            found = judged(one), judged(other)
            line(
                f"{other} − {one}",
                [gap(published(one), published(other)), gap(*found), "yes" if differ(*found) else "no"],
            )

    heading("FedAvg, scaled per centre, from other first weights", ["", "mean"])
    line("published", [mean_cell(published("FedAvg"))])
    line("FLamby's procedure by hand", [mean_cell(by_hand.fedavg())])
    line("Fedpact, FLamby's first weights", [mean_cell(accuracies(METHODS["FedAvg"], "per centre"))])
    drawn = accuracies(METHODS["FedAvg"], "per centre", "uniform", DRAWS)
    line(f"Fedpact, {len(DRAWS)} other draws of first weights", [mean_cell(drawn)])
    line("Fedpact, from zeros", [mean_cell(accuracies(METHODS["FedAvg"], "per centre", "zeros"))])

    heading("FedAvg at other rates", ["clients' rate", "scaled per centre", "federated scaling"])
    for lr in (0.001, 0.003, 0.01, 0.03):
        algorithm = fp.FedAvg(lr=lr, local_steps=100, batch_size=4)
        runs = [accuracies(algorithm, scaling) for scaling in ("per centre", "federated")]
        line(str(lr), [mean_cell(table) for table in runs])

    heading("All rows in one place, and Newton's method over the centres", PER_CENTRE)
    as_published, as_trained = by_hand.pooled()
    line("pooled, published", cells(published("Pooled")))
    line("pooled by hand, test rows scaled per centre", cells(as_published))
    line("pooled by hand, test rows scaled as in training", cells(as_trained))
    line("Fedpact, Newton, scaled per centre", cells(newton("per centre")))
    line("Fedpact, Newton, federated scaling", cells(newton("federated")))


def by_centre(scaling: Scaling) -> None:
    for name, algorithm in METHODS.items():
        line(name, cells(accuracies(algorithm, scaling)))
    line("fp.FedAdagrad", cells(accuracies(ADAGRAD_WITHOUT_AVERAGE, scaling)))


def heading(title: str, columns: Sequence[str]) -> None:
    print(f"\n## {title}\n")
    line(columns[0], columns[1:])
    print("|---|" + "---:|" * (len(columns) - 1))


def line(label: str, values: Sequence[str]) -> None:
    print(f"| {' | '.join([label, *values])} |", flush=True)


def cells(table: pd.DataFrame) -> list[str]:
    return [*(cell(table[centre]) for centre in CENTRES), mean_cell(table)]


def mean_cell(table: pd.DataFrame) -> str:
    return cell(table[CENTRES].mean(axis=1))


def gap(one: pd.DataFrame, other: pd.DataFrame) -> str:
    return f"{(other - one).to_numpy().mean():+.3f}"


def cell(over_seeds: "pd.Series[float]") -> str:
    """Return the mean and the standard deviation over seeds."""
    if len(over_seeds) == 1:
        return f"{over_seeds.item():.3f}"
    return f"{over_seeds.mean():.3f} ± {over_seeds.std(ddof=0):.3f}"


if __name__ == "__main__":
    main()
