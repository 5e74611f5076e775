"""Concept shift: the same features mean one label at some clients and another label at others.

Clients are put in groups in turn: client k in group k mod groups. The first group keeps its labels.
"""

from dataclasses import dataclass
from math import factorial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DataError
from fedpact.core.rows import Rows
from fedpact.core.seeds import Seed
from fedpact.data.partition import Partition
from fedpact.data.partitions.partitioner import Partitioner
from fedpact.data.split import classes_in


@dataclass(frozen=True)
class PermutedLabels(Partitioner):
    """Give each group of clients a permutation of the classes of its own.

    Sattler, Müller and Samek, "Clustered Federated Learning", IEEE TNNLS 2021 (arXiv 1910.01991), section VI:
    clusters that disagree about the labels. With two classes the second group's labels are flipped.

    Args:
        of: how the rows are dealt.
        groups: how many, at least 2; no two have the same permutation.

    Raises:
        ConfigError: fewer than two groups; or (of the rows) more than the classes have permutations.
        DataError: (of the rows) there are no class labels.
    """

    of: Partitioner
    groups: int = 2

    def __post_init__(self) -> None:
        if self.groups < 2:
            raise ConfigError(
                f"Labels are permuted in at least 2 groups of clients, and not in {self.groups}."
            )

    def deal(self, rows: Rows, seed: Seed) -> Partition:
        return self.of.deal(rows, seed)

    def alter(self, parts: dict[str, Rows], seed: Seed) -> dict[str, Rows]:
        parts = self.of.alter(parts, seed.child("of"))
        classes = _classes(parts)
        mappings = self._permutations(len(classes), seed.child("partition", "permuted labels"))
        return {
            id: Rows(rows.x, classes[mappings[place % self.groups]][_codes(rows.y, classes)])
            for place, (id, rows) in enumerate(parts.items())
        }

    def _permutations(self, classes: int, seed: Seed) -> list[NDArray[np.intp]]:
        # Past eight classes there are more permutations than any groups that could be meant.
        if classes < 9 and self.groups > factorial(classes):
            raise ConfigError(
                f"{classes} classes have {factorial(classes)} permutations, too few for {self.groups} groups."
            )
        generator = seed.generator()
        found = [np.arange(classes)]
        while len(found) < self.groups:
            drawn = generator.permutation(classes)
            if not any(np.array_equal(drawn, each) for each in found):
                found.append(drawn)
        return found


@dataclass(frozen=True)
class FlippedLabels(Partitioner):
    """Give each group of clients a share of wrong labels of its own: sites that label with unequal care.

    In group g, `shares[g]` of each client's rows, to the nearest row, get another class than their own, each
    other class alike.

    Args:
        of: how the rows are dealt.
        shares: for each group of clients, in [0, 1].

    Raises:
        ConfigError: no shares, or one outside [0, 1].
        DataError: (of the rows) there are no class labels, or there is one class only.
    """

    of: Partitioner
    shares: tuple[float, ...] = (0.0, 0.2)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shares", tuple(self.shares))
        if not self.shares or not all(0 <= share <= 1 for share in self.shares):
            raise ConfigError(
                f"shares of flipped labels must be numbers from 0 to 1, one a group, and are {self.shares}."
            )

    def deal(self, rows: Rows, seed: Seed) -> Partition:
        return self.of.deal(rows, seed)

    def alter(self, parts: dict[str, Rows], seed: Seed) -> dict[str, Rows]:
        parts = self.of.alter(parts, seed.child("of"))
        classes = _classes(parts)
        if len(classes) < 2:
            raise DataError("There is one class only, and no other that a label could be flipped to.")
        stream = seed.child("partition", "flipped labels")
        return {
            id: Rows(
                rows.x, _flipped(rows.y, classes, self.shares[place % len(self.shares)], stream.child(id))
            )
            for place, (id, rows) in enumerate(parts.items())
        }


def _flipped(labels: Any, classes: NDArray[Any], share: float, seed: Seed) -> NDArray[Any]:
    generator = seed.generator()
    codes = _codes(labels, classes)
    wrong = generator.permutation(len(codes))[: round(share * len(codes))]
    codes[wrong] = (codes[wrong] + generator.integers(1, len(classes), len(wrong))) % len(classes)
    return classes[codes]


def _codes(labels: Any, classes: NDArray[Any]) -> NDArray[np.intp]:
    return np.searchsorted(classes, labels)


def _classes(parts: dict[str, Rows]) -> NDArray[Any]:
    labels = [rows.y for rows in parts.values() if rows.y is not None and rows.y.ndim == 1]
    classes = classes_in(np.concatenate(labels)) if len(labels) == len(parts) else None
    if classes is None:
        raise DataError(
            "A concept shift changes class labels, and these rows have none: bin the labels first."
        )
    return classes
