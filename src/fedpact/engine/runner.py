"""The round loop: ask, sum, step, evaluate, record, keep, and stop when it is time."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import takewhile
from typing import Any

import numpy as np

from fedpact.channel.transform import StageState
from fedpact.core.errors import ConfigError, DataError, SecureError
from fedpact.core.job import Job
from fedpact.core.messages import Cohort, Recipients, Task
from fedpact.core.settings import check_counts
from fedpact.engine.evaluation import Evaluation, evaluate_clients, judging
from fedpact.engine.masked_evaluation import EvaluateMasked, masked_channel
from fedpact.engine.prefetch import Prefetched, next_cohort
from fedpact.engine.privacy import Spent
from fedpact.engine.records import charges_records, protects_records, rows_of, worst_of
from fedpact.engine.rounds import Outcome, asked, hold_round
from fedpact.engine.sampler import count_of
from fedpact.engine.stop import goodness
from fedpact.engine.work import Engine, Setting
from fedpact.learn.metrics import check_name
from fedpact.privacy.events import Release
from fedpact.privacy.ledger import Ledger
from fedpact.store.history import History, Record
from fedpact.store.states import ClientStates, StatesInMemory
from fedpact.store.totals import ClientTotals

OnRound = Callable[[Record], None]


# How often a round whose masked sum cannot be opened is held.
_ATTEMPTS = 5


@dataclass(frozen=True)
class Keep:
    """Which checkpoints a run folder keeps; `Fitted.load` and `evaluate` take each of them as a model.

    Args:
        every: save one every so many rounds, and after the last.
        last: keep this many of the newest.
        best: keep the one with the best value of this metric; None for none.
        each: keep every one whose round is a multiple of this; None for none.
    """

    every: int = 1
    last: int = 2
    best: str | None = None
    each: int | None = None

    def __post_init__(self) -> None:
        check_counts(self, "every", "last")
        check_counts(self, "each", optional=True)
        if self.best is not None:
            check_name(self.best)

    def score(self, record: Record) -> float | None:
        """Return how good a round is by the metric `best`; larger is better."""
        if self.best is None or self.best not in record:
            return None
        return goodness(self.best, float(record[self.best]))


@dataclass
class Progress:
    """What a run has done so far, which a checkpoint holds or refers to.

    Args:
        state: the algorithm's state.
        kept: what clients keep between rounds.
        history: a record for each round.
        clients: each client's rounds, failures, seconds and upload_bytes, added up.
        channel: what the stages of the channel keep at the server.
        spent: what was released about clients.
        failures: every failure: round, client and reason.
    """

    state: Any
    kept: ClientStates = field(default_factory=StatesInMemory)
    history: History = field(default_factory=History)
    clients: ClientTotals = field(default_factory=ClientTotals)
    channel: tuple[StageState, ...] | None = None
    spent: Spent = field(default_factory=lambda: Spent(Counter()))
    failures: list[dict[str, Any]] = field(default_factory=list)

    def note_failures(self, round: int, reasons: Mapping[str, str], when: str = "") -> None:
        """Note why clients failed in a round, each once; round 0 is the preparation of the rows."""
        of_this_round = takewhile(lambda failure: failure["round"] == round, reversed(self.failures))
        known = {failure["client"] for failure in of_this_round}
        self.failures += [
            {"round": round, "client": id, "reason": when + why}
            for id, why in reasons.items()
            if id not in known
        ]

    def contents(self) -> dict[str, Any]:
        """Return what a checkpoint holds itself; the records of rounds and failures have files of their own."""
        kept = self.kept.contents(len(self.history))
        contents = {"state": self.state, "kept": kept, "clients": self.clients.contents()}
        contents["spent"] = self.spent.contents()
        if self.channel:
            contents["channel"] = list(self.channel)
        return contents


# Saves a checkpoint with its score, which is larger for a better model, or None.
Save = Callable[[Progress, float | None], None]


class Runner:
    """Runs the rounds of a job.

    Args:
        job: the job.
        stop_rules: the stop rules.
        engine: who runs the clients.
        setting: algorithm, model, clients, channel and rules.
        ledger: what is charged for every release about a client; None for nothing.
        write_down: called with what was released so far and is about to be, before every release; None for nothing.
    """

    def __init__(
        self,
        job: Job,
        stop_rules: Sequence[Any],
        engine: Engine,
        setting: Setting,
        ledger: Ledger | None = None,
        write_down: Callable[[Spent], None] | None = None,
    ) -> None:
        self._write_down = write_down
        self._job = job
        self._stop_rules = stop_rules
        self._engine = engine
        self._setting = setting
        self._ledger = ledger
        self._algorithm: Any = setting.algorithm
        self._announced = False
        self._evaluated: tuple[int, Evaluation | None] | None = None
        self._judging = judging(
            setting.model, setting.population, setting.seed, job.quorum, job.evaluate_cohort
        )
        if mask := setting.channel.mask:
            most = count_of(job.evaluate_cohort, len(setting.population.ids(0)))
            self._judging = replace(
                self._judging, algorithm=EvaluateMasked(), channel=masked_channel(mask, most)
            )
        # Rows that cannot be read are the user's to mend before a run starts, and a failure like others after.
        self._at_first = replace(setting, rules=replace(setting.rules, fatal=(DataError,)))

    def go(self, progress: Progress, keep: Keep, save: Save | None, on_round: OnRound | None) -> str:
        """Run rounds until the job is done, and return why it ended; `progress` is brought up to date.

        Args:
            progress: what was done so far.
            keep: when to save.
            save: called to save a checkpoint, with its score.
            on_round: called after each round, and after its checkpoint, with its record.
        """
        while (reason := self._ended(progress)) is None:
            record = self._round(progress)
            done = len(progress.history)
            if done == self._job.evaluate_every and self.evaluate(progress) is None:
                self._check_judged(record, keep)
            if save and (done % keep.every == 0 or self._ended(progress)):
                save(progress, keep.score(record))
            if on_round:
                on_round(record)
        return reason

    def evaluate(self, progress: Progress, round: int | None = None) -> Evaluation | None:
        """Evaluate the present model on all held-out rows, once; None if no client has any.

        Args:
            progress: what was done so far.
            round: how many rounds are behind the model; None for as many as there are records.
        """
        round = len(progress.history) if round is None else round
        if self._evaluated is None or self._evaluated[0] != round:
            evaluation = evaluate_clients(self._engine, self._judging, progress.state.model, round)
            self._evaluated = round, evaluation
            if evaluation:
                progress.note_failures(round, evaluation.failures, "evaluation: ")
        return self._evaluated[1]

    def _charge(self, spent: Spent, round: int, release: Release | None) -> None:
        by_record = charges_records(self._ledger, self._algorithm)
        if self._ledger is not None and release is not None and not by_record:
            self._ledger.charge([release], purpose=f"{self._job.name} {self._job.digest[:12]}")
        spent.note_release(release, round)
        if self._write_down is not None:
            self._write_down(spent)

    def _charge_records(self, spent: Spent, ids: Sequence[str]) -> Mapping[str, int]:
        """Charge and note what clients are to be asked about their records; return the rows of those that tell them."""
        if not protects_records(self._algorithm):
            return {}
        # Before the clients are asked: the server sees what they answer.
        sizes = rows_of(self._setting.population, ids)
        release = worst_of(self._algorithm, sizes.values())
        by_record = charges_records(self._ledger, self._algorithm)
        if self._ledger is not None and release is not None and by_record:
            self._ledger.charge([release], purpose=f"{self._job.name} {self._job.digest[:12]}")
        spent.note_records(sizes)
        if self._write_down is not None:
            self._write_down(spent)
        return sizes

    def _ended(self, progress: Progress) -> str | None:
        if len(progress.history) >= self._job.rounds:
            return f"all {self._job.rounds} rounds done"
        if self._algorithm.task(progress.state) is None:
            return "the algorithm has converged"
        if not progress.history:
            return None
        return next((reason for rule in self._stop_rules if (reason := rule.reached(progress.history))), None)

    def _check_judged(self, record: Record, keep: Keep) -> None:
        """Refuse to wait for a metric that no round will have."""
        for metric in [*(getattr(rule, "metric", None) for rule in self._stop_rules), keep.best]:
            if metric not in (None, "train_loss") and metric not in record:
                raise ConfigError(
                    f"{metric} is looked at after every round, but no client holds rows aside to judge the model "
                    "on; give clients test rows."
                )

    def _round(self, progress: Progress) -> dict[str, Any]:
        start = time.perf_counter()
        number = len(progress.history)
        task = self._algorithm.task(progress.state)
        if self._job.cohort is not None and not isinstance(task.to, Cohort):
            raise ConfigError(
                f"{type(self._algorithm).__name__} chooses itself whom it asks, so cohort={self._job.cohort} would "
                "have no effect; leave cohort out."
            )
        setting = self._setting if number else self._at_first
        ids = asked(setting, task, number)
        progress.spent.check_turns(setting.channel.noise, setting.population.ids(number))
        self._load_ahead(task.to, ids, number)
        sizes = self._charge_records(progress.spent, ids)
        outcome = self._held(progress, setting, task, number, ids)
        state = self._algorithm.server(setting.model, progress.state, outcome.aggregate)
        try:
            for id, keeps in outcome.kept.items():
                progress.kept.stage(id, keeps)
        except BaseException:
            # Either the whole round has been, or none of it.
            progress.kept.discard()
            raise
        progress.kept.commit()
        progress.state, progress.channel = state, outcome.states
        progress.spent.note(outcome.aggregate.count, len(ids))
        if protects_records(self._algorithm):
            late = [id for id in ids if id not in sizes]
            progress.spent.note_records(rows_of(setting.population, late, outcome.failures))
        record = _record(number + 1, outcome)
        _note_clients(progress, number + 1, outcome)
        every = self._job.evaluate_every
        if every and (number + 1) % every == 0 and (evaluation := self.evaluate(progress, number + 1)):
            record.update(evaluation.record())
        record["seconds"] = time.perf_counter() - start
        progress.history.append(record)
        return record

    def _held(
        self, progress: Progress, setting: Setting, task: Task, number: int, ids: Sequence[str]
    ) -> Outcome:
        """Hold a round; where a masked sum is given up, anew, with other masks."""
        for attempt in range(_ATTEMPTS):
            try:
                return hold_round(
                    self._engine,
                    setting,
                    task,
                    progress.kept.view(ids),
                    number,
                    ids,
                    progress.channel,
                    partial(self._charge, progress.spent, number),
                    again=number < progress.spent.begun,
                    attempt=attempt,
                )
            except SecureError as error:
                given_up = error
        raise SecureError(
            f"round {number + 1} was given up {_ATTEMPTS} times, for too few clients stayed to the end: {given_up}"
        ) from given_up

    def _load_ahead(self, to: Recipients, ids: Sequence[str], round: int) -> None:
        """Let the rows of this round's clients and of the next one's be read while others are trained on."""
        population, rules, seed = self._setting.population, self._setting.rules, self._setting.seed
        if not isinstance(population, Prefetched):
            return
        if not self._engine.loads_here:
            population.close()
            return
        if not self._announced:
            population.announce(ids)
            self._announced = True
        if round + 1 < self._job.rounds:
            population.announce(next_cohort(to, population, rules.cohort, round + 1, seed, rules.sampling))


def _record(round: int, outcome: Outcome) -> dict[str, Any]:
    sums = outcome.aggregate.metrics
    record: dict[str, Any] = {"round": round}
    if sums.get("rows"):
        record["train_loss"] = sums["loss"] / sums["rows"]
    return {
        **record,
        "clients": outcome.aggregate.count,
        "failed": len(outcome.failures),
        "download_bytes": outcome.download_bytes,
        "upload_bytes": sum(outcome.upload_bytes.values()),
        **outcome.notes,
    }


def _note_clients(progress: Progress, round: int, outcome: Outcome) -> None:
    ids = outcome.asked
    failed = np.array([id in outcome.failures for id in ids], np.bool_)
    seconds = [outcome.seconds.get(id, 0.0) for id in ids]
    upload = [outcome.upload_bytes.get(id, 0) for id in ids]
    progress.clients.note(ids, ~failed, failed, seconds, upload)
    progress.note_failures(round, outcome.failures)
