"""The clients that a job names: a registered data set, a file for each client, or one table split by a column."""

from fedpact.core.errors import ConfigError, suggest
from fedpact.core.job import Job
from fedpact.data.datasets import load
from fedpact.data.federation import Federation
from fedpact.data.read import by_column, clients


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
    try:
        if "clients" in options:
            return clients(options.pop("clients"), **options)
        if "table" in options:
            return by_column(options.pop("table"), options.pop("by"), options.pop("label"), **options)
        return load(options.pop("name"), **options)
    except KeyError as error:
        known = ("name", "clients", "table", "by", "label")
        raise ConfigError(
            f"[data] lacks {error}; give a data set's name, or clients and label, or table, by and label."
            f"{suggest(next(iter(options), ''), known)}"
        ) from None
    except TypeError as error:
        raise ConfigError(f"[data]: {error}.") from None
