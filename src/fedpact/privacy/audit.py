"""What an attack proves about the privacy of a run: lower bounds of ε that hold with a given confidence.

Canaries are units of privacy made to be recognised: each is put in by a coin of its own, and gets a score from what was
released. Steinke, Nasr and Jagielski, "Privacy Auditing with One (1) Training Run", NeurIPS 2023 (theorem 5.2);
Mahloujifar, Melis and Chaudhuri, "Auditing f-Differential Privacy in One Run", ICML 2025 (algorithm 3). Over many
runs: Jagielski, Ullman and Oprea, "Auditing Differentially Private Machine Learning", NeurIPS 2020. An estimate, and no
bound: Andrew et al., "One-shot Empirical Privacy Estimation for Federated Learning", ICLR 2024 (section 3).

A bound above the ε of a privacy statement shows that the statement is wrong. One below it shows nothing: it is of this
attack, and even for the best attack it is well below the true ε.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedpact.core.errors import ConfigError, suggest
from fedpact.privacy.calibration import gaussian_epsilon

Method = Literal["f_dp", "one_run"]

FRACTIONS = (0.02, 0.05, 0.1, 0.2, 0.5)
_MOST_EPSILON = 64.0
_STEPS = 40
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Audit:
    """A lower bound of ε, and the guesses that it was found from.

    Args:
        epsilon: the bound, 0 or more.
        delta: the δ for which it holds.
        confidence: how probable it is at least that the true ε is no smaller.
        guesses: of how many canaries the attack guessed whether they were in;
        correct: and how often it was right.
    """

    epsilon: float
    delta: float
    confidence: float
    guesses: int
    correct: int


def audit_scores(
    scores: ArrayLike,
    included: ArrayLike,
    delta: float,
    confidence: float = 0.95,
    method: Method = "f_dp",
    fractions: Sequence[float] = FRACTIONS,
) -> Audit:
    """Return the best bound from one run whose canaries were put in by fair coins.

    Of a fraction of the canaries it guesses: that those of the highest scores are in, and as many of the lowest out.
    Each fraction has its share of the error that the confidence leaves (Bonferroni).

    Args:
        scores: [canaries], higher for those that are in.
        included: [canaries], whether each is.
        delta: δ.
        confidence: of the bound, such as 0.95.
        method: "f_dp" supposes that the trade-off between the errors of an attack is that of Gaussian noise, and is the
            tighter; "one_run" supposes nothing.
        fractions: of how many canaries to guess.

    Raises:
        ConfigError: the arrays are not of one length, nothing can be guessed, or a number is out of its range.
    """
    values, inside = np.asarray(scores, np.float64), np.asarray(included, bool)
    if values.ndim != 1 or values.shape != inside.shape or values.size < 2 or not fractions:
        raise ConfigError(
            f"an audit takes a score and a coin of each of two canaries or more; got arrays of shape {values.shape} "
            f"and {inside.shape}, and {len(fractions)} fractions."
        )
    if method not in get_args(Method):
        raise ConfigError(
            f'there is no audit "{method}"; known: {", ".join(get_args(Method))}.{suggest(method, get_args(Method))}'
        )
    bound = f_dp_epsilon if method == "f_dp" else one_run_epsilon
    inside = inside[np.argsort(values, kind="stable")]
    share = 1 - (1 - confidence) / len(fractions)
    best = Audit(0.0, delta, confidence, 0, 0)
    for fraction in fractions:
        each = max(1, round(fraction * values.size / 2))
        correct = int(np.count_nonzero(inside[-each:]) + np.count_nonzero(~inside[:each]))
        epsilon = bound(values.size, 2 * each, correct, delta, share)
        if epsilon > best.epsilon or best.guesses == 0:
            best = Audit(epsilon, delta, confidence, 2 * each, correct)
    return best


def one_run_epsilon(
    canaries: int, guesses: int, correct: int, delta: float, confidence: float = 0.95
) -> float:
    """Return the largest ε that so many correct guesses refute (Steinke, Nasr and Jagielski, theorem 5.2).

    With W of binomial distribution (guesses, e^ε / (1 + e^ε)), as many guesses are right with probability at most
    P[W ≥ correct] + 2·canaries·δ·max_i P[correct − i ≤ W < correct] / i.

    Args:
        canaries: how many there were, each put in by a fair coin.
        guesses: about how many the attack made a guess.
        correct: how many guesses were right.
        delta: δ.
        confidence: of the bound.

    Raises:
        ConfigError: a number is out of its range.
    """
    _check(canaries, guesses, correct, delta, confidence)
    places = np.arange(1, correct + 1)

    def refuted(epsilon: float) -> bool:
        tail = _tails(guesses, 1 / (1 + math.exp(-epsilon)))
        beyond = float(tail[correct])
        slack = float(np.max((tail[correct - places] - beyond) / places, initial=0.0))
        return beyond + 2 * canaries * delta * slack < 1 - confidence

    return _last(refuted, _MOST_EPSILON)


def f_dp_epsilon(canaries: int, guesses: int, correct: int, delta: float, confidence: float = 0.95) -> float:
    """Return the largest ε that so many correct guesses refute, of Gaussian noise (Mahloujifar et al., algorithm 3).

    It refutes that the run is μ-Gaussian differentially private, for the largest μ that it can, and returns the ε of
    Gaussian noise with that μ for this δ. So it holds for claims about Gaussian noise, or noise as good as it.

    Args:
        canaries: how many there were, each put in by a fair coin.
        guesses: about how many the attack made a guess.
        correct: how many guesses were right.
        delta: δ; it converts the bound and does not weaken it.
        confidence: of the bound.

    Raises:
        ConfigError: a number is out of its range.
    """
    _check(canaries, guesses, correct, delta, confidence)

    def refuted(mu: float) -> bool:
        right = (1 - confidence) * correct / canaries
        wrong = (1 - confidence) * (guesses - correct) / canaries
        for i in range(correct - 1, -1, -1):
            more = _less(right, mu)
            if more <= wrong:
                break
            right = min(1.0, right + i / (guesses - i) * (more - wrong))
            wrong = more
        return right + wrong > guesses / canaries

    mu = _last(refuted, _MOST_EPSILON)
    return gaussian_epsilon(1 / mu, delta) if mu > 0 else 0.0


def two_world_epsilon(
    included: ArrayLike, excluded: ArrayLike, delta: float, confidence: float = 0.95
) -> float:
    """Return the largest ε that scores from many runs refute, half of them with the canary and half without.

    The first half of the scores of each world chooses a threshold; of the second half, the rates of right and of false
    alarms are bounded (Clopper and Pearson), and ε ≥ ln((right − δ) / false).

    Args:
        included: scores [runs] with the canary, the higher.
        excluded: scores [runs] without it.
        delta: δ.
        confidence: of the bound.

    Raises:
        ConfigError: there are fewer than two scores of a world, or a number is out of its range.
    """
    within, without = np.asarray(included, np.float64).ravel(), np.asarray(excluded, np.float64).ravel()
    if min(within.size, without.size) < 2:
        raise ConfigError(
            f"{within.size} scores with the canary and {without.size} without it; give two or more each."
        )
    _check(1, 1, 1, delta, confidence)
    share = 1 - (1 - confidence) / 2
    first, second = within[: within.size // 2], within[within.size // 2 :]
    first_out, second_out = without[: without.size // 2], without[without.size // 2 :]

    def promise(above: NDArray[np.float64], below: NDArray[np.float64], threshold: float) -> float:
        right, false = np.count_nonzero(above >= threshold), np.count_nonzero(below >= threshold)
        certain = (right - 2 * math.sqrt(right)) / above.size - delta
        return (
            math.log(certain * below.size / (false + 2 * math.sqrt(false) + 3)) if certain > 0 else -math.inf
        )

    # That the canary is missed is as telling as that it is found: with the signs turned, the one is the other.
    thresholds = np.quantile(np.concatenate([first, first_out]), np.linspace(0, 1, 257)).tolist()
    found = max((promise(first, first_out, t), t) for t in thresholds)
    missed = max((promise(-first_out, -first, -t), t) for t in thresholds)
    if found >= missed:
        return _two_world_bound(second, second_out, found[1], delta, share)
    return _two_world_bound(-second_out, -second, -missed[1], delta, share)


def _two_world_bound(
    above: NDArray[np.float64], below: NDArray[np.float64], threshold: float, delta: float, confidence: float
) -> float:
    right, _ = clopper_pearson(int(np.count_nonzero(above >= threshold)), above.size, confidence)
    _, false = clopper_pearson(int(np.count_nonzero(below >= threshold)), below.size, confidence)
    return max(0.0, math.log((right - delta) / false)) if right > delta else 0.0


def clopper_pearson(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    """Return what a probability is no smaller, and no larger, than: each with this confidence.

    Raises:
        ConfigError: there are more successes than trials, or the confidence is none.
    """
    _check(trials, trials, successes, 0.0, confidence)
    lower = _last(lambda p: _tails(trials, p)[successes] < 1 - confidence, 1.0) if successes else 0.0
    failures = trials - successes
    upper = 1 - _last(lambda p: _tails(trials, p)[failures] < 1 - confidence, 1.0) if failures else 1.0
    return lower, upper


@dataclass(frozen=True)
class CosineEstimate:
    """What the cosines of canaries with a release estimate; see `cosine_estimate`.

    Args:
        mean: of the cosines;
        std: and their standard deviation.
        epsilon: the estimate of ε. It is no bound.
        delta: the δ for which it is.
    """

    mean: float
    std: float
    epsilon: float
    delta: float


def cosine_estimate(cosines: ArrayLike, dimension: int, delta: float) -> CosineEstimate:
    """Return the ε that random canaries suggest (Andrew et al., section 3).

    Canaries are independent, uniform on the unit sphere. The cosine of one that was not put in is normal with variance
    1/dimension; that of one that was, normal with the mean and variance of these. ε is that of telling the two apart.
    For the Gaussian mechanism, and far more dimensions than canaries, it is the true one.

    Args:
        cosines: [canaries], of each canary that was put in with what was released.
        dimension: how many numbers were released.
        delta: δ.

    Raises:
        ConfigError: there are no two different cosines, or a number is out of its range.
    """
    found = np.asarray(cosines, np.float64).ravel()
    if dimension < 1 or not (np.isfinite(found).all() and np.unique(found).size > 1):
        raise ConfigError(
            f"{found.size} cosines in {dimension} dimensions estimate nothing; give finite ones that differ, one of "
            "each canary."
        )
    _check(1, 1, 1, delta, 0.5)
    mean, std = float(np.mean(found)), float(np.std(found, ddof=1))
    absent, present = NormalDist(0.0, dimension**-0.5), NormalDist(mean, std)

    def refuted(epsilon: float) -> bool:
        return max(_divergence(present, absent, epsilon), _divergence(absent, present, epsilon)) > delta

    return CosineEstimate(mean, std, _last(refuted, _MOST_EPSILON), delta)


def _divergence(p: NormalDist, q: NormalDist, epsilon: float) -> float:
    """Return the least δ with P[A] ≤ e^ε·Q[A] + δ for every A."""
    # Where the logarithm of the densities' ratio is above ε: a·x² + b·x + c > 0.
    a = 0.5 / q.variance - 0.5 / p.variance
    b = p.mean / p.variance - q.mean / q.variance
    c = 0.5 * q.mean**2 / q.variance - 0.5 * p.mean**2 / p.variance + math.log(q.stdev / p.stdev) - epsilon

    def mass(low: float, high: float) -> float:
        # From the upper tail where it is the smaller one, so that nothing is lost of it.
        def between(n: NormalDist) -> float:
            if low > n.mean:
                return n.cdf(2 * n.mean - low) - n.cdf(2 * n.mean - high)
            return n.cdf(high) - n.cdf(low)

        return between(p) - math.exp(epsilon) * between(q)

    if a == 0:
        if b == 0:
            return 0.0
        return mass(-c / b, math.inf) if b > 0 else mass(-math.inf, -c / b)
    inner = b * b - 4 * a * c
    if inner <= 0:
        return mass(-math.inf, math.inf) if a > 0 else 0.0
    # With nearly equal variances one root is far away, and the difference that gives the other would be lost.
    larger = -(b + math.copysign(math.sqrt(inner), b)) / 2
    low, high = sorted((larger / a, c / larger))
    return mass(low, high) if a < 0 else mass(-math.inf, low) + mass(high, math.inf)


def _less(probability: float, mu: float) -> float:
    """Return Φ(Φ⁻¹(probability) − μ)."""
    if not 0 < probability < 1:
        return float(probability >= 1)
    return _NORMAL.cdf(_NORMAL.inv_cdf(probability) - mu)


def _last(holds: Callable[[float], bool], most: float) -> float:
    """Return up to where something holds that holds, if at all, from 0 on; 0 where it does not."""
    if not holds(0.0):
        return 0.0
    low, high = 0.0, most
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _tails(trials: int, probability: float) -> NDArray[np.float64]:
    """Return P[W ≥ v] for v = 0 … trials + 1, of W with the binomial distribution."""
    if probability <= 0 or probability >= 1:
        return np.array([1.0] + [float(probability >= 1)] * trials + [0.0])
    v = np.arange(trials + 1)
    mass = np.exp(_choices(trials) + v * math.log(probability) + (trials - v) * math.log1p(-probability))
    return np.append(np.cumsum(mass[::-1])[::-1], 0.0)


@lru_cache(maxsize=16)
def _choices(trials: int) -> NDArray[np.float64]:
    """Return ln C(trials, v) for v = 0 … trials."""
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])
    return factorials[-1] - factorials - factorials[::-1]


def _check(canaries: int, guesses: int, correct: int, delta: float, confidence: float) -> None:
    if not 0 <= correct <= guesses <= canaries or guesses < 1:
        raise ConfigError(
            f"{correct} of {guesses} guesses about {canaries} canaries were right; there is one guess or more, and no "
            "more than canaries."
        )
    if not 0 <= delta < 1 or not 0 < confidence < 1:
        raise ConfigError(
            f"delta is {delta} and confidence {confidence}; both are between 0 and 1, such as 1e-5 and 0.95."
        )
