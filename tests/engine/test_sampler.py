"""The sampler: who is asked, from the job's seed alone, and nobody more often than another."""

import math
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpact.core.errors import ConfigError
from fedpact.core.messages import Cohort, Cycle, Everyone, Named
from fedpact.core.seeds import Seed
from fedpact.data.populations.names import Numbered
from fedpact.engine.sampler import check_cohort, choose, count_of

SEED = Seed.of(3)
IDS = [f"client {i:02d}" for i in range(20)]


def cohort(number, round=0, ids=IDS, seed=SEED):
    return choose(Cohort(), ids, number, round, seed)


@given(st.integers(1, 20), st.integers(1, 30), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_cohort_has_the_size_asked_for_and_nobody_twice(total, size, round, seed):
    chosen = choose(Cohort(), IDS[:total], size, round, Seed.of(seed))
    assert len(chosen) == min(size, total)
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(IDS[:total])


def test_a_cohort_is_drawn_from_the_seed_and_the_round_alone():
    assert [cohort(5, r) for r in range(10)] == [cohort(5, r) for r in range(10)]
    assert cohort(5, 0) != cohort(5, 1)
    assert cohort(5, 0) != cohort(5, 0, seed=Seed.of(4))
    # These must never change: a resumed run asks the clients that an uninterrupted one asks.
    assert [int(id[-2:]) for id in cohort(5)] == [4, 5, 7, 9, 15]


def test_no_number_means_everybody_and_so_does_everyone():
    assert cohort(None) == IDS
    assert choose(Everyone(), IDS, 3, 0, SEED) == IDS


@pytest.mark.parametrize(
    ("share", "total", "size"),
    [(0.5, 20, 10), (0.5, 5, 3), (0.01, 20, 1), (1.0, 7, 7), (0.07, 100, 7), (0.55, 100, 55), (1 / 3, 3, 1)],
)
def test_a_share_is_rounded_up(share, total, size):
    assert count_of(share, total) == size
    assert len(cohort(share, ids=[str(i) for i in range(total)])) == size


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_a_share_written_in_percent_is_exact(percent, total):
    # In floats 0.07 · 100 is 7.000000000000001, whose ceiling is 8.
    assert count_of(float(f"{percent / 1000:.3f}"), total) == -(-percent * total // 1000)


def test_every_client_is_asked_equally_often():
    # A client is in 5 of 20 of 2,000 rounds: Σ (n − 500)²/500 · (20 − 1)/(20 − 5) is χ² with 19 degrees of
    # freedom, for drawing without replacement; below 50.8 but once in 10^4.
    counts = dict.fromkeys(IDS, 0)
    for round in range(2000):
        for id in cohort(5, round):
            counts[id] += 1
    deviations = np.array(list(counts.values())) - 500
    assert np.sum(deviations**2) / 500 * 19 / 15 < 50.8
    assert np.any(deviations != 0)


def test_pairs_of_clients_are_asked_together_equally_often():
    # Each of 190 pairs is in a cohort of 5 with probability 20/380; of 2,000 rounds that is 105.3 ± 10.
    together = np.zeros((20, 20))
    for round in range(2000):
        chosen = [IDS.index(id) for id in cohort(5, round)]
        together[np.ix_(chosen, chosen)] += 1
    pairs = together[np.triu_indices(20, 1)]
    assert np.abs(pairs - 2000 * 20 / 380).max() < 5 * 10


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_cycle_asks_everybody_once_in_every_pass(shuffle):
    asked = [choose(Cycle(shuffle), IDS, None, round, SEED) for round in range(60)]
    assert all(len(ids) == 1 for ids in asked)
    for turn in range(3):
        assert sorted(ids[0] for ids in asked[20 * turn : 20 * turn + 20]) == IDS


def test_a_cycle_goes_by_name_or_in_a_new_order_every_pass():
    passes = {
        shuffle: [
            [choose(Cycle(shuffle), IDS, None, 20 * turn + i, SEED)[0] for i in range(20)]
            for turn in range(2)
        ]
        for shuffle in (False, True)
    }
    assert passes[False] == [IDS, IDS]
    assert passes[True][0] != passes[True][1] != IDS


def test_a_cycle_over_nobody_asks_nobody():
    assert choose(Cycle(), [], None, 0, SEED) == []
    assert choose(Cohort(), [], 0.5, 0, SEED) == []


def test_named_clients_are_asked_in_the_order_given():
    assert choose(Named((IDS[7], IDS[2])), IDS, 1, 0, SEED) == [IDS[7], IDS[2]]


def test_a_named_client_that_is_not_there_is_an_error():
    with pytest.raises(ConfigError, match='client "lyon" is asked by name but is not there in round 4'):
        choose(Named((IDS[0], "lyon")), IDS, None, 4, SEED)


def test_a_cohort_larger_than_the_population_is_refused():
    with pytest.raises(ConfigError, match="cohort is 21 clients, but there are only 20; ask for at most 20"):
        check_cohort(21, 1, 20)
    for fine in (20, 1, 0.5, 1.0, None):
        check_cohort(fine, 1, 20)


def test_a_quorum_larger_than_the_cohort_is_refused():
    with pytest.raises(
        ConfigError, match=r"quorum is 6 clients, but only 5 are asked in a round; ask for .* at most 5"
    ):
        check_cohort(0.25, 6, 20)
    for fine in (5, 1, 0.5, 1.0):
        check_cohort(0.25, fine, 20)


MANY = Numbered(10_000_000)


class Counting(Numbered):
    """Names that count how often one is made."""

    made = 0

    def at(self, place):
        self.made += 1
        return super().at(place)


@pytest.mark.parametrize("size", [1, 100, 5000])
def test_a_cohort_of_ten_million_costs_no_more_than_itself(size):
    names = Counting(10_000_000)
    tracemalloc.start()
    chosen = choose(Cohort(), names, size, 0, SEED)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(set(chosen)) == names.made == size
    # Names of 7 digits take 56 bytes each, their places 8; all places would take 80 MB.
    assert peak < 20_000 + 250 * size


def test_ten_million_are_drawn_from_evenly():
    # 20,000 places in 10 bins: Σ (n − 2,000)²/2,000 is χ² with 9 degrees of freedom, below 33.7 but once in 10^4.
    places = [int(id) for round in range(4) for id in choose(Cohort(), MANY, 5000, round, SEED)]
    counts = np.bincount(np.array(places) // 1_000_000, minlength=10)
    assert np.sum((counts - 2000) ** 2) / 2000 < 33.7


@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 10**6))
def test_names_made_on_demand_are_chosen_as_the_list_of_them_is(total, size, round):
    names = Numbered(total)
    for to in (Cohort(), Cycle(), Cycle(shuffle=True), Everyone()):
        assert choose(to, names, size, round, SEED) == choose(to, list(names), size, round, SEED)


def test_clients_named_among_ten_million_are_found_without_a_search():
    names = Counting(10_000_000)
    wanted = tuple(MANY[place] for place in (9_999_999, 0, 5_000_000))
    assert choose(Named(wanted), names, None, 0, SEED) == list(wanted)
    assert names.made < 100
    with pytest.raises(ConfigError, match='client "x" is asked by name but is not there'):
        choose(Named(("x",)), MANY, None, 0, SEED)


def test_a_share_of_ten_million_is_counted_without_asking_anybody():
    names = Counting(10_000_000)
    check_cohort(0.001, 100, len(names))
    assert (count_of(0.001, len(names)), names.made) == (10_000, 0)


def poisson(number, round=0, ids=IDS, seed=SEED):
    return choose(Cohort(), ids, number, round, seed, "poisson")


def test_the_size_of_a_poisson_cohort_is_binomial():
    # Of 20 clients each with probability 1/4, in 4,000 rounds: Σ (n − e)²/e over the sizes 0 and 1, 2, …, 8, and 9 and
    # more is χ² with 8 degrees of freedom, below 31.8 but once in 10^4.
    sizes = np.bincount([len(poisson(5, round)) for round in range(4000)], minlength=21)
    expected = np.array([math.comb(20, k) * 0.25**k * 0.75 ** (20 - k) for k in range(21)]) * 4000
    found, wanted = (np.array([n[:2].sum(), *n[2:9], n[9:].sum()]) for n in (sizes, expected))
    assert np.sum((found - wanted) ** 2 / wanted) < 31.8


def test_every_client_is_in_a_poisson_cohort_equally_often():
    # Each of 20 is in 4,000 rounds with probability 1/4: Σ (n − 1000)²/750 is χ² with 20 degrees of freedom, below
    # 52.4 but once in 10^4.
    counts = np.zeros(20)
    for round in range(4000):
        counts[[IDS.index(id) for id in poisson(5, round)]] += 1
    assert np.sum((counts - 1000) ** 2) / 750 < 52.4


def test_pairs_are_in_a_poisson_cohort_as_coins_would_have_it():
    # With coins of their own, two clients are together in 1/16 of 4,000 rounds: 250 ± 15.3. Drawn without replacement
    # it would be 5 · 4 / (20 · 19) of them: 210.
    together = np.zeros((20, 20))
    for round in range(4000):
        chosen = [IDS.index(id) for id in poisson(5, round)]
        together[np.ix_(chosen, chosen)] += 1
    pairs = together[np.triu_indices(20, 1)]
    assert np.abs(pairs - 250).max() < 5 * 15.3
    # The mean over all 190 pairs is as certain as that of Σ over rounds of size · (size − 1) / 2.
    assert abs(pairs.mean() - 250) < 5 * 2.6


def test_two_rounds_of_poisson_cohorts_are_independent():
    # A client is in two rounds in a row in 1/16 of 3,999 pairs of rounds.
    cohorts = [set(poisson(5, round)) for round in range(4000)]
    again = [len(a & b) for a, b in pairwise(cohorts)]
    assert np.mean(again) == pytest.approx(20 / 16, abs=5 * np.std(again) / math.sqrt(len(again)))


def test_a_poisson_cohort_is_drawn_from_the_seed_and_the_round_alone():
    assert [poisson(5, r) for r in range(10)] == [poisson(5, r) for r in range(10)]
    assert poisson(5, 0) != poisson(5, 1)
    assert poisson(5, 0) != poisson(5, 0, seed=Seed.of(4))
    assert all(ids == sorted(set(ids)) for ids in (poisson(5, r) for r in range(50)))
    # These must never change: a resumed run asks the clients that an uninterrupted one asks.
    assert [int(id[-2:]) for id in poisson(5)] == [7, 9, 14, 19]


@pytest.mark.parametrize("number", [None, 20, 1.0])
def test_everybody_is_a_poisson_cohort_of_all(number):
    assert all(poisson(number, round) == IDS for round in range(5))


def test_a_poisson_cohort_may_be_empty():
    sizes = [len(poisson(1, round)) for round in range(400)]
    # (19/20)^20 = 36 % of 400 rounds: 143 ± 9.6.
    assert abs(sizes.count(0) - 143) < 5 * 9.6


@pytest.mark.parametrize("to", [Everyone(), Cycle(), Cycle(shuffle=True), Named((IDS[3], IDS[1]))])
def test_whom_the_algorithm_names_is_asked_however_cohorts_are_drawn(to):
    for round in range(5):
        drawn = [choose(to, IDS, 5, round, SEED, sampling) for sampling in ("fixed", "poisson")]
        assert drawn[0] == drawn[1]


def test_a_poisson_cohort_of_ten_million_costs_no_more_than_itself():
    names = Counting(10_000_000)
    tracemalloc.start()
    chosen = choose(Cohort(), names, 1000, 0, SEED, "poisson")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert abs(len(chosen) - 1000) < 5 * 32
    assert names.made == len(chosen)
    assert peak < 20_000 + 250 * len(chosen)


@pytest.mark.parametrize("size", [1, 5, 7, 20])
def test_cyclic_cohorts_ask_everybody_again_only_when_all_others_were(size):
    asked = [choose(Cohort(), IDS, size, round, SEED, "cyclic") for round in range(60)]
    assert all(len(set(ids)) == size for ids in asked)
    for id in IDS:
        rounds = [round for round, ids in enumerate(asked) if id in ids]
        apart = np.diff(rounds)
        assert apart.min() >= 20 // size
        assert len(rounds) in (60 * size // 20, 60 * size // 20 + 1)
