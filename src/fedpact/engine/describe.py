"""A summary of all clients' rows, of which every number is a sum over clients that went through a channel."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from fedpact.core.errors import ConfigError
from fedpact.core.rows import ClientData, Rows
from fedpact.data.agree import labels_of
from fedpact.data.chunked import ChunkedRows
from fedpact.data.compare import Agreed
from fedpact.data.compare_schemas import CompareSchemas
from fedpact.data.preprocess.by_chunk import ByChunk
from fedpact.data.preprocess.categories import Counts
from fedpact.data.preprocess.columns import Value, as_frame
from fedpact.data.preprocess.dates import FittedDateParts
from fedpact.data.preprocess.moments import Moments
from fedpact.data.preprocess.quantiles import Quantiles
from fedpact.data.summary.counts import LabelBalance, Present
from fedpact.data.summary.frequent import Frequent, FrequentCategories
from fedpact.data.summary.histograms import Histogram, Histograms, edges_between
from fedpact.data.table_schema import ColumnSchema, TableSchema
from fedpact.data.wording import at_client
from fedpact.engine.asking import Asking, mask_of
from fedpact.engine.description import ColumnSummary, Description, Quantile
from fedpact.engine.population import Population, Prepared, as_population, schemas_of
from fedpact.engine.private_description import Wanted, describe_privately

# Of more columns than this, a statement says how many they are.
_NAMED = 8
_DELTA = 1e-6


def compare_schemas(
    clients: Population | Iterable[ClientData],
    schema: TableSchema | None = None,
    *,
    own: Mapping[str, TableSchema] | None = None,
    label: str = "label",
) -> TableSchema:
    """Have clients describe their tables, and return what these have in common.

    What leaves a client are names, kinds and units of its columns and what its schema declares; no value.

    Args:
        clients: a federation, a population, or clients.
        schema: what all are to have; None for what most have.
        own: client → its own schema, which says what people know, such as units; None for the federation's `schemas`.
            Of others it is inferred.
        label: what to call the labels.

    Raises:
        DataError: tables differ; a table of conflicts names client, column, what differs and a suggested mend.
        ConfigError: `own` names a client that is not there.
    """
    population = as_population(clients)
    own = schemas_of(clients) if own is None else own
    return _agreed(Asking(population, None), schema, own, label).schema


def describe(
    clients: Population | Iterable[ClientData],
    *,
    schema: TableSchema | None = None,
    own: Mapping[str, TableSchema] | None = None,
    channel: Any = (),
    epsilon: float | None = None,
    delta: float | None = None,
    exact: bool | None = None,
    quantiles: Sequence[float] = (0.25, 0.5, 0.75),
    bins: int = 20,
    minimum: int = 5,
    label: str = "label",
) -> Description:
    """Summarise the training rows of all clients together; they stay where they are.

    Every number is a sum over clients, or found from such sums alone: it is that of the pooled rows, to the bit,
    however they are spread. Clients name their columns before, which are compared, and each its label balance behind.

    With `epsilon` it is differentially private for each row instead: one round of sums with noise, of which every
    number carries its error. Then only columns of the schema are described: counts of values; of numbers and dates
    whose range it declares also mean, deviation, histogram, quantiles and a noisy range; of columns whose categories it
    declares how many rows have each. Values are not compared with it: those outside a range count as its nearest end,
    unknown categories as others.

    Args:
        clients: a federation, a population, or clients.
        schema: what all tables are to have; None for what most have. Numbers come in its units. With `epsilon` it must
            be given.
        own: client → its own schema, such as the units of its numbers, which it converts itself; None for the
            federation's `schemas`.
        channel: nothing, or one stage that masks, such as `fp.SecureSum()`: then the server sees sums over all clients
            alone, and label balances are left out.
        epsilon: ε of differential privacy for each row, of all that is released together; None for exact sums.
        delta: its δ, well below one over the rows; None for 1e-6.
        exact: whether to tell the least and the largest value and exact quantiles, which are values of rows, or lie
            between two. Else quantiles come from the counts of bins, with their error, and histograms are of the
            columns alone for which the schema declares a finite range. None for whether no `epsilon` is given.
        quantiles: which, from 0 to 1.
        bins: of a histogram.
        minimum: how many rows a category has at least to be named.
        label: what to call the labels.

    Raises:
        DataError: clients' tables differ, or a value is infinite or not of its column's kind; client and column are
            named.
        ConfigError: a setting is out of its range, or `epsilon` is given and no schema with ranges or categories.
        ChannelError: the channel does anything but mask.
        SecureError: too few clients are there for a masked sum.
        QuorumError: a client did not answer.

    Examples:
        >>> import fedpact as fp
        >>> summary = fp.describe(fp.datasets.breast_cancer())
        >>> summary.clients, len(summary.columns)
        (4, 31)
    """
    asked = _Asked(
        exact is not False, _as_quantiles(quantiles), _as_count("bins", bins), _as_count("minimum", minimum)
    )
    mask = mask_of(channel)
    population = as_population(clients)
    own = schemas_of(clients) if own is None else own
    if epsilon is not None:
        wanted = _as_wanted(asked, epsilon, delta, exact)
        return describe_privately(population, schema, own, mask, wanted)
    if delta is not None:
        raise ConfigError("delta goes with epsilon, which is not given; give both, or leave delta out.")
    asking = Asking(population, mask)
    agreed = _agreed(asking, schema, own, label)
    asking.population = Prepared(population, partial(_view, agreed.schema, own))
    return _described(asking, agreed, asked)


@dataclass(frozen=True)
class _Asked:
    """What a description is to hold."""

    exact: bool
    quantiles: tuple[float, ...]
    bins: int
    minimum: int


def _as_wanted(asked: _Asked, epsilon: float, delta: float | None, exact: bool | None) -> Wanted:
    if exact:
        raise ConfigError(
            "exact=True tells values of rows, and with epsilon nothing does; leave exact out, or epsilon."
        )
    return Wanted(epsilon, _DELTA if delta is None else delta, asked.quantiles, asked.bins, asked.minimum)


def _agreed(asking: Asking, schema: TableSchema | None, own: Mapping[str, TableSchema], label: str) -> Agreed:
    ids = asking.population.ids(0)
    for id in own:
        if id not in ids:
            raise ConfigError(f'own has a schema for "{id}", and there is no such client.')
    comparing = CompareSchemas(schema, own, label)
    agreed: Agreed = asking.fitted(comparing, "the names, kinds and units of each client's columns")
    return agreed


def _view(schema: TableSchema, own: Mapping[str, TableSchema], data: ClientData) -> ClientData:
    """Return a client whose training rows are one table with all columns, in the schema's units, dates as days."""
    if data.id in own:
        data = schema.converted(data, own[data.id])
    rows, view = data.train, partial(_viewed, schema, data.id)
    return ClientData(data.id, rows.then(view) if isinstance(rows, ChunkedRows) else view(rows))


def _viewed(schema: TableSchema, id: str, rows: Rows) -> Rows:
    import pandas as pd

    label = schema.label
    with at_client(id):
        if not hasattr(rows.x, "columns") and np.ndim(rows.x) > 2:
            columns: dict[str, Any] = {name: np.zeros(len(rows), np.int8) for name in schema.of_kind("image")}
        else:
            frame = as_frame(rows.x)
            columns = {
                name: frame[name].reset_index(drop=True) for name in schema.names if name in frame.columns
            }
            dates = tuple(name for name in schema.of_kind("date") if not frame[name].isna().all())
            days = FittedDateParts(dates, ("days",)).transform(frame[list(dates)]) if dates else frame[[]]
            columns |= {name: days[f"{name}:days"].to_numpy() for name in dates}
        if label is not None and rows.y is not None:
            labels = labels_of(rows)
            # Of labels at every position of an example there are counts alone.
            columns[label.name] = pd.Series(labels if labels.ndim == 1 else np.zeros(len(rows)))
    return Rows(pd.DataFrame(columns, index=range(len(rows))))


def _described(asking: Asking, agreed: Agreed, asked: _Asked) -> Description:
    schema = agreed.schema
    counting = Present(schema.names)
    counted = asking.state(
        ByChunk(counting), "how many rows there are, and in how many of them each column has a value"
    )
    rows, present = counting.rows(counted), counting.fitted(counted)
    filled = [column for column in schema.columns if present[column.name]]
    numbers = [column for column in filled if _is_measured(column, agreed)]
    listed = [column for column in filled if _is_listed(column, agreed)]
    moments = asking.fitted(
        ByChunk(Moments(_names(numbers))), f"mean and standard deviation of {_spelt(numbers)}"
    )
    found = _order_statistics(asking, numbers, asked)
    histograms = _histograms(asking, numbers, found, asked)
    frequent = _frequent(asking, listed, asked.minimum)
    summaries = []
    for column in schema.columns:
        name, count = column.name, present[column.name]
        known = ColumnSummary(name, column.kind, column.unit, count, rows - count)
        if name in moments:
            known = _measured(known, moments[name], found.get(name), histograms.get(name), asked)
        if name in frequent:
            known = _listed(known, frequent[name])
        summaries.append(known)
    balance = _label_balance(asking, agreed, frequent)
    return Description(
        clients=asking.clients,
        rows=rows,
        columns=tuple(summaries),
        schema=schema,
        labels=balance,
        minimum=asked.minimum,
        privacy=asking.statement(),
    )


def _order_statistics(
    asking: Asking, columns: Sequence[ColumnSchema], asked: _Asked
) -> Mapping[str, Sequence[float]]:
    """Return column → its least value, its largest, and its quantiles; nothing where they are not to be exact."""
    if not asked.exact:
        return {}
    found: Mapping[str, Sequence[float]] = asking.fitted(
        ByChunk(Quantiles(_names(columns), (0.0, 1.0, *asked.quantiles))),
        f"least, largest and quantile values of {_spelt(columns)}, each the value of a row or between two",
    )
    return found


def _histograms(
    asking: Asking, columns: Sequence[ColumnSchema], found: Mapping[str, Sequence[float]], asked: _Asked
) -> Mapping[str, Histogram]:
    ends: dict[str, tuple[float, float]] = {}
    for column in columns:
        if column.bounds is not None and all(map(math.isfinite, column.bounds)):
            ends[column.name] = column.bounds
        elif column.name in found:
            low, high = found[column.name][:2]
            ends[column.name] = low, high
    edges = tuple(edges_between(low, high, asked.bins) for low, high in ends.values())
    histograms: Mapping[str, Histogram] = asking.fitted(
        ByChunk(Histograms(tuple(ends), edges)),
        f"histograms of {_spelt([column for column in columns if column.name in ends])}",
    )
    return histograms


def _frequent(asking: Asking, columns: Sequence[ColumnSchema], minimum: int) -> Mapping[str, Frequent]:
    declared = [column for column in columns if column.categories is not None]
    open = [column for column in columns if column.categories is None]
    lists = {column.name: column.categories or () for column in declared}
    counted = asking.fitted(
        ByChunk(Counts(_names(declared), lists)), f"how many rows have each category of {_spelt(declared)}"
    )
    frequent: dict[str, Frequent] = {}
    for name, rows in counted.items():
        most_first = sorted(rows.items(), key=lambda pair: -pair[1])
        frequent[name] = Frequent({value: n for value, n in most_first if n >= minimum}, minimum - 1)
    said = f"the categories of {_spelt(open)} that at least {minimum} rows have, and how many do"
    return frequent | asking.fitted(ByChunk(FrequentCategories(_names(open), minimum)), said)


def _measured(
    known: ColumnSummary,
    moment: Any,
    found: Sequence[float] | None,
    histogram: Histogram | None,
    asked: _Asked,
) -> ColumnSummary:
    least, most, *values = found or (None, None)
    if found is not None:
        quantiles = tuple(Quantile(at, value) for at, value in zip(asked.quantiles, values, strict=True))
    else:
        quantiles = tuple(_binned(histogram, asked.quantiles)) if histogram is not None else ()
    return replace(
        known,
        mean=moment.mean,
        deviation=moment.deviation,
        least=least,
        most=most,
        quantiles=quantiles,
        histogram=histogram,
    )


def _binned(histogram: Histogram, at: Sequence[float]) -> Iterable[Quantile]:
    """Yield the quantiles that lie in bins, each the middle of where it may be."""
    up_to = np.cumsum([histogram.below, *histogram.counts, histogram.above])
    for q in at:
        position = (int(up_to[-1]) - 1) * q
        low, high = (
            int(np.searchsorted(up_to, place, side="right"))
            for place in (math.floor(position), math.ceil(position))
        )
        if low >= 1 and high <= len(histogram.counts):
            start, end = histogram.edges[low - 1], histogram.edges[high]
            yield Quantile(q, start + (end - start) / 2, (end - start) / 2)


def _listed(known: ColumnSummary, frequent: Frequent) -> ColumnSummary:
    return replace(
        known,
        categories=frequent.counts,
        others=known.count - sum(frequent.counts.values()),
        unnamed_at_most=frequent.unnamed_at_most,
    )


def _label_balance(
    asking: Asking, agreed: Agreed, frequent: Mapping[str, Frequent]
) -> dict[str, dict[Value | None, int]]:
    label = agreed.schema.label
    if asking.mask is not None or label is None or label.name not in frequent:
        return {}
    labels = tuple(frequent[label.name].counts)
    counts = asking.fitted(
        ByChunk(LabelBalance((label.name,), labels)), "how many rows of each label each client has"
    )
    return {id: dict(zip([*labels, None], each, strict=True)) for id, each in counts.items()}


def _is_measured(column: ColumnSchema, agreed: Agreed) -> bool:
    return column.kind in ("numeric", "date") or (column.kind == "label" and agreed.label == "numbers")


def _is_listed(column: ColumnSchema, agreed: Agreed) -> bool:
    return column.kind in ("category", "ordinal") or (
        column.kind == "label" and agreed.label in ("text", "classes")
    )


def _as_quantiles(quantiles: Sequence[float]) -> tuple[float, ...]:
    listed = tuple(map(float, quantiles))
    if not all(0 <= q <= 1 for q in listed):
        raise ConfigError(f"quantiles are {list(quantiles)}; each lies between 0 and 1.")
    return tuple(sorted(set(listed)))


def _as_count(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number, 1 or more.")
    return value


def _names(columns: Sequence[ColumnSchema]) -> tuple[str, ...]:
    return tuple(column.name for column in columns)


def _spelt(columns: Sequence[ColumnSchema]) -> str:
    names = _names(columns)
    return ", ".join(names) if len(names) <= _NAMED else f"{len(names)} columns"
