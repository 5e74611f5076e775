"""Quantisation: the levels, the mean of what is rounded at random, the bits, and what lies outside."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpact.channel.clip import Clip
from fedpact.channel.quantize import Quantize
from fedpact.core.errors import ConfigError, UpdateError
from fedpact.core.grid import Grid
from fedpact.core.seeds import Seed
from tests.channel.cohorts import EXAMPLES, through, update, vector


def one(stage, values, **settings):
    """The mean of one client's values, behind the stage."""
    return through([stage], [update("lyon", values)], **settings)


@pytest.mark.parametrize("stochastic", [False, True])
def test_two_bits_are_four_levels_that_divide_the_range_evenly(stochastic):
    found = one(Quantize(2, range=3.0, stochastic=stochastic), np.linspace(-3, 3, 2000)).mean
    np.testing.assert_allclose(np.unique(found), [-3, -1, 1, 3], rtol=1e-15)


def test_levels_themselves_pass_unchanged():
    levels = np.array([-3.0, -1.0, 1.0, 3.0] * 100)
    for stochastic in (False, True):
        np.testing.assert_array_equal(one(Quantize(2, range=3.0, stochastic=stochastic), levels).mean, levels)


@given(st.integers(1, 16), st.floats(1e-6, 1e6), st.lists(st.floats(-1, 1), min_size=1, max_size=20))
def test_to_the_nearest_is_off_by_half_a_level_at_most(bits, limit, shares):
    values = np.array(shares) * limit
    found = one(Quantize(bits, range=limit, stochastic=False), values).mean
    apart = 2 * limit / (2**bits - 1)
    assert np.all(np.abs(found - values) <= apart / 2 * (1 + 1e-9))


@given(st.integers(1, 16), st.floats(1e-6, 1e6), st.lists(st.floats(-1, 1), min_size=1, max_size=20))
def test_at_random_is_off_by_less_than_a_level(bits, limit, shares):
    values = np.array(shares) * limit
    found = one(Quantize(bits, range=limit), values).mean
    assert np.all(np.abs(found - values) < 2 * limit / (2**bits - 1) * (1 + 1e-9))


@pytest.mark.parametrize("bits", [1, 2, 5])
@pytest.mark.parametrize("value", [-0.93, -0.1, 0.0, 0.3, 0.71])
def test_the_mean_of_what_is_rounded_at_random_is_the_value(bits, value):
    # Of 40,000 draws that are a level apart at most, the mean is within 5 · (level / 2) / 200 but once in 10^6.
    found = one(Quantize(bits, range=1.0), np.full(40_000, value)).mean
    apart = 2 / (2**bits - 1)
    assert abs(found.mean() - value) < 5 * apart / 2 / 200
    assert len(np.unique(found)) == 2


def test_to_the_nearest_is_not_unbiased_with_few_bits():
    assert one(Quantize(1, range=1.0, stochastic=False), np.full(10, 0.1)).mean.mean() == 1.0


def test_rounding_at_random_is_drawn_from_the_seed_and_the_client():
    values = np.linspace(-0.9, 0.9, 500)
    sent = [update("lyon", values), update("nice", values)]
    stage = Quantize(2, range=1.0)
    first, again, other = (through([stage], sent, seed=Seed.of(seed)) for seed in (1, 1, 2))

    def integers(walked, client):
        return walked.sent[client].integers.arrays["model"]

    np.testing.assert_array_equal(first.mean, again.mean)
    assert np.any(integers(first, "lyon") != integers(first, "nice"))
    assert np.any(integers(first, "lyon") != integers(other, "lyon"))


@pytest.mark.parametrize("bits", [1, 4, 7, 12, 16])
def test_bits_are_what_is_sent(bits):
    walked = one(Quantize(bits, range=1.0), np.linspace(-1, 1, 1003))
    assert walked.sent["lyon"].nbytes == -(-1003 * bits // 8)
    assert walked.intake.upload_bytes == {"lyon": -(-1003 * bits // 8)}
    assert len(np.unique(walked.sent["lyon"].integers.arrays["model"])) <= 2**bits


def test_the_sum_is_that_of_the_levels_with_their_weights():
    # Levels of 2 bits and range 3 are −3, −1, 1, 3: (2 · 1 + 5 · −3) / 7.
    sent = [update("lyon", [0.7], weight=2), update("nice", [-2.9], weight=5)]
    found = through([Quantize(2, range=3.0, stochastic=False)], sent, EXAMPLES).mean
    assert found == pytest.approx((2 * 1 + 5 * -3) / 7, rel=1e-15)


def test_a_weight_that_is_not_whole_is_refused_by_name():
    walked = through([Quantize(2, range=3.0)], [update("lyon", [0.5], weight=0.5)], EXAMPLES, close=False)
    assert "whole weights" in walked.intake.failures["lyon"]


def test_what_is_outside_is_refused_by_name():
    sent = [update("lyon", [0.0, 0.5]), update("nice", [0.0, 1.5])]
    walked = through([Quantize(8, range=1.0)], sent)
    assert list(walked.intake.failures) == ["nice"]
    assert 'client "nice": w[1] is 1.5, outside the range of ±1' in walked.intake.failures["nice"]
    assert walked.aggregate.count == 1


def test_what_is_outside_is_clipped_where_that_is_asked_for_and_counted():
    walked = one(Quantize(8, range=1.0, stochastic=False, outside="clip"), [0.5, 1.5, -7.0, -1.0])
    np.testing.assert_array_equal(walked.mean[1:], [1.0, -1.0, -1.0])
    assert walked.sent["lyon"].notes["quantize.outside"] == 2


def test_what_is_clipped_is_not_refused_where_float32_has_no_such_range():
    # float32(0.05) is 0.0500000007.
    walked = one(Quantize(8, range=0.05, stochastic=False, outside="clip"), [0.2, -0.2])
    assert walked.sent["lyon"].notes["quantize.outside"] == 2
    assert not walked.intake.failures


@pytest.mark.parametrize("outside", ["refuse", "clip"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_whatever_becomes_of_the_outside(outside, value):
    walked = through([Quantize(8, range=1.0, outside=outside)], [update("lyon", [0.0, value])], close=False)
    if np.isinf(value) and outside == "clip":
        assert walked.sent["lyon"].notes["quantize.outside"] == 1
    else:
        assert 'client "lyon": w[1] is' in walked.intake.failures["lyon"]


def test_without_a_range_it_is_the_bound_of_the_clip():
    found = through([Clip(0.5), Quantize(2, stochastic=False)], [update("lyon", [0.5, 0.0])])
    assert found.step == Grid.of_levels(2, 0.5).step == 0.5 / 3
    assert found.mean[0] == 0.5


def test_an_update_is_not_changed_in_place():
    sent = vector([2.0, 0.1])
    one(Quantize(8, range=1.0, outside="clip"), sent)
    np.testing.assert_array_equal(sent["w"], [2.0, 0.1])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"bits": 0}, "bits is 0"),
        ({"bits": 17}, "must be at most 16"),
        ({"bits": 2.5}, "bits"),
        ({"range": 0.0}, "range is 0.0"),
        ({"range": float("nan")}, "range is nan"),
        ({"outside": "ignore"}, '"refuse" or "clip"|refuse'),
    ],
)
def test_settings_out_of_their_range_are_refused(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Quantize(**settings)


def test_a_grid_refuses_a_weight_beyond_the_largest():
    with pytest.raises(UpdateError, match="weight 3; the most declared is 2"):
        Grid.of_levels(4, 1.0, most=2.0).integers({"model": vector([0.5])}, 3, "lyon")
