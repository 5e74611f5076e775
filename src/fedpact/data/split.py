"""Rows to learn from and rows to be judged on: a seeded split that keeps each class's share."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DataError
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed

MOST_CLASSES = 1000
"""As many as ImageNet has."""


def train_test(rows: Rows, share: float, seed: Seed, stratify: bool = True) -> tuple[Rows, Rows]:
    """Return the train rows and the test rows: every row is in exactly one of them, in its old order.

    Stratified, each class gives the test rows `share` of its own rows, rounded up or down by largest
    remainder so that the total is right too. A class always keeps a row to train on, so a class of one
    row goes to train; the test rows may therefore be none. Labels that are no classes (`holds_classes`), or
    of which most rows have one of their own, are split as one class.

    Args:
        rows: n rows.
        share: of the rows that become test rows, between 0 and 1.
        seed: the stream that picks them.
        stratify: keep each class's share.

    Raises:
        ConfigError: a share outside (0, 1).
        DataError: no rows.
    """
    if not 0 < share < 1:
        raise ConfigError(f"The share of test rows must lie between 0 and 1, and is {share}: take 0.25, say.")
    if len(rows) == 0:
        raise DataError("There are no rows to split into train rows and test rows.")
    is_test = held_out(strata_of(rows, stratify), share, seed)
    return rows.take(np.flatnonzero(~is_test)), rows.take(np.flatnonzero(is_test))


def held_out(
    strata: NDArray[np.intp], share: float, seed: Seed, among: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Return which rows are held out [n]: of each stratum its share, rounded as `train_test` says.

    Args:
        strata: the stratum of each row [n], counted from 0.
        share: of all rows.
        seed: the stream that picks them.
        among: the rows that may be held out [n], of which one in each stratum never is; all by default.
    """
    among = np.ones(len(strata), np.bool_) if among is None else among
    generator = seed.generator()
    held = np.zeros(len(strata), np.bool_)
    sizes = np.bincount(strata)
    room = np.maximum(np.bincount(strata[among], minlength=len(sizes)) - 1, 0)
    for stratum, count in enumerate(_held_counts(sizes, room, share)):
        held[generator.permutation(np.flatnonzero((strata == stratum) & among))[:count]] = True
    return held


def hold_out(id: str, rows: Rows, share: float, seed: Seed, stratify: bool = True) -> ClientData:
    """Return the client with `share` of its rows kept aside as test rows, by `train_test`.

    The stream is the client's own, so adding a client changes no other client's split. The client keeps no
    test rows (None) where the share is 0 or too small to make a row.
    """
    if share == 0:
        return ClientData(id, rows)
    train, test = train_test(rows, share, seed.child("client", id, "test rows"), stratify)
    return ClientData(id, train, test if len(test) else None)


def holds_classes(labels: NDArray[Any]) -> bool:
    """Return whether labels name classes, rather than measure something or give each row its own name.

    They do when they are one per row, all numbers or all text, at most 1000 distinct, and, if floats, all whole
    numbers. Ages are classes too, then: a model that predicts numbers has to say that they are not.
    """
    return classes_in(labels) is not None


def classes_in(labels: NDArray[Any]) -> NDArray[Any] | None:
    """Return the distinct labels in ascending order, or None where they name no classes (`holds_classes`)."""
    if labels.ndim != 1:
        return None
    if np.issubdtype(labels.dtype, np.floating) and not np.all(labels == np.floor(labels)):
        return None
    try:
        values = np.unique(labels)
    except TypeError:  # objects without an order, such as numbers beside text
        return None
    return values if len(values) <= MOST_CLASSES else None


def strata_of(rows: Rows, stratify: bool = True) -> NDArray[np.intp]:
    """Return the stratum of each row [n], counted from 0: its class, or 0 where rows are split as one class."""
    if stratify and rows.y is not None and holds_classes(rows.y):
        _, strata, sizes = np.unique(rows.y, return_inverse=True, return_counts=True)
        if 2 * np.sum(sizes == 1) <= len(rows):
            return strata
    return np.zeros(len(rows), np.intp)


def _held_counts(sizes: NDArray[np.integer], room: NDArray[np.integer], share: float) -> NDArray[np.integer]:
    # Rounding first: 0.29 * 100 is 28.999999999999996, and its floor is not what was meant.
    quotas = np.round(np.where(room > 0, sizes * share, 0.0), 9)
    counts = np.minimum(np.floor(quotas).astype(np.int64), room)
    missing = int(np.floor(quotas.sum() + 0.5)) - int(counts.sum())
    may_give = (quotas > counts) & (counts < room)
    by_remainder = np.argsort(np.where(may_give, counts - quotas, 1.0), kind="stable")
    counts[by_remainder[: min(missing, int(may_give.sum()))]] += 1
    return counts
