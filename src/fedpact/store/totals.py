"""What each client has done in a run, added up."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fedpact.store.table import ClientTable

# What the totals of a client start from.
NO_WORK: Mapping[str, Any] = {"rounds": 0, "failures": 0, "seconds": 0.0, "upload_bytes": 0}

_COLUMNS = {name: np.float64 if isinstance(start, float) else np.int64 for name, start in NO_WORK.items()}


class ClientTotals:
    """For each client that was asked: rounds, failures, seconds and upload_bytes, added up.

    >>> totals = ClientTotals()
    >>> totals.note(["lyon", "nice"], [1, 0], [0, 1], [0.5, 2.0], [800, 0])
    >>> totals.get("nice")
    {'rounds': 0, 'failures': 1, 'seconds': 2.0, 'upload_bytes': 0}

    Args:
        expected: how many clients there will be, for which room is taken at once.
    """

    def __init__(self, expected: int = 0) -> None:
        self._table = ClientTable(_COLUMNS, expected)

    def __len__(self) -> int:
        """The number of clients that were asked."""
        return len(self._table)

    def note(
        self,
        ids: Sequence[str],
        rounds: ArrayLike,
        failures: ArrayLike,
        seconds: ArrayLike,
        upload_bytes: ArrayLike,
    ) -> None:
        """Add what a round gave.

        Args:
            ids: the clients [n].
            rounds: whether each is in the round's sum [n]; like those that follow, one number stands for all.
            failures: whether each has failed [n].
            seconds: how long each took [n].
            upload_bytes: what each sent [n].
        """
        rows = self._table.rows(ids)
        given = {"rounds": rounds, "failures": failures, "seconds": seconds, "upload_bytes": upload_bytes}
        for name, values in given.items():
            np.add.at(self._table[name], rows, np.asarray(values, _COLUMNS[name]))

    def get(self, id: str) -> dict[str, Any]:
        """Return a client's totals; `NO_WORK` of one that was never asked."""
        row = self._table.row(id)
        return dict(NO_WORK) if row is None else {name: self._table[name][row].item() for name in NO_WORK}

    def items(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Iterate over clients and their totals, sorted by client."""
        return ((id, self.get(id)) for id in sorted(self._table))

    def contents(self) -> dict[str, Any]:
        """Return copies of all that the totals hold, as a checkpoint can hold it."""
        return self._table.contents()

    def restore(self, contents: Mapping[str, Any]) -> None:
        """Hold what the `contents` of others were."""
        self._table.restore(contents)
