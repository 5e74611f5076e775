"""A federation: every client's rows side by side, as only a simulation can hold them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import DataError, suggest
from fedpact.core.rows import ClientData, Rows
from fedpact.data.split import holds_classes

if TYPE_CHECKING:
    import pandas as pd

    from fedpact.data.table_schema import TableSchema

_LABEL_BINS = 10
_MOST_LABELS = 100


@dataclass(frozen=True, eq=False, repr=False)
class Federation(Sequence[ClientData]):
    """Named clients in a fixed order, and where their rows come from.

    `federation["Hungary"]` and `federation[1]` are a client, `federation[:2]` is a smaller federation.

    Args:
        clients: at least one, each with an id of its own.
        name: the data set's name.
        source: where the data come from.
        terms: the licence they come under.
        note: how the rows were split over the clients.
        label: what the label means.
        reads: what was read of the rows, as a job's `data` says it (label, columns, a data set's name).
        schemas: client → what it knows of its own table, such as units.

    Raises:
        DataError: no client, two clients with one id, or a schema of none of them.
    """

    clients: tuple[ClientData, ...]
    name: str = ""
    source: str = ""
    terms: str = ""
    note: str = ""
    label: str = ""
    reads: Mapping[str, Any] = field(default_factory=dict)
    schemas: Mapping[str, TableSchema] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "clients", tuple(self.clients))
        if not self.clients:
            raise DataError(f"{self._called} has no clients: give it at least one.")
        twice = [id for id, count in Counter(self.ids).items() if count > 1]
        if twice:
            raise DataError(
                f'{self._called} has more than one client called "{twice[0]}": rename one of them.'
            )
        for id in self.schemas:
            if id not in self.ids:
                raise DataError(
                    f'{self._called} has a schema for "{id}", and there is no such client.{suggest(id, self.ids)}'
                )

    @property
    def ids(self) -> tuple[str, ...]:
        """The clients' names, in order."""
        return tuple(client.id for client in self.clients)

    def __len__(self) -> int:
        return len(self.clients)

    def __iter__(self) -> Iterator[ClientData]:
        return iter(self.clients)

    def __contains__(self, item: object) -> bool:
        return item in self.ids if isinstance(item, str) else any(item is client for client in self.clients)

    @overload
    def __getitem__(self, key: int | str) -> ClientData: ...
    @overload
    def __getitem__(self, key: slice) -> Federation: ...
    def __getitem__(self, key: int | str | slice) -> ClientData | Federation:
        if isinstance(key, slice):
            clients = self.clients[key]
            schemas = {client.id: self.schemas[client.id] for client in clients if client.id in self.schemas}
            return replace(self, clients=clients, schemas=schemas)
        if not isinstance(key, str):
            return self.clients[key]
        if key not in self.ids:
            raise DataError(f'{self._called} has no client "{key}".{suggest(key, self.ids)}')
        return self.clients[self.ids.index(key)]

    def __repr__(self) -> str:
        rows = sum(len(client.train) + len(client.test or ()) for client in self.clients)
        return f"<{self._called}: {len(self)} clients, {rows:,} rows>"

    def pooled(self) -> ClientData:
        """Return one client, "pooled", with all the train rows and all the test rows, clients in order.

        Only a simulation can do this; it is the comparison that a federated model is measured against.

        Raises:
            DataError: clients whose columns, shapes or labels do not fit together.
        """
        tests = [(client.id, client.test) for client in self.clients if client.test is not None]
        trains = [(client.id, client.train) for client in self.clients]
        return ClientData("pooled", _joined(trains), _joined(tests) if tests else None)

    def describe(self) -> pd.DataFrame:
        """Return a table with one row per client: train rows, test rows, and how often each label occurs.

        The labels are counted over train and test rows together. Numeric labels that are no classes (see
        `fedpact.data.split.holds_classes`), or more than a hundred, are counted in ten bins of equal width;
        without labels there are only the first two columns.
        """
        import pandas as pd

        table = pd.DataFrame(
            {
                "train": [len(client.train) for client in self.clients],
                "test": [len(client.test or ()) for client in self.clients],
            },
            index=pd.Index(self.ids, name="client"),
        )
        labels = [_labels(client) for client in self.clients]
        if any(each is None for each in labels):
            return table
        return table.join(_histogram([each for each in labels if each is not None], table.index))

    @property
    def _called(self) -> str:
        return f'Federation "{self.name}"' if self.name else "Federation"


def _joined(parts: list[tuple[str, Rows]]) -> Rows:
    first_id, first = parts[0]
    for id, rows in parts[1:]:
        if _form(rows) != _form(first):
            raise DataError(
                f'Clients "{first_id}" and "{id}" cannot be pooled: the first has {_in_words(first)}, '
                f"the second has {_in_words(rows)}."
            )
    labels = [rows.y for _, rows in parts if rows.y is not None]
    return Rows(_stacked([rows.x for _, rows in parts]), np.concatenate(labels) if labels else None)


def _stacked(features: list[Any]) -> Any:
    if hasattr(features[0], "iloc"):
        import pandas as pd

        return pd.concat(features, ignore_index=True)
    return np.concatenate(features)


def _form(rows: Rows) -> tuple[object, bool]:
    return (list(rows.x.columns) if hasattr(rows.x, "iloc") else rows.x.shape[1:]), rows.y is None


def _in_words(rows: Rows) -> str:
    features, unlabelled = _form(rows)
    return f"features {features} and {'no labels' if unlabelled else 'labels'}"


def _labels(client: ClientData) -> NDArray[np.generic] | None:
    parts = [rows.y for rows in (client.train, client.test) if rows is not None]
    present = [part for part in parts if part is not None and part.ndim == 1]
    return np.concatenate(present) if len(present) == len(parts) else None


def _histogram(labels: list[NDArray[np.generic]], index: pd.Index[Any]) -> pd.DataFrame:
    import pandas as pd

    together = np.concatenate(labels)
    classes = np.unique(together)
    few = holds_classes(together) and len(classes) <= _MOST_LABELS
    if few or not np.issubdtype(together.dtype, np.number):
        counts = [[int(np.sum(each == value)) for value in classes] for each in labels]
        return pd.DataFrame(counts, index=index, columns=[f"label {value}" for value in classes])
    edges = np.histogram_bin_edges(together, bins=_LABEL_BINS)
    counts = [np.histogram(each, bins=edges)[0].tolist() for each in labels]
    names = [f"label {low:.4g} to {high:.4g}" for low, high in pairwise(edges)]
    return pd.DataFrame(counts, index=index, columns=names)
