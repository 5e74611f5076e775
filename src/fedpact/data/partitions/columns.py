"""Partitions that the table itself gives: by a column that names the client, or by time."""

from dataclasses import dataclass

import numpy as np

from fedpact.core.rows import Rows
from fedpact.core.seeds import Seed
from fedpact.data.keys import time_column, without_columns
from fedpact.data.partition import Partition, by_column, check_clients, named
from fedpact.data.partitions.partitioner import Partitioner


@dataclass(frozen=True)
class ByColumn(Partitioner):
    """Give each value of a column a client of its own, named by the value: hospitals, writers, speakers.

    Args:
        column: the column.
        keep: leave the column among the features.

    Raises:
        DataError: (of the rows) no table, no such column, or rows without a value in it.
    """

    column: str
    keep: bool = False

    def deal(self, rows: Rows, seed: Seed) -> Partition:
        return by_column(rows, self.column)

    def alter(self, parts: dict[str, Rows], seed: Seed) -> dict[str, Rows]:
        return _dropped(parts, self.column, self.keep)


@dataclass(frozen=True)
class TimeSlices(Partitioner):
    """Sort the rows by a date and give each client the next slice: what drifts over time differs by client.

    No row of a client is older than a row of the client before it. Sizes differ by at most one row; rows of
    one date keep the table's order, and may fall to two clients.

    Args:
        clients: how many slices.
        column: dates, ISO 8601 text, or numbers such as years.
        keep: leave the column among the features.

    Raises:
        ConfigError: (of the rows) more clients than rows.
        DataError: (of the rows) no table, no such column, rows without a value in it, or no dates.
    """

    clients: int
    column: str
    keep: bool = False

    def deal(self, rows: Rows, seed: Seed) -> Partition:
        check_clients(self.clients, len(rows), min_rows=1)
        in_order = np.argsort(time_column(rows, self.column), kind="stable")
        return named([np.sort(part) for part in np.array_split(in_order, self.clients)])

    def alter(self, parts: dict[str, Rows], seed: Seed) -> dict[str, Rows]:
        return _dropped(parts, self.column, self.keep)


def _dropped(parts: dict[str, Rows], column: str, keep: bool) -> dict[str, Rows]:
    return parts if keep else {id: without_columns(rows, column) for id, rows in parts.items()}
