"""What a job declares of clients' tables: compared with what they hold before anything is computed, and kept to."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fedpact.channel.channel import Channel
from fedpact.core.job import Job
from fedpact.core.seeds import Seed
from fedpact.data.compare_schemas import CompareSchemas
from fedpact.data.declared import as_declared
from fedpact.data.table_schema import TableSchema
from fedpact.engine.population import Population, Prepared
from fedpact.engine.rounds import hold_to_end
from fedpact.engine.work import Engine, Rules, Setting


def schema_in_full(schema: TableSchema | str | Path | None) -> list[dict[str, Any]] | None:
    """Return a schema as a job has it.

    Args:
        schema: a schema, or the path of a TOML file.

    Raises:
        DataError: there is no such file.
        ConfigError: it is no schema.
    """
    if schema is None:
        return None
    return (schema if isinstance(schema, TableSchema) else TableSchema.from_toml(Path(schema))).to_json()


def schema_of(job: Job) -> TableSchema | None:
    """Return the schema that a completed job declares.

    Raises:
        ConfigError: it is no schema.
    """
    if job.table_schema is None or isinstance(job.table_schema, str):
        return None
    return TableSchema.from_json(job.table_schema)


def compares_tables(job: Job, schemas: Mapping[str, TableSchema]) -> bool:
    """Return whether tables are compared: where the job or a client declares something."""
    return bool(schemas) or schema_of(job) is not None


def compare_tables(
    job: Job,
    schemas: Mapping[str, TableSchema],
    population: Population,
    engine: Engine,
    rules: Rules,
    seed: Seed,
) -> dict[str, str]:
    """Have clients compare their tables with the job's schema, and with each other; return client → why it could not.

    Nobody is asked where neither the job nor a client declares anything: what does not go together is then told where
    columns are agreed on.

    Args:
        job: the job.
        schemas: client → what it knows of its own table.
        population: the clients with their raw rows.
        engine: who runs the clients.
        rules: how many must answer.
        seed: the job's.

    Raises:
        DataError: tables differ; a table of conflicts names client, column, what differs and a suggested mend.
    """
    failures = dict[str, str]()
    if compares_tables(job, schemas):
        comparing = CompareSchemas(schema_of(job), schemas, job.reading.get("label", "label"))
        stream = seed.child(type(comparing).__name__)
        hold_to_end(
            engine, Setting(comparing, None, population, Channel((), comparing), rules, stream), failures
        )
    return failures


def as_job_declares(job: Job, schemas: Mapping[str, TableSchema], population: Population) -> Population:
    """Return clients whose tables have the columns, kinds and units of the job's schema."""
    wanted = schema_of(job)
    if wanted is None:
        return population
    # A client's own schema says what its rows are measured in.
    return Prepared(population, partial(as_declared, wanted, schemas), row_by_row=not schemas)
