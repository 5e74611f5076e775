"""What one client can change in a sum is at most what its noise is made for, whatever the client sends.

Each check is also shown a broken stage, which it must find out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedpact.channel.adaptive_clip import AdaptiveClip
from fedpact.channel.channel import Channel
from fedpact.channel.clip import Clip
from fedpact.channel.hadamard import Hadamard
from fedpact.channel.noise import GaussianNoise, LaplaceNoise
from fedpact.channel.quantize import Quantize
from fedpact.channel.random_k import RandomK
from fedpact.channel.transform import check_averages
from fedpact.core.messages import Update
from fedpact.core.vector import Entry, Layout, Vector
from tests.channel.cohorts import EXAMPLES, UNIFORM, Walked, update, walk

CHANNELS: dict[str, list[Any]] = {
    "clip": [Clip(1.0), GaussianNoise(1.0)],
    "clip, tiny": [Clip(1e-12), GaussianNoise(1.0)],
    "clip, large": [Clip(1e4), GaussianNoise(1.0)],
    "clip, over all": [Clip(1.0, over="all"), GaussianNoise(1.0)],
    "adaptive clip": [AdaptiveClip(initial=0.3), GaussianNoise(1.0)],
    "random levels": [Clip(1.0), Quantize(3), GaussianNoise(1.0)],
    "random levels, clipped to a range": [
        Clip(1.0),
        Quantize(3, range=0.2, outside="clip"),
        GaussianNoise(1.0),
    ],
    "nearest levels": [
        Clip(1.0),
        Quantize(3, range=0.2, stochastic=False, outside="clip"),
        GaussianNoise(1.0),
    ],
    "one bit": [Clip(1.0), Quantize(1), GaussianNoise(1.0)],
    "some of the numbers": [Clip(1.0), RandomK(0.5), GaussianNoise(1.0)],
    "rotated": [Clip(1.0), Hadamard(), Quantize(6), GaussianNoise(1.0)],
    "L1": [Clip(1.0, p=1), LaplaceNoise(1.0)],
}
ANYTHING = st.floats(width=32) | st.sampled_from(
    [0.0, -0.0, 1e-45, 3e38, -3e38, math.nan, math.inf, 1e-30, 1.0]
)
WEIGHTS = st.sampled_from([1, 1, 1, 0, 0.5, 2, 1e6, 1e300, -1, math.nan, math.inf])
VALUES = st.lists(ANYTHING, min_size=6, max_size=6)
MIXED = Layout([Entry("a", (2, 2)), Entry("b", (2,), "float64")])
BUFFERED = Layout([Entry("a", (4,)), Entry("mean", (2,), "float32", "buffer")])


def sent_by(client: str, values: Sequence[float], weight: float, layout: Layout) -> Update:
    vector, start = Vector.zeros(layout), 0
    for flat in vector.flats:
        flat[:] = values[start : start + flat.size]
        start += flat.size
    return update(client, vector, weight)


def integers(walked: Walked) -> dict[str, NDArray[np.int64]]:
    if not walked.intake.sums.count:
        return {}
    total = walked.intake.sums.integers()
    assert total.step == walked.step
    return {name: array.copy() for name, array in total.arrays.items()}


def check_one_client_is_bounded(
    channel: Channel, others: Sequence[Update], bold: Update, announced: float = 1.0
) -> None:
    """Fail where a sum with this client is farther from the one without it than its noise is made for."""
    asked = [each.client for each in (*others, bold)]
    without, with_it = (
        walk(channel, sent, asked=asked, announced=announced, close=False)
        for sent in (others, [*others, bold])
    )
    before, after = integers(without), integers(with_it)
    changes = [array - before.get(name, 0) for name, array in after.items()]
    noise, opened = channel.noise, with_it.opened
    assert noise is not None
    assert opened.grid is not None
    bound = opened.contexts[channel.stages.index(noise)].sensitivity
    change = np.concatenate(changes) if changes else np.zeros(1)
    if isinstance(noise, LaplaceNoise):
        assert np.abs(change).sum() <= bound / opened.grid.step + opened.dimension / 2
    else:
        most = noise.integer_bound(opened.grid, bound, opened.dimension)
        assert np.linalg.norm(change.astype(np.float64)) <= most * (1 + 1e-12)


@settings(max_examples=40)
@given(st.lists(st.tuples(VALUES, WEIGHTS), min_size=1, max_size=3), VALUES, WEIGHTS)
@example([([0.1] * 6, 1)], [3e38] * 6, 1)
@example([([0.1] * 6, 1)], [1e30, 0, 0, 0, 0, 0], 1e300)
@example([([0.1] * 6, 1)], [math.nan, 0, 0, 0, 0, 0], 1)
@example([([0.1] * 6, 1)], [1e-45] * 6, 1)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", CHANNELS)
def test_no_client_changes_the_sum_by_more_than_the_noise_is_made_for(
    name: str, others: Any, values: Any, weight: Any
) -> None:
    layout = BUFFERED if name == "clip, over all" else MIXED
    cohort = [sent_by(f"{i}", *each, layout) for i, each in enumerate(others)]
    check_one_client_is_bounded(
        Channel(CHANNELS[name], UNIFORM), cohort, sent_by("bold", values, weight, layout)
    )


@pytest.mark.parametrize("name", CHANNELS)
def test_the_bound_is_not_far_above_what_a_client_can_change(name: str) -> None:
    # Else the claim above would be an easy one: a client far beyond the clip changes half of the bound and more.
    channel = Channel(CHANNELS[name], UNIFORM)
    noise = channel.noise
    assert noise is not None
    moved = []
    for values in ([1e6] * 6, [1e6, 0, 0, 0, 0, 0], [0.0] * 6):
        walked = walk(channel, [sent_by("bold", values, 1, MIXED)], close=False)
        opened = walked.opened
        assert opened.grid is not None
        bound = opened.contexts[channel.stages.index(noise)].sensitivity
        most = noise.integer_bound(opened.grid, bound, opened.dimension)
        change = np.concatenate(list(integers(walked).values())).astype(np.float64)
        moved.append(float(np.linalg.norm(change)) / most)
    assert max(moved) > 0.4


def test_nearest_levels_are_bounded_by_half_a_level_in_every_number() -> None:
    # Every number lies just above the middle of two levels, and all are rounded up: the worst that can happen.
    stages = [Clip(1.0), Quantize(4, range=0.1, stochastic=False), GaussianNoise(1.0)]
    size, middle = 5500, 2 * 0.1 / 15
    sent = update("bold", np.full(size, middle * 1.001))
    assert np.linalg.norm(sent.averaged["model"]["w"]) < 1.0
    check_one_client_is_bounded(Channel(stages, UNIFORM), [update("a", np.zeros(size))], sent)


# Broken stages, and what finds them out.


@dataclass(frozen=True)
class NoClip(Clip):
    """Claims a bound that it does not keep."""

    def encode(self, update: Any, context: Any) -> Any:
        return update


@dataclass(frozen=True)
class Slack(Clip):
    """Clips to twice the bound."""

    def encode(self, update: Any, context: Any) -> Any:
        return Clip(2 * self.norm).encode(update, context)


@dataclass(frozen=True)
class AnyWeight(GaussianNoise):
    """Takes clients of any weight."""

    def check(self, before: Any, algorithm: Any, layout: Any) -> None:
        check_averages(self, algorithm)


@dataclass(frozen=True)
class ForgetsRounding(GaussianNoise):
    """Is made for the bound before rounding."""

    def integer_bound(self, grid: Any, bound: float, dimension: int) -> float:
        return bound / grid.step


BROKEN: dict[str, tuple[list[Any], Any, float]] = {
    "no clip": ([NoClip(1.0), GaussianNoise(1.0)], UNIFORM, 1),
    "a clip at twice the bound": ([Slack(1.0), GaussianNoise(1.0)], UNIFORM, 1),
    "weights without a bound": ([Clip(1.0), AnyWeight(1.0)], EXAMPLES, 10_000),
    "rounding forgotten": ([Clip(1.0), Quantize(1, stochastic=False), ForgetsRounding(1.0)], UNIFORM, 1),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_channel_is_found_out(name: str) -> None:
    stages, algorithm, weight = BROKEN[name]
    channel = Channel(stages, algorithm)
    # What is beyond the grid is refused whatever the clip: so little more than the bound.
    bold = update("bold", np.full(4, 0.9), weight)
    with pytest.raises(AssertionError):
        check_one_client_is_bounded(channel, [update("a", np.zeros(4))], bold, announced=weight)
