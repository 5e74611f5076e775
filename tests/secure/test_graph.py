"""Who masks with whom: regular, mutual, connected, drawn from a seed; and how many neighbours that takes."""

import numpy as np
import pytest

from fedpact.core.errors import SecureError
from fedpact.secure.graph import choose, graph

SEED = bytes(range(32))
# Corrupt and dropped fractions → number of clients → k, t: as published with the conditions of `choose`.
TABLE = {
    (0.05, 0.05): {100: (30, 7), 300: (30, 15), 1000: (34, 18), 3000: (36, 19), 10_000: (38, 21)},
    (0.05, 0.10): {100: (36, 9), 300: (36, 15), 1000: (40, 19), 3000: (44, 21), 10_000: (46, 22)},
    (0.10, 0.10): {100: (42, 11), 300: (42, 22), 1000: (52, 28), 3000: (56, 30), 10_000: (60, 32)},
    (0.10, 0.20): {100: (54, 13), 300: (56, 25), 1000: (74, 33), 3000: (82, 37), 10_000: (88, 39)},
    (0.20, 0.20): {100: (72, 21), 300: (80, 42), 1000: (112, 58), 3000: (126, 66), 10_000: (134, 70)},
    (0.30, 0.10): {100: (72, 31), 300: (76, 52), 1000: (102, 68), 3000: (116, 77), 10_000: (124, 82)},
    (1 / 3, 1 / 3): {100: (99, 67), 300: (172, 88), 1000: (318, 163), 3000: (426, 218)},
}


@pytest.mark.parametrize(("count", "neighbours"), [(5, 2), (9, 4), (40, 16), (101, 30)])
def test_graph_is_regular_and_mutual(count, neighbours):
    made = graph(count, neighbours, SEED)
    for i in range(count):
        beside = made.beside(i)
        assert len(beside) == len(set(beside)) == neighbours
        assert i not in beside
        assert list(beside) == sorted(beside)
        assert all(i in made.beside(j) for j in beside)
        assert made.around(i) == {i, *beside}


def test_graph_is_a_harary_graph_on_a_permutation():
    networkx = pytest.importorskip("networkx")
    made = graph(40, 6, SEED)
    edges = {(i, j) for i in range(40) for j in made.beside(i)}
    ours = networkx.Graph(edges)
    # The circulant graph with these distances is Harary's H(6, 40): connected after any 5 clients are gone.
    assert networkx.is_isomorphic(ours, networkx.circulant_graph(40, [1, 2, 3]))
    assert networkx.node_connectivity(ours) == 6


@pytest.mark.parametrize("neighbours", [None, 6, 8])
def test_graph_with_as_many_neighbours_as_there_are_others_is_complete(neighbours):
    made = graph(7, neighbours, SEED)
    assert all(set(made.beside(i)) == set(range(7)) - {i} for i in range(7))


def test_the_seed_decides_who_is_beside_whom():
    assert graph(40, 4, SEED) == graph(40, 4, SEED)
    assert graph(40, 4, SEED).circle != graph(40, 4, bytes(32)).circle


def test_every_client_is_beside_every_other_equally_often():
    # 2,000 draws of 10 clients with 2 neighbours each: any other is one with probability 2/9.
    met = np.zeros(10)
    for i in range(2_000):
        met[list(graph(10, 2, i.to_bytes(32, "big")).beside(0))] += 1
    assert met[0] == 0
    deviation = (2_000 * 2 / 9 * 7 / 9) ** 0.5
    assert np.abs(met[1:] - 2_000 * 2 / 9).max() < 5 * deviation


@pytest.mark.parametrize(
    ("fractions", "clients", "expected"),
    [(fractions, n, k) for fractions, row in TABLE.items() for n, k in row.items() if n <= 3000],
)
def test_neighbours_and_threshold_are_those_of_the_table(fractions, clients, expected):
    assert choose(clients, *fractions, malicious=False) == expected


def test_neighbours_and_threshold_of_ten_thousand_are_those_of_the_table():
    for fractions, row in TABLE.items():
        if sum(fractions) < 0.3 and 10_000 in row:
            assert choose(10_000, *fractions, malicious=False) == row[10_000]


@pytest.mark.parametrize(
    ("clients", "corrupt", "drop"), [(100, 0.05, 0.1), (300, 0.1, 0.1), (1000, 0.05, 0.05)]
)
def test_against_a_malicious_server_parts_and_both_kinds_of_share_are_out_of_reach(clients, corrupt, drop):
    hypergeom = pytest.importorskip("scipy.stats").hypergeom
    k, t = choose(clients, corrupt, drop)
    bad, gone = int(corrupt * clients), int(drop * clients)
    both = clients * hypergeom.sf(2 * t - (k + 1) - 1, clients - 1, bad, k)
    # At the end of a part: itself, k/2 on one side, and the corrupt ones.
    part = clients * hypergeom.sf(t - (k // 2 + 1) - 1, clients - 1, bad, k)
    lost = clients * hypergeom.sf(k - t, clients - 1, gone, k)
    apart = clients * (corrupt + drop) ** (k / 2)
    assert part <= 2**-40
    assert both <= 2**-40
    assert lost <= 2**-30
    assert apart <= 2**-40


@pytest.mark.parametrize(("corrupt", "drop"), [(0.5, 0.5), (-0.1, 0.1), (1.0, 0.0)])
def test_fractions_that_leave_no_one_are_refused(corrupt, drop):
    with pytest.raises(SecureError, match="leave too few"):
        choose(100, corrupt, drop)
