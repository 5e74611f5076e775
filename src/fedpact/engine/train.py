"""Training: from a job, or from Python objects that describe one, to a result."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedpact.algorithms import ALGORITHMS
from fedpact.channel import TRANSFORMS
from fedpact.channel.channel import Channel
from fedpact.core.errors import DataError
from fedpact.core.job import Job
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.data import STEPS
from fedpact.engine.folder import RunFolder
from fedpact.engine.in_process import InProcess
from fedpact.engine.models import build_model, default_algorithm, describe_model, model_of, starting_from
from fedpact.engine.population import Population, Prepared, as_population
from fedpact.engine.preparation import prepare
from fedpact.engine.result import Fitted, Result
from fedpact.engine.rounds import Rules
from fedpact.engine.runner import Keep, OnRound, Progress, Runner
from fedpact.engine.sampler import check_cohort
from fedpact.engine.sources import load_clients
from fedpact.engine.stop import STOP_RULES
from fedpact.store.checkpoint import Checkpoints
from fedpact.store.modelfile import read_weights


def train(
    model: Any,
    clients: Population | Iterable[ClientData],
    *,
    algorithm: Any = None,
    preprocess: Sequence[Any] = (),
    channel: Sequence[Any] = (),
    rounds: int = 10,
    cohort: int | float | None = None,
    quorum: int | float = 1,
    timeout_s: float | None = None,
    update_range: float = 65536.0,
    stop: Any = (),
    evaluate_every: int = 1,
    initial: str | Path | None = None,
    seed: int = 0,
    name: str = "job",
    folder: str | Path | None = None,
    resume: bool = False,
    keep: Keep | None = None,
    on_round: OnRound | None = None,
) -> Result:
    """Train a model over clients whose rows stay where they are.

    Args:
        model: a specification from `fp.models`, a torch.nn.Module, or a scikit-learn estimator.
        clients: a federation, a population, or clients.
        algorithm: how; None for the model's own (FedAvg, or OneShot for naive Bayes).
        preprocess: steps that prepare the rows, fitted over all clients' training rows.
        channel: what an update goes through before and after it is summed.
        rounds: the number of rounds, at most.
        cohort: how many clients take part in a round: a number, a share in (0, 1], or None for all.
        quorum: how many of them must answer: a number, or a share of those asked.
        timeout_s: how long one client may take, in seconds.
        update_range: the declared range of every averaged value.
        stop: one rule or several that end the run early.
        evaluate_every: evaluate on held-out rows every so many rounds; 0 for after the last only.
        initial: a model file to start from (safetensors, or a torch state dict).
        seed: the root of every reproducible random choice.
        name: what to call the run.
        folder: where to keep checkpoints and the result; None to keep nothing.
        resume: go on from the newest checkpoint in `folder`, or start if there is none.
        keep: which checkpoints to keep.
        on_round: called after each round with its record.

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
    spec = model_of(model)
    chosen = default_algorithm(spec) if algorithm is None else algorithm
    rules = list(stop) if isinstance(stop, Sequence) else [stop]
    job = Job.of(
        {
            "name": name,
            "seed": seed,
            "model": describe_model(spec),
            "algorithm": ALGORITHMS.describe(chosen),
            "preprocess": [STEPS.describe(step) for step in preprocess],
            "channel": [TRANSFORMS.describe(stage) for stage in channel],
            "rounds": rounds,
            "cohort": cohort,
            "quorum": quorum,
            "timeout_s": timeout_s,
            "update_range": update_range,
            "stop": [STOP_RULES.describe(rule) for rule in rules],
            "evaluate_every": evaluate_every,
            "initial": None if initial is None else str(initial),
        }
    )
    parts = Parts(spec, chosen, tuple(preprocess), tuple(channel), tuple(rules))
    return _execute(job, parts, as_population(clients), folder, resume, keep or Keep(), on_round)


def run(
    job: Job,
    clients: Population | Iterable[ClientData] | None = None,
    *,
    folder: str | Path | None = None,
    resume: bool = False,
    keep: Keep | None = None,
    on_round: OnRound | None = None,
) -> Result:
    """Carry out a job: the same as `train`, from data instead of objects.

    Args:
        job: the job.
        clients: the clients; None for those that the job names.
        folder: where to keep checkpoints and the result; None to keep nothing.
        resume: go on from the newest checkpoint in `folder`, or start if there is none.
        keep: which checkpoints to keep.
        on_round: called after each round with its record.

    Raises:
        FedpactError: what was wrong, where, and what to do.
    """
    parts = Parts.of(job)
    population = as_population(load_clients(job) if clients is None else clients)
    return _execute(job, parts, population, folder, resume, keep or Keep(), on_round)


@dataclass(frozen=True)
class Parts:
    """The objects that a job's specifications stand for."""

    model: Any
    algorithm: Any
    steps: tuple[Any, ...]
    stages: tuple[Any, ...]
    rules: tuple[Any, ...]

    @classmethod
    def of(cls, job: Job) -> "Parts":
        """Build them.

        Raises:
            ConfigError: a name or a setting is wrong.
        """
        return cls(
            build_model(job.model),
            ALGORITHMS.build(job.algorithm),
            tuple(STEPS.build(step) for step in job.preprocess),
            tuple(TRANSFORMS.build(stage) for stage in job.channel),
            tuple(STOP_RULES.build(rule) for rule in job.stop),
        )


def _execute(
    job: Job,
    parts: Parts,
    raw: Population,
    folder: str | Path | None,
    resume: bool,
    keep: Keep,
    on_round: OnRound | None,
) -> Result:
    channel = Channel(parts.stages, parts.algorithm)
    check_cohort(job.cohort, len(raw.ids(0)))
    place = None if folder is None else RunFolder.open(folder, job, resume)
    seed, engine = Seed.of(job.seed), InProcess(job.timeout_s)
    preparation = place.read_preparation() if place else None
    if preparation is None:
        rules = Rules(quorum=job.quorum, fatal=(DataError,))
        preparation = prepare(parts.model, parts.steps, raw, engine, rules, seed)
        if place:
            place.write_preparation(preparation)
    model = parts.model.build(preparation.schema)
    start = model if job.initial is None else starting_from(model, read_weights(job.initial, model.layout))
    progress = Progress(parts.algorithm.init(start, seed))
    checkpoints = None
    if place:
        checkpoints = Checkpoints(place.checkpoints, keep_last=keep.last, keep_every=keep.each)
        if resume and checkpoints.latest() is not None:
            progress = Progress(**checkpoints.load(like=progress.contents(), job=job.lineage))
    population = Prepared(raw, lambda data: preparation.client(data, model.input_dtype))
    runner = Runner(job, parts.algorithm, parts.rules, channel, engine, population, model)
    stopped = runner.go(progress, checkpoints, keep, on_round)
    fitted = Fitted(model, progress.state.model, preparation)
    result = Result.of(job, fitted, progress, runner.evaluate(progress), population, stopped)
    if place:
        result.save(place.path)
    return result
