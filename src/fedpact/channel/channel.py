"""The channel: an ordered, checked chain of transforms between a client's update and the server's sum."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol

from fedpact.core.messages import Aggregate, Update


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

    @property
    def bound(self) -> float:
        """The L2 norm that no update exceeds behind this stage."""
        ...

    def check(self, before: Sequence["Transform"], algorithm: Any) -> None:
        """Refuse a place in a channel, or an algorithm, that the stage cannot do its work with.

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


class Channel:
    """Stages in order: client halves first to last, server halves last to first.

    Built once and checked once, before any client is asked anything.

    Args:
        stages: the transforms.
        algorithm: the algorithm whose updates go through.

    Raises:
        ChannelError: the stages do not go together, or not with this algorithm.
    """

    def __init__(self, stages: Sequence[Transform], algorithm: Any) -> None:
        self.stages = tuple(stages)
        for place, stage in enumerate(self.stages):
            stage.check(self.stages[:place], algorithm)
        self._sensitivity = min((stage.bound for stage in self.stages), default=inf)

    def context(self, round: int) -> RoundContext:
        """Return what the stages may know of a round."""
        return RoundContext(round, self._sensitivity)

    def encode(self, update: Update, context: RoundContext) -> Update:
        """Return the update as it leaves the client."""
        for stage in self.stages:
            update = stage.encode(update, context)
        return update

    def decode(self, aggregate: Aggregate, context: RoundContext) -> Aggregate:
        """Return the aggregate as the algorithm sees it."""
        for stage in reversed(self.stages):
            aggregate = stage.decode(aggregate, context)
        return aggregate
