"""Shares: a threshold of them gives the secret back, and fewer say nothing about it."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from fedpact.core.errors import SecureError
from fedpact.secure.shamir import PRIME, combine, secret, split


def share(value):
    return value.to_bytes(32, "big")


def test_the_modulus_is_a_prime():
    # Fermat's test to a few bases; 2^256 − 189 is the largest prime below 2^256.
    assert PRIME == 2**256 - 189
    assert all(pow(base, PRIME - 1, PRIME) == 1 for base in (2, 3, 5, 7, 11, 13))


def test_known_shares_give_the_known_secret():
    # 1234 + 166 x + 94 x² at 1 … 6: the worked example of the encyclopaedia's article on Shamir's secret sharing.
    known = {1: 1494, 2: 1942, 3: 2578, 4: 3402, 5: 4414, 6: 5614}
    for points in combinations(known, 3):
        assert combine({x: share(known[x]) for x in points}) == share(1234)


def test_known_shares_around_the_modulus_give_the_known_secret():
    # The line −1 + 3 x, so that the secret is p − 1.
    assert combine({1: share(2), 2: share(5)}) == share(PRIME - 1)


@pytest.mark.parametrize(("threshold", "holders"), [(1, 1), (1, 3), (2, 3), (3, 3), (4, 6)])
def test_every_set_of_a_threshold_of_shares_or_more_gives_the_secret(threshold, holders):
    value = secret()
    shares = dict(zip(range(1, holders + 1), split(value, threshold, range(1, holders + 1)), strict=True))
    for size in range(threshold, holders + 1):
        for points in combinations(shares, size):
            assert combine({x: shares[x] for x in points}) == value


@given(st.integers(0, PRIME - 1), st.integers(1, 12), st.data())
def test_any_secret_comes_back_for_any_points(value, threshold, data):
    points = data.draw(st.lists(st.integers(1, 10_000), min_size=threshold, max_size=20, unique=True))
    shares = dict(zip(points, split(share(value), threshold, points), strict=True))
    chosen = data.draw(st.permutations(points))[:threshold]
    assert combine({x: shares[x] for x in chosen}) == share(value)


def test_one_share_too_few_fits_every_secret_equally():
    points = range(1, 6)
    few = dict(zip(points, split(secret(), 4, points), strict=True))
    few = {x: few[x] for x in (1, 2, 5)}
    for other in (share(0), share(1), secret()):
        # A polynomial through the three shares and any secret at 0 exists: its share at 3 is found by
        # interpolating at 3, which is what `combine` does once every point is moved by 3.
        moved = {(x - 3) % PRIME: y for x, y in {**few, 0: other}.items()}
        forged = combine(moved)
        assert combine({**few, 3: forged}) == other


def test_fewer_shares_than_the_threshold_are_uniform_whatever_the_secret():
    for value in (share(0), share(PRIME - 1)):
        seen = b"".join(b"".join(split(value, 3, (1, 2, 3))[:2]) for _ in range(2_000))
        assert chisquare(np.bincount(np.frombuffer(seen, np.uint8), minlength=256)).pvalue > 1e-6


def test_fewer_shares_than_the_threshold_put_together_are_uniform():
    value = share(42)
    wrong = b"".join(
        combine(dict(zip((1, 2), split(value, 3, (1, 2, 3))[:2], strict=True))) for _ in range(3_000)
    )
    assert chisquare(np.bincount(np.frombuffer(wrong, np.uint8), minlength=256)).pvalue > 1e-6


@pytest.mark.parametrize(
    ("value", "threshold", "points", "match"),
    [
        (bytes(31), 1, (1,), "is 32 bytes"),
        (share(PRIME), 1, (1,), "below 2\\^256"),
        (bytes(32), 0, (1,), "threshold of 0"),
        (bytes(32), 3, (1, 2), "threshold of 3"),
        (bytes(32), 1, (0, 1), "not 0"),
        (bytes(32), 1, (1, 1), "different"),
    ],
)
def test_what_cannot_be_shared_is_refused(value, threshold, points, match):
    with pytest.raises(SecureError, match=match):
        split(value, threshold, points)


def test_what_cannot_be_put_together_is_refused():
    for shares, match in (({}, "from no shares"), ({0: bytes(32)}, "not 0"), ({1: share(PRIME)}, "below")):
        with pytest.raises(SecureError, match=match):
            combine(shares)
