"""Which process of several runs which client: at home if it can be, so that rows stay near; no process overloaded."""

import heapq
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Host = TypeVar("Host", bound=Hashable)

# A host may be given this much more than if all homes were forgotten, before its clients are run elsewhere.
_SLACK = 1.1


@dataclass(frozen=True)
class Plan(Generic[Host]):
    """Who runs whom in one round.

    Args:
        groups: host → its clients, in the order in which they were given; a host without any is left out.
        moved: clients that have got another home, and the one that they had.
    """

    groups: Mapping[Host, Sequence[str]]
    moved: Mapping[str, Host]


class Placement(Generic[Host]):
    """The homes of clients among hosts.

    A client gets its home when it is first seen: in each round the largest first, each with the host that has the
    least to do (Graham, "Bounds on multiprocessing timing anomalies", SIAM J. Appl. Math. 1969), so that the homes'
    totals are about equal. There it stays. Where a sampled cohort would give one host over a tenth more than if it
    were spread anew, clients are lent to others for that round; they move there for good where this makes the homes'
    totals more equal, as when a host has just come, or when their own is gone.
    """

    def __init__(self) -> None:
        self._homes: dict[str, tuple[Host, float]] = {}
        self._totals: dict[Host, float] = {}

    def home(self, id: str) -> Host | None:
        """Return a client's home; None if it has never had one."""
        return self._homes[id][0] if id in self._homes else None

    def plan(self, sizes: Mapping[str, float], hosts: Sequence[Host]) -> Plan[Host]:
        """Return who runs whom.

        Args:
            sizes: client → how much it has to do, such as its number of rows; at least one client.
            hosts: the hosts that are there; at least one.
        """
        self._totals = {host: self._totals.get(host, 0.0) for host in hosts}
        largest_first = sorted(sizes, key=lambda id: (-sizes[id], id))
        most = _SLACK * _longest([sizes[id] for id in largest_first], len(hosts))
        loads = dict.fromkeys(hosts, 0.0)
        chosen: dict[str, Host] = {}
        for id in largest_first:
            home = self.home(id)
            if home in loads and loads[home] + sizes[id] <= most:
                chosen[id] = home
                loads[home] += sizes[id]
        moved = {}
        idlest = [(loads[host], self._totals[host], place) for place, host in enumerate(hosts)]
        heapq.heapify(idlest)
        for id in [id for id in largest_first if id not in chosen]:
            load, _, place = idlest[0]
            host, home = hosts[place], self.home(id)
            chosen[id] = host
            if home is None or self._better(host, home, sizes[id]):
                self._settle(id, host, sizes[id])
                if home is not None:
                    moved[id] = home
            heapq.heapreplace(idlest, (load + sizes[id], self._totals[host], place))
        groups: dict[Host, list[str]] = {}
        for id in sizes:
            groups.setdefault(chosen[id], []).append(id)
        return Plan(groups, moved)

    def _better(self, host: Host, home: Host, size: float) -> bool:
        return home not in self._totals or self._totals[host] + size < self._totals[home]

    def _settle(self, id: str, host: Host, size: float) -> None:
        if id in self._homes:
            before, counted = self._homes[id]
            if before in self._totals:
                self._totals[before] -= counted
        self._homes[id] = host, size
        self._totals[host] += size


def _longest(sizes: Sequence[float], hosts: int) -> float:
    """Return what the busiest host has to do where these sizes, largest first, are each put with the idlest."""
    loads = [0.0] * hosts
    for size in sizes:
        heapq.heapreplace(loads, loads[0] + size)
    return max(loads)
