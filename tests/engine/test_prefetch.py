"""Loading ahead: the same clients and the same errors as without it, and no more than two cohorts held."""

import os
import pickle
import threading
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedpact as fp
from fedpact.core.errors import DataError
from fedpact.core.messages import Cohort, Cycle, Everyone, Named
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.engine.population import InMemory, Population, Prepared, reads_files
from fedpact.engine.prefetch import Prefetched, next_cohort
from fedpact.engine.sampler import choose

NAMES = [f"{i:02d}" for i in range(80)]


class Slow:
    """A population that notes who loads whom, and may make other threads wait in the middle of it."""

    reads_files = True

    def __init__(self):
        self.loads = Counter()
        self.threads = {}
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def ids(self, round):
        return NAMES

    def size(self, id):
        return 1

    def load(self, id):
        self.begun.set()
        if threading.current_thread() is not threading.main_thread():
            self.go_on.wait()
        self.loads[id] += 1
        self.threads[id] = threading.current_thread()
        if id == "13":
            raise DataError('client "13": the file is broken.')
        return ClientData(id, Rows(np.full((1, 1), int(id)), np.zeros(1)))


def finish():
    """Wait until all that was announced is loaded."""
    for thread in threading.enumerate():
        if thread.name == "fedpact loading ahead":
            thread.join()


def test_a_cohort_that_was_announced_is_loaded_once_and_in_another_thread():
    slow = Slow()
    population = Prefetched(slow)
    assert isinstance(population, Population)
    population.announce(["01", "02"])
    finish()
    assert slow.loads == {"01": 1, "02": 1}
    assert threading.current_thread() not in slow.threads.values()
    assert [population.load(id).train.x[0, 0] for id in ("02", "01", "02")] == [2, 1, 2]
    assert slow.loads == {"01": 1, "02": 1}


def test_who_asks_for_a_client_that_is_being_loaded_waits_for_it():
    slow = Slow()
    slow.go_on.clear()
    population = Prefetched(slow)
    population.announce(["05"])
    slow.begun.wait()
    threading.Timer(0.02, slow.go_on.set).start()
    assert population.load("05").id == "05"
    assert slow.loads == {"05": 1}


def test_who_asks_for_a_client_whose_turn_is_far_loads_it_at_once():
    slow = Slow()
    slow.go_on.clear()
    population = Prefetched(slow)
    population.announce(NAMES)
    slow.begun.wait()
    # Should it wait after all, it is not for ever.
    patience = threading.Timer(5, slow.go_on.set)
    patience.start()
    assert population.load(NAMES[-1]).id == NAMES[-1]
    assert slow.threads[NAMES[-1]] is threading.current_thread()
    patience.cancel()
    slow.go_on.set()
    population.close()


def test_who_was_not_announced_is_loaded_when_asked_for():
    slow = Slow()
    population = Prefetched(slow)
    population.announce(["01"])
    assert population.load("07").id == "07"
    assert slow.threads["07"] is threading.current_thread()


def test_of_many_clients_those_alone_are_loaded_that_are_not_there_yet():
    slow = Slow()
    population = Prefetched(slow)
    population.announce(["01", "02"])
    finish()
    assert [client.id for client in population.load_many(["02", "03", "01"])] == ["02", "03", "01"]
    assert slow.loads == {"01": 1, "02": 1, "03": 1}


def test_two_cohorts_are_held_and_the_one_before_them_forgotten():
    slow = Slow()
    population = Prefetched(slow)
    for cohort in (["01"], ["02"], ["03"]):
        population.announce(cohort)
        finish()
    for id in ("01", "02", "03"):
        population.load(id)
    assert slow.loads == {"01": 2, "02": 1, "03": 1}


def test_an_error_comes_when_the_client_is_asked_for_and_not_before():
    slow = Slow()
    population = Prefetched(slow)
    population.announce(["12", "13", "14"])
    finish()
    assert population.load("12").id == "12"
    with pytest.raises(DataError, match='client "13": the file is broken'):
        population.load("13")
    assert population.load("14").id == "14"


def test_closing_forgets_all_cohorts_and_waits_for_what_is_being_loaded():
    slow = Slow()
    population = Prefetched(slow)
    population.announce(NAMES)
    population.announce(NAMES)
    population.close()
    assert not any(thread.name == "fedpact loading ahead" for thread in threading.enumerate())
    before = slow.loads["01"]
    population.load("01")
    assert slow.loads["01"] == before + 1


def test_a_forked_process_does_not_wait_for_a_thread_that_it_has_not():
    slow = Slow()
    slow.go_on.clear()
    population = Prefetched(slow)
    population.announce(["01"])
    slow.begun.wait()
    child = os.fork()
    if child == 0:
        slow.go_on = threading.Event()
        slow.go_on.set()
        os._exit(0 if population.load("01").id == "01" else 1)
    assert os.waitpid(child, 0)[1] == 0
    slow.go_on.set()
    population.close()


@given(
    st.lists(st.lists(st.sampled_from(NAMES[:8]), unique=True), max_size=5),
    st.lists(st.sampled_from(NAMES[:8])),
)
def test_whatever_was_announced_the_clients_are_the_same(cohorts, asked):
    x, y = np.arange(16).reshape(8, 1, 2), np.zeros((8, 1))
    plain = fp.populations.arrays(x, y, ids=NAMES[:8])
    population = Prefetched(plain)
    for cohort in cohorts:
        population.announce(cohort)
    for id, together in zip(asked, population.load_many(asked), strict=True):
        for client in (population.load(id), together):
            assert (client.id, client.train.x.tolist()) == (id, plain.load(id).train.x.tolist())
        assert population.size(id) == 1
    assert population.ids(0) is plain.ids(0)
    assert population.tested(0) is plain.tested(0)
    population.close()


def test_the_number_of_rows_is_told_by_rows_that_are_there_already(tmp_path):
    for id in ("a", "b"):
        np.savez(tmp_path / f"{id}.npz", x=np.ones((3, 1)), y=[0, 1, 1])
    folder = fp.populations.folder(tmp_path)
    population = Prefetched(folder)
    population.announce(["a"])
    finish()
    (tmp_path / "a.npz").unlink()
    assert (population.size("a"), population.size("b")) == (3, 3)


def test_another_process_gets_the_population_with_nothing_announced():
    population = Prefetched(InMemory([ClientData("a", Rows(np.ones((1, 1)), np.zeros(1)))]))
    population.announce(["a"])
    again = pickle.loads(pickle.dumps(population))  # noqa: S301
    assert again.load("a").train.x.tolist() == [[1]]


def test_it_pays_where_clients_come_out_of_files_alone():
    assert reads_files(Prepared(Slow(), lambda client: client))
    assert reads_files(Prefetched(Slow()))
    assert not reads_files(fp.populations.arrays(np.ones((1, 1, 1)), np.ones((1, 1))))


@pytest.mark.parametrize("to", [Cohort(), Cycle(), Cycle(shuffle=True)])
def test_the_next_cohort_is_known_before_its_round(to):
    population, seed = Slow(), Seed.of(3)
    for round in range(5):
        assert next_cohort(to, population, 4, round, seed) == choose(to, NAMES, 4, round, seed)


@pytest.mark.parametrize(
    ("to", "cohort"), [(Everyone(), 4), (Cohort(), None), (Cohort(), 80), (Named(("01",)), 4)]
)
def test_nobody_is_loaded_ahead_where_all_are_asked_or_some_by_name(to, cohort):
    assert list(next_cohort(to, Slow(), cohort, 0, Seed.of(3))) == []
