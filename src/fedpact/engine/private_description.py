"""A description under differential privacy for each row: one round of sums, with noise for all of them at once.

All sums travel as one vector, to which a row adds no more than a known length (`fedpact.data.summary.record_sums`), and
noise scaled to that length makes it (ε, δ)-private as a whole (`noisy_sums`); all that is told is found from the noisy
sums (`noisy_summaries`). Values are never compared with the schema, which would tell something of them besides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.channel import Channel
from fedpact.channel.mask import Mask
from fedpact.core.errors import ConfigError, DataError
from fedpact.core.seeds import Seed
from fedpact.data.preprocess.by_chunk import ByChunk
from fedpact.data.summary.record_sums import RecordSums, parts_of
from fedpact.data.table_schema import TableSchema
from fedpact.engine.description import Description
from fedpact.engine.in_process import InProcess
from fedpact.engine.masked_evaluation import Whole
from fedpact.engine.noisy_summaries import NoisySummaries
from fedpact.engine.noisy_sums import CentralNoise, NoisyAtClients, NoisyAtServer, SharedNoise
from fedpact.engine.population import Population
from fedpact.engine.rounds import hold_to_end
from fedpact.engine.work import Rules, Setting
from fedpact.privacy.accounting import account
from fedpact.privacy.events import Everyone, Release
from fedpact.privacy.solve import noise_for
from fedpact.privacy.statement import Protection, Statement

# What 1 becomes in clear, where a sum has 64 bits: with so many steps a discrete Gaussian costs what a Gaussian does.
_STEP = 1 << 30
# Under a mask, so many of its bits are for rows, clients and noise.
_BITS_FOR_ROWS = 28
# Every client answers, and once: another answer would be another release.
_ALL = Rules(quorum=1.0, fatal=(DataError,))


@dataclass(frozen=True)
class Wanted:
    """What a description under noise is to hold.

    Args:
        epsilon: ε > 0 of all that is released.
        delta: its δ, between 0 and 1.
        quantiles: which, from 0 to 1.
        bins: of a histogram.
        minimum: how many rows a category has at least to be named.

    Raises:
        ConfigError: ε or δ is out of its range.
    """

    epsilon: float
    delta: float
    quantiles: tuple[float, ...]
    bins: int
    minimum: int

    def __post_init__(self) -> None:
        for name, value, most in (("epsilon", self.epsilon, math.inf), ("delta", self.delta, 1.0)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < most:
                between = "above 0" if most == math.inf else "between 0 and 1, below one over the rows"
                raise ConfigError(f"{name} is {value!r}; it must be a number {between}.")


def describe_privately(
    population: Population,
    schema: TableSchema | None,
    own: Mapping[str, TableSchema],
    mask: Mask | None,
    wanted: Wanted,
) -> Description:
    """Describe the columns of a schema over all clients' training rows, (ε, δ)-privately for each row.

    Args:
        population: the clients.
        schema: the columns, with the ranges of numbers and dates and the categories of others.
        own: client → its own schema, whose units are converted.
        mask: what hides each client's part; None where the server adds the noise.
        wanted: what the description is to hold.

    Raises:
        ConfigError: there is no such schema, nothing converts a unit, or ε is too small for the mask's bits.
        DataError: a client lacks a column; it is named.
        SecureError: too few clients are there for a masked sum.
        QuorumError: a client did not answer.
    """
    schema, ids = _checked(schema), population.ids(0)
    for id, theirs in own.items():
        if id not in ids:
            raise ConfigError(f'own has a schema for "{id}", and there is no such client.')
        for column in schema.columns:
            if column.name in theirs:
                column.rule_from(theirs[column.name].unit)
    step = _STEP if mask is None else 1 << max(0, mask.bits - _BITS_FOR_ROWS)
    sums = RecordSums(schema.names, schema, own, wanted.bins, step)
    noise = CentralNoise(sums) if mask is None else SharedNoise(sums, len(ids), mask.least(len(ids)))
    multiplier = noise_for(
        lambda tried: [Release(noise.mechanism(tried), Everyone())], wanted.epsilon, wanted.delta
    )
    noisy = _asked(population, noise, multiplier, mask)
    deviation = noise.deviation(multiplier) / step
    found = NoisySummaries(noisy / step, deviation, 0.25 / step**2, wanted.quantiles, wanted.minimum)
    return Description(
        clients=len(ids),
        rows=found.rows,
        columns=found.columns(sums.parts),
        schema=schema,
        minimum=wanted.minimum,
        privacy=_statement(noise, multiplier, wanted, mask, len(ids), bool(own)),
        rows_error=deviation,
    )


def _checked(schema: TableSchema | None) -> TableSchema:
    declared = () if schema is None else parts_of(schema, 1)
    if schema is None or not any(part.cells for part in declared):
        lacks = "no schema is given" if schema is None else "this one has neither"
        raise ConfigError(
            "with epsilon a description is of what a schema declares, for ranges and categories found in the rows "
            f"would tell of them: {lacks}; give schema= with the range of a number or a date, or the categories of a "
            "column."
        )
    return schema


def _asked(
    population: Population, noise: CentralNoise | SharedNoise, multiplier: float, mask: Mask | None
) -> NDArray[np.int64]:
    """Return the noisy sums, in steps."""
    sums = ByChunk(noise.sums)
    algorithm = NoisyAtServer(sums, noise.sampler(multiplier))
    channel = Channel((), algorithm)
    if mask is not None and isinstance(noise, SharedNoise):
        most = noise.most(mask.bits, multiplier)
        if most < noise.sums.step:
            raise ConfigError(
                f"the noise that epsilon asks for leaves no room for rows in the {mask.bits} bits of "
                f"{type(mask).__name__}; set them higher, epsilon higher, or describe fewer columns."
            )
        algorithm = NoisyAtClients(sums, noise.sampler(multiplier), most)
        # Nobody drops out on purpose: sums of other rows do not go together.
        undropped: Mask = replace(cast("Any", mask), dropout=0.0)
        channel = Channel((Whole(range=noise.room(mask.bits), stochastic=False), undropped), algorithm)
    seed = Seed.of(0).child("statistics", type(algorithm).__name__)
    setting = Setting(algorithm, None, population, channel, _ALL, seed)
    state = hold_to_end(InProcess(), setting)
    return np.array(state.found, np.int64)


def _statement(
    noise: CentralNoise | SharedNoise,
    multiplier: float,
    wanted: Wanted,
    mask: Mask | None,
    clients: int,
    converted: bool,
) -> Statement:
    release = Release(noise.mechanism(multiplier), Everyone())
    guarantee = account([release], wanted.delta)
    note = "A record is a training row: for whoever has several, epsilon is so many times larger, or more."
    in_clear = ["that every client has the columns of the schema"]
    if converted:
        in_clear.append("the units of each client's columns")
    if mask is not None and isinstance(noise, SharedNoise):
        most = int(noise.most(mask.bits, multiplier)) // noise.sums.step
        in_clear.append(f"that no client has more than {most:,} rows, for it would have refused")
    against = (
        "everybody who sees the description, but not the server, which adds the noise"
        if mask is None
        else "everybody, the server too, where all clients in a sum add their noise as they are asked"
    )
    guarantee = replace(guarantee, notes=(*guarantee.notes, note))
    return Statement(
        server_sees="each client's part of every sum, as it is" if mask is None else mask.seen(),
        protections=(Protection("record", guarantee, (release,), against),),
        rounds=1,
        smallest_cohort=clients,
        dropouts=None if mask is None else 0,
        colluding=0,
        in_clear=tuple(in_clear),
        trusted=None if mask is None else mask.trusted(),
        released="the noisy sums that were released",
    )
