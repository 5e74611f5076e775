"""A round of a whole channel, as an engine walks it: clients' updates in, the aggregate out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedpact.algorithms.fedavg import FedAvg
from fedpact.channel.channel import Channel
from fedpact.channel.round import ChannelRound
from fedpact.channel.transform import StageState
from fedpact.core.algorithm import ClientState
from fedpact.core.errors import FedpactError
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.core.vector import Entry, Layout, Vector
from fedpact.engine.population import InMemory
from fedpact.engine.work import Intake, Rules, Setting, Work
from tests.federation import SEED

UNIFORM = FedAvg(weighting="uniform")
EXAMPLES = FedAvg()


def layout_of(size: int, dtype: str = "float64") -> Layout:
    return Layout([Entry("w", (size,), dtype)])


def vector(values: ArrayLike, dtype: str = "float64") -> Vector:
    array = np.asarray(values, dtype)
    return Vector.from_arrays({"w": array}, layout_of(array.size, dtype))


def update(client: str, values: ArrayLike | Vector, weight: float = 1, **metrics: float) -> Update:
    sent = values if isinstance(values, Vector) else vector(values)
    return Update(client, 0, "delta", weight=weight, averaged={"model": sent}, metrics=metrics)


@dataclass
class Walked:
    """What a round gave.

    Args:
        opened: the channel in the round.
        sent: the updates as they left their clients.
        kept: client → what it keeps.
        intake: what the server took in.
        aggregate: behind the channel.
        states: what the stages keep at the server.
    """

    opened: ChannelRound
    sent: dict[str, Update]
    kept: dict[str, ClientState]
    intake: Intake
    aggregate: Aggregate | None = None
    states: tuple[StageState, ...] = field(default=())

    @property
    def step(self) -> float:
        """The step of the grid that the updates were summed on."""
        assert self.opened.grid is not None
        return self.opened.grid.step

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean of the clients' vectors, as it comes out of the channel."""
        assert self.aggregate is not None
        return np.asarray(self.aggregate.means["model"]["w"], np.float64)


def walk(
    channel: Channel,
    updates: Sequence[Update],
    *,
    asked: Sequence[str] | None = None,
    seed: Seed = SEED,
    states: Sequence[StageState] | None = None,
    kept: Mapping[str, ClientState] | None = None,
    cohort: float | None = None,
    announced: float | None = None,
    close: bool = True,
) -> Walked:
    """Return a round to which these updates are the answers; those that are refused are left out.

    Args:
        channel: the channel.
        updates: the clients' updates, before the channel.
        asked: the clients asked; None for those that answer.
        seed: the channel's.
        states: what its stages keep at the server.
        kept: what clients keep from before.
        cohort: how many clients a cohort has on average; None for those asked.
        announced: the weight that each has announced; None for that of its update.
        close: whether to open the sum.
    """
    # In an update every dtype is the wider one that sums have.
    ids, layout = list(asked or [u.client for u in updates]), updates[0].averaged["model"].layout
    task = Task("train", updates[0].version, {"model": Vector.zeros(layout)}, kind="delta")
    opened = channel.begin(task, ids, seed, states, cohort)
    population = InMemory([ClientData(id, Rows(np.zeros((1, 1)))) for id in ids])
    setting = Setting(UNIFORM, None, population, channel, Rules(), SEED)
    weights = dict.fromkeys(ids, 1.0)
    weights |= {u.client: float(u.weight if announced is None else announced) for u in updates}
    work = Work(setting, task, {}, opened, seed, weights, len(ids))
    walked = Walked(opened, {}, {}, Intake(work))
    for each in updates:
        try:
            sent, keeps = channel.encode(each, opened, (kept or {}).get(each.client, {}), {})
        except FedpactError as error:
            walked.intake.fail(each.client, error, 0.0)
            continue
        walked.sent[each.client], walked.kept[each.client] = sent, dict(keeps)
        walked.intake.take(sent, keeps, 0.0)
    if close:
        walked.aggregate, walked.states = channel.aggregate(walked.intake.sums, opened)
    return walked


def through(
    stages: Sequence[Any], updates: Sequence[Update], algorithm: Any = UNIFORM, **settings: Any
) -> Walked:
    """Return a round of a channel of these stages."""
    return walk(Channel(stages, algorithm), updates, **settings)
