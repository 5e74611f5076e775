"""What both sides of a round compute alike: what it is bound to, what is signed, and what keys are derived for."""

from collections.abc import Sequence
from functools import lru_cache

from fedpact.core.errors import SecureError
from fedpact.secure.encoding import digest, encode
from fedpact.secure.graph import Graph, graph
from fedpact.secure.keys import Roster, Verify, derive, seal, unseal
from fedpact.secure.messages import Invitation, KeyList, Keys

_VERSION = "fedpact secure sum 1"


def bind(invitation: Invitation, context: bytes, roster: Roster) -> bytes:
    """Return ctx, 32 bytes: the hash of all that must be the same at all clients of a round.

    Args:
        invitation: session, round, parameters and cohort.
        context: what else the round is bound to: the hash of the model that the clients were given, how they encode
            their vectors.
        roster: whose identities the cohort's are.

    Raises:
        SecureError: someone of the cohort is not on the roster.
    """
    return digest(
        _VERSION,
        invitation.session,
        invitation.round,
        digest(context),
        digest(*invitation.parameters.parts()),
        roster.digest(invitation.cohort),
    )


def keys_statement(ctx: bytes, client: str, channel: bytes, mask: bytes) -> bytes:
    """Return what a client signs with its public keys."""
    return encode("keys", ctx, client, channel, mask)


def check_keys(ctx: bytes, keys: Keys, roster: Roster, verify: Verify) -> None:
    """Check that a client's public keys are its own.

    Raises:
        SecureError: their signature is not of its identity, or of another round, model or roster.
    """
    statement = keys_statement(ctx, keys.client, keys.channel, keys.mask)
    if not verify(roster.key(keys.client), keys.signature, statement):
        raise SecureError(
            f'the public keys of "{keys.client}" are not signed by it for this round, model, parameters and roster; '
            "the round is given up."
        )


@lru_cache(maxsize=4)
def check_key_list(
    ctx: bytes, key_list: KeyList, cohort: tuple[str, ...], roster: Roster, verify: Verify
) -> None:
    """Check that all keys of a list are of invited clients and their own.

    Raises:
        SecureError: some are not.
    """
    invited = frozenset(cohort)
    for keys in key_list.keys:
        if keys.client not in invited:
            raise SecureError(f'"{keys.client}" was not invited to this round; the round is given up.')
        check_keys(ctx, keys, roster, verify)


class Agreed:
    """A round once everyone's keys are known.

    Args:
        ctx: see `bind`.
        key_list: the keys of everyone who sent some.
        invitation: of the round.
    """

    def __init__(self, ctx: bytes, key_list: KeyList, invitation: Invitation) -> None:
        # With everyone's mask keys, which are new in each round, in it, no key is ever derived twice.
        self.name = digest("agreed", ctx, key_list.digest)
        self._share_label = encode("share", self.name)
        self._mask_label = encode("mask", self.name)
        self.clients = tuple(keys.client for keys in key_list.keys)
        self.keys = key_list.keys
        self.parameters = invitation.parameters
        self.graph: Graph = graph(len(self.clients), self.parameters.neighbours, digest("graph", self.name))
        needed = max(self.parameters.threshold, self.parameters.minimum_cohort)
        if len(self.clients) < needed:
            raise SecureError(
                f"{len(self.clients)} clients sent keys and {needed} are needed; the round is given up."
            )

    def seal(self, secret: bytes, sender: int, receiver: int, shares: bytes) -> bytes:
        """Return a sender's shares for a receiver, sealed under the secret that the two have."""
        label = self._share_label + encode(sender, receiver)
        return seal(derive(secret, label), shares, label)

    def unseal(self, secret: bytes, sender: int, receiver: int, box: bytes) -> bytes | None:
        """Return what a sender has sealed for a receiver in this round, or None where it has not."""
        label = self._share_label + encode(sender, receiver)
        return unseal(derive(secret, label), box, label)

    def mask_key(self, secret: bytes, one: int, other: int) -> bytes:
        """Return the key of the mask that two clients share."""
        return derive(secret, self._mask_label + encode(min(one, other), max(one, other)))

    def self_key(self, secret: bytes) -> bytes:
        """Return the key of a client's own mask."""
        return derive(secret, encode("self", self.name))

    def commitment(self, secret: bytes, position: int) -> bytes:
        """Return the hash by which the secret of a client's own mask is known when it is put together."""
        return digest("commitment", self.name, position, secret)

    def survivors_statement(self, positions: Sequence[int]) -> bytes:
        """Return what each client signs about who uploaded."""
        return encode("survivors", self.name, positions)

    def check_survivors(self, survivors: Sequence[int]) -> None:
        """Check that the sum of these is large enough to be opened.

        Raises:
            SecureError: they are fewer than the smallest cohort, or one is no client of the round.
        """
        if len(survivors) < self.parameters.minimum_cohort:
            raise SecureError(
                f"the sum of {len(survivors)} clients was to be opened; the smallest cohort of this round is "
                f"{self.parameters.minimum_cohort}. The round is given up."
            )
        if survivors[-1] >= len(self.clients):
            raise SecureError(f"there is no client {survivors[-1]} in this round; the round is given up.")
