"""A stage of a channel: what it does to a client's update, to the cohort's sum, and what it may know of the round."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from fedpact.core.algorithm import ClientState
from fedpact.core.errors import ChannelError
from fedpact.core.grid import Grid
from fedpact.core.messages import Aggregate, Integers, Task, Update, Updates
from fedpact.core.seeds import Seed
from fedpact.core.vector import Layout

# In the order in which stages stand in a channel. A "compress" stage leaves vectors, of one layout for all clients,
# that can be summed as they are, and decodes the sum; a "pack" stage gives each client's vectors an encoding of their
# own, which is undone for each before they are summed. A "download" stage changes only what goes down to the clients,
# and stands anywhere.
Kind = Literal["clip", "compress", "pack", "quantize", "noise", "mask", "download"]

# What the server half of a stage keeps from one round to the next: numbers, arrays, vectors and containers of these.
StageState = Mapping[str, Any]


@dataclass(frozen=True)
class RoundContext:
    """What a stage may know of the round it works in; clients are told all of it.

    Args:
        round: the version of the task answered.
        sensitivity: the L2 norm that what one client of weight 1 adds does not exceed before this stage, over all its
            averaged vectors together. Infinite where no stage bounds it.
        asked: how many clients are asked;
        cohort: how many are expected to be, by the job: the denominator of a mean that must not tell how many answered;
        least: and how many are in a sum that is opened, at least.
        seed: the stage's own stream in this round, the same for the server and all clients; nothing secret is drawn
            from it. A client's own draws come from `seed.child("client", id)`.
        state: what the stage's server half keeps, as it was when the round began; at clients what they are told of it.
        layouts: array of the task → the layout of the averaged vector of the same name before this stage.
        grid: on which averaged vectors become integers; None where they are summed as the engine finds best.
        scratch: what a server half hands on to the next within the round; `after` is the last.
        secret: what a "mask" stage gave this client to mask with, and the server half to open the sum; None otherwise.
    """

    round: int
    sensitivity: float = inf
    asked: int = 1
    cohort: float = 1
    least: int = 1
    seed: Seed = field(default_factory=lambda: Seed.of(0))
    state: StageState = field(default_factory=dict)
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    grid: Grid | None = None
    scratch: dict[str, Any] = field(default_factory=dict)
    secret: Any = None


class Transform:
    """One stage of a channel: a frozen dataclass whose fields are its settings. It overrides what it does.

    Attributes:
        kind: its place in a channel, and what it leaves.
        remembers: whether its client half keeps something from one round to the next, such as the error that
            compression made: then `encode_remembering` is called, and `encode` never.
        counts: the names of averaged vectors of one number that it sends besides, such as a count.
        steady: of a "compress" stage, whether a number behind it stands for the same parameter in every round.
    """

    kind: ClassVar[Kind] = "compress"
    remembers: ClassVar[bool] = False
    counts: ClassVar[tuple[str, ...]] = ()
    steady: ClassVar[bool] = False

    def bound(self, before: float, state: StageState) -> float:
        """Return the L2 norm that no update exceeds behind this stage, over all its averaged vectors together.

        Infinite where nothing bounds them, which is what holds of a stage that does not say otherwise.

        Args:
            before: the norm that no update exceeds before this stage.
            state: what the stage's server half keeps; empty as long as no round has begun.
        """
        return inf

    def check(self, before: Sequence["Transform"], algorithm: Any, layout: Layout | None) -> None:
        """Refuse an algorithm, a model or stages before it that the stage cannot do its work with.

        What kinds of stages go together is checked by the channel (see `fedpact.channel.rules`).

        Args:
            before: the stages before it.
            algorithm: the algorithm whose updates go through.
            layout: the model's; None as long as it is not known.

        Raises:
            ChannelError: with a sentence that says what to change.
        """

    def layout_behind(self, layout: Layout, state: StageState | None = None) -> Layout:
        """Return the layout of an averaged vector behind this stage.

        Args:
            layout: its layout before it.
            state: what the stage's server half has in a round; None before the first.
        """
        return layout

    def range_of(self, state: StageState) -> float:
        """Return the size that no averaged value exceeds behind this stage, where it declares one; else infinity."""
        return inf

    def init(self, layouts: Mapping[str, Layout]) -> StageState:
        """Return what the server half keeps before the first round.

        Args:
            layouts: array of the task → its layout, widened, as before the first stage.
        """
        return {}

    def begin(self, task: Task, state: StageState) -> StageState:
        """Return the state that a round is held with: what the server half keeps, and what it makes of the task.

        Args:
            task: as the algorithm gave it.
            state: what the server half keeps.

        Raises:
            ChannelError: the stage cannot do its work with such a task.
        """
        return state

    def told(self, state: StageState) -> StageState:
        """Return what clients are told of what the server half keeps."""
        return state

    def send(self, task: Task, context: RoundContext) -> Task:
        """Transform what goes down to the clients."""
        return task

    def encode(self, update: Update, context: RoundContext) -> Update:
        """Transform a client's update: the client half."""
        return update

    def encode_remembering(
        self, update: Update, memory: ClientState, context: RoundContext
    ) -> tuple[Update, ClientState]:
        """Transform a client's update, knowing what the client half kept from its last round; return both anew.

        Args:
            update: the update.
            memory: name → vector; empty in a client's first round.
            context: of the round.
        """
        return self.encode(update, context), memory

    def receive(self, update: Update, context: RoundContext) -> Update:
        """Undo for one update at the server what `encode` did to its vectors: what a "pack" stage does.

        Raises:
            UpdateError: what arrived is not what a client half makes.
        """
        return update

    def encode_integers(self, update: Update, context: RoundContext) -> Update:
        """Transform a client's update once its vectors are integers: what "noise" at clients and "mask" stages do."""
        return update

    def decode_integers(self, total: Integers, context: RoundContext) -> Integers:
        """Transform the sum of integers, once it is open: the server half of "noise" stages."""
        return total

    def decode(self, aggregate: Aggregate, context: RoundContext) -> Aggregate:
        """Transform the cohort's aggregate: the server half."""
        return aggregate

    def after(self, aggregate: Aggregate, context: RoundContext) -> StageState:
        """Return what the server half keeps for the next round.

        Args:
            aggregate: as `decode` of this stage was given it.
            context: of the round that ends; its `state` is what was kept so far.
        """
        return context.state


@runtime_checkable
class StackTransform(Protocol):
    """A stage that transforms many clients' updates at once."""

    def encode_stack(self, updates: Updates, context: RoundContext) -> Updates:
        """Transform each update as `encode` does.

        Raises:
            UpdateError: a client's update is refused.
        """
        ...


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


def check_steady(stage: Transform, before: Sequence[Transform]) -> None:
    """Refuse stages before one that remembers numbers by their places, where places change from round to round.

    Raises:
        ChannelError: a stage before it leaves vectors whose places change.
    """
    for each in before:
        if each.kind == "compress" and not each.steady:
            name, other = type(stage).__name__, type(each).__name__
            raise ChannelError(
                f"{name} remembers from round to round what it has not sent, but behind {other} a number stands for "
                f"something else in each; take {other} out of the channel, or set error_feedback=False in {name}."
            )


def check_averages(stage: Transform, algorithm: Any) -> None:
    """Refuse a stage that works on averaged vectors, with an algorithm whose clients send sums of statistics.

    Raises:
        ChannelError: the algorithm releases sums.
    """
    if algorithm.releases != "averaged":
        raise ChannelError(
            f"{type(stage).__name__} works on averaged updates, but the clients of {type(algorithm).__name__} send "
            f"sums of statistics; take {type(stage).__name__} out of the channel, or train with FedAvg or FedSGD."
        )
