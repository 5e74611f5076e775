"""Simulating a federation: rows, spread over clients by a partition, and the report of what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.registry import Spec
from fedpact.core.rows import Rows
from fedpact.core.seeds import Seed
from fedpact.data.federation import Federation
from fedpact.data.partition import take_parts
from fedpact.data.partitions.partitioner import Partitioner
from fedpact.data.partitions.registry import PARTITIONS
from fedpact.data.partitions.report import Report, report_on
from fedpact.data.split import hold_out


@dataclass(frozen=True, eq=False)
class Simulation:
    """A simulated federation, and how its clients differ.

    Args:
        clients: the federation.
        report: sizes, labels, distances from IID, and the picture.
    """

    clients: Federation
    report: Report


def simulate(
    rows: Rows,
    how: Partitioner | Spec | str,
    *,
    test: float = 0.25,
    seed: int = 0,
    stratify: bool = True,
    **about: Any,
) -> Simulation:
    """Return the federation whose clients hold these rows as a partition spreads them, and a report.

    The same rows, partition and seed give the same clients, to the last bit; `IID`, `Dirichlet` and `ByColumn`
    give those of the functions of `fp.partition` and `fp.partition.federate`.

    Args:
        rows: all of them.
        how: the partition, or its specification: {"name": "Dirichlet", "clients": 10, "alpha": 0.5}.
        test: the share of each client's rows that become its test rows; 0 for none.
        seed: the root of every choice.
        stratify: keep each class's share (see `fedpact.data.split.train_test`).
        about: `name`, `source`, `terms`, `label`, `reads` of the `Federation`.

    Raises:
        ConfigError: a partition that is not known, or that the rows cannot serve.
        DataError: rows that lack what the partition needs.
    """
    partition: Partitioner = PARTITIONS.build(how) if isinstance(how, str | Mapping) else how
    stream = Seed.of(seed)
    dealt = dict(take_parts(rows, partition.deal(rows, stream)))
    labels = {id: part.y for id, part in dealt.items()}
    parts = partition.alter(dealt, stream)
    # What was dealt is not held beside what became of it, so that the rows are in memory twice and not three times.
    del dealt
    said = f"{partition}, seed {seed}"
    clients = tuple(hold_out(id, part, test, stream, stratify) for id, part in parts.items())
    federation = Federation(clients, **{"note": f"Simulated: {said}.", **about})
    relabelled = {id: _share_changed(labels[id], part.y) for id, part in parts.items()}
    return Simulation(federation, report_on(federation, said, relabelled))


def _share_changed(before: NDArray[Any] | None, after: NDArray[Any] | None) -> float:
    if before is None or after is None or before is after:
        return 0.0
    return float(np.mean(before != after))
