"""Partitions that know nothing of the rows but their number: equal shares, and shares by a power law."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError
from fedpact.core.rows import Rows
from fedpact.core.seeds import Seed
from fedpact.data.partition import Partition, check_clients, iid, named
from fedpact.data.partitions.partitioner import Partitioner


@dataclass(frozen=True)
class IID(Partitioner):
    """Deal shuffled rows to clients whose sizes differ by at most one row.

    Args:
        clients: how many.

    Raises:
        ConfigError: fewer than one client, or (of the rows) more clients than rows.
    """

    clients: int

    def deal(self, rows: Rows, seed: Seed) -> Partition:
        return iid(rows, self.clients, seed)


@dataclass(frozen=True)
class QuantitySkew(Partitioner):
    """Deal shuffled rows to clients whose sizes follow a power law: client k of them gets a share ∝ k^−exponent.

    Zipf's law at exponent 1, as Li et al. give their clients' sizes a power law ("Federated Optimization in
    Heterogeneous Networks", MLSys 2020, section 5.1). The first client is the largest, and every client's
    labels are the whole's but for chance.

    Args:
        clients: how many.
        exponent: ≥ 0; 0 gives equal sizes.
        min_rows: that the smallest client must come to.

    Raises:
        ConfigError: an exponent below 0; or (of the rows) one that leaves the smallest client too few.
    """

    clients: int
    exponent: float = 1.0
    min_rows: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.exponent < float("inf"):
            raise ConfigError(
                f"The exponent of a quantity skew must be a number from 0, and is {self.exponent}."
            )

    def deal(self, rows: Rows, seed: Seed) -> Partition:
        check_clients(self.clients, len(rows), self.min_rows)
        sizes = _apportioned(len(rows), np.arange(1.0, self.clients + 1) ** -self.exponent)
        # A client without rows is none, whatever was asked.
        if sizes[-1] < max(1, self.min_rows):
            raise ConfigError(
                f"{len(rows)} rows spread over {self.clients} clients by the power {-self.exponent} leave the "
                f"last {sizes[-1]} row(s), and {max(1, self.min_rows)} are asked for: take a smaller exponent or "
                "fewer clients."
            )
        dealt = seed.child("partition", "quantity skew").generator().permutation(len(rows))
        return named([np.sort(part) for part in np.split(dealt, np.cumsum(sizes)[:-1])])


def _apportioned(total: int, weights: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return whole numbers in proportion to falling weights, by largest remainder."""
    quotas = total * weights / weights.sum()
    counts = np.floor(quotas).astype(np.intp)
    by_remainder = np.argsort(counts - quotas, kind="stable")
    counts[by_remainder[: total - int(counts.sum())]] += 1
    return np.sort(counts)[::-1]
