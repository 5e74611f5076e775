"""The norm of an update over all its averaged vectors together, and updates scaled down to one."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import fsum, hypot, isfinite, sqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import UpdateError
from fedpact.core.messages import Update
from fedpact.core.stack import Stack, on_host
from fedpact.core.vector import Role, Vector

Over = Literal["parameters", "all"]
OVER: tuple[Over, ...] = ("parameters", "all")

# Vectors of one number in which a stage counts clients. What is clipped later leaves them as they are.
COUNTS = frozenset({"clip_count", "zero_count"})

# Of what rounding to float32 may add to a norm, sixteen times as much.
FIRST_SLACK = 2.0**-20
_BLOCK = 1 << 16


def role_of(over: Over) -> Role | None:
    """Return the role of the elements that count towards a norm; None for all."""
    return "parameter" if over == "parameters" else None


def norm_of(vectors: Iterable[Vector], role: Role | None, p: int = 2) -> float:
    """Return the norm over the elements of a role of all vectors, in float64; inf on overflow."""
    if p == 2:
        return hypot(*(vector.norm(role) for vector in vectors))
    return _plus(
        float(_sum_of_sizes(flat))
        for vector in vectors
        for flat, segment in zip(vector.flats, vector.layout.segments, strict=True)
        if role in (None, segment.role)
    )


def norms_of(stacks: Iterable[Stack], role: Role | None, p: int = 2) -> NDArray[np.float64]:
    """Return the norm of each client's vectors together [clients], the number that `norm_of` gives."""
    stacks = list(stacks)
    if p == 2:
        return np.array([hypot(*norms) for norms in zip(*(s.norms(role) for s in stacks), strict=True)])
    each = [
        _sum_of_sizes(on_host(flat))
        for stack in stacks
        for flat, segment in zip(stack.flats, stack.layout.segments, strict=True)
        if role in (None, segment.role)
    ]
    return np.array([_plus(sums) for sums in zip(*each, strict=True)])


def finite_norm(update: Update, role: Role | None, p: int = 2) -> float:
    """Return the norm of an update's averaged vectors.

    Raises:
        UpdateError: it is NaN or infinite.
    """
    norm = norm_of(update.averaged.values(), role, p)
    if not isfinite(norm):
        raise norm_refusal(update.client, norm)
    return norm


def norm_refusal(client: str, norm: float, of: str = "the update") -> UpdateError:
    """Return the error of an update that has no norm."""
    return UpdateError(
        f'client "{client}": {of} has norm {norm}; lower the learning rate or look for such values in the '
        "client's rows."
    )


def within(update: Update, norm: float, bound: float, role: Role | None, p: int = 2) -> Update:
    """Return an update whose norm is at most the bound, by its norm in float64; itself where it is already.

    What is scaled are the elements of the role. Counts that earlier stages added keep their numbers, and the rest
    is scaled to what they leave of the bound; where they alone exceed it they are scaled too.

    Args:
        update: the update.
        norm: its norm, finite.
        bound: the bound.
        role: see `role_of`.
        p: 1 or 2.
    """
    if norm <= bound:
        return update
    counts = {name: vector for name, vector in update.averaged.items() if name in COUNTS}
    taken = norm_of(counts.values(), role, p)
    if taken >= bound:
        counts, taken = {}, 0.0
    others = {name: vector for name, vector in update.averaged.items() if name not in counts}
    factor, slack = bound / norm, FIRST_SLACK
    if counts:
        room = bound - taken if p == 1 else sqrt((bound - taken) * (bound + taken))
        factor = room / norm_of(others.values(), role, p)
    scaled = scaled_by(others, factor, role)
    # Rounding may leave the norm above the bound; a slack of 1, at the latest, leaves nothing at all.
    while norm_of([*scaled.values(), *counts.values()], role, p) > bound:
        scaled, slack = scaled_by(others, factor * (1 - slack), role), 2 * slack
    return replace(update, averaged={name: scaled.get(name, v) for name, v in update.averaged.items()})


def scaled_by(vectors: Mapping[str, Vector], factor: float, role: Role | None) -> dict[str, Vector]:
    """Return copies of vectors with the elements of a role multiplied by a factor."""
    scaled = {name: vector.copy() for name, vector in vectors.items()}
    for vector in scaled.values():
        for flat, segment in zip(vector.flats, vector.layout.segments, strict=True):
            if role in (None, segment.role):
                # In float64, for a factor may be too small for float32.
                np.multiply(flat, factor, out=flat, dtype=np.float64, casting="same_kind")
    return scaled


def _sum_of_sizes(flats: NDArray[Any]) -> NDArray[np.float64]:
    total = np.zeros(flats.shape[:-1])
    with np.errstate(over="ignore"):
        for start in range(0, flats.shape[-1], _BLOCK):
            total += np.sum(np.abs(flats[..., start : start + _BLOCK], dtype=np.float64), axis=-1)
    return total


def _plus(sums: Iterable[float]) -> float:
    terms = [float(term) for term in sums]
    # An exact sum refuses what overflows, instead of calling it infinite.
    return fsum(terms) if all(abs(term) < 1e300 for term in terms) else sum(terms)
