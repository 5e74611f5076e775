"""The engine in this process: one client's failure is its own, and one that hangs is given up."""

import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pytest

from fedpact.algorithms.fedavg import FedAvg
from fedpact.channel.channel import Channel
from fedpact.channel.clip import Clip
from fedpact.core.errors import ChannelError, ConfigError, DataError, DependencyError, ModelError, UpdateError
from fedpact.engine.in_process import InProcess
from fedpact.engine.population import InMemory
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


def ask(trouble=None, timeout_s=None, stages=(), ids=IDS, seed=SEED):
    """Return the iterator of answers to one task."""
    algorithm = Troubled(lr=0.5, local_steps=1, trouble=trouble or {})
    population = InMemory([quadratic(id, 1.0, [i + 1.0, 0.0], rows=2) for i, id in enumerate(IDS)])
    channel = Channel(stages, algorithm)
    task = algorithm.task(algorithm.init(MODEL, seed))
    return InProcess(timeout_s).ask(
        algorithm, MODEL, task, population, ids, {}, channel, channel.context(0), seed
    )


def test_answers_come_in_the_order_asked_with_what_the_clients_keep():
    answers = list(ask(ids=["paris", "lyon"]))
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
    answers = ask({"nice": raises(error("a mistake"))}, timeout_s)
    assert next(answers).client == "lyon"
    with pytest.raises(error, match="a mistake"):
        next(answers)


@pytest.mark.parametrize("timeout_s", [None, 30.0])
def test_ctrl_c_is_not_a_clients_failure(timeout_s):
    with pytest.raises(KeyboardInterrupt):
        list(ask({"nice": raises(KeyboardInterrupt())}, timeout_s))


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

    answers = []
    for answer in ask({"nice": wait}, timeout_s=0.5):
        answers.append(answer)
        if answer.client == "nice":
            # It wakes up while the next client is asked.
            release.set()
    deadline = time.perf_counter() + 30
    while not late and time.perf_counter() < deadline:
        time.sleep(0.01)
    assert late == ["done"]
    in_time = [answer for answer in ask({"nice": raises(TimeoutError())}) if answer.update is not None]
    found = [answer for answer in answers if answer.update is not None]
    assert [a.client for a in found] == ["lyon", "paris"]
    assert [a.update.averaged for a in found] == [a.update.averaged for a in in_time]


def test_a_limit_of_time_changes_no_bit():
    free, limited = list(ask()), list(ask(timeout_s=30.0))
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
        list(InProcess().ask(algorithm, MODEL, task, population, ids, {}, channel, channel.context(0), SEED))
    assert all(first == second for first, second in drawn.values())
    assert len({seeds[0] for seeds in drawn.values()}) == 3
