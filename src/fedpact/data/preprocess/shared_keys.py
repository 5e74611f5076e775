"""Which keys several clients have, told from hashes under a secret that the clients share and the server lacks."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedpact.core.algorithm import ClientState
from fedpact.core.errors import ConfigError, DataError
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.data.preprocess.columns import as_frame, column
from fedpact.data.preprocess.estimate import Columnwise, Estimating, ask, reply
from fedpact.data.wording import at_client

if TYPE_CHECKING:
    import pandas as pd

_SHORTEST_SECRET = 16


class Elsewhere(NamedTuple):
    """Which of a client's keys another client keeps.

    Args:
        of: how many different keys the client has.
        places: of those kept elsewhere, among the client's keys in the order of their hashes.
    """

    of: int
    places: tuple[int, ...]


@dataclass(frozen=True)
class SharedKeys(Columnwise):
    """The keys that several clients have, in one round: the first of these clients, in order of names, keeps each.

    A client sends HMAC-SHA256 of each of its keys, sorted, under the secret. Without it the server cannot tell or guess
    what the keys are; it sees how many each client has, and how many any two share. What comes out, and goes to all
    clients, are places in a client's own list, which say nothing to others. Whoever has both the secret and the hashes,
    such as a server that works with one client, can test whether a key that it guesses is at another.

    Args:
        names: the columns of the key.
        secret: the environment variable that holds the secret at each client.
    """

    secret: str

    @property
    def told(self) -> tuple[str, ...]:
        """The hashes."""
        return ("hashes of each client's keys, of which the same are duplicates",) if self.names else ()

    def task(self, state: Estimating) -> Task | None:
        """Ask every client, once."""
        return ask(state, "collect") if self.names and state.round == 0 else None

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return the hashes of the client's different keys in order, and one by which secrets are compared.

        Raises:
            ConfigError: the client has no secret, or a short one.
            DataError: a column is missing.
        """
        with at_client(data.id):
            key = secret_in(self.secret)
            hashes = key_hashes(as_frame(data.train.x), self.names, key)
        answer = {"secret": _hashed(key, ["which secret"]), "keys": _keys(hashes)}
        return reply(task, data, answer=answer), kept

    def server(self, model: Any, state: Estimating, aggregate: Aggregate) -> Estimating:
        """Find what each client does not keep.

        Raises:
            DataError: clients have different secrets; two are named.
        """
        answers = dict(sorted(aggregate.answers.items()))
        first, *others = answers
        for client in others:
            if answers[client]["secret"] != answers[first]["secret"]:
                raise DataError(
                    f'DropDuplicates: clients "{first}" and "{client}" have different secrets in {self.secret}, so '
                    "their rows cannot be compared; give all clients one."
                )
        seen: set[str] = set()
        found = {}
        for client, answer in answers.items():
            keys = answer["keys"]
            found[client] = [len(keys), [place for place, each in enumerate(keys) if each in seen]]
            seen.update(keys)
        return Estimating(1, found)

    def fitted(self, state: Estimating) -> Mapping[str, Elsewhere]:
        """Return client → which of its keys are kept elsewhere."""
        return {client: Elsewhere(of, tuple(places)) for client, (of, places) in (state.found or {}).items()}


def secret_in(variable: str) -> bytes:
    """Return the secret in an environment variable.

    Raises:
        ConfigError: it is not there, or shorter than 16 characters.
    """
    secret = os.environ.get(variable, "")
    if len(secret) < _SHORTEST_SECRET:
        raise ConfigError(
            f"DropDuplicates compares rows under a secret, and the environment variable {variable} has none of "
            f"{_SHORTEST_SECRET} characters or more here; put the same random text there at every client, and not at "
            "the server."
        )
    return secret.encode()


def key_hashes(frame: pd.DataFrame, names: Sequence[str], secret: bytes) -> list[str | None]:
    """Return the hash of each row's key [n], None where a value of it is missing.

    Raises:
        DataError: a column is missing.
    """
    columns = [column(frame, name) for name in names]
    present = np.logical_and.reduce([series.notna().to_numpy() for series in columns])
    rows = zip(*(series.tolist() for series in columns), strict=True)
    return [
        _hashed(secret, [_plain(value) for value in row]) if there else None
        for row, there in zip(rows, present.tolist(), strict=True)
    ]


def not_elsewhere(
    frame: pd.DataFrame, names: Sequence[str], secret: str, elsewhere: Elsewhere
) -> NDArray[np.bool_]:
    """Return which of a client's training rows no other client keeps [n].

    Raises:
        ConfigError: the client has no secret.
        DataError: these are other rows than were compared.
    """
    hashes = key_hashes(frame, names, secret_in(secret))
    keys = _keys(hashes)
    if len(keys) != elsewhere.of:
        raise DataError(
            f"DropDuplicates compared {elsewhere.of} different keys of the training rows, and now there are "
            f"{len(keys)}; fit the preprocessing to these rows again."
        )
    dropped = {keys[place] for place in elsewhere.places}
    return np.array([each not in dropped for each in hashes], np.bool_)


def _keys(hashes: Sequence[str | None]) -> list[str]:
    return sorted({each for each in hashes if each is not None})


def _hashed(secret: bytes, values: list[Any]) -> str:
    return hmac.new(secret, json.dumps(values).encode(), hashlib.sha256).hexdigest()


def _plain(value: Any) -> Any:
    # Adding 0 makes −0 and 0 the same text.
    return value + 0.0 if isinstance(value, float) else value if isinstance(value, int | str) else str(value)
