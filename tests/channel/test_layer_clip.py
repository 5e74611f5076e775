"""Layer by layer: each array within its own bound, all together within the root of the sum of squares."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.newton import Newton
from fedpact.algorithms.scaffold import SCAFFOLD
from fedpact.channel.adaptive_clip import AdaptiveClip
from fedpact.channel.layer_clip import LayerClip
from fedpact.channel.transform import RoundContext
from fedpact.channel.zero_outliers import ZeroOutliers
from fedpact.core.errors import ChannelError, ConfigError, UpdateError
from fedpact.core.vector import Entry, Layout, Vector
from tests.channel.rounds import MIXED, norm, random_vector, update

ROUND = RoundContext(0)
LAYOUT = Layout([Entry("weight", (2,)), Entry("bias", (1,)), Entry("var", (1,), role="buffer")])
floats = st.floats(-1e6, 1e6, width=32)


def model(weight, bias, var=0.0):
    return Vector.from_arrays({"weight": weight, "bias": bias, "var": [var]}, LAYOUT)


def test_each_array_is_scaled_to_its_own_bound_and_keeps_its_direction():
    sent = update(model=model([3, 4], [0.05], 100))
    clipped = LayerClip(norms={"weight": 1.0, "bias": 0.1}).encode(sent, ROUND)
    np.testing.assert_allclose(clipped.averaged["model"]["weight"], [0.6, 0.8], rtol=2e-6)
    assert clipped.averaged["model"]["bias"] == np.float32(0.05)
    assert clipped.averaged["model"]["var"] == 100
    np.testing.assert_array_equal(sent.averaged["model"]["weight"], [3, 4])
    assert clipped.notes == {"layer_clip.norm": pytest.approx(math.hypot(5, 0.05)), "layer_clip.clipped": 0.5}


def test_an_update_within_all_bounds_is_left_as_it_is():
    sent = update(model=model([0.3, 0.4], [0.0]))
    assert LayerClip(norms={"weight": 0.6, "bias": 0.1}).encode(sent, ROUND).averaged == sent.averaged


def test_one_norm_is_shared_evenly_by_the_arrays():
    # Four arrays with 2 / √4 = 1 each.
    sent = update(model=random_vector(MIXED, np.random.default_rng(0)))
    for array in dict(sent.averaged["model"].items()).values():
        array += 100
    clipped = LayerClip(2.0, over="all").encode(sent, ROUND).averaged["model"]
    for _, array in clipped.items():
        assert np.linalg.norm(array.astype(np.float64)) == pytest.approx(1, rel=1e-6)


@given(hnp.arrays(np.float32, 4, elements=floats), hnp.arrays(np.float32, 4, elements=floats))
def test_arrays_of_one_name_in_several_vectors_are_bounded_together(first, second):
    sent = update(model=model(first[:2], first[2:3]), control=model(second[:2], second[2:3]))
    stage = LayerClip(norms={"weight": 0.3, "bias": 0.4})
    clipped = stage.encode(sent, ROUND)
    for name, bound in stage.norms.items():
        together = np.concatenate([v[name].astype(np.float64) for v in clipped.averaged.values()])
        assert np.linalg.norm(together) <= bound * (1 + 1e-14)
    assert norm(clipped) <= stage.bound(math.inf, {}) * (1 + 1e-14)


def test_the_bound_is_the_root_of_the_sum_of_squares():
    assert LayerClip(norms={"weight": 3.0, "bias": 4.0}).bound(math.inf, {}) == 5
    assert LayerClip(2.0).bound(math.inf, {}) == 2
    assert LayerClip(2.0).bound(1.5, {}) == 1.5


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_array_whose_norm_is_no_number_is_refused_by_name(value):
    with pytest.raises(UpdateError, match=f'client "lyon": "bias" has norm {value}; lower the learning rate'):
        LayerClip(1.0).encode(update(model=model([1, 1], [value])), ROUND)


def test_arrays_of_a_model_are_checked_before_any_client_is_asked():
    stage = LayerClip(norms={"weigth": 1.0, "bias": 1.0})
    with pytest.raises(
        ChannelError, match=r'"weigth", which is no parameter of this model. Did you mean "weight"'
    ):
        stage.check([], FedAvg(), LAYOUT)
    with pytest.raises(ChannelError, match='LayerClip has no bound for "bias"'):
        LayerClip(norms={"weight": 1.0}).check([], FedAvg(), LAYOUT)
    LayerClip(norms={"weight": 1.0, "bias": 1.0}).check([], FedAvg(), LAYOUT)
    with pytest.raises(ChannelError, match='has no bound for "var"'):
        LayerClip(norms={"weight": 1.0, "bias": 1.0}, over="all").check([], FedAvg(), LAYOUT)


def test_algorithms_and_stages_that_it_does_not_go_with_are_refused():
    for algorithm in (Newton(), SCAFFOLD()):
        with pytest.raises(ChannelError, match="take LayerClip out"):
            LayerClip(1.0).check([], algorithm, None)
    with pytest.raises(ChannelError, match="behind AdaptiveClip"):
        LayerClip(1.0).check([AdaptiveClip()], FedAvg(), None)
    with pytest.raises(ChannelError, match="give ZeroOutliers a fixed norm"):
        LayerClip(1.0).check([ZeroOutliers()], FedAvg(), None)
    LayerClip(1.0).check([ZeroOutliers(norm=3.0)], FedAvg(), None)


@pytest.mark.parametrize(
    "settings",
    [{}, {"norm": 1.0, "norms": {"a": 1.0}}, {"norm": 0}, {"norms": {"a": -1.0}}, {"norm": 1.0, "over": "x"}],
)
def test_settings_out_of_their_range_are_refused(settings):
    with pytest.raises(ConfigError, match="LayerClip: "):
        LayerClip(**settings)
