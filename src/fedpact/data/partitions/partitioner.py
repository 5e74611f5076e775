"""What a partition for simulation is: which rows a client gets, and how it sees them."""

from typing import Protocol

from fedpact.core.rows import Rows
from fedpact.core.seeds import Seed
from fedpact.data.partition import Partition


class Partitioner(Protocol):
    """A way to spread one table over simulated clients: a frozen dataclass whose fields are its settings.

    A new one is a class of two methods, of which the second may be inherited, and a line in the registry.
    """

    def deal(self, rows: Rows, seed: Seed) -> Partition:
        """Return client id → positions of its rows; a row goes to one client at most.

        Args:
            rows: all of them.
            seed: the simulation's root; a partitioner draws from a child of its own.
        """
        ...

    def alter(self, parts: dict[str, Rows], seed: Seed) -> dict[str, Rows]:
        """Return client id → its rows as it sees them: as many, in the same order.

        Args:
            parts: what was dealt.
            seed: the simulation's root.
        """
        return parts
