"""Count sketches of updates, with momentum and error feedback at the server.

Rothchild et al., "FetchSGD: Communication-Efficient Federated Learning with Sketching", ICML 2020, Algorithm 1; the
sketch is that of Charikar, Chen and Farach-Colton, "Finding frequent items in data streams", ICALP 2002.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.linear_map import (
    Floats,
    LinearMap,
    parameter_count,
    with_parameters,
)
from fedpact.channel.projection import Buckets, dealt
from fedpact.channel.selection import largest
from fedpact.channel.transform import RoundContext, StageState, Transform, check_steady
from fedpact.core.errors import ChannelError
from fedpact.core.messages import Aggregate
from fedpact.core.seeds import Seed
from fedpact.core.settings import check_counts, check_flags, check_numbers
from fedpact.core.vector import Layout

# Of 64 Ki elements the scratch arrays stay in the cache of one core.
_BLOCK = 1 << 16


@dataclass(frozen=True)
class CountSketch(LinearMap):
    """Send a count sketch of the trained parameters of each averaged vector; the server takes out the largest.

    A sketch is `rows` times a `Projection` to `columns` sums, each divided by √rows, so that it has norm at most 1;
    the hash functions are those of the first round in all rounds. With the mean S of the clients' sketches the server
    does, for each averaged vector:

        momentum ← ρ · momentum + S
        error    ← error + momentum
        Δ        ← the top_k largest of the estimates, medians over the rows, from error
        error, momentum ← 0 wherever sketch(Δ) is not 0

    and Δ is the mean that the algorithm is given; the learning rate is the algorithm's. The paper's Algorithm 1 has
    error ← error − sketch(Δ) instead, which adds the errors of the estimates up until training diverges; what stands
    here is what its authors' own code does.

    Behind it a vector has one parameter array [rows · columns], and its buffers whole, which the mean has as they are.

    State: "seed" (uint8 [32], of the hash functions), and "momentum" and "error", each averaged vector → float64
    [rows · columns]; empty where there is no momentum or no error feedback.

    Args:
        rows: independent hash functions; an odd number has one median.
        columns: sums of each; all of it must be less than the model.
        top_k: how many parameters change in a round; far fewer than columns, or most of the error is lost.
        momentum: ρ, in [0, 1); the paper's experiments have 0.9, which makes steps up to ten times as long.
        error_feedback: whether what was not in Δ is kept for later rounds.

    Raises:
        ConfigError: a setting is out of its range.
    """

    rows: int
    columns: int
    top_k: int
    momentum: float = 0.0
    error_feedback: bool = True

    def __post_init__(self) -> None:
        check_counts(self, "rows", "columns", "top_k")
        check_numbers(self, "momentum", below=1)
        check_flags(self, "error_feedback")

    def check(self, before: Sequence[Transform], algorithm: Any, layout: Layout | None) -> None:
        """Refuse a model that is no larger than its sketch, and algorithms whose clients build on what they sent."""
        super().check(before, algorithm, layout)
        if self.error_feedback or self.momentum:
            check_steady(self, before)
        sent = self.rows * self.columns
        if layout is not None and 0 < parameter_count(layout) <= sent:
            raise ChannelError(
                f"CountSketch: {self.rows} rows of {self.columns} columns are {sent} numbers, no fewer than the "
                f"{parameter_count(layout)} parameters of the model; give fewer columns, or send the model as it is."
            )

    def size_behind(self, size: int) -> int:
        return self.rows * self._columns(size)

    def forward(self, values: Floats, seed: Seed) -> Floats:
        return np.concatenate([row.sums(values) for row in self._rows(values.size, seed)]) / sqrt(self.rows)

    def backward(self, values: Floats, size: int, seed: Seed) -> Floats:
        """Return the estimates: for each parameter the median over the rows."""
        rows = zip(self._rows(size, seed), values.reshape(self.rows, -1), strict=True)
        return _median(np.array([row.estimates(sums) for row, sums in rows])) * sqrt(self.rows)

    def decode(self, aggregate: Aggregate, context: RoundContext) -> Aggregate:
        means, steps = dict(aggregate.means), self._steps(aggregate, context)
        context.scratch["steps"] = steps
        for name, step in steps.items():
            means[name] = with_parameters(context.layouts[name], step.change, means[name])
        return replace(aggregate, means=means)

    def told(self, state: StageState) -> StageState:
        """Tell clients where the buckets are, and not what the sketches hold."""
        return {"seed": state["seed"]} if "seed" in state else {}

    def after(self, aggregate: Aggregate, context: RoundContext) -> StageState:
        """Return the sketches of momentum and error."""
        steps = context.scratch.get("steps") or self._steps(aggregate, context)
        return {
            "seed": np.frombuffer(self._seed(context).key, np.uint8),
            "momentum": {name: step.momentum for name, step in steps.items() if self.momentum},
            "error": {name: step.error for name, step in steps.items() if self.error_feedback},
        }

    def seed_of(self, name: str, context: RoundContext) -> Seed:
        return self._seed(context).child(name)

    def _steps(self, aggregate: Aggregate, context: RoundContext) -> dict[str, "_Step"]:
        steps = {}
        kept = context.state
        for name, layout in context.layouts.items():
            size = parameter_count(layout)
            if name not in aggregate.means or not size:
                continue
            seed = self.seed_of(name, context)
            momentum = aggregate.means[name]["parameters"].astype(np.float64)
            if name in kept.get("momentum", {}):
                momentum += self.momentum * kept["momentum"][name]
            error = momentum + kept["error"][name] if name in kept.get("error", {}) else momentum
            estimates = self.backward(error, size, seed)
            change = np.where(largest(np.abs(estimates), self.top_k), estimates, 0.0)
            rest = self.forward(change, seed) == 0
            steps[name] = _Step(momentum * rest, error * rest, change)
        return steps

    def _seed(self, context: RoundContext) -> Seed:
        kept = context.state.get("seed")
        return context.seed if kept is None else Seed(kept.tobytes())

    def _columns(self, size: int) -> int:
        return min(self.columns, size)

    def _rows(self, size: int, seed: Seed) -> tuple[Buckets, ...]:
        return _hashed(seed, size, self._columns(size), self.rows)


@dataclass(frozen=True, eq=False)
class _Step:
    """What a round does to one averaged vector: the sketches to keep, and the change [d]."""

    momentum: NDArray[np.float64]
    error: NDArray[np.float64]
    change: NDArray[np.float64]


# They are the same for all clients in all rounds.
@lru_cache(maxsize=2)
def _hashed(seed: Seed, size: int, columns: int, rows: int) -> tuple[Buckets, ...]:
    return tuple(dealt(seed.child("row", row), size, columns) for row in range(rows))


def _median(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the median over the first axis, by exchanges of whole rows: far faster than sorting so few."""
    out = np.empty(rows.shape[1])
    middle = len(rows) // 2
    for start in range(0, out.size, _BLOCK):
        part = list(rows[:, start : start + _BLOCK])
        for last in range(len(part) - 1, middle - 1 - (len(part) % 2 == 0), -1):
            for i in range(last):
                part[i], part[i + 1] = np.minimum(part[i], part[i + 1]), np.maximum(part[i], part[i + 1])
        found = part[middle] if len(part) % 2 else (part[middle - 1] + part[middle]) / 2
        out[start : start + _BLOCK] = found
    return out
