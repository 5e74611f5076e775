"""One client's side of a secure sum, as a state machine: a message goes in, the answer comes out.

The client trusts nobody to be careful for it. It checks the roster, the parameters, every signature and every count
itself, answers each step once, and forgets its secrets with the last answer or at the first thing that is wrong.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import SecureError
from fedpact.secure import shamir
from fedpact.secure.keys import KeyPair, Secret
from fedpact.secure.masker import Masker
from fedpact.secure.member import Member
from fedpact.secure.messages import (
    Consistency,
    Delivery,
    Invitation,
    KeyList,
    Keys,
    MaskedVector,
    Message,
    SealedShares,
    Survivors,
    UnmaskRequest,
    UnmaskShares,
)
from fedpact.secure.round import Agreed, bind, check_key_list, keys_statement
from fedpact.secure.shamir import SECRET_BYTES

_STEPS: tuple[type[Message], ...] = (Invitation, KeyList, Delivery, Survivors, UnmaskRequest)


class SecureClient(Secret):
    """A client in one round.

    Args:
        member: the client between rounds.
        context: what this client knows the round to be bound to: the hash of the model that it was given and how
            vectors are encoded, computed by itself. With another context than the others' it fits no one's keys.
    """

    def __init__(self, member: Member, context: bytes) -> None:
        self._member = member
        self._context = context
        self._step = 0
        self._secrets: _Secrets | None = _Secrets()

    def handle(self, message: Message, vector: NDArray[np.uint32] | None = None) -> Message:
        """Return the answer to a message of the server.

        Args:
            message: Invitation, KeyList, Delivery, Survivors and UnmaskRequest, in this order.
            vector: with the Delivery alone: the numbers to add up, uint32 [parameters], each below 2^bits.

        Raises:
            SecureError: the message is not what this client may answer. The round is then over for it, and what it
                would have needed to answer anything else is forgotten.
        """
        if not isinstance(message, Delivery):
            answer: Message = self._take(message)
            return answer
        try:
            if vector is None:
                raise SecureError("a delivery of shares is answered with a masked vector; give the vector.")
            masked = vector.copy()
            masker = self.masker(message)
            masker.apply(masked)
            return MaskedVector.of(masked, masker.bits)
        except BaseException:
            self._forget()
            raise

    def masker(self, delivery: Delivery) -> Masker:
        """Return what to mask the vector with, in place of `handle(delivery, vector)`.

        Raises:
            SecureError: as `handle`.
        """
        masker: Masker = self._take(delivery)
        return masker

    def _take(self, message: Message) -> Any:
        step = self._step
        self._step = len(_STEPS)
        try:
            if step == len(_STEPS):
                raise SecureError(
                    f'this client has ended its round and forgotten its secrets; it does not answer "{message.kind}".'
                )
            if type(message) is not _STEPS[step]:
                raise SecureError(
                    f'"{_STEPS[step].kind}" comes next, not "{message.kind}"; the round is given up.'
                )
            answer = _ANSWERS[step](self, message)
        except BaseException:
            self._forget()
            raise
        self._step = step + 1
        if self._step == len(_STEPS):
            self._forget()
        return answer

    def _forget(self) -> None:
        self._step = len(_STEPS)
        self._secrets = None

    @property
    def _held(self) -> "_Secrets":
        if self._secrets is None:
            raise SecureError("this client has ended its round and forgotten its secrets.")
        return self._secrets

    def _keys(self, invitation: Invitation) -> Keys:
        member = self._member
        member.enter(invitation)
        self._invitation = invitation
        self._ctx = bind(invitation, self._context, member.roster)
        channel, mask = member.channel.public, self._held.mask.public
        signature = member.identity.sign(keys_statement(self._ctx, member.client, channel, mask))
        self._own = Keys(member.client, channel, mask, signature)
        return self._own

    def _shares(self, key_list: KeyList) -> SealedShares:
        member, held = self._member, self._held
        if self._own not in key_list.keys:
            raise SecureError(
                f'the list of keys does not hold those of "{member.client}"; the round is given up.'
            )
        check_key_list(self._ctx, key_list, self._invitation.cohort, member.roster, member.verify)
        agreed = self._agreed = Agreed(self._ctx, key_list, self._invitation)
        me = self._position = agreed.clients.index(member.client)
        beside = agreed.graph.beside(me)
        if len(beside) + 1 < agreed.parameters.threshold:
            raise SecureError(
                f"{len(beside) + 1} clients would hold shares and {agreed.parameters.threshold} are needed; the round "
                "is given up."
            )
        holders = sorted((*beside, me))
        points = [holder + 1 for holder in holders]
        threshold = agreed.parameters.threshold
        of_self = dict(zip(holders, shamir.split(held.self_mask, threshold, points), strict=True))
        of_mask = dict(zip(holders, shamir.split(held.mask.private, threshold, points), strict=True))
        held.shares[me] = of_self[me] + of_mask[me]
        boxes = []
        for j in beside:
            secret = held.channels[j] = member.channel_secret(agreed.keys[j])
            boxes.append(agreed.seal(secret, me, j, of_self[j] + of_mask[j]))
        return SealedShares(agreed.commitment(held.self_mask, me), tuple(boxes))

    def _masks(self, delivery: Delivery) -> Masker:
        held, agreed, me = self._held, self._agreed, self._position
        needed = agreed.parameters.threshold
        if agreed.graph.neighbours is None:
            needed = max(needed, agreed.parameters.minimum_cohort)
        if len(delivery.boxes) + 1 < needed:
            raise SecureError(
                f"{len(delivery.boxes) + 1} clients of this one's neighbourhood shared their secrets and {needed} are "
                "needed; the round is given up."
            )
        plus = [agreed.self_key(held.self_mask)]
        minus: list[bytes] = []
        for j, box in delivery.boxes:
            if j not in held.channels:
                raise SecureError(
                    f"client {j} of this round is no neighbour of this one; the round is given up."
                )
            shares = agreed.unseal(held.channels[j], j, me, box)
            if shares is None:
                raise SecureError(
                    f'the shares from "{agreed.clients[j]}" were not sealed by it for this client and round; the round '
                    "is given up."
                )
            held.shares[j] = shares
            key = agreed.mask_key(held.mask.agree(agreed.keys[j].mask, agreed.clients[j]), me, j)
            (plus if me < j else minus).append(key)
        return Masker(agreed.parameters.bits, plus, minus)

    def _consistency(self, survivors: Survivors) -> Consistency:
        held, agreed, me = self._held, self._agreed, self._position
        agreed.check_survivors(survivors.positions)
        alive = frozenset(survivors.positions)
        if me not in alive:
            raise SecureError("this client uploaded and is not among the survivors; the round is given up.")
        around = alive & agreed.graph.around(me)
        if len(around) < agreed.parameters.threshold:
            raise SecureError(
                f"{len(around)} clients of this one's neighbourhood are said to have uploaded and "
                f"{agreed.parameters.threshold} are needed; the round is given up."
            )
        stranger = next((j for j in sorted(around) if j not in held.shares), None)
        if stranger is not None:
            raise SecureError(
                f'"{agreed.clients[stranger]}" is said to have uploaded, but never shared its secrets; the round is '
                "given up."
            )
        self._alive = alive
        self._statement = agreed.survivors_statement(survivors.positions)
        return Consistency(self._member.identity.sign(self._statement))

    def _unmask(self, request: UnmaskRequest) -> UnmaskShares:
        held, agreed = self._held, self._agreed
        signers = self._alive & agreed.graph.around(self._position)
        if len(request.signatures) < agreed.parameters.threshold:
            raise SecureError(
                f"{len(request.signatures)} clients signed who uploaded and {agreed.parameters.threshold} are needed; "
                "the round is given up."
            )
        for j, signature in request.signatures:
            if j not in signers:
                raise SecureError(
                    f"client {j} of this round may not sign who uploaded; the round is given up."
                )
            name = agreed.clients[j]
            if not self._member.verify(self._member.roster.key(name), signature, self._statement):
                raise SecureError(
                    f'"{name}" did not sign the same survivors as this client; the round is given up.'
                )
        # One kind of share for each: of its own mask for who survived, of its mask key for who did not.
        return UnmaskShares(
            tuple(
                held.shares[j][:SECRET_BYTES] if j in self._alive else held.shares[j][SECRET_BYTES:]
                for j in sorted(held.shares)
            )
        )


class _Secrets(Secret):
    def __init__(self) -> None:
        self.mask = KeyPair()
        self.self_mask = shamir.secret()
        # By position: the secret of the channel with a neighbour, and its two shares, one after the other.
        self.channels: dict[int, bytes] = {}
        self.shares: dict[int, bytes] = {}


_ANSWERS: tuple[Callable[[SecureClient, Any], Any], ...] = (
    SecureClient._keys,
    SecureClient._shares,
    SecureClient._masks,
    SecureClient._consistency,
    SecureClient._unmask,
)
