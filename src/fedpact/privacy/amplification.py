"""Noise on a sample: an adversary who does not know who took part learns less.

The Gaussian's bounds are dp-accounting's (Mironov, Talwar and Zhang, "Rényi Differential Privacy of the Sampled
Gaussian Mechanism", 2019; Wang, Balle and Kasiviswanathan, AISTATS 2019); those of any other mechanism are own. None is
above what holds without sampling, since the divergence of two mixtures is at most that of their worst parts.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np

from fedpact.core.errors import ConfigError, DependencyError
from fedpact.privacy.events import (
    Everyone,
    FixedSize,
    Gaussian,
    Mechanism,
    Poisson,
    Relation,
    Sampling,
    Skellam,
)
from fedpact.privacy.renyi import INTEGER_ORDERS, Array, Curve, curve, gaussian

_QUICK_ORDERS = frozenset((*range(2, 65), 128, 256, 512, 1024))


def divergence(
    mechanism: Mechanism, sampling: Sampling, relation: Relation, orders: tuple[float, ...]
) -> Array:
    """Return a bound on the Rényi divergence of one release, for each order.

    Raises:
        ConfigError: no bound is known for this mechanism on this sample under this relation.
        DependencyError: a subsampled Gaussian, and dp-accounting is not installed.
    """
    factor = 2.0 if relation == "replace_one" else 1.0
    if isinstance(sampling, Everyone):
        return curve(mechanism, factor)(np.array(orders))
    _check_sampled(sampling, relation)
    if isinstance(mechanism, Gaussian):
        return _sampled_gaussian(mechanism.noise_multiplier / factor, sampling, orders)
    amplify = poisson_sampled if isinstance(sampling, Poisson) else sampled_without_replacement
    rate = sampling.rate if isinstance(sampling, Poisson) else sampling.size / sampling.population
    return amplify(curve(mechanism, factor), rate, np.array(orders))


def only_whole_orders(mechanism: Mechanism, sampling: Sampling) -> bool:
    """Return whether the bound on this release holds for whole orders alone."""
    return isinstance(mechanism, Skellam) or not (isinstance(mechanism, Gaussian) or sampling == Everyone())


def poisson_sampled(base: Curve, rate: float, orders: Array) -> Array:
    """Return the bound of any mechanism on a Poisson sample, when a unit is added or removed.

    Zhu and Wang, "Poisson Subsampled Rényi Differential Privacy", ICML 2019, Theorem 5.

    Args:
        base: the bound of the mechanism without sampling, at whole orders.
        rate: probability to be in the sample, below 1.
        orders: whole, 2 or more.
    """
    stay, join = math.log1p(-rate), math.log(rate)

    def moment(order: int) -> float:
        j, paired = _terms(base, order)
        terms = paired + (order - j) * stay + j * join
        terms[j > 2] += math.log(3.0)
        nobody = (order - 1) * stay + math.log1p((order - 1) * rate)
        return _log_sum(np.append(terms, nobody))

    return _amplified(base, orders, moment)


def sampled_without_replacement(base: Curve, rate: float, orders: Array) -> Array:
    """Return the bound of any mechanism on a sample of fixed size, when a unit is replaced by another.

    Wang, Balle and Kasiviswanathan, "Subsampled Rényi Differential Privacy and Analytical Moments Accountant", AISTATS
    2019, Theorem 9, without a bound at the infinite order.

    Args:
        base: the bound of the mechanism on the sample alone, at whole orders, for a replaced unit.
        rate: size of the sample over that of the population, below 1.
        orders: whole, 2 or more.
    """
    join = math.log(rate)

    def moment(order: int) -> float:
        j, paired = _terms(base, order)
        terms = paired + j * join + math.log(2.0)
        at_two = float(base(np.array([2.0]))[0])
        # log(4·(e^x − 1)) instead of log(2·e^x), where it is less.
        tight = math.log(4.0) + at_two + math.log(-math.expm1(-at_two)) if at_two > 0 else -math.inf
        terms[0] += min(tight - at_two - math.log(2.0), 0.0)
        return _log_sum(np.append(terms, 0.0))

    return _amplified(base, orders, moment)


def _terms(base: Curve, order: int) -> tuple[Array, Array]:
    """Return j = 2 … α, and log C(α, j) + (j − 1)·ε(j)."""
    j = np.arange(2.0, order + 1)
    return j, _log_factorial(order) - _log_factorials(order)[2:] - _log_factorials(order)[: order - 1][
        ::-1
    ] + (j - 1) * base(j)


@lru_cache(maxsize=1)
def _log_factorial_table() -> Array:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1.0, INTEGER_ORDERS[-1] + 1)))])


def _log_factorials(largest: int) -> Array:
    return _log_factorial_table()[: largest + 1]


def _log_factorial(number: int) -> float:
    return float(_log_factorial_table()[number])


def _amplified(base: Curve, orders: Array, moment: Callable[[int], float]) -> Array:
    """Return the bounds of log moments, which are never above what holds without sampling."""
    sampled = np.array([moment(int(order)) / (order - 1) for order in orders])
    return np.minimum(sampled, base(orders))


def _log_sum(terms: Array) -> float:
    return float(np.logaddexp.reduce(terms))


def _check_sampled(sampling: Poisson | FixedSize, relation: Relation) -> None:
    if isinstance(sampling, FixedSize) and relation == "add_or_remove":
        raise ConfigError(
            "sampling of a fixed size is accounted for under replace_one alone: one unit more or less would change the "
            'sample of all others. Set the relation to "replace_one", or sample by Poisson.'
        )
    if isinstance(sampling, Poisson) and relation == "replace_one":
        raise ConfigError(
            "under replace_one Poisson sampling is accounted for with Gaussian noise, through its privacy loss "
            'distribution, and with no other. Set the relation to "add_or_remove", or sample with a fixed size.'
        )


@lru_cache(maxsize=256)
def _sampled_gaussian(
    noise_multiplier: float, sampling: Poisson | FixedSize, orders: tuple[float, ...]
) -> Array:
    with dp_accounting_quiet():
        import dp_accounting
        from dp_accounting import rdp

        relations = dp_accounting.NeighboringRelation
        noise = dp_accounting.GaussianDpEvent(noise_multiplier)
        known = np.array(orders)
        if isinstance(sampling, Poisson):
            event = dp_accounting.PoissonSampledDpEvent(sampling.rate, noise)
            accountant = rdp.RdpAccountant(known, relations.ADD_OR_REMOVE_ONE)
        else:
            # Between whole orders it draws the straight line that `_without_gaps` draws, at twice the price.
            known = np.array([order for order in orders if order in _QUICK_ORDERS])
            event = dp_accounting.SampledWithoutReplacementDpEvent(sampling.population, sampling.size, noise)
            accountant = rdp.RdpAccountant(known, relations.REPLACE_ONE)
        bounds = np.full(len(orders), math.inf)
        # It offers no other way to the bounds; the version that has this is pinned.
        bounds[np.isin(orders, known)] = accountant.compose(event)._rdp
    return np.minimum(_without_gaps(np.array(orders), bounds), gaussian(noise_multiplier)(np.array(orders)))


def _without_gaps(orders: Array, bounds: Array) -> Array:
    """Fill in orders whose series did not converge, which dp-accounting leaves out with a remark in a log.

    (α − 1)·D_α is convex in α (van Erven and Harremoës, "Rényi Divergence and Kullback-Leibler Divergence", 2014,
    Corollary 2): a straight line between two orders is above it.
    """
    there = np.isfinite(bounds)
    if there.all() or not there.any():
        return bounds
    filled = np.interp(orders, orders[there], ((orders - 1) * bounds)[there], right=math.inf) / (orders - 1)
    # Below the first that is there, its own bound holds: D_α rises with α.
    return np.where(orders < orders[there][0], bounds[there][0], filled)


@contextmanager
def dp_accounting_quiet() -> Iterator[None]:
    """Import and call dp-accounting within this: it is asked for by name where it is missing, and logs nothing.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        from absl import logging
    except ModuleNotFoundError:
        raise _missing() from None
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "dp_accounting":
            raise
        raise _missing() from None
    finally:
        logging.set_verbosity(before)


def _missing() -> DependencyError:
    return DependencyError(
        'this accounting needs dp-accounting: pip install "fedpact[privacy]". Without it there is Gaussian noise with '
        "full participation, and discrete noise."
    )
