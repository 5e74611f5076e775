"""The clients that a job names: a registered data set, a file for each client, or one table split by a column."""

from collections.abc import Mapping
from typing import Any

from fedpact.core.errors import ConfigError, suggest
from fedpact.core.job import Job
from fedpact.core.registry import Spec
from fedpact.data.datasets import defaults, load
from fedpact.data.federation import Federation
from fedpact.data.read import by_column, clients

# What may be said of files, beside which they are.
_OPTIONS = ("label", "test", "seed", "stratify", "columns", "text", "names", "name")


def load_clients(job: Job) -> Federation:
    """Return the clients that a job's `data` names.

    - {name = "heart", ...}: a registered data set and its options;
    - {clients = {lyon = "lyon.csv", ...}, label = "outcome", ...}: a file for each client;
    - {table = "all.csv", by = "hospital", label = "outcome", ...}: one file, a client for each value of a column.

    Paths are relative to the working directory.

    Raises:
        ConfigError: the job names no data, or in none of these ways.
        DataError: the data cannot be read.
    """
    if job.data is None:
        raise ConfigError("the job names no data: add a [data] section, or give the clients in Python.")
    options = dict(job.data)
    if "clients" in options:
        _check(options, "clients", "label")
        sources = options.pop("clients")
        if not isinstance(sources, Mapping):
            raise ConfigError(f"[data]: clients is {sources!r}; give a file for each client, by its name.")
        return clients(sources, **options)
    if "table" in options:
        _check(options, "table", "by", "label")
        return by_column(options.pop("table"), options.pop("by"), **options)
    if "name" not in options:
        ways = ("name", "clients", "table")
        hint = next((found for key in options if (found := suggest(key, ways))), "")
        raise ConfigError(
            f"[data] lacks a data set's name; or give clients and label, or table, by and label.{hint}"
        )
    return load(options.pop("name"), **options)


def data_in_full(job: Job) -> Spec | None:
    """Return a job's `data` with the defaults of a registered data set written out."""
    data = job.data
    if data is None or isinstance(data.get("clients"), Mapping) or "table" in data or "name" not in data:
        return data
    return {**defaults(data["name"]), **data}


def _check(options: Mapping[str, Any], *needed: str) -> None:
    for name in needed:
        if name not in options:
            raise ConfigError(f'[data] has {needed[0]}, but no "{name}"; add it.')
    known = dict.fromkeys((*needed, *_OPTIONS))
    for name in options:
        if name not in known:
            raise ConfigError(
                f'[data] with {needed[0]} has no setting "{name}".{suggest(name, known)} '
                f"It has: {', '.join(known)}."
            )
