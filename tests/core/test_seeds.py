"""Seeds: named streams that are the same everywhere and independent of each other."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpact.core.seeds import Seed

paths = st.lists(st.one_of(st.integers(), st.text()), max_size=4)


def key(path):
    return tuple((type(part), part) for part in path)


@given(paths, paths)
def test_streams_differ_by_every_element_of_the_path(a, b):
    assert (Seed.of(7).child(*a) == Seed.of(7).child(*b)) == (key(a) == key(b))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (("ab", "c"), ("a", "bc")),
        ((1,), ("1",)),
        (("a",), ("a", "")),
        (("round", 11, "client"), ("round", 1, "1client")),
        (("i\x01\x00\x00\x001",), (1,)),
        ((12,), (1, 2)),
    ],
)
def test_paths_that_look_alike_are_different_streams(a, b):
    assert Seed.of(7).child(*a) != Seed.of(7).child(*b)
    assert Seed.of(7).child(*a).generator().random() != Seed.of(7).child(*b).generator().random()


def test_roots_differ_by_value_and_type():
    assert len({Seed.of(value).key for value in (0, 1, -1, "0", "1", "")}) == 6


def test_numpys_integers_are_integers():
    assert Seed.of(7).child("round", np.int64(3)) == Seed.of(7).child("round", 3)
    with pytest.raises(TypeError):
        Seed.of(7).child(0.5)


def test_a_child_does_not_depend_on_what_else_was_asked_for():
    seed = Seed.of(7)
    alone = seed.child("client", "lyon").generator().random(5)
    seed.generator().random(100)
    seed.child("client", "nice").generator().random(100)
    np.testing.assert_array_equal(seed.child("client", "lyon").generator().random(5), alone)


# These must never change: a job's numbers would change with them.
GOLDEN_KEY = "d6a641f5dcdd11c7a53f632f0bcc06fe0e70745c2ebce557b4f59aaa795555de"
GOLDEN_INTEGER = 7_172_245_114_614_502_251
GOLDEN_DRAWS = [6154815753115494847, 3041641325202942223]


def test_a_stream_is_the_one_it_always_was():
    seed = Seed.of(7).child("round", 3, "client", "lyon", "shuffle")
    assert seed.key.hex() == GOLDEN_KEY
    assert seed.integer() == GOLDEN_INTEGER
    assert seed.generator().integers(2**63, size=2).tolist() == GOLDEN_DRAWS


def test_a_stream_is_the_same_in_another_process():
    code = (
        "from fedpact.core.seeds import Seed; s = Seed.of(7).child('round', 3, 'client', 'lyon', 'shuffle'); "
        "print(s.key.hex(), s.integer(), s.generator().integers(2**63, size=2).tolist())"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "5"},
    )
    assert found.stdout.strip() == f"{GOLDEN_KEY} {GOLDEN_INTEGER} {GOLDEN_DRAWS}"


def test_integers_of_many_streams_are_uniform():
    # χ² over 64 equal bins of 6,400 streams: 63 degrees of freedom, so below 113.5 but once in 10^4.
    stats = pytest.importorskip("scipy.stats")
    seeds = [Seed.of(0).child("client", i) for i in range(6400)]
    integers = np.array([seed.integer() for seed in seeds])
    assert integers.min() >= 0
    assert stats.chisquare(np.bincount(integers >> 57, minlength=64)).pvalue > 1e-4
    assert stats.chisquare(np.bincount(integers & 63, minlength=64)).pvalue > 1e-4
    first = np.array([seed.generator().random() for seed in seeds])
    assert stats.kstest(first, "uniform").pvalue > 1e-4


def test_neighbouring_streams_are_not_correlated():
    draws = np.array([Seed.of(0).child("client", i).generator().normal(size=2000) for i in range(20)])
    correlations = np.corrcoef(draws)[np.triu_indices(20, 1)]
    # The standard deviation of each is 1/√2000 = 0.022; 190 of them stay within five of these.
    assert np.abs(correlations).max() < 0.112
