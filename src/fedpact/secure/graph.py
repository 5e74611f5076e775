"""Who masks with whom: everyone with everyone, or each with k others on a graph that nobody chose.

Bell et al., "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead", CCS 2020, section 3: a Harary graph
(the clients in a circle, each beside its k/2 nearest on either side) on a random permutation. The permutation is drawn
from a hash of all public keys of the round, so no server can seat a client among its own. One that leaves clients out,
or tries other keys of those that it controls, can draw as many permutations as it has time for, which multiplies the
probabilities below by that number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from fedpact.core.errors import SecureError
from fedpact.secure.prg import expand

# What may go wrong in a round, as exponents of 2: a secret known to the server, and a sum that cannot be opened.
_SECURITY = -40
_LOSS = -30


@dataclass(frozen=True)
class Graph:
    """The neighbours of each client of a round, by its position among the sorted clients.

    Args:
        circle: the positions in the order in which they sit.
        neighbours: how many each has, even; None for everyone with everyone.
    """

    circle: Sequence[int]
    neighbours: int | None

    def beside(self, position: int) -> Sequence[int]:
        """Return the neighbours of a client, sorted; it is not among them."""
        return self._all_beside[position]

    def around(self, position: int) -> frozenset[int]:
        """Return the clients that hold shares of a client's secrets: its neighbours and itself."""
        return self._all_around[position]

    @cached_property
    def _all_beside(self) -> Sequence[Sequence[int]]:
        count = len(self.circle)
        if self.neighbours is None:
            return [(*range(i), *range(i + 1, count)) for i in range(count)]
        half = self.neighbours // 2
        distances = (*range(-half, 0), *range(1, half + 1))
        seats: list[Sequence[int]] = [()] * count
        for seat, position in enumerate(self.circle):
            seats[position] = sorted(self.circle[(seat + d) % count] for d in distances)
        return seats

    @cached_property
    def _all_around(self) -> Sequence[frozenset[int]]:
        return [frozenset((*beside, position)) for position, beside in enumerate(self._all_beside)]


@lru_cache(maxsize=16)
def graph(count: int, neighbours: int | None, seed: bytes) -> Graph:
    """Return the graph of so many clients that a seed of 32 bytes determines.

    Args:
        count: how many clients there are.
        neighbours: how many each has; with as many as there are others, or None, everyone is beside everyone.
        seed: a hash that all clients have determined together.
    """
    if neighbours is None or neighbours >= count - 1:
        return Graph(tuple(range(count)), None)
    # 64 uniform bits for each: two are the same with a probability of count² / 2^65, and then sit as they stand.
    draws = expand(seed, 2 * count).view(np.uint64)
    return Graph(tuple(np.argsort(draws, kind="stable").tolist()), neighbours)


def choose(clients: int, corrupt: float, drop: float, *, malicious: bool = True) -> tuple[int, int]:
    """Return how many neighbours k each client needs, and the threshold t of its shares.

    The smallest even k, and for it the smallest t, such that
    no client has t or more corrupt neighbours (with probability 1 − 2^-40),
    every client has t or more neighbours that stay (1 − 2^-30), and
    the clients that are honest and stay are connected (n·(corrupt + drop)^(k/2) ≤ 2^-40).
    A server that says itself who has dropped out can pick k/2 in a row, on two sides of a part of the circle, and one
    that tells clients different things can draw a line there: who sits at its end is left with itself, the k/2 on one
    side and its c corrupt neighbours. With t above that, the part is not opened without the rest, all honest clients
    sign the same survivors, and no one's two secrets are; so no client may have c ≥ t − k/2 − 1. Where no k < n − 1
    does it, the result is the complete graph, n − 1 and ⌊2n/3⌋ + 1.

    Args:
        clients: n.
        corrupt: the fraction that may work with the server, in [0, 1).
        drop: the fraction that may drop out, in [0, 1).
        malicious: whether the server may also send what it should not. Without, the thresholds are lower than clients
            accept that do not trust their server.

    Raises:
        SecureError: the fractions leave no one over.
    """
    if not (0 <= corrupt < 1 and 0 <= drop < 1 and corrupt + drop < 1 and clients >= 2):
        raise SecureError(
            f"of {clients} clients, a fraction {corrupt:g} that is corrupt and {drop:g} that drops out leave too few; "
            "both are in [0, 1) and add up to less than 1."
        )
    bad, gone = math.floor(corrupt * clients), math.floor(drop * clients)
    log_clients = math.log2(clients)
    for k in range(2, clients - 1, 2):
        if corrupt + drop and log_clients + k / 2 * math.log2(corrupt + drop) > _SECURITY:
            continue
        # An exponent of 2 for every count: at least x corrupt ones, at least x that drop out.
        met_bad, met_gone = _tail(clients - 1, bad, k), _tail(clients - 1, gone, k)
        for t in range(k // 2 + 2 if malicious else max(1, k // 4), k + 1):
            too_many = t - k // 2 - 1 if malicious else t
            if log_clients + met_bad[too_many] > _SECURITY:
                continue
            if log_clients + met_gone[k - t + 1] <= _LOSS:
                return k, t
            break
    return clients - 1, 2 * clients // 3 + 1


def _tail(population: int, marked: int, draws: int) -> list[float]:
    """Return log2 P[X ≥ x] for x = 0 … draws + 1 of a hypergeometric X."""
    tail = [-math.inf] * (draws + 2)
    total = 0.0
    for x in range(draws, -1, -1):
        if max(0, draws - (population - marked)) <= x <= marked:
            total += math.exp(
                _log_choose(marked, x)
                + _log_choose(population - marked, draws - x)
                - _log_choose(population, draws)
            )
        tail[x] = math.log2(min(total, 1.0)) if total > 0 else -math.inf
    return tail


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
