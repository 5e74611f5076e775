"""Two servers: any client may drop out, and neither server alone sees anything but noise."""

import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpact.core.errors import SecureError
from fedpact.secure.keys import Identity, KeyPair, Roster
from fedpact.secure.split_trust import (
    SealedSeed,
    SeedRequest,
    ServerA,
    ServerB,
    SplitRound,
    SplitShare,
    split,
    total_of,
)
from tests.secure.parties import clear_sum, names, uniform, vectors

COUNT = 6


class World:
    def __init__(self, bits=32, minimum_cohort=3):
        self.identities = {name: Identity() for name in names(COUNT)}
        self.roster = Roster({name: identity.public for name, identity in self.identities.items()})
        self.b = ServerB(self.roster, minimum_cohort=minimum_cohort)
        self.round = SplitRound(os.urandom(32), 1, b"model", self.b.public, minimum_cohort, bits)
        self.a = ServerA(self.round, self.roster)

    def share(self, name, vector, round_=None):
        return split(name, self.identities[name], round_ or self.round, vector)


@given(st.sets(st.sampled_from(names(COUNT)), min_size=3), st.sampled_from([16, 20, 24, 32]))
def test_sum_is_exact_for_whoever_stays(stay, bits):
    world, inputs = World(bits), vectors(COUNT, 9, bits)
    shares = [world.share(name, inputs[name]) for name in sorted(stay)]
    total = total_of(world.round, shares, world.a, world.b)
    assert np.array_equal(total, clear_sum(inputs, sorted(stay), bits))


@pytest.mark.parametrize("bits", [20, 32])
def test_what_server_a_sees_is_uniform(bits):
    share = World(bits).share(names(1)[0], np.zeros(200_000, np.uint32))
    assert uniform(share.masked.packed)


def test_upload_is_the_vector_and_two_hundred_and_some_bytes():
    share = World().share(names(1)[0], np.zeros(100_000, np.uint32))
    assert len(share.to_bytes()) < 400_000 + 300


def test_server_b_makes_no_masks_of_more_parameters_than_there_may_be():
    world, inputs = World(), vectors(COUNT, 9, 32)
    for name, vector in inputs.items():
        world.a.receive(name, world.share(name, vector))
    request = world.a.request()
    b = ServerB(world.roster, world.b._pair, 3, largest=9)
    with pytest.raises(SecureError, match="makes them of up to 9"):
        b.handle(world.round, SeedRequest(10, request.seeds))
    # Nothing was answered, so the round is not over.
    assert np.array_equal(world.a.result(b.handle(world.round, request)), clear_sum(inputs, names(COUNT), 32))


def test_too_few_clients_are_given_up_by_both_servers():
    world = World()
    share = world.share(names(1)[0], np.zeros(3, np.uint32))
    world.a.receive(names(1)[0], share)
    with pytest.raises(SecureError, match="1 clients sent a share and 3 are needed"):
        world.a.request()
    with pytest.raises(SecureError, match="1 clients sent a share and 3 are needed"):
        world.b.handle(world.round, SeedRequest(3, (share.seed,)))


def test_server_b_insists_on_its_own_smallest_cohort():
    world = World(minimum_cohort=4)
    lower = replace(world.round, minimum_cohort=2)
    seeds = tuple(world.share(name, np.zeros(3, np.uint32), lower).seed for name in names(3))
    with pytest.raises(SecureError, match="4 are needed"):
        world.b.handle(lower, SeedRequest(3, seeds))


def test_server_b_answers_once_in_a_round():
    world = World()
    seeds = tuple(world.share(name, np.zeros(3, np.uint32)).seed for name in names(4))
    world.b.handle(world.round, SeedRequest(3, seeds))
    with pytest.raises(SecureError, match="answers once"):
        world.b.handle(world.round, SeedRequest(3, seeds[:3]))


def test_server_b_counts_a_client_once():
    world = World()
    share = world.share(names(1)[0], np.zeros(3, np.uint32))
    with pytest.raises(SecureError, match="no one in it twice"):
        SeedRequest(3, (share.seed,) * 3)


def test_server_b_refuses_clients_that_server_a_made_up():
    world = World()
    sybil = Identity()
    honest = world.share(names(1)[0], np.zeros(3, np.uint32))
    made_up = tuple(split(f"x{i}", sybil, world.round, np.zeros(3, np.uint32)).seed for i in range(3))
    with pytest.raises(SecureError, match="is not on the roster"):
        world.b.handle(world.round, SeedRequest(3, (honest.seed, *made_up)))
    forged = tuple(split(name, sybil, world.round, np.zeros(3, np.uint32)).seed for name in names(4)[1:])
    with pytest.raises(SecureError, match="is not signed by it"):
        world.b.handle(world.round, SeedRequest(3, (honest.seed, *forged)))


@pytest.mark.parametrize("change", [{"context": b"another model"}, {"round": 2}, {"session": bytes(32)}])
def test_a_share_of_another_round_or_model_is_refused_by_both(change):
    world = World()
    other = replace(world.round, **change)
    shares = [world.share(name, np.zeros(3, np.uint32), other) for name in names(3)]
    with pytest.raises(SecureError, match="is not signed by it for this round and model"):
        world.a.receive(names(1)[0], shares[0])
    with pytest.raises(SecureError, match="is not signed by it for this round and model"):
        world.b.handle(world.round, SeedRequest(3, tuple(share.seed for share in shares)))


def test_a_seed_for_another_server_is_refused():
    world = World()
    other = KeyPair()
    wrong = replace(world.round, key=other.public)
    seeds = tuple(world.share(name, np.zeros(3, np.uint32), wrong).seed for name in names(3))
    with pytest.raises(SecureError, match="only for rounds with its own key"):
        world.b.handle(wrong, SeedRequest(3, seeds))


def test_seeds_of_other_clients_than_are_in_the_sum_leave_noise():
    world, inputs = World(), vectors(COUNT, 20_000, 32)
    shares = {name: world.share(name, inputs[name]) for name in names(COUNT)}
    for name in names(COUNT)[:4]:
        world.a.receive(name, shares[name])
    masks = world.b.handle(world.round, SeedRequest(20_000, tuple(shares[n].seed for n in names(COUNT)[1:5])))
    noise = world.a.result(masks) - clear_sum(inputs, names(COUNT)[:4], 32)
    assert uniform(noise)


def test_server_a_takes_one_share_of_a_client_and_only_its_own():
    world = World()
    share = world.share(names(1)[0], np.zeros(3, np.uint32))
    world.a.receive(names(1)[0], share)
    with pytest.raises(SecureError, match="a second one"):
        world.a.receive(names(1)[0], share)
    with pytest.raises(SecureError, match="for another client"):
        world.a.receive(names(2)[1], share)
    with pytest.raises(SecureError, match="a vector of 4 numbers"):
        world.a.receive(names(2)[1], world.share(names(2)[1], np.zeros(4, np.uint32)))


@given(st.data())
def test_changed_bytes_are_another_message_or_none(data):
    whole = bytearray(SplitShare.from_bytes(EXAMPLE).to_bytes())
    assert bytes(whole) == EXAMPLE
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = SplitShare.from_bytes(bytes(whole))
    except SecureError:
        return
    assert read.to_bytes() == bytes(whole)


def test_a_request_comes_back_and_other_bytes_are_refused():
    seed = SplitShare.from_bytes(EXAMPLE).seed
    request = SeedRequest(9, (seed,))
    assert SeedRequest.from_bytes(request.to_bytes()) == request
    for data in (b"", EXAMPLE, request.to_bytes()[:-3]):
        with pytest.raises(SecureError):
            SeedRequest.from_bytes(data)


def test_the_key_of_server_b_is_not_pickled():
    with pytest.raises(SecureError, match="neither pickled nor copied"):
        pickle.dumps(World().b)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"minimum_cohort": 1}, "hides nothing"),
        ({"bits": 8}, "not 8"),
        ({"key": b""}, "public key"),
        ({"round": -1}, "-1"),
    ],
)
def test_a_round_that_cannot_be_is_refused(change, match):
    with pytest.raises(SecureError, match=match):
        replace(World().round, **change)


EXAMPLE = SplitShare(
    World().share(names(1)[0], np.zeros(3, np.uint32)).masked,
    SealedSeed("lyon", bytes(32), bytes(48), bytes(64)),
).to_bytes()
