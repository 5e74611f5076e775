"""What the clients of a secure sum agree on beforehand, and what none of them would accept."""

import math
from dataclasses import dataclass

from fedpact.core.errors import SecureError
from fedpact.secure.graph import choose
from fedpact.secure.ring import check_bits

# A sum of one is no sum, and of two each of them knows the other's.
_LEAST_COHORT = 2


@dataclass(frozen=True)
class Parameters:
    """The parameters of one secure sum, refused where they would not keep a client's vector secret.

    Args:
        clients: how many are invited, n.
        threshold: how many shares open a secret, t. On the complete graph more than 2n/3, so that no server, with up
            to a third of the clients on its side, gets both kinds of share of anyone; on a sparse one at least
            k/2 + 2, so that it cannot open the sum of a part of the cohort, and see `choose`.
        neighbours: how many others each masks with, k: even; None for all.
        minimum_cohort: the fewest clients whose sum is opened.
        bits: numbers are added mod 2^bits: 16, 20, 24 or 32.

    Raises:
        SecureError: they are not safe, or cannot be.
    """

    clients: int
    threshold: int
    neighbours: int | None = None
    minimum_cohort: int = 5
    bits: int = 32

    def __post_init__(self) -> None:
        check_bits(self.bits)
        if not _LEAST_COHORT <= self.minimum_cohort <= self.clients:
            raise SecureError(
                f"a smallest cohort of {self.minimum_cohort} is not possible with {self.clients} clients: it is at "
                f"least {_LEAST_COHORT}, for a sum of one hides nothing, and at most as many as are invited; "
                "ask more clients, or set minimum_cohort."
            )
        if self.neighbours is None:
            if not 2 * self.clients < 3 * self.threshold <= 3 * self.clients:
                raise SecureError(
                    f"a threshold of {self.threshold} among {self.clients} clients is not in "
                    f"[{least_threshold(self.clients)}, {self.clients}]: below, a server could get both kinds of "
                    "shares of a client by telling others different things."
                )
            return
        if not (2 <= self.neighbours < self.clients - 1 and self.neighbours % 2 == 0):
            raise SecureError(
                f"{self.neighbours} neighbours are not possible among {self.clients} clients: their number is even and "
                f"below {self.clients - 1}; leave it out for all."
            )
        if not self.neighbours // 2 + 2 <= self.threshold <= self.neighbours + 1:
            raise SecureError(
                f"a threshold of {self.threshold} among {self.neighbours} neighbours and oneself is not in "
                f"[{self.neighbours // 2 + 2}, {self.neighbours + 1}]: below, a server could open the sum of a part of "
                "the cohort by saying that those around it have dropped out."
            )

    @classmethod
    def complete(
        cls, clients: int, *, dropouts: int = 0, minimum_cohort: int = 5, bits: int = 32
    ) -> "Parameters":
        """Return those of the complete graph, with t = ⌊2n/3⌋ + 1.

        Args:
            clients: how many are invited.
            dropouts: how many must be able to drop out.
            minimum_cohort: the fewest clients whose sum is opened.
            bits: of a number.

        Raises:
            SecureError: a round with so many dropouts could not be opened.
        """
        threshold = least_threshold(clients)
        if dropouts > clients - threshold:
            raise SecureError(
                f"of {clients} clients {threshold} must stay to the end, so {dropouts} cannot drop out; at most "
                f"{clients - threshold} can: ask more clients, or for fewer dropouts."
            )
        return cls(clients, threshold, None, minimum_cohort, bits)

    @classmethod
    def sparse(
        cls,
        clients: int,
        *,
        corrupt: float = 0.05,
        drop: float = 0.1,
        minimum_cohort: int | None = None,
        bits: int = 32,
    ) -> "Parameters":
        """Return those of the graph with the fewest neighbours that withstands these fractions; see `choose`.

        Args:
            clients: how many are invited.
            corrupt: the fraction that may work with the server.
            drop: the fraction that may drop out.
            minimum_cohort: the fewest clients whose sum is opened; None for n − ⌊drop · n⌋. On a sparse graph it is
                this alone that keeps a server from opening the sum of a small part of the cohort.
            bits: of a number.

        Raises:
            SecureError: the fractions leave no one over.
        """
        neighbours, threshold = choose(clients, corrupt, drop)
        least = clients - math.floor(drop * clients) if minimum_cohort is None else minimum_cohort
        return cls(clients, threshold, neighbours if neighbours < clients - 1 else None, least, bits)

    @property
    def holders(self) -> int:
        """How many hold shares of a client's secrets when all are there: its neighbours and itself."""
        return self.clients if self.neighbours is None else self.neighbours + 1

    def parts(self) -> tuple[int, ...]:
        """Return them as they are sent and hashed; 0 neighbours are all."""
        return (self.clients, self.threshold, self.neighbours or 0, self.minimum_cohort, self.bits)


def least_threshold(clients: int) -> int:
    """Return the smallest threshold on the complete graph, ⌊2n/3⌋ + 1."""
    return 2 * clients // 3 + 1
