"""What a client holds: rows to learn from, and rows kept aside to be judged on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


# Arrays have no one truth value, so rows are compared by identity.
@dataclass(frozen=True, eq=False)
class Rows:
    """Examples and their labels.

    Args:
        x: the features: a pandas DataFrame [n, columns], or an array [n, ...].
        y: the labels [n], or None where there are none.
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
