"""A running estimate of a quantile of the clients' norms, from one bit of each.

Andrew et al., "Differentially Private Learning with Adaptive Clipping", NeurIPS 2021, section 2 and Algorithm 1.
"""

from math import exp, hypot

import numpy as np

from fedpact.core.vector import Entry, Layout, Vector

COUNT = Layout([Entry("count", (1,), "float64")])
# An estimate that only ever shrinks or grows stays a number to divide by.
_LEAST, _LARGEST = 2.0**-60, 2.0**60


def count_of(below: bool, scale: float) -> Vector:
    """Return scale · (b − 1/2) as a vector: b is whether the client's norm is at most the estimate.

    So its norm is scale / 2, whatever b.
    """
    return Vector.from_arrays({"count": np.array([scale / 2 if below else -scale / 2])}, COUNT)


def with_count(bound: float, scale: float) -> float:
    """Return the L2 norm that an update of this bound does not exceed together with its count."""
    return hypot(bound, scale / 2)


def next_estimate(estimate: float, mean: Vector, scale: float, quantile: float, lr: float) -> float:
    """Return C · exp(−lr · (b̃ − quantile)), equation 2 of the paper: fewer clients within C make it larger.

    Args:
        estimate: C, the estimate of this round.
        mean: the mean of the counts, with or without noise.
        scale: of the counts.
        quantile: the quantile wanted.
        lr: the rate.
    """
    share = min(1.0, max(0.0, float(mean["count"][0]) / scale + 0.5))
    return min(_LARGEST, max(_LEAST, estimate * exp(-lr * (share - quantile))))
