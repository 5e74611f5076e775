"""One round: ask, sum exactly as answers come, and hand the algorithm the aggregate."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from fedpact.channel.transform import StageState
from fedpact.core.algorithm import ClientState
from fedpact.core.errors import QuorumError
from fedpact.core.messages import Aggregate, Cohort, Task
from fedpact.engine.population import Counted, Population
from fedpact.engine.privacy import release_of
from fedpact.engine.sampler import choose, count_of
from fedpact.engine.work import DisputedError, Engine, Intake, Setting, Work, reason
from fedpact.privacy.events import Release


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
        states: what the stages of the channel keep at the server.
        notes: what they measured.
    """

    aggregate: Aggregate
    kept: Mapping[str, ClientState]
    asked: Sequence[str]
    failures: Mapping[str, str]
    seconds: Mapping[str, float]
    download_bytes: int
    upload_bytes: Mapping[str, int]
    states: tuple[StageState, ...] = ()
    notes: Mapping[str, float] = field(default_factory=dict)


def asked(setting: Setting, task: Task, round: int) -> list[str]:
    """Return the clients that a task goes to in a round.

    Raises:
        ConfigError: a client named in the task is not there.
    """
    present = setting.population.ids(round)
    return choose(task.to, present, setting.rules.cohort, round, setting.seed, setting.rules.sampling)


def expected(setting: Setting, task: Task, ids: Sequence[str], round: int) -> float:
    """Return how many clients a round asks on average: a number that tells nothing of who is asked.

    Args:
        setting: clients and rules.
        task: the task.
        ids: the clients asked.
        round: the round.
    """
    if not isinstance(task.to, Cohort):
        # Nobody is sampled: everyone is asked, or one in turn, or those that are named.
        return float(len(ids))
    return float(count_of(setting.rules.cohort, len(setting.population.ids(round))))


def hold_round(
    engine: Engine,
    setting: Setting,
    task: Task,
    kept: Mapping[str, ClientState],
    round: int,
    ids: Sequence[str] | None = None,
    states: Sequence[StageState] | None = None,
    charge: Callable[[Release | None], None] | None = None,
    again: bool = False,
    attempt: int = 0,
) -> Outcome:
    """Ask the clients that a task is for and add up their answers; failures are recorded and left out.

    Args:
        engine: who runs the clients.
        setting: algorithm, model, clients, channel and rules.
        task: the task.
        kept: what clients kept from earlier rounds.
        round: the round, for the choice of clients and the random streams.
        ids: the clients asked, as `asked` gives them; None to choose them here.
        states: what the stages of the channel keep at the server; None for what they keep at first.
        charge: called where there is noise, with what will be released about a client, before it is; with None where
            an earlier round's release counts for it.
        again: whether the round was held before, by a process that died.
        attempt: how often a masked sum of this round was given up.

    Raises:
        QuorumError: fewer clients answered than the quorum; every reason is named.
        SecureError: too few clients were left to open a masked sum, and nobody learned anything of it.
        ConfigError: a mistake in the job, which every client would make again; so of any of `FATAL`.
    """
    ids = asked(setting, task, round) if ids is None else ids
    weights, failures = _weights(setting.population, ids, task)
    channel = setting.channel
    stream = setting.seed.child("round", round, task.verb)
    present = len(setting.population.ids(round))

    drawn = setting.seed.child("channel", round, *([attempt] if attempt else []))

    def begun() -> Work:
        opened = channel.begin(
            task,
            list(weights),
            drawn,
            states,
            expected(setting, task, ids, round),
        )
        return Work(setting, channel.send(task, opened), kept, opened, stream, weights, present)

    work = begun()
    intake = Intake(work, failures=dict(failures))
    release = release_of(setting, work.channel, present, again)
    # Before it is made, for a release that was not paid for cannot be taken back: of updates that have noise of their
    # own, before they are sent; of others, before their sum is opened.
    charge = None if channel.noise is None else charge
    sent_noisy = channel.noise is not None and channel.noise.where == "local"
    if charge is not None and sent_noisy:
        charge(release)
    try:
        engine.ask(work, list(weights), intake)
    except DisputedError as dispute:
        # With new masks: what was sent under the old ones is opened by nobody.
        work = begun()
        intake = Intake(work, failures=dict(failures))
        dispute.run(work, list(weights), intake)
    nobody = not ids and channel.noise is not None and channel.mask is None
    if nobody:
        # That nobody was drawn is nobody's business: the noise is released as ever.
        channel.of_nobody(intake.sums, work.channel)
    needed = 0 if nobody else max(1, count_of(setting.rules.quorum, len(ids)))
    if intake.sums.count < needed:
        reasons = "; ".join(f"{id}: {why}" for id, why in intake.failures.items())
        if not ids:
            reasons = (
                f'no client was drawn: with sampling="{setting.rules.sampling}" and a cohort of '
                f"{expected(setting, task, ids, round):g} on average that happens; ask for a larger cohort."
            )
        raise QuorumError(
            f"round {round + 1}: {intake.sums.count} of {len(ids)} clients answered, {needed} are needed. {reasons}",
            intake.failures,
        ) from intake.first_error
    if charge is not None and not sent_noisy:
        charge(release)
    opened = work.channel
    aggregate, kept_states = channel.aggregate(intake.sums, opened)
    down, up = channel.traffic(opened, intake.upload_bytes)
    return Outcome(
        aggregate=aggregate,
        kept=intake.kept,
        asked=ids,
        failures=intake.failures,
        seconds=intake.seconds,
        download_bytes=(work.task.nbytes + opened.told_bytes) * len(weights) + sum(down.values()),
        upload_bytes=up,
        states=kept_states,
        notes=channel.measured(intake.notes, intake.sums.count, opened),
    )


def _weights(
    population: Population, ids: Sequence[str], task: Task
) -> tuple[dict[str, float], dict[str, str]]:
    """Return client → the weight that it has announced, and client → why it has announced none."""
    if task.weighting != "examples":
        return dict.fromkeys(ids, 1), {}
    if isinstance(population, Counted):
        # Whose fault an error is, is told by asking one by one.
        with suppress(Exception):
            return dict(zip(ids, population.sizes(ids), strict=True)), {}
    weights: dict[str, float] = {}
    failures: dict[str, str] = {}
    for id in ids:
        try:
            weights[id] = population.size(id)
        except Exception as error:
            failures[id] = reason(error)
    return weights, failures


def hold_to_end(
    engine: Engine,
    setting: Setting,
    failures: dict[str, str] | None = None,
    hidden: Callable[[Setting, Task], Setting] | None = None,
) -> Any:
    """Run an algorithm that says itself when it is done, such as a statistic, and return its last state.

    Args:
        engine: who runs the clients.
        setting: algorithm, model, clients, channel and rules.
        failures: where to note client → why it failed.
        hidden: makes of the setting what hides the answers to a task; None for answers in clear.
    """
    algorithm = setting.algorithm
    state = algorithm.init(setting.model, setting.seed)
    step = 0
    while (task := algorithm.task(state)) is not None:
        asking = setting if hidden is None else hidden(setting, task)
        outcome = hold_round(engine, asking, task, {}, step)
        state = asking.algorithm.server(setting.model, state, outcome.aggregate)
        if failures is not None:
            failures.update(outcome.failures)
        step += 1
    return state
