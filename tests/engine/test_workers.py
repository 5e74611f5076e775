"""Claims about the engine in worker processes: it gives the bits of one process, whatever it is asked."""

import threading
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.newton import Newton
from fedpact.channel.channel import Channel
from fedpact.channel.clip import Clip
from fedpact.core.errors import ConfigError, DataError
from fedpact.core.messages import Update
from fedpact.core.model import Schema
from fedpact.core.vector import Vector
from fedpact.engine.batched import Batched
from fedpact.engine.evaluation import evaluate_clients, judging
from fedpact.engine.in_process import InProcess
from fedpact.engine.population import InMemory
from fedpact.engine.rounds import hold_round, hold_to_end
from fedpact.engine.work import Intake, Rules, Setting
from fedpact.engine.workers import Workers
from fedpact.learn.linear import Logistic
from fedpact.store.states_on_disk import StatesOnDisk
from tests.engine.runs import same_bits, two_classes
from tests.engine.worker_tasks import (
    IDS,
    MODEL,
    WIDTH,
    Together,
    client,
    clients,
    outcome,
    pids,
    round_of,
    setting_of,
    work_of,
)
from tests.federation import SEED, Quadratics


@pytest.fixture
def workers():
    engine = Workers(2)
    yield engine
    engine.close()


def fail_some(id):
    if id in IDS[1::5]:
        raise ValueError(f"{id} has no data")


@pytest.fixture(scope="module")
def pools():
    engines = [Workers(count) for count in (1, 2, 3)]
    yield setting_of(fail_some), engines
    for engine in engines:
        engine.close()


def some_state(setting, random):
    state = setting.algorithm.init(setting.model, SEED)
    return replace(state, model=Vector.from_arrays({"w": random.normal(size=WIDTH)}, setting.model.layout))


def control(random):
    return {"control": Vector.from_arrays({"w": random.normal(size=WIDTH)}, MODEL.layout)}


@settings(max_examples=40)
@given(
    ids=st.lists(st.sampled_from(IDS), unique=True, min_size=1),
    seen=st.lists(st.sampled_from(IDS), unique=True),
    seed=st.integers(0, 9),
)
def test_any_number_of_workers_gives_the_bits_of_one_process(ids, seen, seed, pools):
    setting, engines = pools
    random = np.random.default_rng(seed)
    work = work_of(setting, ids, {id: control(random) for id in seen}, some_state(setting, random))
    alone = round_of(InProcess(), work)
    assert all(same_bits(round_of(engine, work), alone) for engine in engines)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_run_of_several_rounds_ends_with_the_same_bits(count):
    def run(engine):
        setting, kept = setting_of(rules=Rules(0.5)), {}
        state = setting.algorithm.init(MODEL, SEED)
        for round in range(4):
            outcome = hold_round(engine, setting, setting.algorithm.task(state), kept, round)
            kept.update(outcome.kept)
            state = setting.algorithm.server(MODEL, state, outcome.aggregate)
        engine.close()
        return state, kept

    assert same_bits(run(Workers(count)), run(InProcess()))


def test_more_workers_than_clients_are_not_started(workers):
    work = work_of(setting_of(), IDS[:1])
    assert same_bits(round_of(workers, work), round_of(InProcess(), work))
    assert len(pids(workers)) == 1
    round_of(workers, work_of(work.setting))
    assert len(pids(workers)) == 2


def test_what_was_taken_in_before_is_added_to(workers):
    work = work_of(setting_of(fail_some))
    intake = Intake(work)
    InProcess().ask(work, IDS[:3], intake)
    workers.ask(work, IDS[3:], intake)
    assert same_bits(outcome(intake), round_of(InProcess(), work))


def test_nobody_is_asked_for_nothing(workers):
    work = work_of(setting_of())
    intake = Intake(work)
    workers.ask(work, [], intake)
    assert intake.sums.count == 0
    assert pids(workers) == []


def test_what_a_round_gave_is_not_touched_by_the_next(workers):
    work = work_of(setting_of())
    random = np.random.default_rng(0)
    first, again = round_of(workers, work), round_of(InProcess(), work)
    round_of(
        workers,
        work_of(work.setting, IDS, {id: control(random) for id in IDS}, some_state(work.setting, random)),
    )
    assert same_bits(first, again)


def logistic(algorithm, channel=()):
    model = Logistic().build(Schema("binary", (3,), (0, 1)))
    return Setting(algorithm, model, InMemory(two_classes(6)), Channel(channel, algorithm), Rules(), SEED)


def test_updates_go_through_the_channel(workers):
    setting = logistic(FedAvg(lr=0.5), [Clip(0.1)])
    work = work_of(setting)
    assert same_bits(round_of(workers, work), round_of(InProcess(), work))


def test_summed_statistics_are_the_same_bits_round_after_round(workers):
    setting = logistic(Newton())
    assert same_bits(hold_to_end(workers, setting), hold_to_end(InProcess(), setting))


def test_answers_that_are_collected_are_the_same(workers):
    setting = logistic(FedAvg())
    judge = judging(setting.model, setting.population, SEED)
    weights = setting.model.initial(SEED)
    found, alone = (evaluate_clients(engine, judge, weights, 0) for engine in (workers, InProcess()))
    assert found.to_json() == alone.to_json()
    assert len(found.clients) == 6


def test_training_and_evaluation_share_workers(workers):
    setting = logistic(FedAvg(lr=0.5))
    judge = judging(setting.model, setting.population, SEED)
    work = work_of(setting)
    round_of(workers, work)
    before = pids(workers)
    evaluate_clients(workers, judge, setting.model.initial(SEED), 0)
    round_of(workers, work)
    round_of(workers, replace(work, setting=replace(setting, rules=Rules(fatal=(DataError,)))))
    assert pids(workers) == before


def test_another_model_or_population_has_workers_of_its_own(workers):
    setting = setting_of()
    round_of(workers, work_of(setting))
    before = pids(workers)
    for other in (
        replace(setting, model=Quadratics(np.zeros(WIDTH))),
        replace(setting, population=InMemory(clients()[:5])),
    ):
        work = work_of(other)
        assert same_bits(round_of(workers, work), round_of(InProcess(), work))
        assert not set(pids(workers)) & set(before)


def test_algorithms_that_cannot_be_sent_are_inherited(workers):
    population = InMemory(clients())
    for factor in (1, 2, 3):
        work = work_of(setting_of(lambda id, factor=factor: factor, population))
        assert same_bits(round_of(workers, work), round_of(InProcess(), work))


def test_ever_new_algorithms_do_not_fill_the_memory(workers):
    setting = setting_of()
    for _ in range(100):
        algorithm = replace(setting.algorithm)
        work = work_of(replace(setting, algorithm=algorithm, channel=Channel((), algorithm)), IDS[:2])
        round_of(workers, work)
    assert len(workers._pool._parts) <= 32


def test_clients_that_join_or_leave_are_seen(workers):
    population = InMemory(clients()[:6])
    setting = setting_of(population=population)
    round_of(workers, work_of(setting))
    population.join(client(6))
    population.leave(IDS[0])
    # The same name, other rows.
    population.leave(IDS[1])
    population.join(replace(client(7), id=IDS[1]))
    work = work_of(setting)
    assert list(work.weights) == IDS[1:7]
    found = round_of(workers, work)
    assert found["failures"] == [[], {}]
    assert same_bits(found, round_of(InProcess(), work))


def test_a_client_that_is_not_there_is_a_failure_of_its_own(workers):
    work = work_of(setting_of())
    work = replace(work, weights={**work.weights, "nobody": 1})
    found = round_of(workers, work)
    assert found["failures"][1] == {"nobody": "KeyError: 'nobody'"}
    assert same_bits(found, round_of(InProcess(), work))


def test_states_in_a_file_are_read_by_the_workers(workers, tmp_path):
    random = np.random.default_rng(1)
    states, kept = StatesOnDisk(tmp_path / "states"), {id: control(random) for id in IDS[::2]}
    for id, state in kept.items():
        states.stage(id, state)
    states.commit()
    work = work_of(setting_of(), kept=kept)
    assert same_bits(round_of(workers, replace(work, kept=states.view(IDS))), round_of(InProcess(), work))


@dataclass(frozen=True, kw_only=True)
class Disagreeing(FedAvg):
    """FedAvg of which some clients send what the others do not."""

    def client(self, model, task, data, kept, seed):
        update, kept = super().client(model, task, data, kept, seed)
        odd = data.id in IDS[3:9]
        return replace(
            update, averaged={**update.averaged, "more": update.averaged["model"]}
        ) if odd else update, kept


def test_clients_that_send_other_arrays_are_refused_as_in_one_process():
    algorithm = Disagreeing(lr=0.1, local_steps=1)
    work = work_of(replace(setting_of(), algorithm=algorithm, channel=Channel((), algorithm)))
    # One worker a client, so that no worker sees two that disagree.
    engine = Workers(len(IDS))
    found = round_of(engine, work)
    engine.close()
    assert same_bits(found, round_of(InProcess(), work))
    assert found["failures"][0] == IDS[3:9]


def test_another_engine_runs_the_clients_of_a_worker():
    work = work_of(setting_of())
    engine = Workers(2, inner=Together())
    found = round_of(engine, work)
    assert engine.describe() == "together, in 2 worker processes"
    engine.close()
    alone = round_of(InProcess(), work)
    assert same_bits(found, alone)


def test_batched_clients_give_what_they_give_in_one_process():
    setting = logistic(FedAvg(lr=0.5, local_epochs=2, batch_size=4))
    work = work_of(setting)
    engine = Workers(2, inner=Batched())
    found, alone = round_of(engine, work), round_of(InProcess(), work)
    assert engine.describe() == "batched, in 2 worker processes"
    engine.close()
    means = found.pop("aggregate")["means"], alone.pop("aggregate")["means"]
    np.testing.assert_allclose(*(mean["model"]["coef"] for mean in means), rtol=1e-5)
    assert found == alone


def test_why_clients_are_not_batched_is_told():
    engine = Workers(2, inner=Batched())
    round_of(engine, work_of(setting_of()))
    engine.close()
    said = engine.describe()
    assert said.startswith("one by one, in 2 worker processes")
    assert "not batched" in said
    assert "Trying" in said


def test_those_who_take_longest_are_run_first(tmp_path):
    def first(id):
        (tmp_path / "order").open("a").write(f"{id}\n")
        if id == IDS[4]:
            time.sleep(0.2)

    def order():
        said = (tmp_path / "order").read_text().splitlines()
        (tmp_path / "order").unlink()
        return said

    engine, work = Workers(1), work_of(setting_of(first))
    round_of(engine, work)
    # Nothing is known yet but their rows; this one has the fewest.
    assert order() == sorted(IDS, key=lambda id: -work.weights[id])
    round_of(engine, work)
    assert order()[0] == IDS[4]
    engine.close()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"processes": 0}, "processes"),
        ({"processes": 1.5}, "processes"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"start": "forkserver"}, "start"),
    ],
)
def test_settings_out_of_range_are_refused(setting, said):
    with pytest.raises(ConfigError, match=f"Workers: {said}"):
        Workers(**setting)


def test_a_task_that_cannot_be_sent_is_a_mistake(workers):
    work = work_of(setting_of())
    work = replace(work, task=replace(work.task, parameters={"lock": threading.Lock()}))
    with pytest.raises(ConfigError, match='the task "train" cannot be sent to worker processes'):
        round_of(workers, work)


def test_an_answer_that_cannot_be_sent_is_a_mistake(workers):
    @dataclass(frozen=True, kw_only=True)
    class Odd(FedAvg):
        def task(self, state):
            return replace(super().task(state), answers="collect")

        def client(self, model, task, data, kept, seed):
            update, kept = super().client(model, task, data, kept, seed)
            return Update(**{**vars(update), "answer": threading.Lock()}), kept

    algorithm = Odd()
    with pytest.raises(ConfigError, match="what clients answer cannot leave a worker process"):
        round_of(workers, work_of(replace(setting_of(), algorithm=algorithm, channel=Channel((), algorithm))))
