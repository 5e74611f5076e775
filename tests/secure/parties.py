"""Clients and a server of a secure sum, and a round among them in which every message travels as bytes."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from fedpact.secure.client import SecureClient
from fedpact.secure.keys import Identity, Roster, verify
from fedpact.secure.member import Member
from fedpact.secure.messages import Delivery, Message, decode_message
from fedpact.secure.parameters import Parameters
from fedpact.secure.server import PHASES, SecureServer

CONTEXT = b"the hash of a model"
# What an honest server sends, in the order of the phases that it begins.
STEPS = ("invitation", "key list", "delivery", "survivors", "unmask request")


def names(count: int) -> list[str]:
    return [f"client {i:03}" for i in range(count)]


class Parties:
    """The clients of a session, between rounds."""

    def __init__(self, count: int, minimum_cohort: int = 2) -> None:
        self.identities = {name: Identity() for name in names(count)}
        self.roster = Roster({name: identity.public for name, identity in self.identities.items()})
        self.session = os.urandom(32)
        self.rounds = 0
        self.verify = lru_cache(maxsize=1 << 14)(verify)
        self.members = {
            name: Member(name, identity, self.roster, self.session, minimum_cohort, verify=self.verify)
            for name, identity in self.identities.items()
        }

    def clients(self, contexts: Mapping[str, bytes] | None = None) -> dict[str, SecureClient]:
        given = contexts or {}
        return {name: SecureClient(member, given.get(name, CONTEXT)) for name, member in self.members.items()}

    def server(self, parameters: Parameters, context: bytes = CONTEXT) -> SecureServer:
        self.rounds += 1
        return SecureServer(
            self.roster, self.members, self.session, self.rounds, context, parameters, self.verify
        )

    def sum(
        self,
        parameters: Parameters,
        vectors: Mapping[str, np.ndarray],
        absent: Mapping[str, str] | None = None,
        tamper: Mapping[str, Callable[[str, Message], Message]] | None = None,
        clients: Mapping[str, SecureClient] | None = None,
    ) -> tuple[np.ndarray, Sequence[str]]:
        """Return the sum that the server gets, and of whom.

        Args:
            parameters: of the round.
            vectors: client → uint32 vector.
            absent: client → the phase in which it drops out.
            tamper: kind of message → what becomes of it on its way to a client.
            clients: those to take part; new ones where none are given.
        """
        clients = clients or self.clients()
        server = self.server(parameters)
        requests = server.start()
        for phase in PHASES:
            for name, request in requests.items():
                if tamper and request.kind in tamper:
                    request = tamper[request.kind](name, request)
                if (absent or {}).get(name) == phase:
                    continue
                received = decode_message(request.to_bytes())
                vector = vectors[name] if isinstance(received, Delivery) else None
                server.receive(name, decode_message(clients[name].handle(received, vector).to_bytes()))
            requests = server.advance()
        return server.result(), server.survivors


def vectors(count: int, size: int, bits: int, seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {name: draw.integers(0, 1 << bits, size, np.uint32) for name in names(count)}


def clear_sum(inputs: Mapping[str, np.ndarray], survivors: Sequence[str], bits: int) -> np.ndarray:
    """Return the sum mod 2^bits in Python's integers."""
    columns = zip(*(inputs[name].tolist() for name in survivors), strict=True)
    return np.array([sum(column) % (1 << bits) for column in columns], np.uint32)
