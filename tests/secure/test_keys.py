"""Keys: those of the standards, bound to their purpose, and never shown."""

import ast
import copy
import pickle
from functools import reduce
from operator import and_, or_
from pathlib import Path

import numpy as np
import pytest

import fedpact.secure
from fedpact.core.errors import SecureError
from fedpact.secure.client import SecureClient
from fedpact.secure.keys import Identity, KeyPair, Roster, derive, seal, unseal, verify
from fedpact.secure.masker import Masker
from fedpact.secure.member import Member
from fedpact.secure.parameters import Parameters
from fedpact.secure.split_trust import ServerB
from tests.secure.parties import Parties, names

FILES = sorted(Path(fedpact.secure.__file__).parent.glob("*.py"))


def test_key_agreement_is_that_of_the_standard():
    # RFC 7748, section 6.1.
    alice = KeyPair(bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"))
    bob = KeyPair(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    assert alice.public.hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert alice.agree(bob.public, "bob").hex() == bob.agree(alice.public, "alice").hex() == shared


def test_key_derivation_is_that_of_the_standard():
    # RFC 5869, appendix A.3: no salt, no info.
    expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
    assert derive(b"\x0b" * 22, b"").hex() == expected


@pytest.mark.parametrize(
    "point",
    [
        # Of orders 4, 1 and 8 on the curve, and of its twist (RFC 7748, section 6.1; Bernstein's list).
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ],
)
def test_a_point_of_low_order_is_refused(point):
    with pytest.raises(SecureError, match=r'the public key of "eve" .* low order'):
        KeyPair().agree(bytes.fromhex(point), "eve")


def test_a_signature_is_of_one_message_by_one_identity():
    one, other = Identity(), Identity()
    signature = one.sign(b"message")
    assert verify(one.public, signature, b"message")
    assert not verify(one.public, signature, b"massage")
    assert not verify(other.public, signature, b"message")
    assert not verify(bytes(31), signature, b"message")


def test_an_identity_that_was_kept_is_the_same():
    one = Identity()
    assert Identity(one.private_bytes()).public == one.public
    with pytest.raises(ValueError, match="32"):
        Identity(b"")


def test_what_is_sealed_opens_with_its_key_and_label_alone():
    key, other = bytes(32), b"\1" * 32
    box = seal(key, b"share", b"from 1 to 2")
    assert unseal(key, box, b"from 1 to 2") == b"share"
    assert unseal(other, box, b"from 1 to 2") is None
    assert unseal(key, box, b"from 2 to 1") is None
    assert unseal(key, box[:-1], b"from 1 to 2") is None


def test_identities_and_key_pairs_are_new_each_time():
    assert len({Identity().public for _ in range(20)} | {KeyPair().public for _ in range(20)}) == 40


def test_roster_names_who_is_meant():
    roster = Roster({"lyon": Identity().public, "nice": Identity().public})
    with pytest.raises(
        SecureError, match=r'"lyn" is not on the roster of this secure sum\. Did you mean "lyon"\?'
    ):
        roster.key("lyn")
    with pytest.raises(SecureError, match="31 bytes"):
        Roster({"lyon": bytes(31)})


def test_roster_digest_depends_on_every_name_and_key():
    one, other = Identity().public, Identity().public
    digests = {
        Roster({"a": one, "b": other}).digest(["a", "b"]),
        Roster({"a": other, "b": one}).digest(["a", "b"]),
        Roster({"a": one, "b": other}).digest(["a"]),
        Roster({"a": one, "c": other}).digest(["a", "c"]),
    }
    assert len(digests) == 4


def test_a_member_with_another_key_than_the_rosters_is_refused():
    parties = Parties(3)
    with pytest.raises(SecureError, match="another key"):
        Member(names(3)[0], Identity(), parties.roster, parties.session)


def secrets():
    parties = Parties(5)
    member = parties.members[names(5)[0]]
    return [Identity(), KeyPair(), member, SecureClient(member, b""), ServerB(parties.roster)]


@pytest.mark.parametrize("held", secrets(), ids=lambda held: type(held).__name__)
def test_what_holds_secrets_is_neither_shown_nor_pickled_nor_copied(held):
    assert repr(held) == f"<{type(held).__name__}: its secrets are not shown>"
    for way in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(SecureError, match="neither pickled nor copied"):
            way(held)


def test_a_masker_travels_and_does_not_show_its_keys():
    keys = [bytes([i]) * 32 for i in range(4)]
    masker = Masker(20, keys[:3], keys[3:])
    again = pickle.loads(pickle.dumps(masker))  # noqa: S301
    assert again.to_bytes() == masker.to_bytes()
    assert len(masker.to_bytes()) == 5 + 32 * 4
    assert repr(masker) == "<Masker of 4 masks mod 2^20: its keys are not shown>"


def test_every_bit_of_the_keys_of_masks_varies():
    parties = Parties(10)
    server, clients = parties.server(Parameters.complete(10)), parties.clients()
    requests = server.start()
    for _ in range(2):
        for name, request in requests.items():
            server.receive(name, clients[name].handle(request))
        requests = server.advance()
    keys = set()
    for name, delivery in requests.items():
        data = clients[name].masker(delivery).to_bytes()[5:]
        keys |= {data[i : i + 32] for i in range(0, len(data), 32)}
    # Each of 45 pairs has one, and each of 10 clients its own; a bit is the same in all with probability 2^-54.
    assert len(keys) == 55
    numbers = [int.from_bytes(key, "big") for key in keys]
    assert reduce(or_, numbers) == 2**256 - 1
    assert reduce(and_, numbers) == 0


def test_masked_numbers_stay_below_the_ring():
    ring = np.full(1000, 2**20 - 1, np.uint32)
    Masker(20, [bytes(32)], [b"\1" * 32]).apply(ring)
    assert ring.max() < 2**20


@pytest.mark.parametrize(
    "data", [b"", bytes(4), bytes(6), b"\x20" + b"\0\0\0\2" + bytes(32), b"\x11" + bytes(36)]
)
def test_bytes_of_no_masker_are_refused(data):
    with pytest.raises(SecureError):
        Masker.from_bytes(data)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nothing_here_draws_from_a_generator_or_reads_a_pickle(file):
    banned = {"random", "pickle", "cloudpickle", "marshal", "shelve", "dill"}
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not banned & {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in banned
            assert "random" not in {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute):
            numpy = isinstance(node.value, ast.Name) and node.value.id in ("np", "numpy")
            assert not (numpy and node.attr == "random")
