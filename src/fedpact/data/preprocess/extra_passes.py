"""Extra passes: rows of classes that are rare over all clients are visited several times in an epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpact.core.seeds import Seed
from fedpact.core.settings import check_counts
from fedpact.data.preprocess.resample import Resampling


@dataclass(frozen=True)
class ExtraPasses(Resampling):
    """Visit training rows of classes that are rare over all clients several times in an epoch.

    A row is visited round(n_max / n) times, where all clients have n rows of its class and n_max of the commonest.
    These counts are summed over all clients, exactly and in one round, in which the server sees the sums; so a class is
    as rare at one client as at another, whatever their own balance is, and clients agree on what a row counts. Nothing
    is drawn. A client counts as many rows in a mean over clients as it visits in an epoch.

    It stands at the end of `preprocess`, with no other step that resamples, and leaves rows of tests and predictions
    alone.

    Args:
        most: the largest number of visits.

    Raises:
        ConfigError: it is no whole number, 1 or more.
    """

    most: int = 100

    counts_classes: ClassVar[bool] = True
    alone: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_counts(self, "most")

    def passes(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how often rows of each class are visited in an epoch [classes]: halves are rounded up.

        Args:
            counts: how many training rows of each class all clients have [classes].
        """
        rows = np.maximum(counts, 1)
        return np.clip((2 * counts.max() + rows) // (2 * rows), 1, self.most)

    def resample(
        self, x: NDArray[Any], labels: NDArray[np.int64], counts: NDArray[np.int64], seed: Seed
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return the rows, behind them those that are visited twice or more, then those three times, and so on."""
        visits = self.passes(counts)[labels]
        extra = [np.flatnonzero(visits > visit) for visit in range(1, int(visits.max(initial=1)))]
        if not extra:
            return x, labels
        index = np.concatenate([np.arange(len(labels)), *extra])
        return x[index], labels[index]
