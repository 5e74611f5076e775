"""What a split is told of a client's rows: their classes, groups and times, and which columns say so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DataError, suggest
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.data.federation import Federation
from fedpact.data.keys import as_times, complete, key_column, time_column, without_columns
from fedpact.data.split import strata_of
from fedpact.data.splits.assign import Parts, by_name, whole_groups
from fedpact.data.wording import at_client

Key: TypeAlias = "str | Mapping[str, Sequence[Any] | NDArray[Any]]"
"""The name of a column of every client's table, or client id → a value for each of its train rows."""


@dataclass(frozen=True)
class Grouping:
    """Which rows must stay together.

    Args:
        group: says which group a row belongs to, such as its patient.
        shared: groups may have rows at several clients, and keep to one side everywhere.
    """

    group: Key
    shared: bool

    @classmethod
    def of(cls, group: Key | None, shared: bool) -> Grouping | None:
        """Return the grouping; None where each row stands for itself.

        Raises:
            ConfigError: groups are shared, and there are none.
        """
        if group is not None:
            return cls(group, shared)
        if shared:
            raise ConfigError("shared_groups is about groups: say with group=... which row is of which.")
        return None

    def parts(self, client: ClientData, shares: Sequence[float], stratify: bool, root: Seed) -> Parts:
        """Return the part of each train row [n], by its group; part 0 is what is trained on.

        Raises:
            DataError: as `values_of`.
        """
        names = values_of(client, self.group, "group").astype(str)
        if self.shared:
            return by_name(names, shares, root)
        groups = np.unique(names, return_inverse=True)[1]
        strata = strata_of(client.train, stratify)
        return whole_groups(groups, strata, shares, root.child("client", client.id, "groups"))


def values_of(client: ClientData, key: Key, what: Literal["group", "time"]) -> NDArray[Any]:
    """Return a value for each of a client's train rows [n].

    Raises:
        DataError: no such column or client, or values that are not one a row.
    """
    import pandas as pd

    with at_client(client.id, "training"):
        if isinstance(key, str):
            return (
                time_column(client.train, key) if what == "time" else key_column(client.train, key).to_numpy()
            )
        if client.id not in key:
            raise DataError(f"no {what} is given for its rows.{suggest(client.id, key)}")
        given = np.asarray(key[client.id])
        if given.shape != (len(client.train),):
            raise DataError(
                f"its {what} has the shape {list(given.shape)}, and there are {len(client.train)} train rows: "
                "give one value each."
            )
        values = complete(pd.Series(given), f"the {what}")
        return as_times(values, f"the {what}") if what == "time" else values.to_numpy()


def stripped(rows: Rows, keys: Iterable[Key | None], keep: bool) -> Rows:
    """Return rows without the columns that are keys, unless these are to be kept as features."""
    columns = [key for key in keys if isinstance(key, str)]
    return rows if keep else without_columns(rows, *columns)


def as_federation(clients: Sequence[ClientData]) -> Federation:
    """Return the federation of these clients; a federation is one already."""
    return clients if isinstance(clients, Federation) else Federation(tuple(clients))


def annotated(federation: Federation, clients: Iterable[ClientData], note: str) -> Federation:
    """Return a federation of other rows, of which its note says what they are."""
    return replace(federation, clients=tuple(clients), note=f"{federation.note} {note}".strip())
