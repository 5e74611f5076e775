"""Clipping: nothing within the bound changes, nothing leaves beyond it."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.newton import Newton
from fedpact.algorithms.one_shot import OneShot
from fedpact.algorithms.scaffold import SCAFFOLD
from fedpact.channel.channel import Channel
from fedpact.channel.clip import Clip
from fedpact.channel.transform import RoundContext, Transform
from fedpact.core.accumulator import Accumulator
from fedpact.core.errors import ChannelError, ConfigError, UpdateError
from fedpact.core.messages import Task, Update, Updates
from fedpact.core.seeds import Seed
from fedpact.core.stack import Stack
from fedpact.core.vector import Entry, Layout, Vector

ROUND = RoundContext(0)
floats = st.floats(-1e6, 1e6, width=32)


def update(**arrays):
    vectors = {name: Vector.from_arrays({"x": np.asarray(array)}) for name, array in arrays.items()}
    return Update("lyon", 0, "delta", averaged=vectors, metrics={"loss": 0.5, "rows": 2})


def norm(update):
    flats = [flat.astype(np.float64) for vector in update.averaged.values() for flat in vector.flats]
    return math.sqrt(math.fsum(np.concatenate(flats) ** 2))


@given(
    hnp.arrays(np.float32, 30, elements=floats),
    hnp.arrays(np.float64, 7, elements=floats),
    st.floats(1e-3, 1e3),
)
def test_the_norm_over_all_vectors_together_is_within_the_bound(model, control, bound):
    clipped = Clip(bound).encode(update(model=model, control=control), ROUND)
    # But for what float64 cannot tell: the norm here is summed in another order.
    assert norm(clipped) <= bound * (1 + 1e-14)


def test_rounding_to_float32_takes_no_update_beyond_the_bound():
    rng = np.random.default_rng(0)
    found = [
        norm(Clip(1.0).encode(update(model=rng.normal(size=1000).astype(np.float32)), ROUND))
        for _ in range(300)
    ]
    assert max(found) <= 1 + 1e-14
    # And none further below it than one step down, 2^-20.
    assert min(found) > 1 - 1e-6


@pytest.mark.parametrize("bound", [1e-44, 1e-45, 1e-46])
def test_a_bound_of_the_smallest_numbers_is_kept_too(bound):
    clipped = Clip(bound).encode(update(model=np.full(50, 3e38, np.float32)), ROUND)
    assert norm(clipped) * 1e20 <= bound * 1e20


@given(hnp.arrays(np.float32, 30, elements=st.floats(-10, 10, width=32)), st.floats(0, 2))
def test_an_update_within_the_bound_is_left_as_it_is_bit_for_bit(model, room):
    sent = update(model=model)
    bound = max(sent.averaged["model"].norm() * (1 + room), 1e-3)
    before = sent.averaged["model"].copy()
    clipped = Clip(bound).encode(sent, ROUND)
    assert clipped.averaged["model"] == before
    assert clipped.averaged is sent.averaged


def test_what_is_larger_is_scaled_to_the_bound_and_keeps_its_direction():
    # ‖(3, 4)‖ and ‖12‖ are 13 together; a bound of 6.5 halves them all.
    sent = update(model=[3.0, 4.0], control=[12.0])
    clipped = Clip(6.5).encode(sent, ROUND)
    np.testing.assert_allclose(clipped.averaged["model"]["x"], [1.5, 2.0], rtol=1e-15)
    np.testing.assert_allclose(clipped.averaged["control"]["x"], [6.0], rtol=1e-15)
    np.testing.assert_array_equal(sent.averaged["model"]["x"], [3.0, 4.0])
    assert (clipped.client, clipped.metrics) == (sent.client, sent.metrics)


def test_clipping_is_over_all_segments_of_parameters():
    layout = Layout([Entry("a", (2,)), Entry("b", (2,), "float64")])
    vector = Vector.from_arrays({"a": [2, 4], "b": [5, 2]}, layout)
    clipped = Clip(0.7).encode(Update("lyon", 0, "delta", averaged={"model": vector}), ROUND)
    # √(4 + 16 + 25 + 4) = 7.
    expected = Vector.from_arrays({"a": [0.2, 0.4], "b": [0.5, 0.2]}, layout)
    for found, wanted in zip(clipped.averaged["model"].flats, expected.flats, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-6)


def test_buffers_count_towards_no_norm_and_leave_as_they_are():
    # A counter of batches grows by 100 a round, and would leave nothing of the weights.
    layout = Layout(
        [Entry("w", (2,)), Entry("var", (1,), role="buffer"), Entry("steps", (), "int64", "buffer")]
    )
    vector = Vector.from_arrays({"w": [0.3, 0.4], "var": [7], "steps": 100.0}, layout.wide)
    sent = Update("lyon", 0, "delta", averaged={"model": vector})
    assert Clip(1.0).encode(sent, ROUND).averaged is sent.averaged
    clipped = Clip(0.25).encode(sent, ROUND).averaged["model"]
    np.testing.assert_allclose(clipped["w"], [0.15, 0.2], rtol=2e-6)
    assert (clipped["var"], clipped["steps"]) == (7, 100)


@pytest.mark.parametrize("arrays", [{}, {"model": np.zeros(5, np.float32)}, {"model": np.zeros((0, 3))}])
def test_an_update_of_zeros_or_of_nothing_passes(arrays):
    sent = update(**arrays)
    for p in (1, 2):
        assert Clip(1.0, p=p).encode(sent, ROUND).averaged is sent.averaged


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e200])
def test_a_norm_that_is_no_number_is_refused(value):
    with pytest.raises(
        UpdateError, match=r'client "lyon": the update has norm (nan|inf); lower the learning rate'
    ):
        Clip(1.0).encode(update(model=[1.0, value], control=[1.0]), ROUND)


def test_a_large_finite_norm_is_clipped():
    clipped = Clip(1.0).encode(update(model=[1e150, 0.0], control=[1e150]), ROUND)
    assert norm(clipped) == pytest.approx(1)


def test_over_all_buffers_count_and_are_scaled_too():
    # 0.6² + 0.8² + 2² + 3² + 6² = 50.
    layout = Layout([Entry("w", (2,)), Entry("var", (2,), role="buffer"), Entry("n", (), "int64", "buffer")])
    vector = Vector.from_arrays({"w": [0.6, 0.8], "var": [2, 3], "n": 6.0}, layout.wide)
    sent = Update("lyon", 0, "delta", averaged={"model": vector})
    clipped = Clip(50**0.5 / 2, over="all").encode(sent, ROUND).averaged["model"]
    np.testing.assert_allclose(clipped["w"], [0.3, 0.4], rtol=2e-6)
    np.testing.assert_allclose(clipped["var"], [1, 1.5], rtol=2e-6)
    assert clipped["n"] == pytest.approx(3, rel=2e-6)
    vector["var"][0] = math.nan
    with pytest.raises(UpdateError, match="the update has norm nan"):
        Clip(1.0, over="all").encode(sent, ROUND)


@given(
    hnp.arrays(np.float32, 30, elements=floats),
    hnp.arrays(np.float64, 7, elements=floats),
    st.floats(1e-3, 1e3),
)
def test_with_p_1_the_sum_of_sizes_is_within_the_bound(model, control, bound):
    clipped = Clip(bound, p=1).encode(update(model=model, control=control), ROUND)
    flats = [flat.astype(np.float64) for v in clipped.averaged.values() for flat in v.flats]
    assert math.fsum(np.abs(np.concatenate(flats))) <= bound * (1 + 1e-14)
    # Which bounds the L2 norm as well.
    assert norm(clipped) <= Clip(bound, p=1).bound(math.inf, {}) * (1 + 1e-14)


def test_by_p_1_what_is_larger_keeps_its_direction():
    clipped = Clip(3.5, p=1).encode(update(model=[3.0, -4.0]), ROUND)
    np.testing.assert_allclose(clipped.averaged["model"]["x"], [1.5, -2.0], rtol=1e-15)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e308])
def test_an_l1_norm_that_is_no_number_is_refused(value):
    with pytest.raises(UpdateError, match="the update has norm"):
        Clip(1.0, p=1).encode(update(model=[value, value], control=[value, value]), ROUND)


def test_the_norm_and_whether_it_was_clipped_are_noted_at_the_client():
    assert Clip(1.0).encode(update(model=[3.0, 4.0]), ROUND).notes == {"clip.norm": 5, "clip.clipped": 1}
    assert Clip(7.0, p=1).encode(update(model=[3.0, 4.0]), ROUND).notes == {"clip.norm": 7, "clip.clipped": 0}


def test_a_count_that_an_earlier_stage_added_is_kept_and_taken_out_of_the_bound():
    sent = update(model=[30.0, 40.0], zero_count=[0.6])
    clipped = Clip(1.0).encode(sent, ROUND)
    assert clipped.averaged["zero_count"]["x"] == 0.6
    # √(1 − 0.6²) = 0.8 is left for the rest.
    np.testing.assert_allclose(clipped.averaged["model"]["x"], [0.48, 0.64], rtol=1e-14)
    assert norm(clipped) <= 1
    for p in (1, 2):
        assert norm(Clip(0.1, p=p).encode(sent, ROUND)) <= 0.1 * (1 + 1e-14)


@pytest.mark.parametrize("settings", [{"p": 3}, {"p": True}, {"over": "buffers"}])
def test_another_norm_or_other_elements_are_refused(settings):
    with pytest.raises(ConfigError, match=r"Clip: (p|over) is .*; it must be"):
        Clip(1.0, **settings)


@pytest.mark.parametrize("bound", [0, -1.0, math.nan, math.inf])
def test_a_bound_that_is_no_positive_number_is_refused(bound):
    with pytest.raises(ConfigError, match=r"Clip: norm is .*; it must be a positive number"):
        Clip(bound)


@pytest.mark.parametrize("algorithm", [Newton(), OneShot()], ids=lambda a: type(a).__name__)
def test_statistics_have_no_norm_to_clip(algorithm):
    with pytest.raises(
        ChannelError, match=f"{type(algorithm).__name__} send sums of statistics; take Clip out"
    ):
        Channel([Clip(1.0)], algorithm)


def test_a_control_variate_that_its_client_keeps_is_not_clipped():
    with pytest.raises(ChannelError, match=r"the clients of SCAFFOLD go on from what they sent.* FedAvg"):
        Channel([Clip(1.0)], SCAFFOLD())


def test_a_channel_without_stages_goes_with_every_algorithm():
    assert Channel([], SCAFFOLD()).stages == ()


class Named(Transform):
    """A stage that says when it is called."""

    kind = "clip"

    def __init__(self, name="", trace=None, factor=1.0):
        self.name, self.trace, self.factor = name, [] if trace is None else trace, factor

    def bound(self, before, state):
        return self.factor * before

    def check(self, before, algorithm, layout):
        self.trace.append((self.name, "check", len(before)))

    def encode(self, update, context):
        self.trace.append((self.name, "encode"))
        return replace(update, metrics={**update.metrics, self.name: 1})

    def decode(self, aggregate, context):
        self.trace.append((self.name, "decode"))
        return aggregate


def begun(channel):
    return channel.begin(
        Task("train", arrays={"model": update(model=[0.0, 0.0]).averaged["model"]}), ["lyon"], Seed.of(0)
    )


def sensitivity(*stages):
    """The bound behind these stages, as one more would be told it."""
    return begun(Channel([*stages, Named()], FedAvg())).contexts[-1].sensitivity


def test_a_stage_that_enlarges_an_update_enlarges_the_bound_of_the_channel():
    doubled = Named(factor=2.0)
    assert sensitivity(Clip(1.5), doubled) == 3
    assert sensitivity(doubled, Clip(1.5)) == 1.5
    assert sensitivity(Clip(4.0), doubled, Clip(5.0)) == 5
    assert sensitivity(doubled) == math.inf


def test_several_clips_are_as_tight_as_the_tightest():
    assert sensitivity(Clip(2.0), Clip(0.5)) == 0.5
    channel = Channel([Clip(2.0), Clip(0.5)], FedAvg())
    clipped, _ = channel.encode(update(model=[30.0, 40.0]), begun(channel), {}, {})
    assert norm(clipped) == pytest.approx(0.5)


def test_an_empty_channel_changes_nothing():
    channel = Channel([], Newton())
    sent, kept = update(model=[3.0]), {"control": update(x=[1.0]).averaged["x"]}
    encoded, keeps = channel.encode(sent, begun(channel), {}, kept)
    assert encoded is sent
    assert keeps is kept


def test_stages_run_first_to_last_at_the_client_and_last_to_first_at_the_server():
    trace = []
    channel = Channel([Named("a", trace), Named("b", trace)], FedAvg())
    assert trace == [("a", "check", 0), ("b", "check", 1)]
    round = begun(channel)
    encoded, _ = channel.encode(update(model=[3.0, 4.0]), round, {}, {})
    sums = Accumulator(Task("train"), 10.0, 1.0, 1)
    sums.add(encoded)
    channel.aggregate(sums, round)
    assert trace[2:] == [("a", "encode"), ("b", "encode"), ("b", "decode"), ("a", "decode")]
    assert {"a", "b"} <= encoded.metrics.keys()


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.just(6)), elements=st.floats(-1e6, 1e6, width=32)),
    st.floats(1e-3, 1e3),
    st.sampled_from([1, 2]),
)
def test_a_stack_is_clipped_to_the_bits_of_each_update_alone(rows, bound, p):
    updates = [update(model=row, control=row[::-1].astype(np.float64)) for row in rows]
    stacked = Updates(
        clients=[each.client for each in updates],
        version=0,
        kind="delta",
        weights=[1] * len(updates),
        averaged={
            name: Stack.of([each.averaged[name] for each in updates], updates[0].averaged[name].layout)
            for name in ("model", "control")
        },
    )
    clipped = Clip(bound, p).encode_stack(stacked, ROUND)
    for place, each in enumerate(updates):
        assert clipped.one(place).averaged == Clip(bound, p).encode(each, ROUND).averaged
