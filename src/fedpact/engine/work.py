"""What an engine is given and what it gives back: a round's work, and the intake of its answers."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.channel import Channel
from fedpact.channel.round import ChannelRound
from fedpact.core.accumulator import Accumulator
from fedpact.core.algorithm import Algorithm, ClientState
from fedpact.core.errors import (
    ChannelError,
    CheckpointError,
    ConfigError,
    DependencyError,
    FedpactError,
    ModelError,
    UpdateError,
)
from fedpact.core.messages import Task, Update, Updates
from fedpact.core.seeds import Seed
from fedpact.engine.population import Population
from fedpact.engine.sampler import Sampling

# Mistakes in the job, which every client would make again, and damaged files of the run: these end it instead of the
# client's round.
FATAL = (ChannelError, CheckpointError, ConfigError, DependencyError, ModelError)


class DisputedError(Exception):
    """Whose answers of a masked round are refused depends on whose came first: it is to be held anew, in order.

    Not with the same masks: of two updates of a client under them anyone could tell the difference.

    Args:
        run: runs the clients one after another.
    """

    def __init__(self, run: "Run") -> None:
        super().__init__("a masked round has to be held anew")
        self.run = run


@dataclass(frozen=True)
class Rules:
    """How rounds are held.

    Args:
        cohort: how many clients are asked: a number, a share, or None for all.
        sampling: how they are drawn (see `choose`).
        quorum: how many of them must answer: a number, or a share of those asked.
        update_range: the declared range of every averaged value.
        fatal: errors of one client that end the round for all.
    """

    cohort: int | float | None = None
    sampling: Sampling = "fixed"
    quorum: int | float = 1
    update_range: float = 65536.0
    fatal: tuple[type[Exception], ...] = ()


@dataclass(frozen=True, eq=False)
class Setting:
    """What stays the same from one round to the next.

    Args:
        algorithm: the algorithm.
        model: the model that its clients run with.
        population: the clients.
        channel: what updates go through.
        rules: cohort, quorum and range.
        seed: the job's.
    """

    algorithm: Algorithm[Any]
    model: Any
    population: Population
    channel: Channel
    rules: Rules
    seed: Seed


@dataclass(frozen=True, eq=False)
class Work:
    """What the clients of one round are asked.

    Args:
        setting: what stays the same.
        task: the task.
        kept: what clients kept from earlier rounds.
        channel: the channel in this round.
        seed: of this task; each client draws from its child ("client", id).
        weights: client → the weight that it has announced.
        present: how many clients there were to sample from.
    """

    setting: Setting
    task: Task
    kept: Mapping[str, ClientState]
    channel: ChannelRound
    seed: Seed
    weights: Mapping[str, float]
    present: int

    def client(self, id: str) -> tuple[Update, ClientState]:
        """Run one client: its update as it leaves the client, and what it keeps."""
        setting = self.setting
        data = setting.population.load(id)
        kept = self.kept.get(id, {})
        seed = self.seed.child("client", id)
        update, keeps = setting.algorithm.client(setting.model, self.task, data, kept, seed)
        return setting.channel.encode(update, self.channel, kept, keeps)

    def accumulator(self, integers: Callable[[str, int], NDArray[np.int64]] | None = None) -> Accumulator:
        """Return an empty sum for the answers, of all or of some of the clients.

        Args:
            integers: called with a vector's name and size for an int64 array to sum it in.
        """
        total, grid, limit = sum(self.weights.values()), self.channel.grid, self.setting.rules.update_range
        bits = None if grid is None else round(-math.log2(grid.step))
        return Accumulator(
            self.task,
            # Of a wider range the steps would be coarser than the grid's, to which noise is scaled.
            limit if grid is None else min(limit, grid.limit),
            total,
            self.present,
            integers,
            self.channel.expected,
            bits,
        )


@dataclass
class Intake:
    """The answers to a round's work as they come: added up exactly, with what became of each client.

    Args:
        work: the work.
        sums: the sum of what was taken in.
        kept: client → what it keeps for its next round, where it keeps anything.
        seconds: client → how long it took.
        upload_bytes: client → arrays sent up.
        failures: client → why it is not in the sum.
        notes: what the stages of the channel measured at the clients, added up.
        first_error: the first client's error.
    """

    work: Work
    sums: Accumulator = field(init=False)
    kept: dict[str, ClientState] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    upload_bytes: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    notes: dict[str, float] = field(default_factory=dict)
    first_error: Exception | None = None

    def __post_init__(self) -> None:
        self.sums = self.work.accumulator()

    def take(self, update: Update, kept: ClientState, seconds: float) -> None:
        """Take in one client's answer, or note why it is refused."""
        id, most = update.client, self.work.weights[update.client]
        try:
            if update.weight > most:
                raise _overweight(id, update.weight, most)
            self.sums.add(self.work.setting.channel.receive(update, self.work.channel))
        except UpdateError as error:
            self.fail(id, error, seconds)
            return
        self.seconds[id] = seconds
        self.upload_bytes[id] = update.nbytes
        self.note(update.notes)
        if kept:
            self.kept[id] = kept

    def take_stack(self, updates: Updates, kept: Sequence[ClientState], seconds: float) -> None:
        """Take in the answers of many clients.

        Args:
            updates: their updates.
            kept: what each keeps, in their order.
            seconds: how long all of them took together.
        """
        each, nbytes, announced = seconds / len(updates.clients), updates.nbytes, self.work.weights
        over = [w > announced[id] for id, w in zip(updates.clients, updates.weights, strict=True)]
        if any(over):
            self._take_fitting(updates, kept, over, each)
            return
        try:
            refused: Mapping[str, Exception] = self.sums.add_stack(updates)
        except UpdateError as error:
            refused = dict.fromkeys(updates.clients, error)
        for id, why in refused.items():
            self.fail(id, why, each)
        taken = [id for id in updates.clients if id not in refused] if refused else updates.clients
        self.seconds.update(dict.fromkeys(taken, each))
        self.upload_bytes.update(dict.fromkeys(taken, nbytes))
        self.note(updates.notes)
        for id, keeps in zip(updates.clients, kept, strict=True):
            if keeps and id not in refused:
                self.kept[id] = keeps

    def _take_fitting(
        self, updates: Updates, kept: Sequence[ClientState], over: Sequence[bool], each: float
    ) -> None:
        """Take in the answers of those that weigh no more than they have announced."""
        for id, weight, heavy in zip(updates.clients, updates.weights, over, strict=True):
            if heavy:
                self.fail(id, _overweight(id, weight, self.work.weights[id]), each)
        fitting = [place for place, heavy in enumerate(over) if not heavy]
        if fitting:
            self.take_stack(updates.take(fitting), [kept[i] for i in fitting], each * len(fitting))

    def fail(self, id: str, error: Exception, seconds: float) -> None:
        """Note why a client is not in the sum.

        Raises:
            Exception: the error itself, where it ends the round for all.
        """
        if isinstance(error, self.work.setting.rules.fatal):
            raise error
        self.first_error = self.first_error or error
        self.failures[id] = reason(error)
        self.seconds[id] = seconds

    def note(self, notes: Mapping[str, float]) -> None:
        """Add what was measured at clients to what was measured before."""
        for name, value in notes.items():
            self.notes[name] = self.notes.get(name, 0.0) + value

    def merge(self, other: "Intake") -> None:
        """Add what another intake of the same work has taken in from other clients."""
        self.sums.merge(other.sums)
        self.kept.update(other.kept)
        self.seconds.update(other.seconds)
        self.upload_bytes.update(other.upload_bytes)
        self.failures.update(other.failures)
        self.note(other.notes)
        self.first_error = self.first_error or other.first_error


class Engine(Protocol):
    """Who runs the clients of a round."""

    def ask(self, work: Work, ids: Sequence[str], intake: Intake) -> None:
        """Run these clients and take in their answers; what fails of one client is its own.

        Raises:
            FedpactError: a mistake in the job (`FATAL`), or an error that the round's rules call fatal.
        """
        ...

    @property
    def loads_here(self) -> bool:
        """Whether clients' rows are loaded in this process, so that they can be loaded ahead."""
        ...

    def describe(self) -> str:
        """Return how the clients are trained, in a phrase such as "one by one, in this process"."""
        ...

    def close(self) -> None:
        """Give back what the engine holds, such as processes."""
        ...


Run = Callable[[Work, Sequence[str], Intake], None]


def run_in_order(run: Run, work: Work, ids: Sequence[str], intake: Intake) -> None:
    """Have all clients run again, where their order decides whose answer is refused.

    Raises:
        DisputedError: their updates are masked, so they may not be run again in this round.
    """
    if work.setting.channel.mask is not None:
        raise DisputedError(run)
    run(work, ids, intake)


def reason(error: Exception) -> str:
    """Return why a client failed, in a sentence; errors of other libraries keep their type."""
    text = str(error)
    return text if isinstance(error, FedpactError | TimeoutError) else f"{type(error).__name__}: {text}"


def _overweight(id: str, weight: float, most: float) -> UpdateError:
    return UpdateError(f'client "{id}" gave its update the weight {weight:g}; it has announced {most:g}.')
