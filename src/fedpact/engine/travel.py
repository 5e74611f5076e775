"""What goes between a process and those that run clients for it, and what it takes to survive the way."""

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

from fedpact.channel.channel import Channel
from fedpact.channel.round import ChannelRound
from fedpact.core import errors
from fedpact.core.accumulator import Accumulator
from fedpact.core.algorithm import Algorithm, ClientState
from fedpact.core.errors import ClientError, FedpactError
from fedpact.core.messages import Task
from fedpact.core.seeds import Seed
from fedpact.core.vector import Layout, Vector
from fedpact.engine.population import Population
from fedpact.engine.shared import received
from fedpact.engine.work import Intake, Rules, Setting, Work, reason

Raised = TypeVar("Raised", bound=BaseException)


class Layouts:
    """The layouts met so far, so that equal ones are one object: comparing an object to itself takes no time."""

    def __init__(self) -> None:
        self._known: list[Layout] = []
        self._last: tuple[Layout, Layout] | None = None

    def meet(self, layout: Layout) -> Layout:
        """Return the layout that is equal to this one and was met first."""
        # What comes together mostly has one layout.
        if self._last is None or self._last[0] is not layout:
            known = next((known for known in self._known if known == layout), None)
            if known is None:
                self._known.append(layout)
            self._last = layout, known or layout
        return self._last[1]

    def meet_all(self, vectors: Mapping[str, Vector]) -> dict[str, Vector]:
        """Return the same vectors, each in the layout equal to its own that was met first."""
        return {name: Vector(self.meet(vector.layout), vector.buffer) for name, vector in vectors.items()}

    def meet_model(self, model: Any) -> None:
        """Meet the layouts of a model's weights and updates, if it has any."""
        if isinstance(layout := getattr(model, "layout", None), Layout):
            self.meet(layout)
            self.meet(layout.wide)


@dataclass(frozen=True, eq=False)
class Brief:
    """A round's work without its parts, which whoever runs the clients has or gets on other ways.

    Args:
        rules: cohort, quorum and range.
        job_seed: the job's seed.
        task: the task.
        channel: the channel in this round.
        seed: of the task.
        weights: client → the weight that it has announced.
        present: how many clients there were to sample from.
    """

    rules: Rules
    job_seed: Seed
    task: Task
    channel: ChannelRound
    seed: Seed
    weights: Mapping[str, float]
    present: int

    @classmethod
    def of(cls, work: Work) -> "Brief":
        """Return the brief of a round's work."""
        setting = work.setting
        return cls(
            setting.rules,
            setting.seed,
            work.task,
            work.channel,
            work.seed,
            dict(work.weights),
            work.present,
        )

    def work(
        self,
        algorithm: Algorithm[Any],
        channel: Channel,
        model: Any,
        population: Population,
        kept: Mapping[str, ClientState],
        layouts: Layouts,
    ) -> Work:
        """Return the work again, with its parts, and its vectors in layouts that were met before.

        Args:
            algorithm: the algorithm.
            channel: what updates go through.
            model: the model.
            population: the clients.
            kept: what clients keep; vectors of a dict are put into layouts met before, other mappings left alone.
            layouts: those that were met.
        """
        if isinstance(kept, dict):
            kept = {id: layouts.meet_all(state) for id, state in kept.items()}
        return Work(
            setting=Setting(algorithm, model, population, channel, self.rules, self.job_seed),
            task=replace(self.task, arrays=layouts.meet_all(self.task.arrays)),
            kept=kept,
            channel=self.channel,
            seed=self.seed,
            weights=self.weights,
            present=self.present,
        )


@dataclass(frozen=True, eq=False)
class Answers:
    """What is given back of a round: what an `Intake` holds, with one sum whatever its clients.

    Args:
        manner: how the clients were run, as the engine describes it.
    """

    manner: str
    sums: Accumulator
    kept: dict[str, ClientState]
    seconds: dict[str, float]
    upload_bytes: dict[str, int]
    failures: dict[str, str]
    notes: dict[str, float]
    first_error: Exception | None

    @classmethod
    def of(cls, intake: Intake, manner: str, **more: Any) -> Self:
        """Return what an intake holds, and more of what a subclass says besides."""
        error = intake.first_error
        return cls(
            manner=manner,
            sums=intake.sums,
            kept=intake.kept,
            seconds=intake.seconds,
            upload_bytes=intake.upload_bytes,
            failures=intake.failures,
            notes=intake.notes,
            first_error=None if error is None else travelling(error),
            **more,
        )


def travelling(error: Raised) -> Raised | FedpactError:
    """Return an error that survives the way to another process; where it was raised goes along as a note."""
    error.add_note("In a worker process:\n" + "".join(traceback.format_exception(error)))
    try:
        returned = received(error)
    except Exception:
        returned = None
    if type(returned) is type(error) and str(returned) == str(error):
        return error
    ours = next((kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__), ClientError)
    substitute: FedpactError = ours(reason(error) if isinstance(error, Exception) else repr(error))
    substitute.add_note(error.__notes__[-1])
    return substitute
