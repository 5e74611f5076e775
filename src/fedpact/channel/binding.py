"""What the masks of a round are bound to: all that its clients are told, so that who is told otherwise fits no one.

Pasquini et al., "Eluding Secure Aggregation in Federated Learning via Model Inconsistency", CCS 2022: a server that
gives one client another task than the others reads that client's update from the sum.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from fedpact.channel.transform import RoundContext
from fedpact.core.messages import Task
from fedpact.core.vector import Layout, Vector
from fedpact.secure.encoding import Part, digest

# Of a context what only one party has.
_PRIVATE = ("scratch", "secret")


def binding(task: Task, contexts: Sequence[RoundContext]) -> bytes:
    """Return the SHA-256 of a task and of what clients are told of the stages of their channel."""
    told = [
        [
            (field.name, _part(getattr(context, field.name)))
            for field in fields(context)
            if field.name not in _PRIVATE
        ]
        for context in contexts
    ]
    return digest("round of a channel", _part(task), told)


def _part(value: Any) -> Part:
    if isinstance(value, Vector):
        return "vector", value.layout.digest, hashlib.sha256(value.buffer.data).digest()
    if isinstance(value, Layout):
        return "layout", value.digest
    if isinstance(value, np.ndarray):
        return (
            "array",
            value.dtype.str,
            value.shape,
            hashlib.sha256(np.ascontiguousarray(value).data).digest(),
        )
    if isinstance(value, Mapping):
        return "mapping", sorted((str(key), _part(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return "list", [_part(item) for item in value]
    if is_dataclass(value):
        return type(value).__name__, [
            (field.name, _part(getattr(value, field.name))) for field in fields(value)
        ]
    return type(value).__name__, repr(value)
