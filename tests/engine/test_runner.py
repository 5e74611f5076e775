"""Claims about the round loop: a round has been whole, or not at all."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import fedpact as fp
from fedpact.core.errors import ModelError
from fedpact.core.job import Job
from fedpact.core.vector import Entry, Layout, Vector
from fedpact.engine.in_process import InProcess
from fedpact.engine.runner import Keep, Progress, Runner
from fedpact.engine.work import Setting
from fedpact.store.states_on_disk import StatesOnDisk
from tests.engine.runs import same_bits
from tests.engine.worker_tasks import IDS, MODEL, setting_of
from tests.federation import SEED


def runner_of(setting: Setting, rounds: int) -> Runner:
    named = {"model": {"name": "Logistic"}, "algorithm": {"name": "SCAFFOLD"}}
    job = Job.of({**named, "rounds": rounds, "evaluate_every": 0})
    return Runner(job, [], InProcess(), setting)


@dataclass(frozen=True, kw_only=True)
class KeepsOther(fp.SCAFFOLD):
    """SCAFFOLD of which one client keeps what does not fit the others from the second round on."""

    def client(self, model: Any, task: Any, data: Any, kept: Any, seed: Any) -> Any:
        update, keeps = super().client(model, task, data, kept, seed)
        odd = data.id == IDS[5] and task.version == 1
        return update, {"control": Vector.zeros(Layout([Entry("w", (2,))]))} if odd else keeps


@dataclass(frozen=True, kw_only=True)
class ServerFails(fp.SCAFFOLD):
    """SCAFFOLD whose server fails in the second round."""

    def server(self, model: Any, state: Any, aggregate: Any) -> Any:
        if state.round == 1:
            raise RuntimeError("the server is out of order")
        return super().server(model, state, aggregate)


@pytest.mark.parametrize(("kind", "error"), [(KeepsOther, ModelError), (ServerFails, RuntimeError)])
def test_a_round_that_fails_changes_nothing(kind: Any, error: Any, tmp_path: Path) -> None:
    settings = {"lr": 0.1, "local_steps": 2, "batch_size": 2}
    setting = replace(setting_of(), algorithm=kind(**settings))
    seen = []
    for rounds in (1, 2):
        progress = Progress(setting.algorithm.init(MODEL, SEED), StatesOnDisk(tmp_path / str(rounds)))
        runner = runner_of(setting, rounds)
        if rounds == 1:
            runner.go(progress, Keep(), None, None)
        else:
            with pytest.raises(error):
                runner.go(progress, Keep(), None, None)
        states = {id: progress.kept.get(id) for id in progress.kept.ids()}
        totals = {id: total["rounds"] for id, total in progress.clients.items()}
        seen.append((progress.state, states, totals, len(progress.history), progress.failures))
    assert len(seen[0][1]) == len(IDS)
    assert same_bits(seen[0], seen[1])
    # A commit that comes later takes nothing of it along.
    progress.kept.commit()
    assert same_bits(seen[0][1], {id: progress.kept.get(id) for id in progress.kept.ids()})


def test_a_failure_is_noted_once_in_each_round() -> None:
    progress = Progress(None)
    for round in (0, 1, 1, 2):
        progress.note_failures(round, {"lyon": "away", "nice": "away"})
    progress.note_failures(2, {"lyon": "blind", "paris": "blind"}, "evaluation: ")
    noted = [(failure["round"], failure["client"]) for failure in progress.failures]
    assert noted == [(round, id) for round in (0, 1, 2) for id in ("lyon", "nice")] + [(2, "paris")]
