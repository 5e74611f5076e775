"""Adaptive clipping: it finds the quantile from far below and far above, and its count is paid for."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.newton import Newton
from fedpact.algorithms.scaffold import SCAFFOLD
from fedpact.channel.adaptive_clip import AdaptiveClip
from fedpact.channel.clip import Clip
from fedpact.channel.zero_outliers import ZeroOutliers
from fedpact.core.errors import ChannelError, ConfigError, UpdateError
from tests.channel.rounds import MIXED, begin, mean, norm, random_vector, update, vector


def cohort_of(norms):
    return [update(client=str(i), model=vector([n, 0.0])) for i, n in enumerate(norms)]


def lognormal(clients=40):
    """Norms whose quantiles are those of a lognormal distribution."""
    return np.exp(0.5 * scipy.stats.norm.ppf((np.arange(clients) + 0.5) / clients))


def found(stage, norms, rounds, noise=None):
    """The clip norm after so many rounds with clients of these norms, and how it went."""
    clients, state, path = cohort_of(norms), None, []
    for number in range(rounds):
        context = begin(stage, clients[0].averaged, state=state, number=number)
        aggregate = mean([stage.encode(each, context) for each in clients])
        if noise is not None:
            aggregate.means["clip_count"]["count"][0] += (
                noise.normal() * stage.bound(math.inf, context.state) / len(norms)
            )
        state = stage.after(aggregate, context)
        path.append(state["norm"])
    return path


@pytest.mark.parametrize(("quantile", "start"), [(0.5, 0.01), (0.5, 100), (0.2, 100), (0.8, 0.01)])
def test_it_converges_to_the_quantile_from_far_below_and_far_above(quantile, start):
    norms = lognormal()
    truth = np.quantile(norms, quantile)
    path = found(AdaptiveClip(quantile, initial=start * truth), norms, 200)
    assert path[-1] == pytest.approx(truth, rel=0.05)
    # Towards it from the first step on: too few within it make it larger.
    assert (path[1] > path[0]) == (start < 1)


@pytest.mark.parametrize("start", [0.01, 100])
def test_with_noise_on_the_count_it_still_finds_the_quantile(start):
    norms = lognormal()
    path = found(AdaptiveClip(initial=start), norms, 250, noise=np.random.default_rng(3))
    assert np.mean(path[100:]) == pytest.approx(np.median(norms), rel=0.05)


def test_one_step_is_that_of_the_paper():
    # Three of four within 2: C ← 2 · exp(−0.2 · (0.75 − 0.5)).
    path = found(AdaptiveClip(0.5, initial=2.0), [0.5, 1.0, 2.0, 2.1], 1)
    assert path == [pytest.approx(2 * math.exp(-0.05), rel=1e-12)]


def test_the_paper_example_costs_what_theorem_1_says():
    # z = 1 and 50 clients, so σ_b = 2.5: z_Δ = (1 − 1 / 25)^(−1/2) = 1.02062.
    share = AdaptiveClip.share_for(1.0, 50)
    stage = AdaptiveClip(initial=3.0, count_share=share)
    joint = stage.bound(math.inf, {})
    assert joint / 3.0 == pytest.approx(1.02062, abs=5e-6)
    # The noise on the number of clients, whose scale is share · 3.
    assert joint / (share * 3.0) == pytest.approx(2.5)
    assert share == pytest.approx(AdaptiveClip().count_share)


@given(st.floats(0.1, 4), st.integers(50, 10_000))
def test_for_all_multipliers_and_cohorts_the_share_gives_both_noises_of_theorem_1(z, cohort):
    count_noise = cohort / 20
    stage = AdaptiveClip(count_share=AdaptiveClip.share_for(z, cohort))
    assert z * stage.bound(math.inf, {}) == pytest.approx((z**-2 - (2 * count_noise) ** -2) ** -0.5)
    assert z * stage.bound(math.inf, {}) / stage.count_share == pytest.approx(count_noise)


def test_a_count_that_would_cost_more_than_there_is_is_refused():
    with pytest.raises(ConfigError, match="a count of 20 clients cannot be known to ± 1"):
        AdaptiveClip.share_for(2.0, 20)


@given(
    hnp.arrays(np.float32, 20, elements=st.floats(-1e6, 1e6, width=32)),
    st.floats(1e-3, 1e3),
    st.floats(0.01, 10),
)
def test_update_and_count_together_are_within_the_bound(x, initial, share):
    stage = AdaptiveClip(initial=initial, count_share=share)
    vectors = {"model": vector(x), "control": vector(x[::-1], np.float64)}
    sent = stage.encode(update(**vectors), begin(stage, vectors))
    assert norm(sent) <= stage.bound(math.inf, {"norm": initial}) * (1 + 1e-14)
    # And so is the count alone, of a client with nothing to say.
    assert norm(stage.encode(update(), begin(stage, {}))) == pytest.approx(share * initial / 2)


def test_it_clips_at_what_the_state_says_and_the_bound_follows():
    stage, vectors = AdaptiveClip(initial=100.0), {"model": vector([3.0, 4.0])}
    sent = stage.encode(update(**vectors), begin(stage, vectors, state={"norm": 2.5}))
    np.testing.assert_allclose(sent.averaged["model"]["x"], [1.5, 2.0])
    assert sent.notes == {"adaptive_clip.norm": 5, "adaptive_clip.clipped": 1}
    assert stage.bound(math.inf, {"norm": 2.5}) == pytest.approx(2.5 * math.sqrt(1 + 1 / 24))
    assert stage.bound(1.0, {"norm": 2.5}) == pytest.approx(math.hypot(1, 2.5 / math.sqrt(24)))
    assert stage.init({}) == {"norm": 100}
    np.testing.assert_array_equal(vectors["model"]["x"], [3, 4])


def test_the_algorithm_does_not_see_the_count():
    stage, vectors = AdaptiveClip(initial=50.0), {"model": random_vector(MIXED, np.random.default_rng(0))}
    context = begin(stage, vectors)
    sent = stage.encode(update(**vectors), context)
    assert set(sent.averaged) == {"model", "clip_count"}
    assert dict(stage.decode(mean([sent]), context).means) == vectors


def test_an_estimate_stays_a_number_to_divide_by():
    assert found(AdaptiveClip(0.5, initial=1e-17, lr=500.0), [0.0], 3)[-1] > 0
    assert found(AdaptiveClip(0.5, initial=1e17, lr=500.0), [1e30], 3)[-1] < math.inf


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_norm_that_is_no_number_is_refused(value):
    vectors = {"model": vector([1.0, value])}
    with pytest.raises(UpdateError, match=f'client "lyon": the update has norm {value}'):
        AdaptiveClip().encode(update(**vectors), begin(AdaptiveClip(), vectors))


def test_a_clip_behind_it_leaves_the_count_as_it_is():
    stage, vectors = AdaptiveClip(initial=4.0), {"model": vector([3.0, 4.0])}
    sent = stage.encode(update(**vectors), begin(stage, vectors))
    again = Clip(1.0).encode(sent, begin(Clip(1.0), vectors))
    assert again.averaged["clip_count"] == sent.averaged["clip_count"]
    assert norm(again) == pytest.approx(1)


def test_algorithms_and_stages_that_it_does_not_go_with_are_refused():
    for algorithm in (Newton(), SCAFFOLD()):
        with pytest.raises(ChannelError, match="take AdaptiveClip out"):
            AdaptiveClip().check([], algorithm, None)
    with pytest.raises(ChannelError, match="AdaptiveClip stands twice"):
        AdaptiveClip().check([AdaptiveClip()], FedAvg(), None)
    AdaptiveClip().check([ZeroOutliers(), Clip(1.0)], FedAvg(), None)


@pytest.mark.parametrize(
    "settings",
    [{"quantile": 0}, {"quantile": 1}, {"initial": 0}, {"lr": -1}, {"count_share": 0}, {"over": "model"}],
)
def test_settings_out_of_their_range_are_refused(settings):
    with pytest.raises(ConfigError, match="AdaptiveClip: "):
        AdaptiveClip(**settings)
