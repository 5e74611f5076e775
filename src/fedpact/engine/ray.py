"""The engine on many machines: a Ray cluster whose actors each hold clients' rows and return one exact sum a round.

Moritz et al., "Ray: A Distributed Framework for Emerging AI Applications", OSDI 2018.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from fedpact.core.errors import ConfigError
from fedpact.core.settings import check_counts, check_numbers
from fedpact.engine.durations import size
from fedpact.engine.in_process import InProcess
from fedpact.engine.placement import Placement
from fedpact.engine.ray_actor import Order, without_rows
from fedpact.engine.ray_crew import Crew, Hand
from fedpact.engine.ray_round import Round
from fedpact.engine.travel import Layouts
from fedpact.engine.words import many
from fedpact.engine.work import Engine, Intake, Work, run_in_order

# A run has one model and one population; an evaluation beside it may have others.
_SHARED = 4


class Ray:
    """Runs clients in the actors of a Ray cluster, with the bits of one process.

    Model and population travel to each actor once; of clients in memory only the actor that is their home gets the
    rows. A round sends the task once to every node, what clients keep to whoever runs them, and gets back from each
    actor one partial sum. What an actor had been asked is asked of another where it, or its node, is lost.

    Args:
        actors: how many actors; None for as many as the cluster has room for, counted anew before every round.
        cpus: CPU cores that each actor reserves, or a share of one.
        gpus: GPUs that each reserves, or a share of one, which its model's device "cuda" then is.
        resources: other resources of the cluster that each reserves, by name.
        address: of the cluster, or "local" for a new one on this machine; None for the one that Ray finds, or else
            a new one.
        inner: the engine that each actor runs its clients with; None for one client after another.
        timeout_s: how long one client may take, where `inner` is None.
        wait_s: how long to wait for an actor as long as there is none; others join the round after they start.

    Raises:
        ConfigError: a setting is out of its range, or has no effect.
    """

    loads_here = False

    def __init__(
        self,
        actors: int | None = None,
        *,
        cpus: float = 1,
        gpus: float = 0,
        resources: Mapping[str, float] | None = None,
        address: str | None = None,
        inner: Engine | None = None,
        timeout_s: float | None = None,
        wait_s: float = 60,
    ) -> None:
        self.actors, self.cpus, self.gpus, self.wait_s = actors, cpus, gpus, wait_s
        check_counts(self, "actors", optional=True)
        check_numbers(self, "cpus", "gpus", "wait_s")
        if inner is not None and timeout_s is not None:
            raise ConfigError(
                f"Ray: timeout_s has no effect on an inner engine; set it in {type(inner).__name__}(...)."
            )
        needs = {"CPU": self.cpus, "GPU": self.gpus, **(resources or {})}
        _check_needs(needs)
        self._inner = inner or InProcess(timeout_s)
        self._crew = Crew(actors, needs, address, self._inner, self.wait_s)
        self._placement: Placement[Hand] = Placement()
        # By identity; the object is kept too, for as long as it is its.
        self._shared: OrderedDict[int, tuple[Any, Any]] = OrderedDict()
        self._layouts = Layouts()
        self._seen, self._manner = "", self._inner.describe()

    def ask(self, work: Work, ids: Sequence[str], intake: Intake) -> None:
        """Run these clients and take in their answers.

        Raises:
            ConfigError: there is no cluster or no room in it, or what the job is made of cannot travel.
            DependencyError: Ray is not installed.
            DisputedError: the clients would have to mask their updates again.
        """
        if not ids:
            return
        hands = self._crew.gather(len(ids))
        self._seen = f"{many(len(hands), 'Ray actor')} on {many(len({hand.node for hand in hands}), 'node')}"
        plan = self._placement.plan({id: size(work, id) for id in ids}, hands)
        for id, home in plan.moved.items():
            if home.holds.pop(id, None) is not None:
                home.gone.append(id)
        held = self._held(work, plan.groups)
        if held.agreed:
            self._take(held, ids, intake)
        else:
            # Then it depends on the order of the clients whose answer is refused: one actor runs them all in turn.
            run_in_order(self._ask_one, work, ids, intake)

    def _ask_one(self, work: Work, ids: Sequence[str], intake: Intake) -> None:
        self._take(self._held(work, {self._crew.gather(1)[0]: ids}), ids, intake)

    def _take(self, held: Round, ids: Sequence[str], intake: Intake) -> None:
        self._manner = held.manner or self._manner
        found = held.gathered
        for name in ("kept", "seconds", "upload_bytes", "failures"):
            record = getattr(found, name)
            in_order = [(id, record.pop(id)) for id in ids if id in record]
            record.update(in_order)
        found.first_error = held.first_error(ids)
        intake.merge(found)

    def _held(self, work: Work, groups: Mapping[Hand, Sequence[str]]) -> Round:
        """Return the round when all its clients have been run."""
        population = work.setting.population
        sent = {
            "task": _put("task", Order.of(work)),
            "model": self._put_once("model", work.setting.model, work.setting.model),
            "population": self._put_once("population", population, without_rows(population)),
        }
        held = Round(self._crew, self._placement, sent, work, self._layouts)
        held.hold(groups)
        return held

    def describe(self) -> str:
        """Return how the clients are trained, and in how many actors the last round was."""
        where = self._seen or (many(self.actors, "Ray actor") if self.actors else "Ray actors")
        if "in this process" in self._manner:
            return self._manner.replace("in this process", f"in {where}")
        return f"{self._manner}, in {where}"

    def close(self) -> None:
        """End the actors; leave the cluster, or stop it if it was started for them."""
        self._shared.clear()
        self._crew.close()

    def _put_once(self, what: str, key: Any, value: Any) -> Any:
        if id(key) not in self._shared:
            self._shared[id(key)] = key, _put(what, value)
            if len(self._shared) > _SHARED:
                self._shared.popitem(last=False)
        self._shared.move_to_end(id(key))
        return self._shared[id(key)][1]


def _put(what: str, value: Any) -> Any:
    """Return a reference to a copy in the cluster's object store, which actors on one node share."""
    import ray

    try:
        return ray.put(value)
    except Exception as error:
        # Ray adds where it looked for the cause, in colours.
        raise ConfigError(f"the {what} cannot be sent to a cluster: {error.__cause__ or error}.") from error


def _check_needs(needs: Mapping[str, float]) -> None:
    for name, amount in needs.items():
        number = isinstance(amount, int | float) and not isinstance(amount, bool) and amount >= 0
        if not number or (amount > 1 and amount % 1):
            raise ConfigError(
                f"Ray: an actor cannot reserve {amount!r} {name}; it is a whole number, or a share below 1."
            )
    if not any(needs.values()):
        raise ConfigError(
            "Ray: an actor that reserves nothing has room everywhere; give cpus, gpus or resources."
        )
