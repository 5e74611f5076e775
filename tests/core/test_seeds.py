"""Seeds: named streams that are the same everywhere and independent of each other."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpact.core.seeds import Seed, shuffle, shuffled

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


@given(st.text(max_size=5), st.lists(st.one_of(st.integers(), st.text()), max_size=5))
def test_children_are_the_child_of_each_name(name, parts):
    seed = Seed.of(7)
    assert seed.children(name, parts) == [seed.child(name, part) for part in parts]


@given(st.lists(st.integers(), max_size=5), paths)
def test_the_child_of_each_stream_is_each_streams_child(values, path):
    seeds = [Seed.of(value) for value in values]
    assert Seed.child_of_each(seeds, *path) == [seed.child(*path) for seed in seeds]


@given(st.lists(st.integers(), max_size=5), paths)
def test_many_streams_are_the_sequence_of_them(values, path):
    listed = [Seed.of(value).child(*path) for value in values]
    seeds = Seed.child_of_each(map(Seed.of, values), *path)
    assert seeds[1:] == listed[1:]
    assert list(seeds) == [seeds[i] for i in range(len(seeds))] == listed
    assert Seed.child_of_each(seeds, "model") == Seed.child_of_each(listed, "model")
    assert hash(seeds) == hash(tuple(listed))
    assert seeds != 7


def split_mix(state, count):
    """Return SplitMix64's next numbers before their last shift, as in the paper's figure 17, in Python's integers."""
    numbers = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        numbers.append((z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64)
    return numbers


def test_the_reference_generator_gives_the_published_numbers():
    # The first outputs for the seed 1234567, by which implementations are checked against Vigna's splitmix64.c.
    found = [z ^ (z >> 31) for z in split_mix(1234567, 3)]
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(st.integers(0, 2**32), st.integers(1, 300), st.integers(0, 3))
def test_rows_are_in_the_order_of_the_streams_numbers(value, n, epoch):
    seed = Seed.of(value)
    numbers = split_mix(int.from_bytes(seed.key[:8], "little"), (epoch + 1) * n)[epoch * n :]
    bits = max(1, (n - 1).bit_length())
    order = sorted(range(n), key=lambda row: (numbers[row] >> bits, row))
    assert shuffled([seed], epoch, n)[0].tolist() == order


@given(st.lists(st.tuples(st.integers(1, 70), st.integers(0, 3)), min_size=1, max_size=6))
def test_streams_with_different_numbers_of_rows_are_shuffled_together_as_alone(streams):
    seeds = [Seed.of(i) for i in range(len(streams))]
    sizes, epochs = (np.array(each) for each in zip(*streams, strict=True))
    together = shuffled(seeds, epochs, sizes)
    for seed, n, epoch, order in zip(seeds, sizes.tolist(), epochs.tolist(), together, strict=True):
        assert order[:n].tolist() == shuffled([seed], epoch, n)[0].tolist()
        assert not order[n:].any()


@given(st.integers(0, 2**32), st.integers(1, 9000), st.integers(0, 10**6))
def test_the_order_of_one_stream_alone_is_the_one_among_others(value, n, epoch):
    seeds = [Seed.of(value), Seed.of(value + 1)]
    assert shuffle(seeds[0], epoch, n).tolist() == shuffled(seeds, epoch, n)[0].tolist()


def test_every_row_is_as_likely_as_any_other_at_every_place():
    # χ² with 6·6 − 11 = 25 degrees of freedom: below 71 but once in 10^5.
    orders = shuffled([Seed.of(i) for i in range(6000)], 0, 6)
    counts = np.stack([np.bincount(column, minlength=6) for column in orders.T])
    assert (counts.sum(axis=0) == 6000).all()
    assert ((counts - 1000) ** 2 / 1000).sum() < 71


def test_a_shuffle_is_the_one_it_always_was():
    seeds = [Seed.of(7), Seed.of(8)]
    assert shuffled(seeds, 0, 8).tolist() == GOLDEN_SHUFFLES[0]
    assert shuffled(seeds, 1, 8).tolist() == GOLDEN_SHUFFLES[1]


# As above, these must never change.
GOLDEN_SHUFFLES = [
    [[7, 3, 6, 0, 1, 2, 4, 5], [0, 7, 5, 2, 6, 4, 3, 1]],
    [[5, 2, 6, 7, 1, 3, 0, 4], [3, 1, 6, 0, 5, 2, 4, 7]],
]
