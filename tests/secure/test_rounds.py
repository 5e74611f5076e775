"""Secure sums: exact over those who stay, for whoever drops out whenever, or given up."""

from itertools import combinations, product

import numpy as np
import pytest

from fedpact.core.errors import SecureError
from fedpact.secure.parameters import Parameters, least_threshold
from fedpact.secure.server import PHASES
from tests.secure.parties import Parties, clear_sum, names, vectors

SIZE = 7


def expected(count, threshold, absent):
    """Return who is in the sum, or None where it is given up: counted from the rules of the protocol."""
    left = set(names(count))
    uploaded = None
    for phase in PHASES:
        left -= {name for name, when in absent.items() if when == phase}
        if len(left) < threshold:
            return None
        uploaded = set(left) if phase == "upload" else uploaded
    return uploaded


def check(parties, parameters, inputs, absent):
    uploaded = expected(parameters.clients, parameters.threshold, absent)
    if uploaded is None:
        with pytest.raises(SecureError, match="the round is given up"):
            parties.sum(parameters, inputs, absent)
    else:
        total, survivors = parties.sum(parameters, inputs, absent)
        assert set(survivors) == uploaded
        assert np.array_equal(total, clear_sum(inputs, survivors, parameters.bits))


def test_sum_is_exact_or_given_up_for_every_two_of_four_dropping_out_anywhere():
    parties, inputs = Parties(4), vectors(4, SIZE, 32)
    parameters = Parameters.complete(4, minimum_cohort=2)
    for pair in combinations(names(4), 2):
        for when in product((*PHASES, "never"), repeat=2):
            check(parties, parameters, inputs, dict(zip(pair, when, strict=True)))


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("phase", PHASES)
def test_sum_is_exact_or_given_up_for_every_set_of_dropouts(count, phase):
    parties, inputs = Parties(count), vectors(count, SIZE, 20)
    parameters = Parameters.complete(count, minimum_cohort=2, bits=20)
    for size in range(count + 1):
        for gone in combinations(names(count), size):
            check(parties, parameters, inputs, dict.fromkeys(gone, phase))


def test_sum_is_exact_for_two_of_seven_dropping_out_anywhere():
    parties, inputs = Parties(7), vectors(7, SIZE, 16)
    parameters = Parameters.complete(7, bits=16, dropouts=2)
    for when in product(PHASES, repeat=2):
        absent = dict(zip(("client 001", "client 004"), when, strict=True))
        assert expected(7, parameters.threshold, absent) is not None
        check(parties, parameters, inputs, absent)


@pytest.mark.parametrize(("count", "seed"), [(10, 0), (10, 1), (23, 2), (100, 3)])
def test_sum_is_exact_for_random_dropouts_up_to_the_threshold(count, seed):
    draw = np.random.default_rng(seed)
    parties, inputs = Parties(count), vectors(count, SIZE, 24, seed)
    most = count - least_threshold(count)
    gone = draw.choice(names(count), most, replace=False)
    absent = {str(name): PHASES[int(draw.integers(5))] for name in gone}
    parameters = Parameters.complete(count, dropouts=most, bits=24)
    total, survivors = parties.sum(parameters, inputs, absent)
    assert set(survivors) == expected(count, parameters.threshold, absent)
    assert np.array_equal(total, clear_sum(inputs, survivors, 24))


def test_one_more_dropout_than_the_threshold_allows_is_given_up():
    parties, inputs = Parties(10), vectors(10, SIZE, 32)
    for phase in PHASES:
        absent = dict.fromkeys(names(10)[:4], phase)
        with pytest.raises(SecureError, match="given up"):
            parties.sum(Parameters.complete(10), inputs, absent)


@pytest.mark.parametrize("seed", range(4))
def test_sum_on_a_sparse_graph_is_exact_for_random_dropouts(seed):
    draw = np.random.default_rng(seed)
    parties, inputs = Parties(40), vectors(40, SIZE, 32, seed)
    # Of the 17 holders of a secret at most 6 are gone, whoever they are.
    parameters = Parameters(40, 11, 16, minimum_cohort=20)
    absent = {str(name): PHASES[int(draw.integers(5))] for name in draw.choice(names(40), 6, replace=False)}
    total, survivors = parties.sum(parameters, inputs, absent)
    gone = {name for name, phase in absent.items() if phase in ("keys", "shares", "upload")}
    assert set(survivors) == set(names(40)) - gone
    assert np.array_equal(total, clear_sum(inputs, survivors, 32))


def test_sparse_graph_of_so_few_that_all_are_neighbours_is_complete():
    parties, inputs = Parties(8), vectors(8, SIZE, 32)
    parameters = Parameters(8, 4, 4, minimum_cohort=3)
    absent = dict.fromkeys(names(8)[:3], "keys")
    total, survivors = parties.sum(parameters, inputs, absent)
    assert np.array_equal(total, clear_sum(inputs, survivors, 32))


@pytest.mark.parametrize("bits", [16, 20, 24, 32])
def test_sum_wraps_at_the_ring(bits):
    parties = Parties(5)
    inputs = {name: np.full(3, (1 << bits) - 1, np.uint32) for name in names(5)}
    total, _ = parties.sum(Parameters.complete(5, bits=bits), inputs)
    assert total.tolist() == [(1 << bits) - 5] * 3


def test_rounds_of_one_session_follow_each_other():
    parties = Parties(5)
    for seed in range(3):
        inputs = vectors(5, SIZE, 32, seed)
        absent = {"client 002": "upload"} if seed == 1 else {}
        total, survivors = parties.sum(Parameters.complete(5, minimum_cohort=4), inputs, absent)
        assert np.array_equal(total, clear_sum(inputs, survivors, 32))


def test_a_client_without_its_neighbours_signatures_is_not_asked_to_unmask():
    parties = Parties(6)
    server, clients = parties.server(Parameters.complete(6)), parties.clients()
    requests = server.start()
    for _ in range(3):
        for name, request in requests.items():
            extra = np.zeros(1, np.uint32) if request.kind == "delivery" else None
            server.receive(name, clients[name].handle(request, extra))
        requests = server.advance()
    for name in names(6)[:5]:
        server.receive(name, clients[name].handle(requests[name]))
    assert set(server.advance()) == set(names(6)[:5])
