"""Claims about the engine that chooses: what it starts workers for, and when it leaves them again.

Clients sleep where a claim is about time: that takes as long on any machine, and in two processes half as long.
"""

import os
import time
from dataclasses import replace

import numpy as np
import pytest

import fedpact as fp
from fedpact.core.errors import QuorumError
from fedpact.engine import auto
from fedpact.engine.auto import Auto
from fedpact.engine.prefetch import Prefetched
from fedpact.engine.rounds import hold_round
from fedpact.engine.work import Intake
from tests.engine.runs import same_bits, two_classes
from tests.engine.worker_tasks import MODEL, clients, round_of, setting_of, undisturbed, work_of

HERE = os.getpid()


@pytest.fixture
def engines():
    made = []

    def make(rounds, **settings):
        made.append(Auto(rounds, processes=2, **settings))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def sleepy(seconds):
    return lambda id: time.sleep(seconds)


def slow_elsewhere(id):
    if os.getpid() != HERE:
        time.sleep(0.03)


def evaluation(work):
    return replace(work, task=replace(work.task, verb="evaluate"))


def in_workers(engine):
    return "in 2 worker processes" in engine.describe()


def test_workers_start_within_the_first_round_where_that_pays(engines):
    engine, seen = engines(100), []
    work = work_of(setting_of(lambda id: [time.sleep(0.02), seen.append(id)]))
    found = round_of(engine, work)
    assert same_bits({**found, "timed": None}, {**undisturbed(), "timed": None})
    assert in_workers(engine)
    # The first few alone were run in this process.
    assert len(seen) == 4


def test_no_worker_is_started_for_a_gain_of_less_than_it_costs(engines):
    engine = engines(2)
    # 12 · 5 ms, of which two processes save half in each of two rounds: 0.06 s.
    work = work_of(setting_of(sleepy(0.005)))
    for _ in range(2):
        round_of(engine, work)
    assert engine.describe().startswith("one by one, in this process: ")
    assert engine.loads_here


def test_workers_that_are_no_faster_are_left_again(engines, monkeypatch):
    monkeypatch.setattr(auto, "_LEAST_ROUND_S", 0.0)
    monkeypatch.setattr(auto, "_START_S", -np.inf)
    engine = engines(100)
    work = work_of(setting_of(slow_elsewhere))
    places = []
    for _ in range(8):
        assert same_bits(round_of(engine, work)["aggregate"], undisturbed()["aggregate"])
        places.append(in_workers(engine))
    # The first round in them pays for the start, and the next two tell.
    assert places == [True] * 2 + [False] * 6
    assert engine._crew is None


def test_evaluations_alone_may_be_worth_workers(engines, monkeypatch):
    monkeypatch.setattr(auto, "_START_S", 0.05)
    monkeypatch.setattr(auto, "_LEAST_ROUND_S", 0.1)
    engine = engines(3)
    training = work_of(setting_of())
    judging = evaluation(work_of(setting_of(sleepy(0.02), training.setting.population)))
    for _ in range(3):
        round_of(engine, training)
        assert same_bits(round_of(engine, judging)["aggregate"], undisturbed()["aggregate"])
    assert engine.describe().startswith("one by one, in this process, evaluation in 2 worker processes")
    assert engine.loads_here


def test_of_the_last_round_nothing_is_expected_any_more(engines, monkeypatch):
    monkeypatch.setattr(auto, "_START_S", 0.0)
    monkeypatch.setattr(auto, "_LEAST_ROUND_S", 0.0)
    monkeypatch.setattr(auto, "_HANDING_S", 0.0)
    engine = engines(1)
    round_of(engine, work_of(setting_of(), ["client 00"]))
    assert not in_workers(engine)


def test_a_round_without_a_client_is_no_measurement(engines):
    engine, work = engines(5), work_of(setting_of())
    intake = Intake(work)
    engine.ask(work, [], intake)
    assert intake.sums.count == 0
    assert same_bits(round_of(engine, work)["aggregate"], undisturbed()["aggregate"])


def test_clients_of_whom_nobody_can_say_a_size_are_failures(engines):
    class Sizeless(fp.InMemory):
        def size(self, id):
            raise OSError("the disk is gone")

    setting = setting_of(population=Sizeless(clients()))
    task = setting.algorithm.task(setting.algorithm.init(MODEL, setting.seed))
    with pytest.raises(QuorumError, match="the disk is gone"):
        hold_round(engines(3), setting, task, {}, 0)


def test_workers_are_not_chosen_where_they_cannot_be_forked(engines, monkeypatch):
    monkeypatch.setattr(auto, "_START_S", -np.inf)
    monkeypatch.setattr(auto, "safe_start", lambda: "spawn")
    engine = engines(100)
    round_of(engine, work_of(setting_of(sleepy(0.005))))
    assert not in_workers(engine)


def test_nothing_is_read_ahead_while_workers_are_forked(engines, monkeypatch):
    monkeypatch.setattr(auto, "_START_S", -np.inf)
    monkeypatch.setattr(auto, "_LEAST_ROUND_S", 0.0)
    population = Prefetched(fp.InMemory(clients()))
    work = work_of(setting_of(sleepy(0.005), population))
    population.announce(list(work.weights))
    round_of(engines(100), work)
    assert population._cohorts == ()


def test_a_resumed_run_weighs_the_rounds_that_are_left(tmp_path, monkeypatch):
    given = []

    class Noting(Auto):
        def __init__(self, rounds, *settings):
            given.append(rounds)
            super().__init__(rounds, *settings)

    monkeypatch.setattr("fedpact.engine.engines.Auto", Noting)
    for rounds in (3, 5):
        fp.train(
            fp.models.Logistic(), two_classes(), rounds=rounds, folder=tmp_path, resume=True, progress=False
        )
    assert given == [3, 2]


def test_a_run_that_began_batched_trains_no_client_alone_when_it_is_resumed(engines):
    engine = engines(5, arithmetic="batched")
    work = work_of(setting_of())
    round_of(engine, work)
    assert engine._paces["train"].measured
    assert "not batched" in engine.describe()


def test_clients_are_timed_on_one_thread_in_each_way():
    torch = pytest.importorskip("torch")
    told, before = [], torch.get_num_threads()

    class Telling(fp.InMemory):
        def load(self, id):
            told.append((id, torch.get_num_threads()))
            return super().load(id)

    settings = {"algorithm": fp.FedAvg(lr=0.1), "progress": False}
    population = Telling(two_classes(20))
    torch.set_num_threads(2)
    try:
        said = fp.train(fp.models.Logistic(), population, rounds=1, evaluate_every=0, **settings).engine
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert "one by one, " in said
    assert "batched" in said
    # The last asked are those of the evaluation, and before them of the round; the preparation came first.
    assert {threads for _, threads in told[20:]} == {1}
