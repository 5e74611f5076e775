"""Training: from a job, or from Python objects that describe one, to a result."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fedpact.channel.channel import Channel
from fedpact.core.errors import CheckpointError, ConfigError, DataError
from fedpact.core.job import Job
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.data.table_schema import TableSchema
from fedpact.engine.declaring import as_job_declares, compare_tables, compares_tables, schema_in_full
from fedpact.engine.distilling import with_public_rows
from fedpact.engine.engines import arithmetic_of, engine_of
from fedpact.engine.fitted import Fitted
from fedpact.engine.folder import RunFolder
from fedpact.engine.in_clear import told_in_clear
from fedpact.engine.in_process import InProcess
from fedpact.engine.models import (
    read_model_weights,
    starting_from,
)
from fedpact.engine.parts import Parts
from fedpact.engine.population import Population, Prepared, as_population, reads_files, schemas_of
from fedpact.engine.prefetch import Prefetched
from fedpact.engine.preparation import Preparation
from fedpact.engine.preparing import prepare
from fedpact.engine.privacy import check_accountable, statement_of
from fedpact.engine.progress import show_statement, showing_rounds
from fedpact.engine.records import charges_records, check_records_stay
from fedpact.engine.result import Result
from fedpact.engine.runner import Keep, OnRound, Progress, Runner
from fedpact.engine.sampler import check_cohort, count_of
from fedpact.engine.sources import data_in_full, load_clients
from fedpact.engine.work import Engine, Rules, Setting
from fedpact.privacy.ledger import Ledger
from fedpact.store.checkpoint import Checkpoints
from fedpact.store.history import History, Record
from fedpact.store.states import states_for
from fedpact.store.totals import ClientTotals


def train(
    model: Any,
    clients: Population | Iterable[ClientData],
    *,
    algorithm: Any = None,
    table_schema: TableSchema | str | Path | None = None,
    preprocess: Any = (),
    channel: Any = (),
    rounds: int = 10,
    cohort: int | float | None = None,
    sampling: str = "fixed",
    quorum: int | float = 1,
    timeout_s: float | None = None,
    update_range: float = 65536.0,
    stop: Any = (),
    evaluate_every: int = 1,
    evaluate_cohort: int | float | None = None,
    initial: str | Path | None = None,
    seed: int = 0,
    name: str = "job",
    engine: str | Engine = "auto",
    workers: int | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    keep: Keep | None = None,
    ledger: Ledger | None = None,
    on_round: OnRound | None = None,
    progress: bool | None = None,
) -> Result:
    """Train a model over clients whose rows stay where they are.

    Model, algorithm, steps, stages and rules may also be given as a job file has them: by name, or as a mapping
    of the name and settings.

    Args:
        model: a specification from `fp.models`, a torch.nn.Module, or a scikit-learn estimator.
        clients: a federation, a population, or clients.
        algorithm: how; None for the model's own (FedAvg, or OneShot for naive Bayes).
        table_schema: what all clients' tables have to have, a schema or the path of one in TOML: what does not is told
            in one table of conflicts before anything is computed, and each client converts its numbers to the schema's
            units, from those that its own schema says (`Federation.schemas`).
        preprocess: one step or several that prepare the rows, fitted over all clients' training rows.
        channel: one stage or several that an update goes through before and after it is summed.
        rounds: the number of rounds, at most.
        cohort: how many clients take part in a round: a number, a share in (0, 1], or None for all.
        sampling: whether that is exactly so many drawn anew ("fixed"), each client by a coin of its own and so many on
            average ("poisson"), which most privacy accounting is for, or exactly so many in turn ("cyclic").
        quorum: how many of them must answer: a number, or a share of those asked.
        timeout_s: how long one client may take, in seconds.
        update_range: the declared range of every averaged value.
        stop: one rule or several that end the run early.
        evaluate_every: evaluate on held-out rows every so many rounds; 0 for after the last only.
        evaluate_cohort: how many of the clients that hold rows aside are asked then: a number, a share, or None for
            all.
        initial: a model file to start from (safetensors, or a torch state dict).
        seed: the root of every reproducible random choice.
        name: what to call the run.
        engine: who runs the clients: "auto" (whichever the first round shows to be fastest), "in_process" (one by
            one), "batched" (many at once), "workers" (processes of this machine) or "ray" (a cluster); or an engine.
        workers: processes or Ray's actors at most; None for one a core.
        folder: where to keep checkpoints and the result; None to keep nothing.
        resume: go on from the newest checkpoint in `folder`, or start if there is none.
        keep: which checkpoints to keep.
        ledger: the privacy budget of the clients: charged before every release, which is not made if it is exceeded.
        on_round: called after each round with its record.
        progress: show rounds on standard error as they end; None for where that is a terminal.

    Raises:
        FedpactError: what was wrong, where, and what to do.

    Examples:
        >>> import fedpact as fp
        >>> result = fp.train(
        ...     fp.models.Logistic(),
        ...     fp.datasets.breast_cancer(),
        ...     preprocess=[fp.Standardize()],
        ...     algorithm=fp.FedAvg(lr=0.1, local_epochs=1),
        ...     rounds=3,
        ... )
        >>> result.evaluation.metrics["accuracy"] > 0.9
        True
    """
    parts = Parts.of(model, algorithm, preprocess, channel, stop)
    reads = dict(getattr(clients, "reads", {}))
    job = Job.of(
        {
            **parts.specs(),
            "name": name,
            "data": reads or None,
            "table_schema": schema_in_full(table_schema),
            "seed": seed,
            "rounds": rounds,
            "cohort": cohort,
            "sampling": sampling,
            "quorum": quorum,
            "timeout_s": timeout_s,
            "update_range": update_range,
            "evaluate_every": evaluate_every,
            "evaluate_cohort": evaluate_cohort,
            "initial": None if initial is None else str(initial),
            "initial_sha256": _digest_of(initial),
        }
    )
    running = Running(engine, workers, folder, resume, keep, ledger, on_round, progress)
    return _execute(job, parts, as_population(clients), schemas_of(clients), running)


def run(
    job: Job,
    clients: Population | Iterable[ClientData] | None = None,
    *,
    engine: str | Engine = "auto",
    workers: int | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    keep: Keep | None = None,
    ledger: Ledger | None = None,
    on_round: OnRound | None = None,
    progress: bool | None = None,
) -> Result:
    """Carry out a job: the same as `train`, from data instead of objects.

    Args:
        job: the job.
        clients: the clients; None for those that the job names.
        engine: who runs the clients, as of `train`.
        workers: processes or Ray's actors at most; None for one a core.
        folder: where to keep checkpoints and the result; None to keep nothing.
        resume: go on from the newest checkpoint in `folder`, or start if there is none.
        keep: which checkpoints to keep.
        ledger: the privacy budget of the clients: charged before every release, which is not made if it is exceeded.
        on_round: called after each round with its record.
        progress: show rounds on standard error as they end; None for where that is a terminal.

    Raises:
        FedpactError: what was wrong, where, and what to do.
    """
    if job.data is None and clients is not None:
        job = job.model_copy(update={"data": dict(getattr(clients, "reads", {})) or None})
    job, parts = _completed(job)
    clients = load_clients(job) if clients is None else clients
    running = Running(engine, workers, folder, resume, keep, ledger, on_round, progress)
    return _execute(job, parts, as_population(clients), schemas_of(clients), running)


def complete(job: Job) -> Job:
    """Return the job with every setting of its parts written out, as `train` writes it.

    A job has one digest, however much of it was left to defaults.

    Raises:
        ConfigError: a name or a setting is wrong.
        ModelError: the model is none.
    """
    return _completed(job)[0]


def _completed(job: Job) -> "tuple[Job, Parts]":
    parts = Parts.of(job.model, job.algorithm, job.preprocess, job.channel, job.stop)
    digest = _digest_of(job.initial)
    if job.initial_sha256 not in (None, digest):
        raise ConfigError(
            f'the model file "{job.initial}" is not the one that the job was written for: its SHA-256 is '
            f"{digest or 'unknown, as it is not there'}, the job says {job.initial_sha256}."
        )
    schema = job.table_schema
    settings = {
        **job.model_dump(),
        **parts.specs(),
        "data": data_in_full(job),
        "table_schema": schema_in_full(schema) if isinstance(schema, str) else schema,
        "initial_sha256": digest,
    }
    return Job.of(settings), parts


def _digest_of(path: str | Path | None) -> str | None:
    """Return the SHA-256 of a file, in hex; None where there is none, which whoever reads it will say."""
    if path is None or not Path(path).is_file():
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Running:
    """How a job is carried out on this machine: what `train` and `run` are told besides the job."""

    engine: str | Engine
    workers: int | None
    folder: str | Path | None
    resume: bool
    keep: Keep | None
    ledger: Ledger | None
    on_round: OnRound | None
    progress: bool | None

    def __post_init__(self) -> None:
        if self.resume and self.folder is None:
            raise ConfigError("there is nothing to resume from: name the folder of the run.")
        if self.keep and self.folder is None:
            raise ConfigError("there is nowhere to keep checkpoints: name the folder of the run.")


def _execute(
    job: Job, parts: Parts, raw: Population, schemas: Mapping[str, TableSchema], running: Running
) -> Result:
    check_cohort(job.cohort, job.quorum, len(raw.ids(0)))
    check_records_stay(parts.algorithm, parts.steps)
    with (
        RunFolder.held(running.folder, job, running.resume) as place,
        showing_rounds(job, running.progress) as show,
    ):

        def after_round(record: Record) -> None:
            show(record)
            if running.on_round:
                running.on_round(record)

        known = place.continued(job) if place else job
        arithmetic = place.read_arithmetic() if place and place.begun else None
        done = max(Checkpoints(place.checkpoints).rounds(), default=0) if place and place.begun else 0
        devices = getattr(parts.model, "devices", ())
        engine = engine_of(
            running.engine, running.workers, job.timeout_s, job.rounds - done, arithmetic, devices
        )
        try:
            result = _hold(known, parts, raw, schemas, engine, place, running, after_round)
        finally:
            # An engine that was given ready made is whoever's made it, for other runs.
            if engine is not running.engine:
                engine.close()
    show_statement(result.privacy, running.progress)
    return result


def _hold(
    job: Job,
    parts: Parts,
    raw: Population,
    schemas: Mapping[str, TableSchema],
    engine: Engine,
    place: RunFolder | None,
    running: Running,
    on_round: OnRound,
) -> Result:
    # Checked before any client is asked; what depends on the model is checked once there is one.
    channel = Channel(parts.stages, parts.algorithm)
    _check_charged(running.ledger, channel, parts.algorithm)
    seed, keep = Seed.of(job.seed), running.keep or Keep()
    known = place.read_preparation() if place and place.begun else None
    preparation = known or _prepare(job, parts, raw, schemas, channel)
    parts.check_metrics(preparation.labels.kind, keep, job.evaluate_every, job.rounds)
    model = start = parts.model.build(preparation.schema)
    channel = channel.for_model(model.layout)
    checkpoints = Checkpoints(place.checkpoints, keep.last, keep_every=keep.each) if place else None
    latest = checkpoints.latest() if checkpoints and running.resume else None
    if job.initial is not None and latest is None:
        start = starting_from(model, read_model_weights(job.initial, model))
    kept = states_for(place.states if place else None)
    met = min(len(raw.ids(0)), job.rounds * count_of(job.cohort, len(raw.ids(0))))
    progress = Progress(
        parts.algorithm.init(start, seed), kept, History(job.rounds), ClientTotals(expected=met)
    )
    progress.note_failures(0, preparation.failures)
    if place and checkpoints and latest:
        _go_back(job, place, checkpoints, latest, progress)
    narrower = getattr(model, "widens", False)
    prepared = Prepared(
        as_job_declares(job, schemas, raw),
        partial(preparation.client, dtype=model.input_dtype, narrower=narrower),
        row_by_row=preparation.row_by_row,
        resized=preparation.resizes,
    ).ahead()
    population = Prefetched(prepared) if reads_files(raw) else prepared
    rules = Rules(job.cohort, job.sampling, job.quorum, job.update_range)
    setting = Setting(
        with_public_rows(parts.algorithm, preparation, model), model, population, channel, rules, seed
    )
    # What accounting needs and is not there is missed now, and not at the end.
    check_accountable(setting, len(raw.ids(0)), job.rounds, running.ledger)
    runner = Runner(job, parts.rules, engine, setting, running.ledger, place.write_spent if place else None)

    def save(progress: Progress, score: float | None) -> None:
        if place and checkpoints:
            place.begin(job, preparation, arithmetic_of(engine))
            done, contents = len(progress.history), place.noted(progress)
            checkpoints.save(done, contents, job=job.lineage, score=score, scored_by=keep.best)
            progress.kept.retain(checkpoints.rounds())

    try:
        stopped = runner.go(progress, keep, save if place else None, on_round)
    finally:
        if isinstance(population, Prefetched):
            population.close()
    fitted = Fitted(model, progress.state.model, preparation, job.model)
    evaluation, present = runner.evaluate(progress), len(raw.ids(0))
    compared, evaluated = compares_tables(job, schemas), evaluation is not None
    in_clear = told_in_clear(parts, channel, preparation, compared, evaluated)
    rounds = len(progress.history)
    statement = statement_of(channel, progress.spent, rounds, present, parts.algorithm, in_clear)
    result = Result.of(job, fitted, progress, evaluation, population, stopped, engine.describe(), statement)
    if place and checkpoints:
        place.begin(job, preparation, arithmetic_of(engine))
        result.save(place.path)
        checkpoints.tidy()
    return result


def _prepare(
    job: Job, parts: Parts, raw: Population, schemas: Mapping[str, TableSchema], channel: Channel
) -> Preparation:
    seed, engine = Seed.of(job.seed), InProcess(job.timeout_s)
    rules = Rules(quorum=job.quorum, fatal=(DataError,))
    failures = compare_tables(job, schemas, raw, engine, rules, seed)
    declared = as_job_declares(job, schemas, raw)
    return prepare(
        *(parts.model, parts.steps, declared, engine, rules, seed),
        failures=failures,
        weighed=parts.counts_classes,
        mask=channel.mask,
    )


def _check_charged(ledger: Ledger | None, channel: Channel, algorithm: Any) -> None:
    if ledger is not None and channel.noise is None and not charges_records(ledger, algorithm):
        raise ConfigError(
            "a ledger was given, but no stage of the channel adds noise, so nothing bounds what the models tell of a "
            "client; add GaussianNoise to the channel, or leave the ledger out."
        )


def _go_back(job: Job, place: RunFolder, checkpoints: Checkpoints, latest: Path, progress: Progress) -> None:
    """Bring progress to where a checkpoint left it."""
    place.go_back(progress, checkpoints.load(latest, like={"state": progress.state}, job=job.lineage))
    progress.kept.retain(checkpoints.rounds())
    if len(progress.history) > job.rounds:
        raise CheckpointError(
            f'the run in "{place.path}" has {len(progress.history)} rounds behind it, and the job has '
            f"{job.rounds}; ask for {len(progress.history)} or more, or choose another folder."
        )
