"""Clipping layer by layer: each named array has a bound of its own.

McMahan et al., "Learning Differentially Private Recurrent Language Models", ICLR 2018, PerLayerClip in section 2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import hypot, isfinite, sqrt
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.adaptive_clip import AdaptiveClip
from fedpact.channel.norms import FIRST_SLACK, OVER, Over, norm_refusal, role_of
from fedpact.channel.transform import (
    Kind,
    RoundContext,
    StageState,
    Transform,
    check_averages,
    check_may_change,
)
from fedpact.channel.zero_outliers import ZeroOutliers
from fedpact.core.errors import ChannelError, ConfigError, suggest
from fedpact.core.messages import Update
from fedpact.core.settings import check_choice, check_numbers, number_in
from fedpact.core.vector import Layout, Vector, squared_sum


@dataclass(frozen=True)
class LayerClip(Transform):
    """Scale each named array of an update down to an L2 norm of its own.

    Where several averaged vectors have an array of one name, the norm is that of all these together, so the whole
    update is never beyond the root of the sum of the squares of the bounds. It notes the norm of the whole update
    before ("layer_clip.norm") and the share of arrays that were clipped ("layer_clip.clipped").

    Args:
        norm: the bound of the whole update, > 0: each of m arrays has the bound norm / √m. Give this or `norms`.
        norms: array → its bound, > 0, for each array of the model.
        over: "parameters" for trained parameters alone, or "all" for buffers too, as in `Clip`.

    Raises:
        ConfigError: not one of `norm` and `norms` is given, or a bound is not a positive number.
    """

    norm: float | None = None
    norms: Mapping[str, float] | None = None
    over: Over = "parameters"

    kind: ClassVar[Kind] = "clip"

    def __post_init__(self) -> None:
        if (self.norm is None) == (not self.norms):
            raise ConfigError(
                "LayerClip: give either norm, the bound of the whole update, or norms, a bound for each array, such "
                'as {"weight": 1.0, "bias": 0.1}.'
            )
        check_numbers(self, "norm", positive=True, optional=True)
        if self.norms:
            norms = {
                name: number_in(self, f'norms["{name}"]', value, positive=True)
                for name, value in self.norms.items()
            }
            object.__setattr__(self, "norms", norms)
        check_choice(self, "over", OVER)

    def bound(self, before: float, state: StageState) -> float:
        """Return the bound of all arrays together, or the bound before it where that is smaller."""
        return min(before, hypot(*self.norms.values()) if self.norms else self.norm or 0.0)

    def check(self, before: Sequence[Transform], algorithm: Any, layout: Layout | None) -> None:
        """Refuse counts before it, a model with other arrays than were given a bound, and algorithms as `Clip` does."""
        check_averages(self, algorithm)
        check_may_change(self, algorithm)
        for stage in before:
            if isinstance(stage, AdaptiveClip) or (isinstance(stage, ZeroOutliers) and stage.norm is None):
                raise ChannelError(
                    f"LayerClip cannot stand behind {type(stage).__name__}, whose count of clients belongs to no "
                    "layer: "
                    + (
                        "give ZeroOutliers a fixed norm."
                        if isinstance(stage, ZeroOutliers)
                        else "take one of the two."
                    )
                )
        if layout is not None and self.norms:
            self._check_names(layout)

    def _check_names(self, layout: Layout) -> None:
        assert self.norms is not None
        role = role_of(self.over)
        names = [entry.name for entry in layout.entries if role in (None, entry.role)]
        for name in self.norms:
            if name not in names:
                raise ChannelError(
                    f'LayerClip bounds "{name}", which is no {role or "array"} of this model.{suggest(name, names)}'
                )
        missing = next((name for name in names if name not in self.norms), None)
        if missing is not None:
            raise ChannelError(
                f'LayerClip has no bound for "{missing}"; give norms one for each {role or "array"}.'
            )

    def encode(self, update: Update, context: RoundContext) -> Update:
        """Scale each array down to its bound.

        Raises:
            UpdateError: a norm is NaN or infinite.
            ChannelError: an array was given no bound.
        """
        role = role_of(self.over)
        found: dict[str, list[str]] = {}
        for vector_name, vector in update.averaged.items():
            if self.norms:
                self._check_names(vector.layout)
            for entry in vector.layout.entries:
                if role in (None, entry.role):
                    found.setdefault(entry.name, []).append(vector_name)
        scaled: dict[str, Vector] = {}
        norms, clipped = [], 0
        for name, vectors in found.items():
            bound = self.norms[name] if self.norms else (self.norm or 0.0) / sqrt(len(found))
            arrays = [update.averaged[each][name] for each in vectors]
            norm = _norm(arrays)
            if not isfinite(norm):
                raise norm_refusal(update.client, norm, f'"{name}"')
            norms.append(norm)
            if norm > bound:
                clipped += 1
                for each, array in zip(vectors, _within(arrays, norm, bound), strict=True):
                    if each not in scaled:
                        scaled[each] = update.averaged[each].copy()
                    scaled[each][name] = array
        notes = {
            **update.notes,
            "layer_clip.norm": hypot(*norms),
            "layer_clip.clipped": clipped / max(1, len(found)),
        }
        return replace(update, averaged={**update.averaged, **scaled}, notes=notes)


def _norm(arrays: Sequence[NDArray[Any]]) -> float:
    return sqrt(sum(float(squared_sum(array.reshape(-1), array.dtype.name)) for array in arrays))


def _within(arrays: Sequence[NDArray[Any]], norm: float, bound: float) -> list[NDArray[Any]]:
    factor, slack = bound / norm, 0.0
    while True:
        # In float64, for a factor may be too small for float32; rounding may leave the norm above the bound.
        scaled = [
            np.multiply(array, factor * (1 - slack), dtype=np.float64).astype(array.dtype) for array in arrays
        ]
        if _norm(scaled) <= bound:
            return scaled
        slack = 2 * slack or FIRST_SLACK
