"""A server that does not keep to the protocol: every attack ends before it has a second secret, or in noise."""

import os

import numpy as np
import pytest

from fedpact.core.errors import SecureError
from fedpact.secure.client import SecureClient
from fedpact.secure.keys import Identity, KeyPair, Roster
from fedpact.secure.member import Member
from fedpact.secure.messages import (
    Delivery,
    Invitation,
    KeyList,
    Keys,
    SealedShares,
    Survivors,
    UnmaskRequest,
    UnmaskShares,
)
from fedpact.secure.parameters import Parameters
from fedpact.secure.prg import add_masks
from fedpact.secure.round import Agreed, keys_statement
from fedpact.secure.server import PHASES, SecureServer
from tests.secure.parties import CONTEXT, Parties, clear_sum, names, uniform, vectors

COUNT = 7
PARAMETERS = Parameters.complete(COUNT, minimum_cohort=4)
VICTIM, OTHER = names(COUNT)[0], names(COUNT)[3]
PUBLIC_OF_SMALL_GROUP = bytes(32)


class Round:
    """A round of COUNT clients that has come to a phase honestly; `requests` are what an honest server sends next."""

    def __init__(self, phase, parameters=PARAMETERS, parties=None):
        self.parties = parties or Parties(parameters.clients)
        self.clients = self.parties.clients()
        self.server = self.parties.server(parameters)
        self.requests = self.server.start()
        self.inputs = vectors(parameters.clients, 5, parameters.bits)
        for _ in PHASES[: PHASES.index(phase)]:
            self.answer(self.clients)
            self.requests = self.server.advance()

    def answer(self, those):
        for name in those:
            self.server.receive(name, self.ask(name, self.requests[name]))

    def ask(self, name, request):
        vector = self.inputs[name] if isinstance(request, Delivery) else None
        return self.clients[name].handle(request, vector)

    def attack(self, request, match, victim=VICTIM):
        """Send a request to a client, which must give the round up and never answer anything again."""
        with pytest.raises(SecureError, match=match):
            self.ask(victim, request)
        for message in (request, self.requests.get(victim, request)):
            with pytest.raises(SecureError, match="forgotten its secrets"):
                self.ask(victim, message)
        assert self.clients[victim]._secrets is None


def replaced(keys, **changes):
    fields = {name: getattr(keys, name) for name in ("client", "channel", "mask", "signature")}
    return Keys(**(fields | changes))


def with_keys(key_list, keys):
    return KeyList(tuple(keys if old.client == keys.client else old for old in key_list.keys))


def signed(round_, name, ctx, **changes):
    """Return the keys of a client that works with the server, signed as an honest one signs."""
    keys = replaced(next(k for k in round_.requests[name].keys if k.client == name), **changes)
    statement = keys_statement(ctx, name, keys.channel, keys.mask)
    return replaced(keys, signature=round_.parties.identities[name].sign(statement))


# The two kinds of share


def test_a_second_request_to_unmask_is_refused():
    round_ = Round("unmask")
    first = round_.ask(VICTIM, round_.requests[VICTIM])
    assert isinstance(first, UnmaskShares)
    assert round_.clients[VICTIM]._secrets is None
    round_.attack(round_.requests[VICTIM], "forgotten its secrets")


def test_a_second_set_of_survivors_is_refused():
    round_ = Round("consistency")
    round_.ask(VICTIM, round_.requests[VICTIM])
    everyone = round_.requests[VICTIM].positions
    round_.attack(Survivors(everyone[:-1]), '"unmask request" comes next')


def test_signatures_of_other_survivors_than_a_client_was_told_are_refused():
    round_ = Round("consistency")
    everyone = round_.requests[VICTIM].positions
    signatures = tuple(
        (i, round_.ask(name, Survivors(everyone if name == VICTIM else everyone[:-1])).signature)
        for i, name in enumerate(names(COUNT)[:-1])
    )
    round_.attack(UnmaskRequest(signatures), "did not sign the same survivors")


def test_a_client_gives_one_share_for_each_peer_and_of_the_right_kind():
    round_ = Round("upload")
    stay = [name for name in names(COUNT) if name != OTHER]
    round_.answer(stay)
    round_.requests = round_.server.advance()
    round_.answer(stay)
    round_.requests = round_.server.advance()
    held = dict(round_.clients[VICTIM]._held.shares)
    answer = round_.ask(VICTIM, round_.requests[VICTIM])
    assert len(answer.shares) == COUNT
    for j, share in enumerate(answer.shares):
        of_self, of_mask = held[j][:32], held[j][32:]
        assert share == (of_mask if names(COUNT)[j] == OTHER else of_self)


def test_to_unmask_without_a_consistency_round_is_refused():
    round_ = Round("consistency")
    round_.attack(UnmaskRequest(()), '"survivors" comes next')


@pytest.mark.parametrize("attack", ["too few", "a stranger", "one who dropped out", "forged"])
def test_signatures_that_do_not_bear_the_survivors_out_are_refused(attack):
    round_ = Round("upload")
    round_.answer(names(COUNT)[:-1])
    round_.requests = round_.server.advance()
    round_.answer(names(COUNT)[:-1])
    round_.requests = round_.server.advance()
    honest = round_.requests[VICTIM].signatures
    forged, match = {
        "too few": (honest[:-1], "are needed"),
        "a stranger": ((*honest[:-1], (COUNT + 5, bytes(64))), "may not sign"),
        "one who dropped out": ((*honest[:-1], (COUNT - 1, honest[0][1])), "may not sign"),
        "forged": ((*honest[:-1], (honest[-1][0], honest[0][1])), "did not sign the same survivors"),
    }[attack]
    round_.attack(UnmaskRequest(forged), match)


# False dropouts and small cohorts


@pytest.mark.parametrize("positions", [(), (0,), (0, 1), (0, 1, 2, 3)])
def test_survivors_below_the_threshold_or_the_smallest_cohort_are_refused(positions):
    Round("consistency").attack(Survivors(positions), "given up")


def test_survivors_without_the_client_itself_are_refused():
    round_ = Round("consistency")
    round_.attack(Survivors(round_.requests[VICTIM].positions[1:]), "not among the survivors")


def test_survivors_who_do_not_exist_are_refused():
    round_ = Round("consistency")
    round_.attack(Survivors((*round_.requests[VICTIM].positions, 99)), "there is no client 99")


def test_survivors_who_never_shared_their_secrets_are_refused():
    round_ = Round("upload")
    shortened = Delivery(round_.requests[VICTIM].boxes[:-1])
    round_.ask(VICTIM, shortened)
    round_.attack(Survivors(tuple(range(COUNT))), "never shared its secrets")


def test_a_small_part_of_a_sparse_graph_is_refused():
    parameters = Parameters(12, 4, 4, minimum_cohort=9)
    round_ = Round("consistency", parameters)
    graph = round_.clients[VICTIM]._agreed.graph
    part = sorted(graph.around(0) | graph.around(graph.beside(0)[0]))
    round_.attack(Survivors(tuple(part)), "the smallest cohort of this round is 9")


def test_a_neighbourhood_below_the_threshold_is_refused_on_a_sparse_graph():
    parameters = Parameters(12, 5, 4, minimum_cohort=9)
    round_ = Round("consistency", parameters)
    gone = round_.clients[VICTIM]._agreed.graph.beside(0)[0]
    round_.attack(Survivors(tuple(i for i in range(12) if i != gone)), "neighbourhood")


def part_opened(parameters):
    """Return who is in a sum that a server cuts out of the circle, by dropping k/2 in a row on both sides of it."""
    round_ = Round("consistency", parameters)
    circle = round_.clients[VICTIM]._agreed.graph.circle
    half = parameters.neighbours // 2
    part, rest = circle[half : half + 5], circle[2 * half + 5 :]
    survivors = Survivors(tuple(sorted((*part, *rest))))
    signed_ = {}
    for i in survivors.positions:
        try:
            signed_[i] = round_.ask(names(parameters.clients)[i], survivors).signature
        except SecureError:
            continue
    graph = round_.clients[VICTIM]._agreed.graph
    opened = []
    for i in part:
        around = sorted(graph.around(i) & signed_.keys())
        opened += [i] if len(around) >= parameters.threshold else []
    return part, opened


def test_a_part_of_a_sparse_graph_is_not_cut_out_by_dropping_who_sits_around_it():
    parameters = Parameters(24, 4, 4, minimum_cohort=20)
    part, opened = part_opened(parameters)
    assert len(part) == 5
    # Who sits at its ends is left with itself and two more, and gives the round up; so no sum of the part opens.
    assert not {part[0], part[-1]} & set(opened)


def test_thresholds_under_which_a_part_can_be_cut_out_are_refused():
    with pytest.raises(SecureError, match="the sum of a part of the cohort"):
        Parameters(24, 3, 4, minimum_cohort=20)


def test_too_few_keys_are_refused():
    round_ = Round("shares")
    few = KeyList(round_.requests[VICTIM].keys[:4])
    round_.attack(few, "are needed")


def test_too_few_shares_are_refused():
    round_ = Round("upload")
    round_.attack(Delivery(round_.requests[VICTIM].boxes[:3]), "are needed")


def test_a_cohort_smaller_than_the_client_wants_is_refused():
    parties = Parties(COUNT, minimum_cohort=5)
    client = SecureClient(parties.members[VICTIM], CONTEXT)
    parameters = Parameters.complete(COUNT, minimum_cohort=4)
    with pytest.raises(SecureError, match="takes part in sums of 5 clients or more"):
        client.handle(Invitation(parties.session, 1, parameters, tuple(names(COUNT))))


# Replays


def test_a_round_that_was_is_not_begun_again():
    round_ = Round("unmask")
    again = SecureClient(round_.parties.members[VICTIM], CONTEXT)
    with pytest.raises(SecureError, match="rounds only go up"):
        again.handle(Invitation(round_.parties.session, 1, PARAMETERS, tuple(names(COUNT))))


def test_an_earlier_round_is_not_begun_even_by_a_client_that_was_started_anew():
    parties = Parties(COUNT)
    member = Member(VICTIM, parties.identities[VICTIM], parties.roster, parties.session, 2, last_round=8)
    with pytest.raises(SecureError, match="rounds only go up"):
        SecureClient(member, CONTEXT).handle(Invitation(parties.session, 8, PARAMETERS, tuple(names(COUNT))))


def test_another_session_is_refused():
    parties = Parties(COUNT)
    with pytest.raises(SecureError, match="session"):
        SecureClient(parties.members[VICTIM], CONTEXT).handle(
            Invitation(os.urandom(32), 1, PARAMETERS, tuple(names(COUNT)))
        )


def test_keys_of_an_earlier_round_are_refused():
    parties = Parties(COUNT)
    old = Round("shares", parties=parties).requests[VICTIM].keys
    round_ = Round("shares", parties=parties)
    replay = with_keys(round_.requests[VICTIM], next(keys for keys in old if keys.client == OTHER))
    round_.attack(replay, "not signed by it for this round")


def test_shares_of_an_earlier_round_are_refused():
    parties = Parties(COUNT)
    old = Round("upload", parties=parties).requests[VICTIM]
    round_ = Round("upload", parties=parties)
    round_.attack(old, "not sealed by it for this client and round")


def test_signatures_of_an_earlier_round_are_refused():
    parties = Parties(COUNT)
    old = Round("unmask", parties=parties).requests[VICTIM]
    round_ = Round("unmask", parties=parties)
    round_.attack(old, "did not sign the same survivors")


def test_masks_hide_one_vector():
    round_ = Round("upload")
    masker = round_.clients[VICTIM].masker(round_.requests[VICTIM])
    masker.apply(np.zeros(3, np.uint32))
    with pytest.raises(SecureError, match="difference of the two"):
        masker.apply(np.zeros(3, np.uint32))


# Keys


@pytest.mark.parametrize("which", ["channel", "mask"])
def test_a_substituted_key_is_refused(which):
    round_ = Round("shares")
    other = next(keys for keys in round_.requests[VICTIM].keys if keys.client == OTHER)
    forged = replaced(other, **{which: KeyPair().public})
    round_.attack(with_keys(round_.requests[VICTIM], forged), "not signed by it")


def test_a_substituted_key_that_the_server_signs_is_refused():
    round_ = Round("shares")
    other = next(keys for keys in round_.requests[VICTIM].keys if keys.client == OTHER)
    pair = KeyPair().public
    statement = keys_statement(round_.clients[VICTIM]._ctx, OTHER, other.channel, pair)
    forged = replaced(other, mask=pair, signature=Identity().sign(statement))
    round_.attack(with_keys(round_.requests[VICTIM], forged), "not signed by it")


def test_a_client_whose_own_keys_are_substituted_gives_up():
    round_ = Round("shares")
    own = next(keys for keys in round_.requests[VICTIM].keys if keys.client == VICTIM)
    forged = replaced(own, mask=KeyPair().public)
    round_.attack(with_keys(round_.requests[VICTIM], forged), "does not hold those of")


def test_the_same_key_of_two_clients_is_refused():
    round_ = Round("shares")
    ctx = round_.clients[VICTIM]._ctx
    own = next(keys for keys in round_.requests[VICTIM].keys if keys.client == VICTIM)
    with pytest.raises(SecureError, match="occurs twice"):
        with_keys(round_.requests[VICTIM], signed(round_, OTHER, ctx, mask=own.mask))


@pytest.mark.parametrize("which", ["channel", "mask"])
def test_a_key_of_a_small_group_is_refused_even_when_its_owner_has_signed_it(which):
    round_ = Round("shares")
    ctx = round_.clients[VICTIM]._ctx
    forged = signed(round_, OTHER, ctx, **{which: PUBLIC_OF_SMALL_GROUP})
    key_list = with_keys(round_.requests[VICTIM], forged)
    if which == "channel":
        round_.attack(key_list, "low order")
        return
    # The mask's key is met with first when the shares have come.
    honest = [name for name in names(COUNT) if name != OTHER]
    answers = {name: round_.ask(name, key_list) for name in honest}
    boxes = {names(COUNT).index(name): answers[name].boxes[0] for name in honest if name != VICTIM}
    secret = round_.parties.members[OTHER].channel_secret(key_list.keys[0])
    place = names(COUNT).index(OTHER)
    boxes[place] = round_.clients[VICTIM]._agreed.seal(secret, place, 0, bytes(64))
    round_.attack(Delivery(tuple(sorted(boxes.items()))), "low order")


def test_different_lists_of_keys_for_different_clients_end_at_the_shares():
    round_ = Round("shares")
    whole = round_.requests[VICTIM]
    shorter = KeyList(tuple(keys for keys in whole.keys if keys.client != names(COUNT)[-1]))
    answers = {name: round_.ask(name, whole if name == VICTIM else shorter) for name in names(COUNT)[:-1]}
    boxes = tuple((j, answers[name].boxes[0]) for j, name in enumerate(names(COUNT)[:-1]) if name != VICTIM)
    round_.attack(Delivery(boxes), "not sealed by it for this client and round")


def test_a_client_that_was_not_invited_is_refused():
    round_ = Round("shares")
    keys = round_.requests[VICTIM].keys
    stranger = replaced(keys[-1], client="zoe", channel=KeyPair().public, mask=KeyPair().public)
    round_.attack(KeyList((*keys, stranger)), "was not invited")


def test_a_cohort_with_someone_who_is_not_on_the_roster_is_refused():
    parties = Parties(COUNT)
    cohort = (*names(COUNT)[:-1], "sybil")
    with pytest.raises(SecureError, match='"sybil" is not on the roster'):
        SecureClient(parties.members[VICTIM], CONTEXT).handle(
            Invitation(parties.session, 1, PARAMETERS, cohort)
        )


def test_one_identity_under_two_names_is_refused():
    key = Identity().public
    with pytest.raises(SecureError, match="they are one client"):
        Roster({"a": key, "b": key})


def test_a_cohort_without_the_client_is_refused():
    parties = Parties(COUNT + 1)
    with pytest.raises(SecureError, match="is not in the cohort"):
        SecureClient(parties.members[VICTIM], CONTEXT).handle(
            Invitation(parties.session, 1, PARAMETERS, tuple(names(COUNT + 1)[1:]))
        )


# Boxes


def tampered(boxes, how):
    (a, first), (b, second), *rest = boxes
    if how == "a bit flipped":
        return ((a, bytes([first[0] ^ 1]) + first[1:]), (b, second), *rest)
    if how == "senders exchanged":
        return ((a, second), (b, first), *rest)
    return ((0, first), (b, second), *rest)


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ("a bit flipped", "not sealed by it"),
        ("senders exchanged", "not sealed by it"),
        ("from itself", "no neighbour of this one"),
    ],
)
def test_boxes_that_were_tampered_with_are_refused(how, match):
    round_ = Round("upload")
    round_.attack(Delivery(tampered(round_.requests[VICTIM].boxes, how)), match)


def test_boxes_for_another_client_are_refused():
    round_ = Round("upload")
    theirs = dict(round_.requests[OTHER].boxes)
    mine = dict(round_.requests[VICTIM].boxes)
    mixed = tuple((j, theirs.get(j, box)) for j, box in mine.items())
    round_.attack(Delivery(mixed), "not sealed by it")


def test_boxes_of_a_client_that_is_no_neighbour_are_refused():
    round_ = Round("upload", Parameters(12, 4, 4, minimum_cohort=6))
    beside = round_.clients[VICTIM]._agreed.graph.beside(0)
    far = next(i for i in range(1, 12) if i not in beside)
    boxes = tuple(sorted((*round_.requests[VICTIM].boxes[1:], (far, bytes(80)))))
    with pytest.raises(SecureError, match=r"no neighbour|not sealed"):
        round_.ask(VICTIM, Delivery(boxes))


def test_steps_out_of_order_are_refused():
    for phase in PHASES:
        round_ = Round(phase)
        wrong = Survivors((0, 1, 2, 3)) if phase != "consistency" else UnmaskRequest(())
        round_.attack(wrong, "comes next")


# The model


def test_clients_with_different_models_do_not_accept_each_others_keys():
    parties = Parties(COUNT)
    clients = parties.clients({OTHER: b"another model"})
    server = parties.server(PARAMETERS)
    (invitation,) = set(server.start().values())
    keys = KeyList(tuple(clients[name].handle(invitation) for name in names(COUNT)))
    for name, client in clients.items():
        with pytest.raises(SecureError, match="not signed by it for this round, model"):
            client.handle(keys)
        assert client._secrets is None, name


def test_masks_of_different_models_do_not_cancel():
    round_ = Round("upload")
    invitation = round_.server.start()[VICTIM]
    key_list = KeyList(tuple(round_.clients[name]._own for name in names(COUNT)))
    one, other = (Agreed(ctx, key_list, invitation) for ctx in (bytes(32), b"\1" * 32))
    secret = os.urandom(32)
    left = np.zeros(100_000, np.uint32)
    add_masks(left, [one.mask_key(secret, 0, 1)], [other.mask_key(secret, 0, 1)])
    assert uniform(left)
    add_masks(left, [other.mask_key(secret, 1, 0)], [one.mask_key(secret, 1, 0)])
    assert not left.any()


def test_deliveries_that_leave_out_different_clients_leave_the_sum_uniform():
    size = 50_000
    parties = Parties(COUNT)
    zeros = dict.fromkeys(names(COUNT), np.zeros(size, np.uint32))

    def leave_out(name, delivery):
        return Delivery(delivery.boxes[1:]) if name == names(COUNT)[1] else delivery

    server, clients = parties.server(PARAMETERS), parties.clients()
    requests = server.start()
    for _ in PHASES[:2]:
        for name, request in requests.items():
            server.receive(name, clients[name].handle(request))
        requests = server.advance()
    total = np.zeros(size, np.uint32)
    for name, request in requests.items():
        total += clients[name].handle(leave_out(name, request), zeros[name]).vector()
    # The own masks are taken away, as an unmasking would.
    own = [client._agreed.self_key(client._held.self_mask) for client in clients.values()]
    add_masks(total, [], own)
    assert uniform(total)


# Clients that do not keep to the protocol


def test_a_share_that_a_client_falsifies_is_found_out():
    round_ = Round("unmask")
    for name in names(COUNT):
        answer = round_.ask(name, round_.requests[name])
        if name == OTHER:
            answer = UnmaskShares((bytes(32), *answer.shares[1:]))
        round_.server.receive(name, answer)
    with pytest.raises(SecureError, match=rf'the shares of "{VICTIM}" do not give the secret'):
        round_.server.advance()
    with pytest.raises(SecureError, match="there is no sum"):
        round_.server.result()


def test_a_falsified_share_of_a_mask_key_is_found_out():
    round_ = Round("upload")
    stay = names(COUNT)[:-1]
    for _ in range(2):
        round_.answer(stay)
        round_.requests = round_.server.advance()
    for name in stay:
        answer = round_.ask(name, round_.requests[name])
        if name == VICTIM:
            answer = UnmaskShares((*answer.shares[:-1], bytes(32)))
        round_.server.receive(name, answer)
    with pytest.raises(SecureError, match=rf'the shares of "{names(COUNT)[-1]}" do not give the secret'):
        round_.server.advance()


def test_a_client_that_sends_nonsense_is_left_out_and_the_sum_of_the_others_is_exact():
    round_ = Round("shares")
    for name in names(COUNT):
        answer = round_.ask(name, round_.requests[name])
        if name == OTHER:
            with pytest.raises(SecureError, match="did not seal shares for each"):
                round_.server.receive(name, SealedShares(bytes(32), ()))
        else:
            round_.server.receive(name, answer)
    stay = [name for name in names(COUNT) if name != OTHER]
    for _ in range(3):
        round_.requests = round_.server.advance()
        round_.answer(stay)
    round_.server.advance()
    assert np.array_equal(round_.server.result(), clear_sum(round_.inputs, stay, 32))


def test_a_vector_of_another_size_that_comes_first_is_left_out_and_the_sum_of_the_others_is_exact():
    parties = Parties(COUNT)
    clients, inputs = parties.clients(), vectors(COUNT, 5, 32)
    server = SecureServer(
        parties.roster, clients, parties.session, 1, CONTEXT, PARAMETERS, parties.verify, size=5
    )
    requests = server.start()
    for phase in PHASES:
        for name, request in requests.items():
            vector = inputs[name] if name != VICTIM else np.zeros(6, np.uint32)
            answer = clients[name].handle(request, vector if phase == "upload" else None)
            if phase == "upload" and name == VICTIM:
                with pytest.raises(SecureError, match="a vector of 6 numbers came"):
                    server.receive(name, answer)
            else:
                server.receive(name, answer)
        requests = server.advance()
    assert np.array_equal(server.result(), clear_sum(inputs, names(COUNT)[1:], 32))


def test_keys_in_the_name_of_another_client_are_left_out():
    round_ = Round("keys")
    keys = round_.ask(OTHER, round_.requests[OTHER])
    with pytest.raises(SecureError, match="sent the keys of"):
        round_.server.receive(VICTIM, keys)
    with pytest.raises(SecureError, match="not signed by it"):
        round_.server.receive(OTHER, replaced(keys, mask=KeyPair().public))


def test_an_answer_is_taken_once_and_from_who_is_asked():
    round_ = Round("keys")
    keys = round_.ask(OTHER, round_.requests[OTHER])
    round_.server.receive(OTHER, keys)
    with pytest.raises(SecureError, match="is not asked for anything now"):
        round_.server.receive(OTHER, keys)
    with pytest.raises(SecureError, match="is not asked for anything now"):
        round_.server.receive("zoe", keys)
