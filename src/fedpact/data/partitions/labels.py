"""Partitions by label: clients that see some classes often and others rarely or never."""

from dataclasses import dataclass

import numpy as np

from fedpact.core.errors import ConfigError, DataError
from fedpact.core.rows import Rows
from fedpact.core.seeds import Seed
from fedpact.data.partition import Partition, check_clients, dirichlet, named
from fedpact.data.partitions.partitioner import Partitioner


@dataclass(frozen=True)
class Dirichlet(Partitioner):
    """Spread each class over the clients in proportions drawn from Dir(alpha): see `fp.partition.dirichlet`.

    Args:
        clients: how many.
        alpha: concentration, > 0; as it falls to 0 a class goes to one client.
        min_rows: that every client gets.

    Raises:
        ConfigError: (of the rows) an alpha that is not positive, or one that leaves clients short.
        DataError: (of the rows) there are no class labels.
    """

    clients: int
    alpha: float
    min_rows: int = 1

    def deal(self, rows: Rows, seed: Seed) -> Partition:
        return dirichlet(rows, self.clients, self.alpha, seed, self.min_rows)


@dataclass(frozen=True)
class Shards(Partitioner):
    """Sort the rows by label, cut them into shards of one size, and give each client so many at random.

    McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
    section 3: the pathological partition, in which most clients see two digits of ten. A client has at most
    `shards` classes where every class fills whole shards, and else at most `shards` more for each class border
    that falls within one of its shards. Sizes of shards differ by at most one row.

    Args:
        clients: how many.
        shards: for each client.

    Raises:
        ConfigError: fewer than one shard; or (of the rows) more shards than rows.
        DataError: (of the rows) there are no labels of one per row, or none that can be sorted.
    """

    clients: int
    shards: int = 2

    def __post_init__(self) -> None:
        if self.shards < 1:
            raise ConfigError(f"Each client needs at least one shard, and is given {self.shards}.")

    def deal(self, rows: Rows, seed: Seed) -> Partition:
        check_clients(self.clients, len(rows), min_rows=1)
        if self.clients * self.shards > len(rows):
            raise ConfigError(
                f"{len(rows)} rows cannot be cut into {self.clients * self.shards} shards, {self.shards} for each of "
                f"{self.clients} clients: take fewer of either."
            )
        if rows.y is None or rows.y.ndim != 1:
            raise DataError(
                "Shards are cut from rows sorted by label, and these have no labels of one per row."
            )
        generator = seed.child("partition", "shards").generator()
        # Shuffled first, so that which rows of a class share a shard does not hang on the table's order.
        shuffled = generator.permutation(len(rows))
        try:
            by_label = shuffled[np.argsort(rows.y[shuffled], kind="stable")]
        except TypeError:
            raise DataError("Shards are cut from rows sorted by label, and these labels mix kinds.") from None
        cut = np.array_split(by_label, self.clients * self.shards)
        drawn = generator.permutation(len(cut)).reshape(self.clients, self.shards)
        return named([np.sort(np.concatenate([cut[shard] for shard in own])) for own in drawn])
