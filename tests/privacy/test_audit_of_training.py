"""Audits of whole training rounds: the privacy statement holds, and code that breaks it is caught.

Every client is a canary with an axis of the model to itself, which moves if its coin says so; its score is what the
released model has there. Noise is from the operating system, so each limit is five standard deviations or more from
where such audits end.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest

import fedpact as fp
from fedpact.core.errors import QuorumError
from fedpact.privacy.audit import audit_scores, cosine_estimate
from tests.privacy.canaries import Canaries, Directions, canary_clients, direction

# Two rates of guessing, of which the first is best for much noise and the second for little.
FRACTIONS = (0.05, 0.2)


def trained(algorithm, channel, clients):
    """The model that one round releases, less the one before it, and the guarantee that the run states."""
    together = type(algorithm) is Canaries and channel[-1].kind != "mask"
    engine = fp.Batched() if together else fp.InProcess()
    result = fp.train(
        fp.models.Linear(), clients, algorithm=algorithm, channel=channel, rounds=1, engine=engine
    )
    # Of all zeros; the last weight is the intercept.
    (weights,) = result.weights.flats
    return weights, result.privacy.protections[0].guarantee


def audit(channel, canaries, confidence, size=1.0, runs=1, fractions=FRACTIONS):
    """The bound that the canaries of some runs prove together, and what a run states."""
    scores, coins = [], []
    for seed in range(runs):
        inside = np.random.default_rng([canaries, seed]).random(canaries) < 0.5
        released, guarantee = trained(Canaries(size=size), channel, canary_clients(inside, canaries))
        scores.append(released[:canaries])
        coins.append(inside)
    found = audit_scores(
        np.concatenate(scores), np.concatenate(coins), guarantee.delta, confidence, fractions=fractions
    )
    return found.epsilon, guarantee.epsilon


def test_central_noise_keeps_what_the_statement_says():
    # Such audits of correct code end at 2.0 ± 0.2.
    bound, stated = audit([fp.Clip(1.0), fp.GaussianNoise(1.0)], 2500, 0.999, runs=2)
    assert 1.0 < bound < stated
    # With δ = 1e-5 the exact ε of Gaussian noise is 4.38; the accountant of discrete noise has a little more.
    assert 4.377 < stated < 5.0


def test_distributed_noise_under_masks_keeps_what_the_statement_says():
    # Such audits of correct code end at 2.5 ± 0.3.
    channel = [
        fp.Clip(1.0),
        fp.GaussianNoise(0.5, where="distributed"),
        fp.SecureSum(graph="sparse", drop=0.0),
    ]
    bound, stated = audit(channel, 200, 0.999, fractions=(0.2, 0.5))
    assert 0.4 < bound < stated


def test_distributed_noise_over_two_servers_keeps_what_the_statement_says():
    # Such audits of correct code end at 3.1 ± 0.3.
    channel = [fp.Clip(1.0), fp.GaussianNoise(0.5, where="distributed"), fp.SplitTrust(minimum_cohort=500)]
    bound, stated = audit(channel, 500, 0.999, fractions=(0.2, 0.5))
    assert 0.9 < bound < stated


def test_noise_on_what_is_clipped_hides_clients_that_are_far_larger():
    bound, stated = audit([fp.Clip(1.0), fp.GaussianNoise(1.0)], 2000, 0.999, size=1000.0)
    assert bound < stated


class HalfNoise(fp.GaussianNoise):
    """Adds noise of half the standard deviation that it accounts for."""

    def sampler(self, context, dimension, shares):
        return type(self)(self.multiplier / 2).honest(context, dimension, shares)

    def honest(self, context, dimension, shares):
        return super().sampler(context, dimension, shares)


class NoiseOfTheMean(fp.GaussianNoise):
    """Adds the noise that the mean is to have to the sum."""

    def sampler(self, context, dimension, shares):
        return super().sampler(context, dimension, shares * context.asked**2)


class ShareOfTheDeviation(fp.GaussianNoise):
    """Gives each client its share of the standard deviation instead of the variance."""

    def sampler(self, context, dimension, shares):
        return super().sampler(context, dimension, shares**2)


@dataclass(frozen=True)
class NoClip(fp.Clip):
    """Says that it clips."""

    def encode(self, update, context):
        return update


def test_half_of_the_noise_is_caught():
    # ε = 2.98 is stated, and such audits end at 3.7 ± 0.1.
    bound, stated = audit([fp.Clip(1.0), HalfNoise(1.5)], 2500, 0.95, runs=6, fractions=(0.2,))
    assert bound > stated


def test_noise_that_is_divided_by_the_cohort_is_caught():
    bound, stated = audit([fp.Clip(1.0), NoiseOfTheMean(1.0)], 1000, 0.999, fractions=(0.5,))
    assert bound > stated


def test_shares_that_do_not_add_up_to_the_noise_are_caught():
    stages = [ShareOfTheDeviation(1.0, where="distributed"), fp.SplitTrust(minimum_cohort=500)]
    bound, stated = audit([fp.Clip(1.0), *stages], 500, 0.99, fractions=(0.5,))
    assert bound > stated


@pytest.mark.parametrize(
    "channel",
    [
        [NoClip(1.0), fp.GaussianNoise(1.0)],
        [NoClip(1.0), fp.GaussianNoise(1.0, where="distributed"), fp.SplitTrust()],
    ],
)
def test_of_a_clip_that_does_not_clip_no_update_gets_into_a_sum(channel):
    inside = np.arange(20) % 2 == 0
    with pytest.raises(QuorumError, match="outside the") as caught:
        fp.train(
            fp.models.Linear(),
            canary_clients(inside, 20),
            algorithm=Canaries(size=10.0),
            channel=channel,
            rounds=1,
            quorum=1.0,
            engine=fp.InProcess(),
        )
    assert set(caught.value.failures) == {str(i) for i in range(20) if inside[i]}


def test_the_cosines_of_random_canaries_are_as_large_as_the_noise_lets_them_be():
    # Released is the sum of k canaries with noise of z·√d on it: a cosine is 1 / √(k + z²d) ± 1 / √d.
    canaries, size, z = 500, 10_000, 0.5
    clients = canary_clients(np.ones(canaries), size)
    released, guarantee = trained(Directions(), [fp.Clip(1.0), fp.GaussianNoise(z)], clients)
    released = released[:size] / np.linalg.norm(released[:size])
    cosines = [released @ direction(i, size) for i in range(canaries)]
    found = cosine_estimate(cosines, size, guarantee.delta)
    expected = 1 / math.sqrt(canaries + z**2 * size)
    assert found.mean == pytest.approx(expected, abs=6 / math.sqrt(size * canaries))
    # What k canaries add to the noise makes the estimate a little smaller than the truth.
    assert 0.6 * guarantee.epsilon < found.epsilon < 1.2 * guarantee.epsilon
