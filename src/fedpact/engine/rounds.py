"""One round: ask, sum exactly as answers come, and hand the algorithm the aggregate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedpact.channel.channel import Channel
from fedpact.core.algorithm import Algorithm, ClientState
from fedpact.core.errors import FedpactError, QuorumError, UpdateError
from fedpact.core.messages import Accumulator, Aggregate, Task
from fedpact.core.seeds import Seed
from fedpact.engine.in_process import Answer, InProcess
from fedpact.engine.population import Population
from fedpact.engine.sampler import choose, count_of


@dataclass(frozen=True)
class Outcome:
    """What one round gave.

    Args:
        aggregate: the cohort's aggregate, behind the channel.
        kept: what the clients that answered keep for their next round.
        asked: the clients asked.
        failures: client → why it is not in the aggregate.
        seconds: client → how long it took.
        download_bytes: arrays sent down, over all clients asked.
        upload_bytes: client → arrays sent up.
    """

    aggregate: Aggregate
    kept: Mapping[str, ClientState]
    asked: Sequence[str]
    failures: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    download_bytes: int = 0
    upload_bytes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Rules:
    """How rounds are held.

    Args:
        cohort: how many clients are asked: a number, a share, or None for all.
        quorum: how many of them must answer: a number, or a share of those asked.
        update_range: the declared range of every averaged value.
        fatal: errors of one client that end the round for all.
    """

    cohort: int | float | None = None
    quorum: int | float = 1
    update_range: float = 65536.0
    fatal: tuple[type[Exception], ...] = ()


def hold_round(
    engine: InProcess,
    algorithm: Algorithm[Any],
    model: Any,
    task: Task,
    population: Population,
    kept: Mapping[str, ClientState],
    channel: Channel,
    rules: Rules,
    round: int,
    seed: Seed,
) -> Outcome:
    """Ask the clients that a task is for and add up their answers; failures are recorded and left out.

    Args:
        engine: who runs the clients.
        algorithm: the algorithm.
        model: the model, for the clients.
        task: the task.
        population: the clients.
        kept: what clients kept from earlier rounds.
        channel: what updates go through.
        rules: cohort, quorum and range.
        round: the round, for the choice of clients and the random streams.
        seed: the job's.

    Raises:
        QuorumError: fewer clients answered than the quorum; every reason is named.
        ConfigError: a mistake in the job, which every client would make again; so of any of `FATAL`.
    """
    present = population.ids(round)
    ids = choose(task.to, present, rules.cohort, round, seed)
    weights, failures = _weights(population, ids, task)
    accumulator = Accumulator(task, rules.update_range, sum(weights.values()), len(present))
    context = channel.context(task.version)
    answered: dict[str, ClientState] = {}
    seconds: dict[str, float] = {}
    upload: dict[str, int] = {}
    first_error: Exception | None = None
    stream = seed.child("round", round, task.verb)
    for answer in engine.ask(
        algorithm, model, task, population, list(weights), kept, channel, context, stream
    ):
        seconds[answer.client] = answer.seconds
        error = _take(answer, accumulator, weights[answer.client])
        if isinstance(error, rules.fatal):
            raise error
        if error is not None:
            first_error = first_error or error
            failures[answer.client] = reason(error)
            continue
        if answer.update is not None and answer.kept is not None:
            upload[answer.client] = answer.update.nbytes
            if answer.kept:
                answered[answer.client] = answer.kept
    needed = max(1, count_of(rules.quorum, len(ids)))
    if accumulator.count < needed:
        reasons = "; ".join(f"{id}: {why}" for id, why in failures.items())
        raise QuorumError(
            f"round {round + 1}: {accumulator.count} of {len(ids)} clients answered, {needed} are needed. {reasons}",
            failures,
        ) from first_error
    return Outcome(
        aggregate=channel.decode(accumulator.aggregate(), context),
        kept=answered,
        asked=ids,
        failures=failures,
        seconds=seconds,
        download_bytes=task.nbytes * len(weights),
        upload_bytes=upload,
    )


def _weights(
    population: Population, ids: Sequence[str], task: Task
) -> tuple[dict[str, float], dict[str, str]]:
    """Return client → the weight that it has announced, and client → why it has announced none."""
    weights: dict[str, float] = {}
    failures: dict[str, str] = {}
    for id in ids:
        try:
            weights[id] = population.size(id) if task.weighting == "examples" else 1
        except Exception as error:
            failures[id] = reason(error)
    return weights, failures


def reason(error: Exception) -> str:
    """Return why a client failed, in a sentence; errors of other libraries keep their type."""
    text = str(error)
    return text if isinstance(error, FedpactError | TimeoutError) else f"{type(error).__name__}: {text}"


def _take(answer: Answer, accumulator: Accumulator, most: float) -> Exception | None:
    if answer.update is None:
        return answer.error
    if answer.update.weight > most:
        return UpdateError(
            f'client "{answer.client}" gave its update the weight {answer.update.weight:g}; it has announced {most:g}.'
        )
    try:
        accumulator.add(answer.update)
    except UpdateError as error:
        return error
    return None


def hold_to_end(
    engine: InProcess,
    algorithm: Algorithm[Any],
    model: Any,
    population: Population,
    rules: Rules,
    seed: Seed,
    failures: dict[str, str] | None = None,
) -> Any:
    """Run an algorithm that says itself when it is done, such as a statistic, and return its last state.

    Args:
        engine: who runs the clients.
        algorithm: the algorithm.
        model: the model, for the clients.
        population: the clients.
        rules: quorum and range.
        seed: of this run.
        failures: where to note client → why it failed.
    """
    state = algorithm.init(model, seed)
    channel = Channel((), algorithm)
    step = 0
    while (task := algorithm.task(state)) is not None:
        outcome = hold_round(engine, algorithm, model, task, population, {}, channel, rules, step, seed)
        state = algorithm.server(model, state, outcome.aggregate)
        if failures is not None:
            failures.update(outcome.failures)
        step += 1
    return state
