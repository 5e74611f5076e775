"""Zeroing: what is far beyond the others, or no number, becomes zeros; the rest is left alone."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.newton import Newton
from fedpact.channel.clip import Clip
from fedpact.channel.zero_outliers import ZeroOutliers
from fedpact.core.errors import ChannelError, ConfigError
from fedpact.core.messages import Update
from fedpact.core.vector import Vector
from tests.channel.rounds import MIXED, begin, mean, norm, random_vector, update, vector


def encoded(stage, sent, state=None):
    return stage.encode(sent, begin(stage, sent.averaged, state=state))


def test_beyond_a_fixed_norm_all_becomes_zero_and_within_it_nothing_changes():
    stage = ZeroOutliers(norm=5.0)
    within, beyond = update(model=vector([3.0, 4.0])), update(model=vector([3.0, 4.1]))
    assert encoded(stage, within).averaged == within.averaged
    assert encoded(stage, within).notes == {"zero_outliers.norm": 5, "zero_outliers.zeroed": 0}
    zeroed = encoded(stage, beyond)
    assert zeroed.averaged == {"model": vector([0.0, 0.0])}
    assert zeroed.notes == {
        "zero_outliers.norm": pytest.approx(math.hypot(3, 4.1)),
        "zero_outliers.zeroed": 1,
    }
    np.testing.assert_array_equal(beyond.averaged["model"]["x"], [3, 4.1])
    assert stage.after(mean([zeroed]), begin(stage, beyond.averaged)) == {}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e200])
@pytest.mark.parametrize("stage", [ZeroOutliers(norm=5.0), ZeroOutliers()], ids=["fixed", "adaptive"])
def test_an_update_that_is_no_number_becomes_zeros_without_its_metrics_that_are_none(stage, value):
    sent = Update(
        "lyon",
        0,
        "delta",
        averaged={"model": vector([1.0, value]), "control": vector([1.0])},
        metrics={"loss": math.nan, "rows": 7.0},
    )
    zeroed = encoded(stage, sent)
    assert all(not part.any() for name in ("model", "control") for part in zeroed.averaged[name].flats)
    assert zeroed.metrics == {"rows": 7}
    assert zeroed.notes == {"zero_outliers.zeroed": 1}


def test_a_nan_in_a_buffer_is_an_outlier_too():
    model = random_vector(MIXED, np.random.default_rng(0))
    model["var"][1] = math.nan
    assert encoded(ZeroOutliers(norm=1e9), update(model=model)).averaged["model"] == Vector.zeros(MIXED)


def test_buffers_count_over_all_alone():
    model = Vector.zeros(MIXED)
    model["steps"] = 100.0
    assert encoded(ZeroOutliers(norm=5.0), update(model=model)).averaged["model"] == model
    assert encoded(ZeroOutliers(norm=5.0, over="all"), update(model=model)).averaged["model"] == Vector.zeros(
        MIXED
    )


@pytest.mark.parametrize("start", [0.01, 100])
def test_the_bound_follows_the_quantile_of_the_clients_norms(start):
    norms = np.geomspace(0.3, 3, 50)
    truth = np.quantile(norms, 0.9)
    stage, state = ZeroOutliers(quantile=0.9, initial=start * truth, lr=0.5), None
    clients = [update(client=str(i), model=vector([n])) for i, n in enumerate(norms)]
    for _ in range(130):
        context = begin(stage, clients[0].averaged, state=state)
        state = stage.after(mean([stage.encode(each, context) for each in clients]), context)
    assert state["norm"] == pytest.approx(truth, rel=0.05)
    far = encoded(stage, update(model=vector([2.2 * truth])), state)
    near = encoded(stage, update(model=vector([1.8 * truth])), state)
    assert (far.notes["zero_outliers.zeroed"], near.notes["zero_outliers.zeroed"]) == (1, 0)


@given(
    hnp.arrays(np.float32, 20, elements=st.floats(width=32)),
    st.floats(1e-3, 1e3),
    st.sampled_from([None, 0.5, 30.0]),
)
def test_for_all_updates_what_leaves_is_within_the_bound(x, initial, fixed):
    stage = ZeroOutliers(norm=fixed, initial=initial)
    sent = encoded(stage, update(model=vector(x)))
    assert norm(sent) <= stage.bound(math.inf, {"norm": initial}) * (1 + 1e-14)


def test_the_algorithm_does_not_see_the_count_and_neither_clip_nor_another_zeroing_changes_it():
    stage, sent = ZeroOutliers(), update(model=vector([3.0, 4.0]))
    context = begin(stage, sent.averaged)
    counted = stage.encode(sent, context)
    # 0.02 · 10 · (1 − 1/2).
    assert counted.averaged["zero_count"]["count"] == pytest.approx(0.1)
    assert dict(stage.decode(mean([counted]), context).means) == dict(sent.averaged)
    for behind in (Clip(0.5), ZeroOutliers(norm=1.0)):
        after = behind.encode(counted, context)
        assert after.averaged["zero_count"] == counted.averaged["zero_count"]


def test_a_whole_model_of_zeros_is_refused():
    with pytest.raises(ChannelError, match='would make a model of zeros of what client "lyon" sent'):
        encoded(ZeroOutliers(), update(kind="model", model=vector([1.0])))


def test_algorithms_and_stages_that_it_does_not_go_with_are_refused():
    with pytest.raises(ChannelError, match="take ZeroOutliers out"):
        ZeroOutliers().check([], Newton(), None)
    with pytest.raises(ChannelError, match="ZeroOutliers stands twice"):
        ZeroOutliers().check([ZeroOutliers(norm=1.0)], FedAvg(), None)


@pytest.mark.parametrize(
    "settings", [{"factor": 0.9}, {"norm": 0}, {"quantile": 1}, {"lr": 0}, {"count_share": -1}]
)
def test_settings_out_of_their_range_are_refused(settings):
    with pytest.raises(ConfigError, match="ZeroOutliers: "):
        ZeroOutliers(**settings)
