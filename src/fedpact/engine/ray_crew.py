"""The actors of a Ray cluster: started where there is room, watched, replaced when they are lost."""

from __future__ import annotations

import logging
import math
import os
import socket
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import ReferenceType

from fedpact.core.errors import ConfigError, DependencyError
from fedpact.core.rows import ClientData
from fedpact.engine.ray_actor import Actor
from fedpact.engine.work import Engine

# A node may go while an actor starts on it; that so many in a row do has another reason.
_FALSE_STARTS = 8
# Once one actor has started, the others are waited for as long as they come at such intervals.
_STRAGGLERS_S = 5
_LISTENING_S = 10


@dataclass(eq=False)
class Hand:
    """One actor, as the driver knows it.

    Args:
        actor: Ray's handle.
        starting: the reference that tells of its start; None once it has started.
        node: the id of its node, once it has started.
        population: the reference of the population whose clients it holds.
        holds: the clients whose rows it holds, as they were when these were sent.
        gone: clients whose rows it is to let go of.
    """

    actor: Any
    starting: Any
    node: str = ""
    population: Any = None
    holds: dict[str, ReferenceType[ClientData]] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)


class Crew:
    """Actors with equal resources, as many as were asked for or as there is room for.

    Args:
        number: how many; None for as many as the cluster has room for.
        needs: what each reserves: "CPU", "GPU" and the cluster's own resources.
        address: of the cluster; None for the one that Ray finds, or a new one on this machine.
        inner: the engine that each runs.
        wait_s: how long to wait for the first actors.
    """

    def __init__(
        self,
        number: int | None,
        needs: Mapping[str, float],
        address: str | None,
        inner: Engine,
        wait_s: float,
    ) -> None:
        self._number = number
        self._needs = {name: amount for name, amount in needs.items() if amount}
        self._address = address
        self._inner = inner
        self._wait_s = wait_s
        self._hands: list[Hand] = []
        self._connected_here = False
        self._false_starts = 0

    @property
    def hands(self) -> Sequence[Hand]:
        """The actors that have started."""
        return [hand for hand in self._hands if hand.starting is None]

    @property
    def starting(self) -> Sequence[Any]:
        """References of those that have not."""
        return [hand.starting for hand in self._hands if hand.starting is not None]

    def gather(self, most: int) -> Sequence[Hand]:
        """Return the actors that are there, after starting those that are missing.

        Where there is none yet it waits for the first, and as long as others keep starting.

        Args:
            most: how many there is something to do for.

        Raises:
            ConfigError: the cluster cannot be reached, or none of its nodes has room for one actor.
            DependencyError: Ray is not installed.
        """
        self._connect()
        alive = _alive()
        self.dismiss([hand for hand in self.hands if hand.node not in alive])
        if self.hands:
            self.replenish(most)
            self.welcome()
            return self.hands
        self._begin(min(most, self._number or _fitting_on(alive.values(), self._needs)))
        return self.hands

    def replenish(self, most: int) -> None:
        """Start the actors that are missing, as many as there is room for beside what others have reserved."""
        import ray

        room = self._number
        if len(self._hands) >= most:
            return
        if room is None:
            free = _fitting(ray.available_resources(), self._needs)
            room = min(_fitting_on(_alive().values(), self._needs), free + len(self._hands))
        for _ in range(min(max(1, room), most) - len(self._hands)):
            self._hands.append(self._start())

    def _begin(self, number: int) -> None:
        import ray

        # What was just given back counts as reserved for a moment: those for whom it is not free are given up below.
        while len(self._hands) < max(1, number):
            self._hands.append(self._start())
        self.welcome(self._wait_s)
        while self.hands and self.starting:
            before = len(self.hands)
            ray.wait([*self.starting], num_returns=1, timeout=_STRAGGLERS_S)
            self.welcome()
            if before == len(self.hands):
                break
        if not self.hands:
            raise self._no_room()
        if self._number is None:
            # An actor that waits would make a cluster grow that was only to be filled.
            self.dismiss([hand for hand in self._hands if hand.starting is not None])

    def welcome(self, timeout_s: float = 0) -> None:
        """Note which actors have started, after waiting for a first one, and forget those that failed to.

        Raises:
            ConfigError: one cannot run on its node.
        """
        import ray

        if not self.starting:
            return
        ray.wait([*self.starting], num_returns=1, timeout=timeout_s)
        done, _ = ray.wait([*self.starting], num_returns=len(self.starting), timeout=0)
        for hand in [hand for hand in self._hands if hand.starting in done]:
            try:
                hand.node = ray.get(hand.starting)
                hand.starting, self._false_starts = None, 0
            except ray.exceptions.RayActorError as error:
                self._hands.remove(hand)
                self._false_starts += 1
                if error.actor_init_failed or self._false_starts >= _FALSE_STARTS:
                    # The rest is a traceback, in colours.
                    cause = str(error).strip().splitlines()[-1]
                    raise ConfigError(
                        f"an actor cannot start on a node of the cluster: {cause}. Every node needs Python, fedpact "
                        "and what the job is made of, in the versions of the driver."
                    ) from error

    def wait(self, references: Sequence[Any]) -> Sequence[Any]:
        """Return those of these references, and of starting actors, that are done, once there is one.

        Raises:
            ConfigError: nothing is under way and no actor finds room.
        """
        import ray

        done, _ = ray.wait(
            [*references, *self.starting], num_returns=1, timeout=None if references else self._wait_s
        )
        if not done:
            raise self._no_room()
        return done

    def lose(self, hand: Hand) -> bool:
        """Give an actor up that has been lost; return whether its node is still there, so that it died of itself."""
        self.dismiss([hand])
        return hand.node in _alive()

    def dismiss(self, hands: Sequence[Hand]) -> None:
        """End actors, whatever they are at."""
        import ray

        for hand in hands:
            if hand in self._hands:
                self._hands.remove(hand)
                ray.kill(hand.actor)

    def close(self) -> None:
        """End all actors; leave the cluster, or stop it if it was started here."""
        if self._hands:
            self.dismiss(list(self._hands))
        if self._connected_here:
            import ray

            ray.shutdown()
            self._connected_here = False

    def _connect(self) -> None:
        try:
            import ray
        except ModuleNotFoundError:
            raise DependencyError('the Ray engine needs ray: pip install "fedpact[ray]".') from None
        if self._address:
            _check_address(self._address)
        if ray.is_initialized():
            return
        # Set for a cluster that is started here: nothing is reported to anybody.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            with warnings.catch_warnings(), _same_modules():
                warnings.simplefilter("ignore", FutureWarning)
                ray.init(
                    self._address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
                )
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = f'at "{self._address}"' if self._address else "here"
            raise ConfigError(f"there is no Ray cluster {where}: {error}") from error
        self._connected_here = True

    def _start(self) -> Hand:
        import ray

        own = {name: amount for name, amount in self._needs.items() if name not in ("CPU", "GPU")}
        remote = ray.remote(Actor).options(
            num_cpus=self._needs.get("CPU", 0),
            num_gpus=self._needs.get("GPU", 0),
            resources=own,
            scheduling_strategy="SPREAD",
            max_restarts=0,
            max_task_retries=0,
        )
        actor: Any = remote.remote(self._inner)
        return Hand(actor, actor.node.remote())

    def _no_room(self) -> ConfigError:
        import ray

        has = ", ".join(f"{amount:g} {name}" for name, amount in sorted(_listed(ray.cluster_resources())))
        needs = " and ".join(f"{amount:g} {name}" for name, amount in self._needs.items())
        return ConfigError(
            f"no node of the Ray cluster had room for an actor of {needs} within {self._wait_s:g} s; the cluster has "
            f"{has}. Reserve less for each actor, free what others hold, or give nodes that are still to come a "
            "longer wait_s."
        )


@contextmanager
def _same_modules() -> Iterator[None]:
    """Have what is started in here find the modules that this process finds."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(os.path.abspath(path) for path in sys.path if path)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _check_address(address: str) -> None:
    """Refuse an address at which nobody listens: Ray itself waits there for minutes."""
    if "://" in address:
        raise ConfigError(
            f'"{address}" is not the address of a cluster itself; start the script on one of its nodes, such as with '
            '"ray job submit", and leave the address out.'
        )
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _LISTENING_S).close()
    except OSError as error:
        raise ConfigError(f'there is no Ray cluster at "{address}": {error}.') from error


def _alive() -> dict[str, Mapping[str, float]]:
    """Return node → resources, of the nodes that are there."""
    import ray

    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def _fitting_on(nodes: Iterable[Mapping[str, float]], needs: Mapping[str, float]) -> int:
    return sum(_fitting(resources, needs) for resources in nodes)


def _fitting(resources: Mapping[str, float], needs: Mapping[str, float]) -> int:
    # A tenth is not exact: 0.3 / 0.1 is a little less than 3.
    return min(math.floor(resources.get(name, 0.0) / amount + 1e-9) for name, amount in needs.items())


def _listed(resources: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return the resources that somebody may reserve, without memory and the nodes' own names."""
    hidden = ("memory", "object_store_memory")
    return [(name, amount) for name, amount in resources.items() if name not in hidden and ":" not in name]
