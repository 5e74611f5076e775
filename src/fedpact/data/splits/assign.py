"""Which part each row goes to: rows one by one, groups of rows whole, or rows in order of time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.seeds import Seed

Parts = NDArray[np.intp]
"""The part of each row [n], counted from 0."""


def dealt(strata: NDArray[np.intp], parts: int, seed: Seed) -> Parts:
    """Deal rows to parts in turn, stratum after stratum: every part gets its share of each to within one row.

    Args:
        strata: of each row [n], counted from 0.
        parts: how many.
        seed: shuffles the rows of each stratum, and the parts.
    """
    generator = seed.generator()
    shuffled = generator.permutation(len(strata))
    in_order = shuffled[np.argsort(strata[shuffled], kind="stable")]
    result = np.empty(len(strata), np.intp)
    result[in_order] = generator.permutation(parts)[np.arange(len(strata)) % parts]
    return result


def whole_groups(
    groups: NDArray[np.intp], strata: NDArray[np.intp], shares: Sequence[float], seed: Seed
) -> Parts:
    """Give each group whole to a part, so that parts come near their shares of each stratum.

    Greedily, the largest group first, to the part where the squared distance from its shares, in units of these,
    grows least (Pearson's χ²). Part 0 gets a group at least; others may get none.

    Args:
        groups: of each row [n], counted from 0.
        strata: of each row [n], counted from 0.
        shares: of each part; a part of share 0 gets nothing.
        seed: the order of groups of one size.
    """
    open_parts = np.flatnonzero(np.asarray(shares) > 0)
    table = np.zeros((int(groups.max()) + 1, int(strata.max()) + 1))
    np.add.at(table, (groups, strata), 1)
    wanted = np.asarray(shares, np.float64)[open_parts, None] * table.sum(axis=0)
    got = np.zeros_like(wanted)
    shuffled = seed.generator().permutation(len(table))
    largest_first = shuffled[np.argsort(-table.sum(axis=1)[shuffled], kind="stable")]
    part_of = np.zeros(len(table), np.intp)
    for group in largest_first:
        rows = table[group]
        cost = np.sum(rows * (2 * (got - wanted) + rows) / wanted, axis=1)
        filled = got.sum(axis=1) / wanted.sum(axis=1)
        chosen = np.lexsort((filled, np.round(cost, 9)))[0]
        got[chosen] += rows
        part_of[group] = open_parts[chosen]
    if not np.any(part_of == 0):
        part_of[largest_first[-1]] = 0
    return part_of[groups]


def by_name(names: NDArray[Any], shares: Sequence[float], seed: Seed) -> Parts:
    """Give each group to the part that its name is drawn for, which is the same at every client.

    Parts come near their shares as far as chance has it. The draw is of the seed and the name alone.

    Args:
        names: of each row's group [n].
        shares: of each part.
        seed: the same everywhere.
    """
    distinct, codes = np.unique(names.astype(str), return_inverse=True)
    keys = seed.children("group", [str(name) for name in distinct]).keys
    drawn = np.array([int.from_bytes(key[:8], "little") for key in keys]) / 2.0**64
    return np.searchsorted(np.cumsum(shares)[:-1], drawn, side="right").astype(np.intp)[codes]


def in_time(times: NDArray[Any], shares: Sequence[float]) -> Parts:
    """Cut rows in order of time: each part is later than the part before it, and rows of one time stay together.

    Cuts go where the parts so far come nearest to their shares; part 0 gets the earliest time at least.

    Args:
        times: of each row [n].
        shares: of each part, the earliest first.
    """
    _, moments, counts = np.unique(times, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    result = np.zeros(len(times), np.intp)
    for wanted in np.cumsum(shares)[:-1] * len(times):
        last = np.argmin(np.abs(ends - wanted))
        result += moments > last
    return result
