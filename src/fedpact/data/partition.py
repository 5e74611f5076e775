"""Partitioners: spread one table over simulated clients, every row to exactly one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DataError
from fedpact.core.rows import Rows
from fedpact.core.seeds import Seed
from fedpact.data.federation import Federation
from fedpact.data.split import MOST_CLASSES, classes_in, hold_out
from fedpact.data.wording import what_else

Partition: TypeAlias = dict[str, NDArray[np.intp]]
"""Client id → the positions of its rows, ascending."""

_MOST_DRAWS = 1000


def iid(rows: Rows, clients: int, seed: int | Seed = 0) -> Partition:
    """Deal shuffled rows to clients whose sizes differ by at most one row.

    Raises:
        ConfigError: fewer than one client, or more clients than rows.
    """
    check_clients(clients, len(rows), min_rows=1)
    dealt = _root(seed).child("partition", "iid").generator().permutation(len(rows))
    return named([np.sort(part) for part in np.array_split(dealt, clients)])


def dirichlet(rows: Rows, clients: int, alpha: float, seed: int | Seed = 0, min_rows: int = 1) -> Partition:
    """Skew the labels: each class is spread over the clients in proportions drawn from Dir(alpha).

    Yurochkin et al., "Bayesian Nonparametric Federated Learning of Neural Networks", ICML 2019
    (arXiv 1905.12022), section 4: p_k ~ Dir_J(alpha), and client j gets the share p_kj of class k. The
    sizes of the clients differ too. (Hsu et al., arXiv 1909.06335, draw the classes' proportions within
    clients of one size instead.) The draw is repeated until every client has `min_rows` rows.

    Args:
        rows: with class labels.
        clients: how many.
        alpha: concentration, > 0. As it grows every client's labels become the whole's; near 0 a class
            goes to one client.
        seed: draws the proportions and the rows.
        min_rows: that every client gets.

    Raises:
        ConfigError: an alpha that is not positive, clients or `min_rows` that the rows cannot serve, or
            proportions that leave a client short in each of 1000 draws.
        DataError: rows without class labels.
    """
    if not 0 < alpha < float("inf"):
        raise ConfigError(f"alpha of a Dirichlet partition must be a positive number, and is {alpha}.")
    check_clients(clients, len(rows), min_rows)
    classes = _class_positions(rows)
    generator = _root(seed).child("partition", "dirichlet").generator()
    class_sizes = np.array([len(positions) for positions in classes])
    for _ in range(_MOST_DRAWS):
        cuts = _cuts(generator, class_sizes, clients, alpha)
        sizes = np.diff(cuts, axis=1).sum(axis=0)
        if sizes.min() >= min_rows:
            break
    else:
        raise ConfigError(
            f"In {_MOST_DRAWS} draws from Dir({alpha}), {len(rows)} rows never gave each of {clients} "
            f"clients {min_rows} row(s): take a larger alpha, fewer clients, or a smaller min_rows."
        )
    shuffled = [generator.permutation(positions) for positions in classes]
    parts = [
        [pos[cut[k] : cut[k + 1]] for pos, cut in zip(shuffled, cuts, strict=True)] for k in range(clients)
    ]
    return named([np.sort(np.concatenate(part)) for part in parts])


def by_column(rows: Rows, column: str) -> Partition:
    """Give each value of a column a client of its own, named by the value, in order of first appearance.

    Raises:
        DataError: features that are no table, no such column, or rows without a value in it.
    """
    if not hasattr(rows.x, "iloc"):
        raise DataError(f'Only a table can be split by column "{column}"; these features are an array.')
    if column not in rows.x.columns:
        raise DataError(f'The table has no column "{column}" to split by.{what_else(column, rows.x.columns)}')
    values = rows.x[column]
    missing = np.flatnonzero(values.isna())
    if len(missing):
        raise DataError(
            f'Column "{column}" says which client a row belongs to, and is missing in {len(missing)} row(s), '
            f"first in row {missing[0] + 1}: fill them in or leave these rows out."
        )
    codes, ids = values.astype(str).factorize()
    ends = np.cumsum(np.bincount(codes, minlength=len(ids)))
    return dict(zip(map(str, ids), np.split(np.argsort(codes, kind="stable"), ends[:-1]), strict=True))


def federate(
    rows: Rows,
    partition: Mapping[str, NDArray[np.integer] | Sequence[int]],
    *,
    test: float = 0.25,
    seed: int = 0,
    stratify: bool = True,
    **about: Any,
) -> Federation:
    """Return the federation whose clients hold these rows, each with its own test rows kept aside.

    Args:
        rows: all of them.
        partition: client id → positions of its rows.
        test: the share of each client's rows that become its test rows; 0 for none.
        seed: picks the test rows.
        stratify: keep each class's share (see `fedpact.data.split.train_test`).
        about: `name`, `source`, `terms`, `note`, `label`, `reads` of the `Federation`.

    Raises:
        DataError: a client without rows, positions that are no whole numbers, a row that does not exist or that
            two clients share.
    """
    stream = Seed.of(seed)
    parts = take_parts(rows, partition)
    clients = tuple(hold_out(id, part, test, stream, stratify) for id, part in parts)
    return Federation(clients, **about)


def take_parts(
    rows: Rows, partition: Mapping[str, NDArray[np.integer] | Sequence[int]]
) -> Iterator[tuple[str, Rows]]:
    """Return each client's id and rows, taken one client after another.

    Raises:
        DataError: as `federate`, before the first is taken.
    """
    parts = {id: _positions(id, given, len(rows)) for id, given in partition.items()}
    given = np.concatenate([np.empty(0, np.intp), *parts.values()])
    if np.bincount(given, minlength=1).max() > 1:
        raise DataError(
            "The partition gives a row to two clients, or twice to one: give each row once at most."
        )
    return ((id, rows.take(index)) for id, index in parts.items())


def _root(seed: int | Seed) -> Seed:
    return seed if isinstance(seed, Seed) else Seed.of(seed)


def _positions(id: str, given: Any, rows: int) -> NDArray[np.intp]:
    index = np.asarray(given)
    if index.size == 0:
        raise DataError(f'Client "{id}" has no rows: leave it out of the partition, or give it some.')
    if index.ndim != 1 or not np.issubdtype(index.dtype, np.integer):
        raise DataError(
            f'Client "{id}" is given {index.dtype} of shape {list(index.shape)}: give a list of the positions '
            "of its rows, whole numbers from 0."
        )
    if index.min() < 0 or index.max() >= rows:
        raise DataError(f'Client "{id}" is given a row that does not exist: there are {rows} rows, from 0.')
    return index.astype(np.intp)


def check_clients(clients: int, rows: int, min_rows: int) -> None:
    """Raise ConfigError, or DataError where there are no rows, unless so many rows can serve so many clients."""
    if clients < 1 or min_rows < 0:
        raise ConfigError(f"{clients} clients of at least {min_rows} rows: ask for at least one client.")
    if rows == 0:
        raise DataError("There are no rows to spread over clients.")
    if clients * min_rows > rows:
        raise ConfigError(
            f"{rows} rows cannot give {clients} clients {min_rows} row(s) each: take fewer clients"
            + (" or a smaller min_rows." if min_rows > 1 else ".")
        )


def _class_positions(rows: Rows) -> list[NDArray[np.intp]]:
    if rows.y is None or rows.y.ndim != 1:
        raise DataError(
            "A Dirichlet partition skews class labels, and these rows have no labels of one per row."
        )
    classes = classes_in(rows.y)
    if classes is None:
        raise DataError(
            "A Dirichlet partition skews class labels, and these labels are measurements (with fractions, or "
            f"more than {MOST_CLASSES:,} different values): bin them first."
        )
    return [np.flatnonzero(rows.y == value) for value in classes]


def _cuts(
    generator: np.random.Generator, class_sizes: NDArray[np.integer], clients: int, alpha: float
) -> NDArray[np.intp]:
    """Where each shuffled class is cut: [classes, clients + 1], from 0 to the size of the class."""
    shares = generator.dirichlet(np.full(clients, alpha), size=len(class_sizes))
    cuts = np.zeros((len(class_sizes), clients + 1), dtype=np.intp)
    cuts[:, 1:] = np.cumsum(shares, axis=1) * class_sizes[:, None]
    cuts[:, -1] = class_sizes
    return cuts


def named(parts: Sequence[NDArray[np.intp]]) -> Partition:
    """Return parts by the names "client-00", "client-01", …, which sort in order."""
    digits = len(str(len(parts) - 1))
    return {f"client-{number:0{digits}d}": part for number, part in enumerate(parts)}
