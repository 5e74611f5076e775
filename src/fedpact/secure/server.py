"""The server's side of a secure sum, as a state machine: it collects the answers of a phase and asks for the next.

It sees public keys, sealed boxes, masked vectors and, at the end, the secrets that open their sum alone.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import SecureError
from fedpact.secure import ring, shamir
from fedpact.secure.keys import KeyPair, Roster, Verify, verify
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
from fedpact.secure.parameters import Parameters
from fedpact.secure.prg import add_masks
from fedpact.secure.round import Agreed, bind, check_keys

PHASES = ("keys", "shares", "upload", "consistency", "unmask")


class SecureServer:
    """A server in one round.

    `start` gives the first message for each client. Then, phase by phase, `receive` takes the answers, in any order,
    and `advance` ends the phase: who has not answered has dropped out. After the last, `result` is the sum.

    Args:
        roster: who may take part.
        cohort: who is asked.
        session: the run that the round belongs to, 32 bytes.
        round: its number in the session, above all before it.
        context: what the round is bound to besides: see `SecureClient`.
        parameters: those of the round.
        verify: checks a signature: `keys.verify`, or one that remembers its results.
        size: how many numbers a vector has; None for as many as the first that comes.

    Raises:
        SecureError: someone is not on the roster, or the parameters are for another number of clients.
    """

    def __init__(
        self,
        roster: Roster,
        cohort: Iterable[str],
        session: bytes,
        round: int,
        context: bytes,
        parameters: Parameters,
        verify: Verify = verify,
        size: int | None = None,
    ) -> None:
        self.phase = PHASES[0]
        self._roster, self._verify = roster, verify
        self._invitation = Invitation(session, round, parameters, tuple(sorted(cohort)))
        self._ctx = bind(self._invitation, context, roster)
        self._awaited = frozenset(self._invitation.cohort)
        self._answers: dict[str, Any] = {}
        self._total = None if size is None else np.zeros(size, np.uint32)
        self._result: NDArray[np.uint32] | None = None
        self._alive: tuple[int, ...] = ()

    def start(self) -> Mapping[str, Message]:
        """Return the invitation, for each client of the cohort."""
        return dict.fromkeys(self._invitation.cohort, self._invitation)

    @property
    def parameters(self) -> Parameters:
        """Those of the round."""
        return self._invitation.parameters

    @property
    def awaited(self) -> frozenset[str]:
        """Those who may answer in this phase and have not."""
        return self._awaited - self._answers.keys()

    @property
    def survivors(self) -> tuple[str, ...]:
        """Those whose vectors are in the sum, once the uploads have ended."""
        return tuple(self._agreed.clients[i] for i in self._alive)

    def receive(self, client: str, message: Message) -> None:
        """Take a client's answer of this phase; the transport has made sure that it is this client's.

        Raises:
            SecureError: it is not what this client was asked for. It is as if the client had not answered.
        """
        if client not in self.awaited:
            raise SecureError(f'"{client}" is not asked for anything now, in the phase "{self.phase}".')
        kind, take = _ANSWERS[self.phase]
        if type(message) is not kind:
            raise SecureError(
                f'"{client}" sent "{message.kind}" in the phase "{self.phase}", where "{kind.kind}" is due.'
            )
        self._answers[client] = take(self, client, message)

    def receive_sum(self, total: NDArray[np.uint32], uploaded: Iterable[str]) -> None:
        """Take the sum of the masked vectors of some clients, in place of the vectors.

        Args:
            total: uint32 [parameters], mod 2^bits.
            uploaded: whose vectors are in it.

        Raises:
            SecureError: uploads are not due, or not from one of these.
        """
        names = tuple(uploaded)
        if self.phase != "upload" or len(set(names)) != len(names) or not self.awaited.issuperset(names):
            raise SecureError(
                f'a sum of masked vectors of these clients is not due in the phase "{self.phase}".'
            )
        self._add(total)
        self._answers.update(dict.fromkeys(names))

    def advance(self) -> Mapping[str, Message]:
        """End this phase and return the next message for each client that is still there.

        Raises:
            SecureError: too few have answered, or what they answered does not open the sum. The round is then over.
        """
        if self.phase not in _ENDS:
            raise SecureError("this round is over.")
        phase, self.phase = self.phase, "given up"
        requests = _ENDS[phase](self)
        self._awaited = frozenset(requests)
        self._answers = {}
        self.phase = "done" if phase == PHASES[-1] else PHASES[PHASES.index(phase) + 1]
        return requests

    def result(self) -> NDArray[np.uint32]:
        """Return the sum of the survivors' vectors mod 2^bits: uint32 [parameters].

        Raises:
            SecureError: the last phase has not ended.
        """
        if self._result is None:
            raise SecureError(f'there is no sum in the phase "{self.phase}".')
        return self._result

    def _take_keys(self, client: str, keys: Keys) -> Keys:
        if keys.client != client:
            raise SecureError(f'"{client}" sent the keys of "{keys.client}".')
        check_keys(self._ctx, keys, self._roster, self._verify)
        return keys

    def _end_keys(self) -> Mapping[str, Message]:
        key_list = KeyList(tuple(self._answers[client] for client in sorted(self._answers)))
        self._agreed = Agreed(self._ctx, key_list, self._invitation)
        self._positions = {client: i for i, client in enumerate(self._agreed.clients)}
        return dict.fromkeys(self._agreed.clients, key_list)

    def _take_shares(self, client: str, shares: SealedShares) -> SealedShares:
        if len(shares.boxes) != len(self._agreed.graph.beside(self._positions[client])):
            raise SecureError(
                f'"{client}" did not seal shares for each of its neighbours and for no one else.'
            )
        return shares

    def _end_shares(self) -> Mapping[str, Message]:
        self._require(len(self._answers), "shared their secrets")
        boxes: dict[int, list[tuple[int, bytes]]] = {self._positions[client]: [] for client in self._answers}
        self._commitments: dict[int, bytes] = {}
        for i in sorted(boxes):
            sealed: SealedShares = self._answers[self._agreed.clients[i]]
            self._commitments[i] = sealed.commitment
            for j, box in zip(self._agreed.graph.beside(i), sealed.boxes, strict=True):
                if j in boxes:
                    boxes[j].append((i, box))
        self._sharing = frozenset(boxes)
        return {self._agreed.clients[i]: Delivery(tuple(for_it)) for i, for_it in boxes.items()}

    def _take_vector(self, client: str, masked: MaskedVector) -> None:
        if masked.bits != self.parameters.bits:
            raise SecureError(
                f'"{client}" sent numbers of {masked.bits} bits; here they have {self.parameters.bits}.'
            )
        self._add(masked.vector())

    def _add(self, vector: NDArray[np.uint32]) -> None:
        if self._total is None:
            self._total = np.zeros_like(vector)
        if vector.shape != self._total.shape:
            raise SecureError(f"a vector of {vector.size} numbers came; the others have {self._total.size}.")
        self._total += vector

    def _end_upload(self) -> Mapping[str, Message]:
        self._require(len(self._answers), "uploaded")
        self._alive = tuple(sorted(self._positions[client] for client in self._answers))
        return dict.fromkeys(self.survivors, Survivors(self._alive))

    def _take_signature(self, client: str, consistency: Consistency) -> bytes:
        statement = self._agreed.survivors_statement(self._alive)
        if not self._verify(self._roster.key(client), consistency.signature, statement):
            raise SecureError(f'"{client}" did not sign the survivors that it was told.')
        return consistency.signature

    def _end_consistency(self) -> Mapping[str, Message]:
        threshold = self.parameters.threshold
        signed = {self._positions[client]: signature for client, signature in self._answers.items()}
        requests: dict[str, Message] = {}
        for i in sorted(signed):
            around = sorted(self._agreed.graph.around(i) & signed.keys())[:threshold]
            if len(around) == threshold:
                requests[self._agreed.clients[i]] = UnmaskRequest(tuple((j, signed[j]) for j in around))
        self._require(len(requests), "signed who uploaded", least=threshold)
        return requests

    def _take_unmask(self, client: str, answer: UnmaskShares) -> dict[int, bytes]:
        held = sorted(self._agreed.graph.around(self._positions[client]) & self._sharing)
        if len(answer.shares) != len(held):
            raise SecureError(f'"{client}" did not send one share for each client whose shares it holds.')
        return dict(zip(held, answer.shares, strict=True))

    def _end_unmask(self) -> Mapping[str, Message]:
        if self._total is None:
            raise SecureError("no vectors were uploaded.")
        alive = frozenset(self._alive)
        answers: dict[int, dict[int, bytes]] = {
            self._positions[c]: shares for c, shares in self._answers.items()
        }
        plus: list[bytes] = []
        minus: list[bytes] = []
        for j in sorted(self._sharing):
            # What the survivors have masked with a client that dropped out stays in the sum until it is taken out.
            masked_with = alive & frozenset(self._agreed.graph.beside(j))
            if j in alive:
                minus.append(self._agreed.self_key(self._self_mask(j, answers)))
            elif masked_with:
                pair = self._mask_pair(j, answers)
                for i in sorted(masked_with):
                    secret = pair.agree(self._agreed.keys[i].mask, self._agreed.clients[i])
                    (minus if i < j else plus).append(self._agreed.mask_key(secret, i, j))
        add_masks(self._total, plus, minus)
        ring.reduce(self._total, self.parameters.bits)
        self._result, self._total = self._total, None
        return {}

    def _self_mask(self, j: int, answers: Mapping[int, Mapping[int, bytes]]) -> bytes:
        secret = self._put_together(j, answers)
        if self._agreed.commitment(secret, j) != self._commitments[j]:
            raise self._blame(j)
        return secret

    def _mask_pair(self, j: int, answers: Mapping[int, Mapping[int, bytes]]) -> KeyPair:
        pair = KeyPair(self._put_together(j, answers))
        if pair.public != self._agreed.keys[j].mask:
            raise self._blame(j)
        return pair

    def _put_together(self, j: int, answers: Mapping[int, Mapping[int, bytes]]) -> bytes:
        holders = sorted(self._agreed.graph.around(j) & answers.keys())[: self.parameters.threshold]
        if len(holders) < self.parameters.threshold:
            raise SecureError(
                f'{len(holders)} clients gave shares of "{self._agreed.clients[j]}" and {self.parameters.threshold} '
                "are needed; the round is given up."
            )
        return shamir.combine({holder + 1: answers[holder][j] for holder in holders})

    def _blame(self, j: int) -> SecureError:
        return SecureError(
            f'the shares of "{self._agreed.clients[j]}" do not give the secret that it made them of: it, or one of '
            "those who gave them, does not keep to the protocol. The round is given up."
        )

    def _require(self, count: int, what: str, least: int | None = None) -> None:
        needed = max(self.parameters.threshold, self.parameters.minimum_cohort) if least is None else least
        if count < needed:
            raise SecureError(f"{count} clients {what} and {needed} are needed; the round is given up.")


_ANSWERS: Mapping[str, tuple[type[Message], Callable[[SecureServer, str, Any], Any]]] = {
    "keys": (Keys, SecureServer._take_keys),
    "shares": (SealedShares, SecureServer._take_shares),
    "upload": (MaskedVector, SecureServer._take_vector),
    "consistency": (Consistency, SecureServer._take_signature),
    "unmask": (UnmaskShares, SecureServer._take_unmask),
}
_ENDS: Mapping[str, Callable[[SecureServer], Mapping[str, Message]]] = {
    "keys": SecureServer._end_keys,
    "shares": SecureServer._end_shares,
    "upload": SecureServer._end_upload,
    "consistency": SecureServer._end_consistency,
    "unmask": SecureServer._end_unmask,
}
