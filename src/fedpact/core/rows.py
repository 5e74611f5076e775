"""What a client holds: rows to learn from, and rows kept aside to be judged on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray


# Arrays have no one truth value, so rows are compared by identity.
@dataclass(frozen=True, eq=False)
class Rows:
    """Examples and their labels.

    Args:
        x: the features: a pandas DataFrame [n, columns], or an array [n, ...].
        y: the labels [n], or [n, ...] for one at every position of an example; None where there are none.
    """

    x: Any
    y: NDArray[np.generic] | None = None

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: NDArray[np.integer]) -> "Rows":
        """Return the rows at these positions, in this order."""
        x = self.x.iloc[index].reset_index(drop=True) if hasattr(self.x, "iloc") else self.x[index]
        return Rows(x, None if self.y is None else self.y[index])


@dataclass(frozen=True)
class ClientData:
    """One client: its name and its rows. They never leave it.

    Args:
        id: the client's name, unique in its federation.
        train: the rows it trains on.
        test: the rows it is evaluated on, or None if it keeps none aside.
    """

    id: str
    train: Rows
    test: Rows | None = None


class ClientStack(Sequence[ClientData]):
    """Many clients with equally many training rows and none kept aside, in one array: a sequence of ClientData.

    What reads all of them at once takes the arrays; for others each client's rows are views of them.

    Args:
        ids: the clients' names.
        x: the features [clients, rows, ...].
        y: the labels [clients, rows, ...].
    """

    def __init__(self, ids: Sequence[str], x: NDArray[Any], y: NDArray[Any]) -> None:
        self.ids = ids
        self.x = x
        self.y = y

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, place: int) -> ClientData: ...

    @overload
    def __getitem__(self, place: slice) -> "ClientStack": ...

    def __getitem__(self, place: int | slice) -> "ClientData | ClientStack":
        if isinstance(place, slice):
            return ClientStack(self.ids[place], self.x[place], self.y[place])
        return ClientData(self.ids[place], Rows(self.x[place], self.y[place]))
