"""Claims about workers that die, clients that take too long, and mistakes that end a round."""

import faulthandler
import os
import resource
import signal
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpact.core.errors import ClientError, ConfigError, DataError, ModelError, QuorumError
from fedpact.engine.in_process import InProcess
from fedpact.engine.rounds import hold_round
from fedpact.engine.work import Intake, Rules
from fedpact.engine.workers import Workers
from tests.engine.runs import same_bits
from tests.engine.worker_tasks import (
    IDS,
    Together,
    counted,
    once,
    outcome,
    pids,
    round_of,
    setting_of,
    undisturbed,
    wait_for,
    work_of,
)
from tests.federation import Quadratics


@pytest.fixture
def workers():
    engine = Workers(2)
    yield engine
    engine.close()


def die(how=signal.SIGKILL):
    # Neither a traceback nor a file of what was in memory.
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), how)
    # The signal may come a little later.
    time.sleep(60)


def without(found, id):
    """Return what a round gave but for one client's failure."""
    return {
        **found,
        "timed": [other for other in found["timed"] if other != id],
        "failures": [[], {}],
        "first error": "None",
    }


@settings(max_examples=8)
@given(
    doomed=st.dictionaries(st.sampled_from(IDS), st.sampled_from([signal.SIGKILL, signal.SIGSEGV])),
    count=st.integers(1, 3),
    together=st.booleans(),
)
def test_workers_that_die_change_no_bit(doomed, count, together):
    engine = Workers(count, inner=Together() if together else None)
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder)
        work = work_of(setting_of(lambda id: id in doomed and once(first, id) and die(doomed[id])))
        assert same_bits(round_of(engine, work), undisturbed())
        assert set(os.listdir(folder)) == set(doomed)
    engine.close()


def test_what_the_dead_had_summed_is_run_again(workers, tmp_path):
    seen, died = tmp_path / "seen", tmp_path / "died"
    seen.mkdir()
    died.mkdir()

    def first(id):
        counted(seen, id)
        # The last that is taken, since it has one row.
        if id == IDS[8] and once(died, id):
            die()

    assert same_bits(round_of(Workers(1), work_of(setting_of(first))), undisturbed())
    times = {id: os.path.getsize(seen / id) for id in IDS}
    assert times == dict.fromkeys(IDS, 2)


def test_a_worker_that_is_killed_between_rounds_is_replaced(workers):
    work = work_of(setting_of())
    round_of(workers, work)
    for pid in pids(workers):
        os.kill(pid, signal.SIGKILL)
    assert same_bits(round_of(workers, work), undisturbed())


def test_a_worker_that_exits_is_replaced(workers, tmp_path):
    work = work_of(setting_of(lambda id: id == IDS[5] and once(tmp_path, id) and os._exit(3)))
    assert same_bits(round_of(workers, work), undisturbed())


def test_a_client_whose_worker_dies_three_times_is_a_failure_of_its_round(workers):
    found = round_of(workers, work_of(setting_of(lambda id: id == IDS[5] and die())))
    assert found["failures"][1] == {
        IDS[
            5
        ]: f'client "{IDS[5]}": its worker process ended three times, the last time by SIGKILL, which is what '
        "the system does when memory runs out. Give it fewer rows or smaller batches, or use fewer worker processes."
    }
    assert found["first error"].startswith("ClientError(")
    assert same_bits(without(found, IDS[5]), undisturbed(leaving_out=IDS[5]))


def test_a_crash_is_told_from_a_lack_of_memory(workers):
    found = round_of(workers, work_of(setting_of(lambda id: id == IDS[0] and die(signal.SIGSEGV))))
    assert "SIGSEGV, for which a library that it uses will be the cause" in found["failures"][1][IDS[0]]


def test_of_clients_run_together_the_one_that_kills_is_found():
    engine = Workers(2, inner=Together())
    found = round_of(engine, work_of(setting_of(lambda id: id == IDS[7] and die())))
    engine.close()
    assert found["failures"][0] == [IDS[7]]
    assert same_bits(without(found, IDS[7]), undisturbed(leaving_out=IDS[7]))


def test_clients_that_are_too_many_to_be_run_together_are_run_in_smaller_groups(tmp_path):
    class Hungry(Together):
        def ask(self, work, ids, intake):
            if len(ids) > 1:
                die()
            super().ask(work, ids, intake)

    engine = Workers(1, inner=Hungry())
    assert same_bits(round_of(engine, work_of(setting_of())), undisturbed())
    engine.close()


class Deadly(Quadratics):
    """A model that a worker does not survive."""

    def __init__(self):
        super().__init__([0.0])
        self.home = os.getpid()

    def __getattribute__(self, name):
        if name == "layout" and os.getpid() != self.home:
            os._exit(7)
        return super().__getattribute__(name)


def test_workers_that_die_before_they_take_a_client_end_the_round(workers):
    with pytest.raises(ConfigError, match=r"end before they take a client \(exit code 7\)"):
        round_of(workers, work_of(setting_of(model=Deadly())))


def test_a_client_that_takes_too_long_is_given_up_and_the_others_are_run_again(tmp_path):
    seen = tmp_path

    def first(id):
        counted(seen, id)
        if id == IDS[1]:
            time.sleep(60)

    engine = Workers(1, timeout_s=0.5)
    start = time.monotonic()
    intake = Intake(work_of(setting_of(first)))
    engine.ask(intake.work, IDS, intake)
    engine.close()
    assert time.monotonic() - start < 30
    found = outcome(intake)
    assert found["failures"][1] == {IDS[1]: "no answer within 0.5 s"}
    assert isinstance(intake.first_error, TimeoutError)
    assert intake.seconds[IDS[1]] >= 0.5
    assert same_bits(without(found, IDS[1]), undisturbed(leaving_out=IDS[1]))


def test_of_clients_run_together_the_one_that_takes_too_long_is_found():
    engine = Workers(1, timeout_s=0.5, inner=Together())
    found = round_of(engine, work_of(setting_of(lambda id: id == IDS[4] and time.sleep(60))))
    engine.close()
    assert found["failures"][1] == {IDS[4]: "no answer within 0.5 s"}
    assert same_bits(without(found, IDS[4]), undisturbed(leaving_out=IDS[4]))


def test_a_limit_of_time_that_nobody_reaches_changes_nothing():
    engine = Workers(2, timeout_s=60)
    assert same_bits(round_of(engine, work_of(setting_of())), undisturbed())
    engine.close()


def raises(error):
    def first(id):
        if id == IDS[6]:
            raise error

    return first


def test_a_mistake_in_the_job_ends_the_round_and_tells_where_it_was_raised(workers):
    with pytest.raises(ModelError, match="not that model") as caught:
        round_of(workers, work_of(setting_of(raises(ModelError("not that model")))))
    (note,) = caught.value.__notes__
    assert note.startswith("In a worker process:\nTraceback")
    assert "test_workers_that_die.py" in note
    assert pids(workers) == []
    assert same_bits(round_of(workers, work_of(setting_of())), undisturbed())


def test_an_error_that_the_rules_call_fatal_ends_the_round(workers):
    setting = setting_of(raises(DataError("no label")))
    found = round_of(workers, work_of(setting))
    assert found["failures"][1] == {IDS[6]: "no label"}
    with pytest.raises(DataError, match="no label"):
        round_of(workers, work_of(replace(setting, rules=Rules(fatal=(DataError,)))))


def test_a_death_ends_the_round_where_the_rules_call_it_fatal(workers):
    setting = setting_of(lambda id: id == IDS[6] and die(), rules=Rules(fatal=(ClientError,)))
    with pytest.raises(ClientError, match=f'client "{IDS[6]}": its worker process ended three times'):
        round_of(workers, work_of(setting))


def test_an_interrupt_in_a_client_is_nobodys_failure(workers):
    with pytest.raises(KeyboardInterrupt):
        round_of(workers, work_of(setting_of(raises(KeyboardInterrupt()))))


def test_why_too_few_answered_is_told_with_its_cause(workers):
    setting = setting_of(raises(ValueError("no data")), rules=Rules(quorum=1.0))
    with pytest.raises(QuorumError, match=f"{IDS[6]}: ValueError: no data") as caught:
        hold_round(workers, setting, work_of(setting).task, {}, 0)
    assert isinstance(caught.value.__cause__, ValueError)
    assert "test_workers_that_die.py" in caught.value.__cause__.__notes__[0]


class ElsewhereError(DataError):
    """An error that cannot be sent: it is made of two things, and says one."""

    def __init__(self, file, row):
        super().__init__(f"row {row} of {file}")
        self.lock = threading.Lock()


def test_an_error_that_cannot_be_sent_arrives_as_what_it_is_a_kind_of(workers):
    setting = setting_of(raises(ElsewhereError("a.csv", 3)), rules=Rules(fatal=(DataError,)))
    with pytest.raises(DataError, match=r"row 3 of a.csv"):
        round_of(workers, work_of(setting))
    mine = work_of(setting_of(raises(ElsewhereError("a.csv", 3))))
    assert round_of(workers, mine)["failures"] == round_of(InProcess(), mine)["failures"]


def test_an_interrupt_of_the_parent_is_not_one_of_the_workers(workers):
    work = work_of(setting_of(lambda id: time.sleep(0.05)))
    found = []
    asking = threading.Thread(target=lambda: found.append(round_of(workers, work)))
    asking.start()
    wait_for(lambda: len(pids(workers)) == 2)
    for pid in pids(workers):
        os.kill(pid, signal.SIGINT)
    asking.join()
    assert same_bits(found[0], undisturbed())


def test_a_worker_that_sleeps_through_a_round_takes_no_client_of_the_next(workers, tmp_path):
    setting = setting_of(lambda id: counted(tmp_path, id))
    first, found = work_of(setting, IDS), []
    round_of(workers, first)
    sleeper = pids(workers)[1]
    os.kill(sleeper, signal.SIGSTOP)
    asking = threading.Thread(target=lambda: found.append(round_of(workers, first)))
    asking.start()
    wait_for(lambda: all(os.path.getsize(tmp_path / id) == 2 for id in IDS))
    asking.join(0.1)
    assert asking.is_alive()
    os.kill(sleeper, signal.SIGCONT)
    asking.join()
    found.append(round_of(workers, work_of(setting, IDS[::-1])))
    assert same_bits(found[0], undisturbed())
    assert same_bits(found[1], round_of(InProcess(), work_of(setting, IDS[::-1])))
