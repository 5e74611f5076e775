"""The channel: an ordered, checked chain of transforms between a client's update and the server's sum."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol, runtime_checkable

from fedpact.core.errors import ChannelError
from fedpact.core.messages import Aggregate, Update, Updates
from fedpact.core.vector import Layout


@dataclass(frozen=True)
class RoundContext:
    """What a stage may know of the round it works in.

    Args:
        round: the version of the task answered.
        sensitivity: the largest L2 norm of what one client of weight 1 adds to the sum; infinite where no
            stage bounds it.
    """

    round: int
    sensitivity: float = inf


class Transform(Protocol):
    """One stage of a channel: a frozen dataclass whose fields are its settings."""

    def bound(self, before: float, state: Any = None) -> float:
        """Return the L2 norm that no update exceeds behind this stage, from the one that none exceeds before it.

        Infinite where nothing bounds them: a stage that may enlarge an update says so here.
        """
        ...

    def check(self, before: Sequence["Transform"], algorithm: Any, layout: Layout | None) -> None:
        """Refuse a place in a channel, an algorithm or a model that the stage cannot do its work with.

        Args:
            before: the stages before it.
            algorithm: the algorithm whose updates go through.
            layout: the model's; None as long as it is not known.

        Raises:
            ChannelError: with a sentence that says what to change.
        """
        ...

    def encode(self, update: Update, context: RoundContext) -> Update:
        """Transform a client's update: the client half."""
        ...

    def decode(self, aggregate: Aggregate, context: RoundContext) -> Aggregate:
        """Transform the cohort's aggregate: the server half."""
        ...


@runtime_checkable
class StackTransform(Transform, Protocol):
    """A stage that transforms many clients' updates at once."""

    def encode_stack(self, updates: Updates, context: RoundContext) -> Updates:
        """Transform each update as `encode` does.

        Raises:
            UpdateError: a client's update is refused.
        """
        ...


class Channel:
    """Stages in order: client halves first to last, server halves last to first.

    Checked when it is built, before any client is asked anything, and once more for the model's arrays where
    these are not known by then.

    Args:
        stages: the transforms.
        algorithm: the algorithm whose updates go through.
        layout: the model's; None as long as it is not known, or where there is no model.

    Raises:
        ChannelError: the stages do not go together, or not with this algorithm or model.
    """

    def __init__(self, stages: Sequence[Transform], algorithm: Any, layout: Layout | None = None) -> None:
        self.stages = tuple(stages)
        self._algorithm = algorithm
        self._sensitivity = inf
        for place, stage in enumerate(self.stages):
            stage.check(self.stages[:place], algorithm, layout)
            self._sensitivity = stage.bound(self._sensitivity, {})

    def for_model(self, layout: Layout) -> "Channel":
        """Return the channel for a model of this layout.

        Raises:
            ChannelError: a stage cannot do its work with such a model.
        """
        return Channel(self.stages, self._algorithm, layout)

    def context(self, round: int) -> RoundContext:
        """Return what the stages may know of a round."""
        return RoundContext(round, self._sensitivity)

    def encode(self, update: Update, context: RoundContext) -> Update:
        """Return the update as it leaves the client."""
        for stage in self.stages:
            update = stage.encode(update, context)
        return update

    def encode_stack(self, updates: Updates, context: RoundContext) -> Updates | None:
        """Return many clients' updates as they leave them, or None where a stage can only take one at a time.

        Raises:
            UpdateError: a client's update is refused.
        """
        stages = [stage for stage in self.stages if isinstance(stage, StackTransform)]
        if len(stages) < len(self.stages):
            return None
        for stage in stages:
            updates = stage.encode_stack(updates, context)
        return updates

    def decode(self, aggregate: Aggregate, context: RoundContext) -> Aggregate:
        """Return the aggregate as the algorithm sees it."""
        for stage in reversed(self.stages):
            aggregate = stage.decode(aggregate, context)
        return aggregate


def check_may_change(stage: Transform, algorithm: Any) -> None:
    """Refuse a stage that changes updates, with an algorithm whose clients build on what they sent.

    Raises:
        ChannelError: the algorithm has `keeps_updates` set.
    """
    if getattr(algorithm, "keeps_updates", False):
        raise ChannelError(
            f"{type(stage).__name__} changes updates on their way, but the clients of {type(algorithm).__name__} "
            f"go on from what they sent, so that they and the server would no longer agree; take "
            f"{type(stage).__name__} out of the channel, or train with FedAvg."
        )
