"""QSGD: levels of a norm, right on average, with the error of its lemma, in two codings of the same numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpact.algorithms.newton import Newton
from fedpact.channel.elias import encode
from fedpact.channel.qsgd import QSGD
from fedpact.core.errors import ChannelError, ConfigError, UpdateError
from tests.channel.packing import altered, error_of, mean_received, received, sent_of, serialised
from tests.channel.rounds import MIXED, begin, flat, random_vector, update, vector

floats = st.floats(-1e6, 1e6, width=32)


@given(
    hnp.arrays(np.float32, st.integers(1, 40), elements=floats),
    st.integers(1, 300),
    st.sampled_from([None, 1, 7, 512]),
)
def test_values_are_levels_of_their_buckets_norms_next_to_what_they_were(x, levels, bucket):
    arrived = flat(received(QSGD(levels, bucket), {"model": vector(x)})["model"])
    for start in range(0, x.size, bucket or x.size):
        part = slice(start, start + (bucket or x.size))
        norm = float(np.linalg.norm(x[part].astype(np.float64)))
        if norm < 1e-30:
            continue
        units = arrived[part] / norm * levels
        np.testing.assert_allclose(units, np.rint(units), atol=1e-4 * levels)
        assert np.abs(units - x[part] / norm * levels).max() <= 1 + 1e-4 * levels


@given(
    hnp.arrays(np.float32, st.integers(1, 60), elements=floats),
    st.sampled_from([1, 7, 1000]),
    st.integers(0, 3),
)
def test_both_codings_are_of_the_same_numbers(x, levels, number):
    one, two = (
        received(QSGD(levels, 16, coding), {"model": vector(x)}, number=number)["model"]
        for coding in ("fixed", "elias")
    )
    assert one == two


@pytest.mark.parametrize("levels", [1, 4])
def test_the_expectation_is_the_vector(levels):
    x = vector(np.random.default_rng(0).normal(size=40))
    found, deviation = mean_received(QSGD(levels), x, 2000)
    assert np.all(np.abs(found - flat(x)) < 5 * deviation + 1e-6)


@pytest.mark.parametrize(("levels", "bucket"), [(1, 512), (7, 512), (64, 4096), (1000, 4096)])
def test_the_error_is_that_of_the_theory_and_below_the_bound_of_the_lemma(levels, bucket):
    x = np.random.default_rng(1).normal(size=1 << 16)
    units = levels * np.abs(x.reshape(-1, bucket)) / np.linalg.norm(x.reshape(-1, bucket), axis=1)[:, None]
    share = units - np.floor(units)
    norms = np.sum(x.reshape(-1, bucket) ** 2, axis=1)
    # A number between two levels is at either with the probability of its distance to the other: p·(1 − p).
    wanted = np.sum((share * (1 - share)).sum(1) * norms) / levels**2 / np.sum(x**2)
    assert error_of(QSGD(levels, bucket), vector(x)) == pytest.approx(wanted, rel=0.02)
    assert wanted <= min(bucket / levels**2, math.sqrt(bucket) / levels)


def test_bytes_are_those_of_the_codings():
    vectors = {"model": random_vector(MIXED, np.random.default_rng(0))}
    sent, _ = sent_of(QSGD(7, 10), vectors)
    # 23 parameters in 15 values of 4 bits, three norms, and the buffers whole.
    assert sent.nbytes == len(serialised(sent)) == math.ceil(23 * 4 / 8) + 3 * 4 + 2 * 4 + 8
    sent, _ = sent_of(QSGD(7, 10, "elias"), vectors)
    assert sent.nbytes == len(serialised(sent))


def test_eliass_code_is_shorter_the_sparser_it_is():
    x = vector(np.random.default_rng(0).normal(size=1 << 16), np.float32)
    fixed, elias = (sent_of(QSGD(1, None, coding), {"model": x})[0].nbytes for coding in ("fixed", "elias"))
    assert fixed == (1 << 16) // 4 + 4
    # Of √n ≈ 256 numbers about 204 are not 0: a gap of some 320 takes 15 bits, a sign one, a 1 one.
    assert elias < 204 * 1.3 * 20 / 8
    # With √n levels the paper's bound is 2.8 bits a number and a norm; where a gap is 1 that takes a bit more.
    dense = sent_of(QSGD(256, None, "elias"), {"model": x})[0].nbytes
    assert dense * 8 < 3.2 * (1 << 16)


def test_what_no_client_half_makes_is_refused():
    vectors = {"model": vector(np.arange(1.0, 9), np.float32)}
    fixed, context = sent_of(QSGD(2), vectors)
    # Of 3 bits, 5 are no value of −2 … 2.
    for arrays in (
        {"levels": np.full(3, 255, np.uint8)},
        {"levels": np.zeros(2, np.uint8)},
        {"scales": None},
    ):
        with pytest.raises(UpdateError, match='client "lyon": "model"'):
            QSGD(2).receive(altered(fixed, arrays), context)
    stage = QSGD(2, coding="elias")
    sent, context = sent_of(stage, vectors)
    k = int(sent.packed["model"].numbers["count"])
    wrong = [
        altered(sent, numbers={"count": count}) for count in (math.nan, -1.0, 9.0, 0.5, k - 1.0, 1e300)
    ] + [
        altered(sent, {"gaps": encode(np.full(k, 9))}),
        altered(sent, {"gaps": encode(np.full(k, 2**32))}),
        altered(sent, {"gaps": np.full(1, 255, np.uint8)}),
        altered(sent, {"levels": encode(np.full(k, 3))}),
        altered(sent, {"levels": np.zeros(0, np.uint8)}),
        altered(sent, {"signs": np.zeros(7, np.uint8)}),
    ]
    for each in wrong:
        with pytest.raises(UpdateError, match='client "lyon": "model"'):
            stage.receive(each, context)


def test_zeros_and_models_pass_and_what_it_does_not_go_with_is_refused():
    for coding in ("fixed", "elias"):
        assert not flat(received(QSGD(coding=coding), {"model": vector(np.zeros(7))})["model"]).any()
    vectors = {"model": vector([1.0, -2.0])}
    assert QSGD().encode(update(kind="model", **vectors), begin(QSGD(), vectors)).kind == "model"
    with pytest.raises(ChannelError, match="take QSGD out"):
        QSGD().check([], Newton(), None)
    for settings in ({"levels": 0}, {"levels": 40000}, {"bucket": 0}, {"coding": "huffman"}):
        with pytest.raises(ConfigError, match="QSGD: "):
            QSGD(**settings)
    vectors = {"model": vector([1e300, 0.0])}
    with pytest.raises(UpdateError, match='client "lyon": "model" is larger'):
        QSGD().encode(update(**vectors), begin(QSGD(), vectors))
