"""Secure sums among simulated clients: the same state machines as between organisations, many in one process.

Every client computes its own secrets; every message becomes bytes and is read from them, a broadcast once for all its
receivers. A signature that one client has checked is not checked again for another: its result is the same.
"""

import os
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import SecureError, suggest
from fedpact.secure.client import SecureClient
from fedpact.secure.keys import Identity, Roster, verify
from fedpact.secure.masker import Masker
from fedpact.secure.member import Member
from fedpact.secure.messages import Delivery, Message, decode_message
from fedpact.secure.parameters import Parameters
from fedpact.secure.ring import packed_bytes
from fedpact.secure.server import PHASES, SecureServer

_REMEMBERED_MEMBERS = 1024


class SimulatedRoster:
    """The simulated clients of a run, as far as they have been asked: their identities and channel keys.

    A client is enrolled when it is first asked. Of the many of a large population those asked longest ago are
    forgotten, and enrolled again when they are asked again.

    Args:
        remembered: how many are kept between rounds.
    """

    def __init__(self, remembered: int = _REMEMBERED_MEMBERS) -> None:
        self.session = os.urandom(32)
        self.rounds = 0
        self._remembered = remembered
        self._members: OrderedDict[str, Member] = OrderedDict()
        self.verify = lru_cache(maxsize=1 << 14)(verify)

    def members(self, ids: Sequence[str], minimum_cohort: int) -> dict[str, Member]:
        """Return these clients, each of which knows the others."""
        identities = {
            client: self._members[client].identity if client in self._members else Identity()
            for client in ids
        }
        roster = Roster({client: identity.public for client, identity in identities.items()})
        for client in ids:
            member = self._members.get(client)
            if member is None:
                member = Member(client, identities[client], roster, self.session, verify=self.verify)
                self._members[client] = member
            member.roster, member.minimum_cohort = roster, minimum_cohort
            self._members.move_to_end(client)
        while len(self._members) > max(self._remembered, len(ids)):
            self._members.popitem(last=False)
        return {client: self._members[client] for client in ids}


@dataclass
class Report:
    """What a secure sum among simulated clients took.

    Args:
        cohort: how many clients were asked.
        neighbours: how many others each masked with.
        threshold: how many shares open a secret.
        seconds: phase → seconds, of all clients and the server together.
        upload_bytes: client → bytes of its messages, the masked vector with them.
        download_bytes: client → bytes of the messages to it.
        survivors: those in the sum, once it is opened.
    """

    cohort: int
    neighbours: int
    threshold: int
    seconds: dict[str, float] = field(default_factory=dict)
    upload_bytes: dict[str, int] = field(default_factory=dict)
    download_bytes: dict[str, int] = field(default_factory=dict)
    survivors: tuple[str, ...] = ()


class SecureRound:
    """One secure sum among simulated clients: every message passes through their and the server's state machines.

    `agree` makes it; each client's `masker` hides its vector; the caller adds the masked vectors up mod 2^bits;
    `unmask` opens their sum.

    Attributes:
        report: see `Report`; complete after `unmask`.
        uploaders: those who have masks, and do not drop out before they upload.
    """

    def __init__(
        self, server: SecureServer, clients: Mapping[str, SecureClient], absent: Mapping[str, str]
    ) -> None:
        self.report = Report(
            len(clients),
            server.parameters.holders - 1,
            server.parameters.threshold,
            upload_bytes=dict.fromkeys(clients, 0),
            download_bytes=dict.fromkeys(clients, 0),
        )
        self.uploaders: tuple[str, ...] = ()
        self._server = server
        self._clients = clients
        self._absent = absent
        self._deliveries: dict[str, Delivery] = {}

    @classmethod
    def agree(
        cls,
        roster: SimulatedRoster,
        ids: Sequence[str],
        context: bytes,
        parameters: Parameters,
        absent: Mapping[str, str] | None = None,
    ) -> "SecureRound":
        """Return a round whose clients have exchanged keys and shares (R0 to R2).

        Args:
            roster: the simulated clients of the run.
            ids: those of this round.
            context: what the round is bound to: the hash of its model, how vectors are encoded.
            parameters: those of the round.
            absent: client → the phase in which it drops out, before it answers: "keys", "shares", "upload",
                "consistency" or "unmask".

        Raises:
            SecureError: too few clients are left, or an id or a phase is none.
        """
        gone = dict(absent or {})
        for client, phase in gone.items():
            if client not in ids:
                raise SecureError(
                    f'"{client}" is to drop out and is not of this round.{suggest(client, ids)}'
                )
            if phase not in PHASES:
                raise SecureError(
                    f'"{client}" is to drop out in "{phase}"; the phases are {", ".join(PHASES)}.'
                    f"{suggest(phase, PHASES)}"
                )
        members = roster.members(ids, parameters.minimum_cohort)
        roster.rounds += 1
        known = Roster({client: member.identity.public for client, member in members.items()})
        server = SecureServer(known, ids, roster.session, roster.rounds, context, parameters, roster.verify)
        clients = {client: SecureClient(member, context) for client, member in members.items()}
        round = cls(server, clients, gone)
        with round._timed("keys"):
            requests = round._phase("keys", server.start())
        with round._timed("shares"):
            requests = round._phase("shares", requests)
            round._deliveries = {
                client: message for client, message in requests.items() if isinstance(message, Delivery)
            }
        round.uploaders = tuple(
            client for client in ids if client in round._deliveries and gone.get(client) != "upload"
        )
        return round

    def masker(self, id: str) -> Masker:
        """Return what one client masks its vector with; it may travel to a worker process of this simulation.

        Raises:
            SecureError: the client has dropped out, or has its masks already.
        """
        if id not in self.uploaders or id not in self._deliveries:
            raise SecureError(
                f'"{id}" has no masks to give: it dropped out of this round, or has them already.'
            )
        with self._timed("masks"):
            return self._clients[id].masker(self._deliveries.pop(id))

    def unmask(self, total: NDArray[np.uint32], uploaded: Sequence[str]) -> NDArray[np.uint32]:
        """Return the sum of the clients' vectors mod 2^bits (R4, R5).

        Args:
            total: the sum mod 2^bits, or 2^32, of the masked vectors: uint32 [parameters]; it stays as it is.
            uploaded: the clients whose vectors are in it.

        Raises:
            SecureError: too few clients are left, or one of these has no mask on its vector.
        """
        for client in uploaded:
            if client not in self.uploaders or client in self._deliveries:
                raise SecureError(f'"{client}" is said to have uploaded and has not been given its masks.')
            self.report.upload_bytes[client] += packed_bytes(total.size, self._server.parameters.bits)
        with self._timed("consistency"):
            self._server.receive_sum(total, uploaded)
            requests = self._phase("consistency", self._server.advance())
        with self._timed("unmask"):
            self._phase("unmask", requests)
        self.report.survivors = self._server.survivors
        return self._server.result()

    def _phase(self, phase: str, requests: Mapping[str, Message]) -> Mapping[str, Message]:
        for client, request in self._travelled(requests):
            if self._absent.get(client) != phase:
                answer = self._clients[client].handle(request).to_bytes()
                self.report.upload_bytes[client] += len(answer)
                self._server.receive(client, decode_message(answer))
        following = self._server.advance()
        if phase == "shares":
            return dict(self._travelled(following))
        return following

    def _travelled(self, requests: Mapping[str, Message]) -> Iterator[tuple[str, Message]]:
        sent: Message | None = None
        received, size = None, 0
        for client, request in requests.items():
            if request is not sent or received is None:
                data = request.to_bytes()
                sent, received, size = request, decode_message(data), len(data)
            self.report.download_bytes[client] += size
            yield client, received

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.report.seconds[phase] = self.report.seconds.get(phase, 0.0) + spent
