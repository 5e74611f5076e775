"""Lossless compression: the same bits in fewer bytes, and no bytes that say they are more than they may be."""

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpact.algorithms.newton import Newton
from fedpact.algorithms.scaffold import SCAFFOLD
from fedpact.channel.lossless import Lossless
from fedpact.core.errors import ChannelError, ConfigError, UpdateError
from tests.channel.packing import altered, received, sent_of, serialised
from tests.channel.rounds import MIXED, begin, random_vector, update, vector


@given(
    hnp.arrays(np.float32, st.integers(0, 50), elements=st.floats(width=32, allow_subnormal=True)),
    st.sampled_from([1, 9, 22]),
)
def test_every_bit_comes_back(x, level):
    before = vector(x)
    assert received(Lossless(level), {"model": vector(x)})["model"] == before


def test_vectors_of_several_dtypes_come_back_and_counts_of_other_stages_pass():
    rng = np.random.default_rng(0)
    vectors, count = {"model": random_vector(MIXED, rng), "control": random_vector(MIXED, rng)}, vector([0.5])
    before = {name: v.copy() for name, v in vectors.items()}
    context = begin(Lossless(), vectors)
    arrived = Lossless().receive(Lossless().encode(update(**vectors, count=count), context), context).averaged
    assert arrived["count"] is count
    assert {name: arrived[name] for name in before} == before


def test_what_is_sent_is_zstandard_of_bytes_by_significance():
    x = np.random.default_rng(0).normal(scale=0.05, size=1 << 17).astype(np.float32)
    sent, _ = sent_of(Lossless(), {"model": vector(x)})
    assert sent.nbytes == len(serialised(sent))
    raw = zstandard.ZstdDecompressor().decompress(serialised(sent))
    assert raw == x.view(np.uint8).reshape(-1, 4).T.tobytes()
    # Measured by others on such weights: 84.2 %; without the sorting 92.5 %.
    assert sent.nbytes / x.nbytes == pytest.approx(0.842, abs=0.01)


def test_bytes_that_say_they_hold_more_are_refused_before_they_are_read():
    sent, context = sent_of(Lossless(), {"model": vector(np.ones(100))})
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 28))
    assert len(bomb) < 1 << 16
    good = sent.packed["model"].arrays["0"].tobytes()
    unsaid = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(800))
    for raw in (
        bomb,
        unsaid,
        good[:-3],
        good + b"more",
        b"",
        b"no frame at all",
        good[:6] + b"\xff" + good[7:],
    ):
        with pytest.raises(UpdateError, match='client "lyon": "model" came as'):
            Lossless().receive(altered(sent, {"0": np.frombuffer(raw, np.uint8)}), context)


def test_other_parts_and_other_vectors_are_refused():
    sent, context = sent_of(Lossless(), {"model": vector(np.ones(100))})
    for changes in ({"arrays": {"1": np.zeros(1, np.uint8)}}, {"layout": vector(np.ones(99)).layout}):
        with pytest.raises(UpdateError, match='client "lyon": "model"'):
            Lossless().receive(altered(sent, **changes), context)


def test_it_goes_with_control_variates_and_not_with_statistics():
    Lossless().check([], SCAFFOLD(), None)
    with pytest.raises(ChannelError, match="take Lossless out"):
        Lossless().check([], Newton(), None)
    for level in (0, 23):
        with pytest.raises(ConfigError, match="Lossless: level is"):
            Lossless(level)
