"""What a server sees of one client's vector: uniform numbers, of the size of the vector."""

import zlib

import numpy as np
import pytest
from scipy.stats import chisquare

from fedpact.secure.messages import Delivery, MaskedVector
from fedpact.secure.parameters import Parameters
from fedpact.secure.ring import packed_bytes
from fedpact.secure.server import PHASES
from tests.secure.parties import Parties, names

# The chance that a test of uniform numbers fails.
ALPHA = 1e-6
SIZE = 200_000


def uploads(parameters, vector, count=5):
    parties = Parties(count)
    server, clients = parties.server(parameters), parties.clients()
    requests = server.start()
    for _ in PHASES[:2]:
        for name, request in requests.items():
            server.receive(name, clients[name].handle(request))
        requests = server.advance()
    return {name: clients[name].handle(request, vector) for name, request in requests.items()}


@pytest.mark.parametrize("bits", [16, 20, 24, 32])
def test_bytes_of_a_masked_vector_are_uniform(bits):
    constant = np.full(SIZE, 3, np.uint32)
    for masked in uploads(Parameters.complete(5, bits=bits), constant).values():
        counts = np.bincount(np.frombuffer(masked.packed, np.uint8), minlength=256)
        assert chisquare(counts).pvalue > ALPHA


@pytest.mark.parametrize("bits", [20, 32])
def test_a_masked_vector_cannot_be_compressed(bits):
    zeros = np.zeros(SIZE, np.uint32)
    for masked in uploads(Parameters.complete(5, bits=bits), zeros).values():
        assert len(zlib.compress(masked.packed, 9)) >= 0.9999 * len(masked.packed)


def test_a_masked_vector_does_not_correlate_with_the_vector():
    ramp = np.arange(SIZE, dtype=np.uint32) << np.uint32(12)
    for masked in uploads(Parameters.complete(5), ramp).values():
        seen = masked.vector().astype(np.float64)
        # Five standard deviations of the correlation of independent numbers.
        assert abs(np.corrcoef(seen, ramp)[0, 1]) < 5 / np.sqrt(SIZE)


def test_the_difference_of_two_clients_with_the_same_vector_is_uniform():
    first, second, *_ = uploads(Parameters.complete(5), np.zeros(SIZE, np.uint32)).values()
    difference = first.vector() - second.vector()
    counts = np.bincount(difference.view(np.uint8), minlength=256)
    assert chisquare(counts).pvalue > ALPHA


def test_keys_shares_and_vector_of_a_million_parameters_among_a_hundred_are_hardly_more_than_the_vector():
    parties = Parties(100)
    server, clients = parties.server(Parameters.complete(100)), parties.clients()
    requests = server.start()
    sent = 0
    for _ in PHASES[:2]:
        for name, request in requests.items():
            answer = clients[name].handle(request)
            sent += len(answer.to_bytes()) if name == names(100)[0] else 0
            server.receive(name, answer)
        requests = server.advance()
    assert isinstance(requests[names(100)[0]], Delivery)
    for bits, per_parameter in ((32, 4.01), (24, 3.01), (20, 2.51), (16, 2.01)):
        vector = MaskedVector.of(np.zeros(1_000_000, np.uint32), bits)
        assert sent + len(vector.to_bytes()) <= per_parameter * 1_000_000


def test_a_vector_of_twenty_bits_takes_two_and_a_half_bytes_a_parameter():
    assert packed_bytes(1_000_000, 20) == 2_500_000
