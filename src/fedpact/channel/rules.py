"""Which stages may stand in a channel, and in which order: one list of rules, for the check and the documentation."""

from collections.abc import Iterator, Sequence
from typing import get_args

from fedpact.channel.transform import Kind, Transform
from fedpact.core.errors import ChannelError

KINDS: tuple[Kind, ...] = get_args(Kind)

# What is refused of a stage of one kind before one of another: the reason, and what to do.
_PAIRS: dict[tuple[Kind, Kind], str] = {
    ("pack", "clip"): "the bound would hold for what was packed and not for what is sent; put {b} before {a}",
    (
        "pack",
        "compress",
    ): "packed vectors cannot be compressed as vectors; put {b} before {a}, or take one of them",
    ("pack", "pack"): "vectors are packed once; take {a} or {b} out of the channel",
    (
        "pack",
        "quantize",
    ): "{a} gives each client a scale of its own, so its numbers have no common grid; take one of the two",
    (
        "pack",
        "noise",
    ): "what {a} makes of an update may be larger than the update, so nothing bounds what a client adds; "
    "compress with a stage whose sums are exact, such as RandomK or Quantize",
    (
        "pack",
        "mask",
    ): "masked updates are summed as they are, and {a} has to be undone for each client; compress with a stage "
    "whose sums are exact, such as RandomK or Quantize",
    ("compress", "clip"): "the bound is to hold for the update itself; put {b} before {a}",
    ("quantize", "clip"): "numbers are clipped before they are rounded; put {b} before {a}",
    ("quantize", "compress"): "{b} makes other numbers of the rounded ones; put it before {a}",
    ("quantize", "pack"): "{b} would pack numbers that are already integers; take one of the two",
    ("quantize", "quantize"): "numbers are rounded to one grid; take one of the two",
    (
        "noise",
        "clip",
    ): "noise that is clipped no longer has the distribution it is accounted for; put {b} before {a}",
    ("noise", "compress"): "noise belongs to the numbers that are released; put {b} before {a}",
    ("noise", "pack"): "noise belongs to the numbers that are released; put {b} before {a}",
    (
        "noise",
        "quantize",
    ): "noise that is rounded no longer lies on the grid it is accounted for; put {b} before {a}",
    ("noise", "noise"): "two noises would be accounted for as one; give one of them the larger multiplier",
    (
        "mask",
        "clip",
    ): "a masked update is uniform noise to everybody, and cannot be clipped; put {b} before {a}",
    ("mask", "compress"): "a masked update is uniform noise, and cannot be compressed; put {b} before {a}",
    (
        "mask",
        "pack",
    ): "a masked update is uniform noise, and cannot be compressed; take {b} out of the channel",
    ("mask", "quantize"): "masks are added to integers; put {b} before {a}",
    ("mask", "noise"): "noise behind a mask would be added to what nobody can read; put {b} before {a}",
    ("mask", "mask"): "updates are masked once; take one of the two",
    ("download", "download"): "what goes down is rounded once; take one of the two",
}


def refusal(before: Kind, after: Kind) -> str | None:
    """Return why a stage of one kind may not stand before one of another, with {a} and {b} for them; None if it may."""
    return _PAIRS.get((before, after))


def check_order(stages: Sequence[Transform]) -> None:
    """Refuse stages that do not go together.

    Raises:
        ChannelError: a pair of stages, in this order, makes no sense; the sentence says what to do.
    """
    for place, second in enumerate(stages):
        for first in stages[:place]:
            why = refusal(first.kind, second.kind)
            if why is not None:
                a, b = type(first).__name__, type(second).__name__
                raise ChannelError(f"{b} cannot stand behind {a} in a channel: {why.format(a=a, b=b)}.")


def table() -> Iterator[tuple[Kind, Kind, str | None]]:
    """Yield every pair of kinds in this order, and why it is refused; None where it is not."""
    for before in KINDS:
        for after in KINDS:
            yield before, after, refusal(before, after)
