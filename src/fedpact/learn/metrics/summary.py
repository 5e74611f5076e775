"""How a metric varies over clients: its means, its spread, and who is served worst."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fedpact.core.errors import DataError
from fedpact.learn.metrics.kinds import LARGER_IS_BETTER, check_name


@dataclass(frozen=True)
class ClientSummary:
    """One metric over the clients for which it is defined; NaN, and None for the worst, where there is none.

    Attributes:
        weighted_mean: mean over clients, weighted by their sizes.
        mean: mean over clients, each counting the same.
        std: standard deviation over clients (dividing by their number).
        worst: the value of the client served worst; for bias the one furthest from 0.
        worst_client: that client's name; the first by name among equals.
        clients: over how many clients this is.
        undefined: how many clients were left out, as their metric is NaN or missing.
    """

    weighted_mean: float
    mean: float
    std: float
    worst: float
    worst_client: str | None
    clients: int
    undefined: int


def summarise(
    per_client: Mapping[str, Mapping[str, float]], sizes: Mapping[str, int]
) -> dict[str, ClientSummary]:
    """Summarise each metric over clients; the order of the clients changes no bit.

    Args:
        per_client: for each client, its metrics by name.
        sizes: for each client, its number of rows.

    Raises:
        ConfigError: a metric has an unknown name.
        DataError: a client has no size, or a negative one.
    """
    for client in per_client:
        if client not in sizes:
            raise DataError(f'The client "{client}" has metrics and no size: pass its number of rows.')
        if sizes[client] < 0:
            raise DataError(
                f'The client "{client}" has a size of {sizes[client]}: it must be 0 or more rows.'
            )
    found = {check_name(name) for values in per_client.values() for name in values}
    return {name: _summarise(name, per_client, sizes) for name in LARGER_IS_BETTER if name in found}


def _summarise(
    name: str, per_client: Mapping[str, Mapping[str, float]], sizes: Mapping[str, int]
) -> ClientSummary:
    values = {client: per_client[client].get(name, math.nan) for client in sorted(per_client)}
    defined = {client: value for client, value in values.items() if not math.isnan(value)}
    undefined = len(values) - len(defined)
    if not defined:
        return ClientSummary(math.nan, math.nan, math.nan, math.nan, None, 0, undefined)
    rows = sum(sizes[client] for client in defined)
    mean = math.fsum(defined.values()) / len(defined)
    worst_client = max(defined, key=lambda client: _badness(name, defined[client]))
    return ClientSummary(
        weighted_mean=math.fsum(sizes[c] * v for c, v in defined.items()) / rows if rows else math.nan,
        mean=mean,
        std=math.sqrt(math.fsum((value - mean) ** 2 for value in defined.values()) / len(defined)),
        worst=defined[worst_client],
        worst_client=worst_client,
        clients=len(defined),
        undefined=undefined,
    )


def _badness(name: str, value: float) -> float:
    if name == "bias":
        return abs(value)
    return -value if LARGER_IS_BETTER[name] else value
