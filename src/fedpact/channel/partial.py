"""Partial updates: of a model only some arrays travel, such as its head or its adapters.

Models that are averaged in part: Pillutla et al., "Federated Learning with Partial Model Personalization", ICML 2022.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from fedpact.channel.linear_map import check_changes
from fedpact.channel.transform import (
    Kind,
    RoundContext,
    StageState,
    Transform,
    check_averages,
    check_may_change,
)
from fedpact.core.errors import ChannelError, suggest
from fedpact.core.messages import Aggregate, Update
from fedpact.core.patterns import Patterns, check_patterns, fits
from fedpact.core.vector import Entry, Layout, Vector


@dataclass(frozen=True)
class Partial(Transform):
    """Send only the arrays of each averaged vector whose names fit; the change of all others is 0.

    Arrays that are left out stay what they are in the global model. What a client learns in them is lost when the next
    round begins, for it starts from the global model, and until then the arrays that are sent have been trained beside
    it: where that is not meant, freeze them in the model instead (`fp.freeze`, `fp.lora`), and they are neither trained
    nor sent. Left out here are rather the arrays that nobody trains and that travel nonetheless, such as the statistics
    of batch norms (FedBN without their parameters), or those to be kept out of one run alone.

    Averaged vectors that answer no array of the task, such as counts of earlier stages, pass as they are. A name and
    its aliases (tied weights) are one array.

    Args:
        include: a pattern for names, such as "head.*" or "*lora*", or several.
        exclude: patterns for names that are left out of these.

    Raises:
        ConfigError: a pattern is no text.
    """

    include: Patterns = "*"
    exclude: Patterns = ()

    kind: ClassVar[Kind] = "compress"
    steady: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("include", "exclude"):
            patterns = check_patterns(getattr(self, name), f"Partial: {name}")
            object.__setattr__(self, name, patterns)

    def bound(self, before: float, state: StageState) -> float:
        """Return the bound before it: part of an update is no larger than all of it."""
        return before

    def check(self, before: Sequence[Transform], algorithm: object, layout: Layout | None) -> None:
        """Refuse sums, algorithms whose clients build on what they sent, and patterns that no array fits."""
        check_averages(self, algorithm)
        check_may_change(self, algorithm)
        if layout is not None:
            self.layout_behind(layout.wide)

    def layout_behind(self, layout: Layout, state: StageState | None = None) -> Layout:
        """Return the layout of the arrays that are sent.

        Raises:
            ChannelError: there are none.
        """
        kept = [entry for entry in layout.entries if self._sends(entry)]
        if not kept:
            names = [entry.name for entry in layout.entries]
            hint = next((found for each in self.include if (found := suggest(each, names))), "")
            shown = ", ".join(f'"{name}"' for name in names[:8]) + (", …" if len(names) > 8 else "")
            raise ChannelError(
                f"Partial would send nothing: no name fits its patterns.{hint} There are {shown}."
            )
        return Layout(kept)

    def encode(self, update: Update, context: RoundContext) -> Update:
        check_changes(self, update)
        averaged = dict(update.averaged)
        for name in context.layouts.keys() & averaged.keys():
            whole = averaged[name]
            averaged[name] = part = Vector.zeros(self.layout_behind(whole.layout))
            for array, view in part.items():
                view[...] = whole[array]
        return replace(update, averaged=averaged)

    def decode(self, aggregate: Aggregate, context: RoundContext) -> Aggregate:
        means = dict(aggregate.means)
        for name, layout in context.layouts.items():
            if name in means:
                part = means[name]
                means[name] = whole = Vector.zeros(layout)
                for array, view in part.items():
                    whole[array][...] = view
        return replace(aggregate, means=means)

    def _sends(self, entry: Entry) -> bool:
        names = (entry.name, *entry.aliases)
        return any(fits(name, self.include) for name in names) and not any(
            fits(name, self.exclude) for name in names
        )
