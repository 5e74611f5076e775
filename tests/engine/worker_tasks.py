"""What the tests of worker processes share: clients that do something before they train, and what a round gave."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedpact.algorithms.scaffold import SCAFFOLD
from fedpact.channel.channel import Channel
from fedpact.core.algorithm import ClientState
from fedpact.core.rows import ClientData
from fedpact.engine.in_process import InProcess
from fedpact.engine.population import InMemory, Population
from fedpact.engine.work import Engine, Intake, Rules, Setting, Work
from fedpact.engine.workers import Workers
from tests.federation import SEED, Quadratics, quadratic

# So many float64 that a vector takes several pages.
WIDTH = 3000
MODEL = Quadratics(np.linspace(-1, 1, WIDTH))
IDS = [f"client {i:02d}" for i in range(12)]


def client(place: int) -> ClientData:
    """Return the client of a place in `IDS`; they have 1 to 4 rows."""
    return quadratic(IDS[place], 0.1 + 0.05 * place, np.arange(WIDTH) * 0.01 * place, 1 + place % 4)


def clients() -> list[ClientData]:
    return [client(place) for place in range(len(IDS))]


@dataclass(frozen=True, kw_only=True)
class Trying(SCAFFOLD):
    """SCAFFOLD whose clients do something else first, each by its name."""

    first: Callable[[str], Any] = field(default=str, compare=False)

    def client(self, model, task, data, kept, seed):
        self.first(data.id)
        return super().client(model, task, data, kept, seed)


class Together:
    """An engine that does not say which client it is at."""

    def ask(self, work: Work, ids: Sequence[str], intake: Intake) -> None:
        for data in [work.setting.population.load(id) for id in ids]:
            setting, kept = work.setting, work.kept.get(data.id, {})
            seed = work.seed.child("client", data.id)
            update, keeps = setting.algorithm.client(setting.model, work.task, data, kept, seed)
            intake.take(update, keeps, 0.0)

    def describe(self) -> str:
        return "together, in this process"

    def close(self) -> None:
        pass


def setting_of(
    first: Callable[[str], Any] = str,
    population: Population | None = None,
    rules: Rules | None = None,
    model: Any = MODEL,
) -> Setting:
    algorithm = Trying(lr=0.1, local_steps=2, batch_size=2, first=first)
    channel = Channel((), algorithm)
    return Setting(algorithm, model, population or InMemory(clients()), channel, rules or Rules(), SEED)


def work_of(
    setting: Setting,
    ids: Sequence[str] | None = None,
    kept: Mapping[str, ClientState] | None = None,
    state: Any = None,
) -> Work:
    """Return the work of a round: from the start, or from a state of the algorithm."""
    task = setting.algorithm.task(state or setting.algorithm.init(setting.model, SEED))
    weights = {id: setting.population.size(id) for id in ids or setting.population.ids(0)}
    opened = setting.channel.begin(task, list(weights), SEED)
    return Work(setting, task, kept or {}, opened, SEED.child("round"), weights, len(weights))


def round_of(engine: Engine, work: Work) -> dict[str, Any]:
    """Return all that a round gave but how long it took."""
    intake = Intake(work)
    engine.ask(work, list(work.weights), intake)
    return outcome(intake)


def outcome(intake: Intake) -> dict[str, Any]:
    """Return what was taken in; orders count, since a checkpoint keeps them."""
    return {
        "aggregate": vars(intake.sums.aggregate()) if intake.sums.kind else None,
        "kept": [list(intake.kept), intake.kept],
        "timed": list(intake.seconds),
        "upload_bytes": [list(intake.upload_bytes), intake.upload_bytes],
        "failures": [list(intake.failures), intake.failures],
        "first error": repr(intake.first_error),
    }


def undisturbed(leaving_out: str = "") -> dict[str, Any]:
    """Return what a round of all clients gives in one process, but for some of them; they keep their weights."""
    work = work_of(setting_of())
    intake = Intake(work)
    InProcess().ask(work, [id for id in IDS if id != leaving_out], intake)
    return outcome(intake)


def pids(engine: Workers) -> list[int]:
    """Return the processes of an engine."""
    return [] if engine._pool is None else [hand.process.pid for hand in engine._pool._hands.values()]


def once(folder: Path, id: str) -> bool:
    """Return whether a client comes by for the first time, in whichever process."""
    return counted(folder, id) == 1


def counted(folder: Path, id: str) -> int:
    """Count one more time that a client comes by, in whichever process, and return how often it has."""
    with open(folder / id, "a+") as file:
        file.write(".")
        file.flush()
        return file.tell()


def wait_for(condition: Callable[[], Any]) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
