"""The clients that a job names: a registered data set, files, one table split by a column, or a large population."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from fedpact.core.errors import ConfigError, suggest
from fedpact.core.job import Job
from fedpact.core.registry import Spec
from fedpact.data.datasets import defaults, load
from fedpact.data.federation import Federation
from fedpact.data.populations import POPULATIONS
from fedpact.data.read import by_column, clients, partitioned
from fedpact.engine.population import Population

# What may be said of files, beside which they are.
_OPTIONS = ("label", "test", "seed", "stratify", "columns", "text", "names", "name")
# The populations that a file can name: those whose rows are in files themselves.
_POPULATIONS = ("parquet", "sqlite", "folder")


def load_clients(job: Job) -> Federation | Population:
    """Return the clients that a job's `data` names.

    - {name = "heart", ...}: a registered data set and its options;
    - {clients = {lyon = "lyon.csv", ...}, label = "outcome", ...}: a file for each client, or the specification of a
      source such as a query; with schemas = {lyon = "lyon.toml"} what a client knows of its own table; and with
      chunk_rows = 100000 read so many rows at a time;
    - {table = "all.csv", by = "hospital", label = "outcome", ...}: one file, a client for each value of a column;
    - {table = "all.csv", partition = {name = "Dirichlet", clients = 10, alpha = 0.5}, label = "outcome", ...}: one
      file, spread over simulated clients by a partition of `fp.partitions`;
    - {parquet = "all.arrow", client = "user", label = "next", ...}, {sqlite = "all.db", table = "rows", ...} or
      {folder = "users", label = "next", ...}: a population of `fp.populations` with the options of its function, of
      which only the clients asked are read.

    Paths are relative to the working directory.

    Raises:
        ConfigError: the job names no data, or in none of these ways.
        DataError: the data cannot be read.
    """
    if job.data is None:
        raise ConfigError("the job names no data: add a [data] section, or give the clients in Python.")
    options = dict(job.data)
    if kind := _kind_of(options):
        return _population(kind, options)
    if "clients" in options:
        sources = options["clients"]
        if not isinstance(sources, Mapping):
            raise ConfigError(f"[data]: clients is {sources!r}; give a file for each client, by its name.")
        # Images come with their labels.
        in_files = any(isinstance(source, str) for source in sources.values())
        _check(options, ("clients", *(("label",) if in_files else ())), (*_OPTIONS, "schemas", "chunk_rows"))
        del options["clients"]
        return clients(sources, **options)
    if "table" in options and "partition" in options:
        _check(options, ("table", "partition", "label"), _OPTIONS)
        return partitioned(options.pop("table"), options.pop("partition"), **options)
    if "table" in options:
        _check(options, ("table", "by", "label"), _OPTIONS)
        return by_column(options.pop("table"), options.pop("by"), **options)
    if "name" not in options:
        ways = ("name", "clients", "table", *_POPULATIONS)
        hint = next((found for key in options if (found := suggest(key, ways))), "")
        raise ConfigError(
            f"[data] lacks a data set's name; or give clients and label, or table, by and label.{hint} "
            f"A large population is given as {', '.join(_POPULATIONS[:-1])} or {_POPULATIONS[-1]}."
        )
    return load(options.pop("name"), **options)


def data_in_full(job: Job) -> Spec | None:
    """Return a job's `data` with the defaults of a registered data set, or of a population, written out."""
    data = job.data
    if kind := _kind_of(data or {}):
        return _population_in_full(kind, data or {})
    if data is None or isinstance(data.get("clients"), Mapping) or "table" in data or "name" not in data:
        return data
    return {**defaults(data["name"]), **data}


def _kind_of(data: Mapping[str, Any]) -> str | None:
    return next((kind for kind in _POPULATIONS if kind in data), None)


def _settings(kind: str) -> list[inspect.Parameter]:
    return list(inspect.signature(POPULATIONS[kind]).parameters.values())[1:]


def _population_in_full(kind: str, data: Spec) -> Spec:
    """Return the data of a population as the population itself `reads`: what has no effect is left out."""
    defaults = {each.name: each.default for each in _settings(kind)}
    said = {
        name: value for name, value in defaults.items() if value not in (inspect.Parameter.empty, None, ())
    }
    full = {**said, **data}
    if isinstance(full["test"], str) or not full["test"]:
        # No test rows are drawn.
        del full["seed"], full["stratify"]
    return full


def _population(kind: str, options: dict[str, Any]) -> Population:
    made_by, known = POPULATIONS[kind], _settings(kind)
    needed = [each.name for each in known if each.default is each.empty]
    _check(options, (kind, *needed), (each.name for each in known))
    return made_by(options.pop(kind), **options)


def _check(options: Mapping[str, Any], needed: tuple[str, ...], others: Iterable[str]) -> None:
    for name in needed:
        if name not in options:
            raise ConfigError(f'[data] has {needed[0]}, but no "{name}"; add it.')
    known = dict.fromkeys((*needed, *others))
    for name in options:
        if name not in known:
            raise ConfigError(
                f'[data] with {needed[0]} has no setting "{name}".{suggest(name, known)} '
                f"It has: {', '.join(known)}."
            )
