"""The engine in this process: one client's failure is its own, and one that hangs is given up."""

import threading
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pytest

from fedpact.algorithms.fedavg import FedAvg
from fedpact.channel.channel import Channel
from fedpact.channel.clip import Clip
from fedpact.core.errors import ChannelError, ConfigError, DataError, DependencyError, ModelError, UpdateError
from fedpact.core.messages import Update
from fedpact.engine.in_process import InProcess
from fedpact.engine.population import InMemory
from fedpact.engine.work import Intake, Rules, Setting, Work
from tests.federation import SEED, Quadratics, quadratic

IDS = ["lyon", "nice", "paris"]
MODEL = Quadratics([0.0, 0.0])


@dataclass(frozen=True, kw_only=True)
class Troubled(FedAvg):
    """FedAvg whose clients do something else first, each by its name."""

    trouble: dict = field(default_factory=dict, compare=False)

    def client(self, model, task, data, kept, seed):
        self.trouble.get(data.id, lambda: None)()
        update, _ = super().client(model, task, data, kept, seed)
        return update, {"seen": task.arrays["model"]}


def raises(error):
    def trouble():
        raise error

    return trouble


def ask(trouble=None, timeout_s=None, stages=(), ids=IDS, seed=SEED, on_answer=None):
    """Return the answers to one task, in the order in which they came."""
    algorithm = Troubled(lr=0.5, local_steps=1, trouble=trouble or {})
    population = InMemory([quadratic(id, 1.0, [i + 1.0, 0.0], rows=2) for i, id in enumerate(IDS)])
    channel = Channel(stages, algorithm)
    task = algorithm.task(algorithm.init(MODEL, seed))
    setting = Setting(algorithm, MODEL, population, channel, Rules(), seed)
    return answers_of(InProcess(timeout_s), setting, task, ids, on_answer)


def answers_of(engine, setting, task, ids, on_answer=None):
    weights = dict.fromkeys(ids, 2)
    work = Work(setting, task, {}, setting.channel.begin(task, ids, SEED), SEED, weights, len(ids))
    intake = Recording(work, on_answer)
    engine.ask(work, ids, intake)
    return intake.answers


class Recording(Intake):
    """An intake that keeps every answer."""

    def __init__(self, work, on_answer=None):
        super().__init__(work)
        self.answers = []
        self.on_answer = on_answer or (lambda client: None)

    def take(self, update, kept, seconds):
        super().take(update, kept, seconds)
        self.record(Answer(update.client, seconds, update, kept))

    def fail(self, id, error, seconds):
        super().fail(id, error, seconds)
        self.record(Answer(id, seconds, error=error))

    def record(self, answer):
        self.answers.append(answer)
        self.on_answer(answer.client)


class Answer(NamedTuple):
    client: str
    seconds: float
    update: Update | None = None
    kept: dict | None = None
    error: Exception | None = None


def test_answers_come_in_the_order_asked_with_what_the_clients_keep():
    answers = ask(ids=["paris", "lyon"])
    assert [answer.client for answer in answers] == ["paris", "lyon"]
    # A step of 0.5 from 0 towards 3 and towards 1.
    np.testing.assert_allclose([a.update.averaged["model"]["w"] for a in answers], [[1.5, 0], [0.5, 0]])
    assert all(answer.error is None and "seen" in answer.kept for answer in answers)
    assert all(answer.seconds > 0 for answer in answers)


@pytest.mark.parametrize("timeout_s", [None, 30.0])
@pytest.mark.parametrize(
    "error",
    [ValueError("a bug"), DataError("a label"), UpdateError("NaN"), KeyError("x"), MemoryError()],
    ids=repr,
)
def test_a_client_that_fails_is_recorded_and_the_others_go_on(error, timeout_s):
    lyon, nice, paris = ask({"nice": raises(error)}, timeout_s)
    assert (nice.client, nice.update, nice.kept, nice.error) == ("nice", None, None, error)
    assert lyon.update is not None
    assert paris.update is not None


@pytest.mark.parametrize("timeout_s", [None, 30.0])
@pytest.mark.parametrize("error", [ChannelError, ConfigError, DependencyError, ModelError])
def test_a_mistake_in_the_job_ends_the_run(error, timeout_s):
    answered = []
    with pytest.raises(error, match="a mistake"):
        ask({"nice": raises(error("a mistake"))}, timeout_s, on_answer=answered.append)
    assert answered == ["lyon"]


@pytest.mark.parametrize("timeout_s", [None, 30.0])
def test_ctrl_c_is_not_a_clients_failure(timeout_s):
    with pytest.raises(KeyboardInterrupt):
        ask({"nice": raises(KeyboardInterrupt())}, timeout_s)


def test_a_client_that_is_not_there_any_more_is_a_failure_of_its_own():
    lyon, gone = ask(ids=["lyon", "gone"])
    assert lyon.update is not None
    assert isinstance(gone.error, KeyError)


def test_a_client_that_takes_too_long_is_given_up_and_the_others_go_on():
    release = threading.Event()
    start = time.perf_counter()
    lyon, nice, paris = ask({"nice": lambda: release.wait(60)}, timeout_s=0.5)
    assert time.perf_counter() - start < 5
    assert isinstance(nice.error, TimeoutError)
    assert str(nice.error) == "no answer within 0.5 s"
    assert 0.5 <= nice.seconds < 5
    assert lyon.update is not None
    assert paris.update is not None
    release.set()


def test_a_late_answer_changes_nothing():
    release, late = threading.Event(), []

    def wait():
        release.wait(60)
        late.append("done")

    # It wakes up while the next client is asked.
    answers = ask({"nice": wait}, timeout_s=0.5, on_answer=lambda id: id == "nice" and release.set())
    deadline = time.perf_counter() + 30
    while not late and time.perf_counter() < deadline:
        time.sleep(0.01)
    assert late == ["done"]
    in_time = [answer for answer in ask({"nice": raises(TimeoutError())}) if answer.update is not None]
    found = [answer for answer in answers if answer.update is not None]
    assert [a.client for a in found] == ["lyon", "paris"]
    assert [a.update.averaged for a in found] == [a.update.averaged for a in in_time]


def test_a_limit_of_time_changes_no_bit():
    free, limited = ask(), ask(timeout_s=30.0)
    assert [a.update.averaged for a in free] == [a.update.averaged for a in limited]


def test_updates_have_gone_through_the_channel():
    answers = ask(stages=[Clip(0.25)])
    assert [answer.update.averaged["model"].norm() for answer in answers] == pytest.approx([0.25] * 3)


def test_every_client_draws_from_a_stream_of_its_own():
    drawn = {}

    @dataclass(frozen=True, kw_only=True)
    class Drawing(FedAvg):
        def client(self, model, task, data, kept, seed):
            drawn.setdefault(data.id, []).append(seed)
            return super().client(model, task, data, kept, seed)

    algorithm = Drawing(lr=0.5)
    population = InMemory([quadratic(id, 1.0, [1.0, 0.0]) for id in IDS])
    task, channel = algorithm.task(algorithm.init(MODEL, SEED)), Channel((), algorithm)
    for ids in (IDS, IDS[::-1]):
        answers_of(InProcess(), Setting(algorithm, MODEL, population, channel, Rules(), SEED), task, ids)
    assert all(first == second for first, second in drawn.values())
    assert len({seeds[0] for seeds in drawn.values()}) == 3
