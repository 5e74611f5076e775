"""Loading ahead: the next cohort's rows are read on a thread of their own while this one's are trained on."""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from fedpact.core.messages import Cohort, Cycle, Recipients
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.engine.population import Population, holding_tests, load_all, reads_files, version
from fedpact.engine.sampler import Sampling, choose, count_of

# Clients that are read at once, where the population can: few, so that the first do not wait for the last.
_AT_ONCE = 32


def next_cohort(
    to: Recipients,
    population: Population,
    cohort: int | float | None,
    round: int,
    seed: Seed,
    sampling: Sampling = "fixed",
) -> Sequence[str]:
    """Return whom a round will ask, before it begins: the seed, the round and the names decide it.

    Nobody where everyone is asked, since all rows are more than can be held ahead.

    Args:
        to: whom the algorithm will want.
        population: the clients.
        cohort: the job's cohort: a number, a share, or None for all.
        round: the round.
        seed: the job's.
        sampling: how it is drawn.
    """
    ids = population.ids(round)
    few = isinstance(to, Cycle) or (isinstance(to, Cohort) and count_of(cohort, len(ids)) < len(ids))
    return choose(to, ids, cohort, round, seed, sampling) if few else ()


class Prefetched:
    """A population that loads ahead the cohorts it is told of; it pays where clients come out of files.

    Two cohorts are held at most: the one announced last, and the one before it, which is being trained on. Who was
    not announced, or could not be loaded ahead, is loaded when asked for, so errors come where they always come.

    Args:
        population: the clients; they must bear to be loaded in another thread.
    """

    def __init__(self, population: Population) -> None:
        self._population = population
        self._process = os.getpid()
        self._cohorts: tuple[_Loading, ...] = ()
        self.reads_files = reads_files(population)

    def announce(self, ids: Sequence[str]) -> None:
        """Begin to load these clients, behind those announced before; forget the cohort before the last."""
        *dropped, before = self._cohorts or (None,)
        for each in dropped:
            if each is not None:
                each.cancel()
        loading = _Loading(self._population, ids)
        self._cohorts = (loading,) if before is None else (before, loading)
        loading.start(before)

    def close(self) -> None:
        """Forget all cohorts, and wait until nothing is being loaded."""
        cohorts, self._cohorts = self._cohorts, ()
        for each in cohorts:
            each.cancel()
        for each in cohorts:
            each.wait()

    def ids(self, round: int) -> Sequence[str]:
        """Return the names of the clients that are there in this round."""
        return self._population.ids(round)

    def tested(self, round: int) -> Sequence[str]:
        """Return the names of the clients that may hold test rows in this round."""
        return holding_tests(self._population, round)

    def size(self, id: str) -> int:
        """Return a client's number of training rows."""
        client = self._ahead(id, wait=False)
        return self._population.size(id) if client is None else len(client.train)

    @property
    def version(self) -> int:
        """How often the clients have changed."""
        return version(self._population)

    def load(self, id: str) -> ClientData:
        """Return a client's rows: those loaded ahead, or else by loading them now."""
        client = self._ahead(id)
        return self._population.load(id) if client is None else client

    def load_many(self, ids: Sequence[str]) -> Sequence[ClientData]:
        """Return the rows of these clients: those loaded ahead, and the others at once."""
        known = {id: client for id in ids if (client := self._ahead(id)) is not None}
        if not known:
            return load_all(self._population, ids)
        others = [id for id in ids if id not in known]
        known.update(zip(others, load_all(self._population, others), strict=True))
        return [known[id] for id in ids]

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process has nothing announced to it.
        return Prefetched, (self._population,)

    def _ahead(self, id: str, wait: bool = True) -> ClientData | None:
        # A forked process has the cohorts, but not the thread that fills them.
        if os.getpid() != self._process:
            return None
        found = (cohort.get(id, wait) for cohort in self._cohorts)
        return next((client for client in found if client is not None), None)


class _Loading:
    """The clients of one cohort, loaded a few at a time."""

    def __init__(self, population: Population, ids: Sequence[str]) -> None:
        self._population = population
        self._parts = [ids[begin : begin + _AT_ONCE] for begin in range(0, len(ids), _AT_ONCE)]
        self._loaded: list[Future[Sequence[ClientData]]] = [Future() for _ in self._parts]
        self._places = {id: divmod(place, _AT_ONCE) for place, id in enumerate(ids)}
        self._thread: threading.Thread | None = None

    def start(self, after: "_Loading | None") -> None:
        # A daemon, so that a run that ends for whatever reason does not wait for rows that nobody wants.
        self._thread = threading.Thread(
            target=self._load, args=(after and after._thread,), name="fedpact loading ahead", daemon=True
        )
        self._thread.start()

    def get(self, id: str, wait: bool) -> ClientData | None:
        """Return a client; None if it is none of the cohort, was not begun, or could not be loaded."""
        if id not in self._places:
            return None
        part, place = self._places[id]
        loaded = self._loaded[part]
        # What is asked for before it was begun is loaded by whoever asks, instead of waiting in line.
        if (not wait and not loaded.done()) or loaded.cancel():
            return None
        try:
            return loaded.result()[place]
        except Exception:
            return None

    def cancel(self) -> None:
        for loaded in self._loaded:
            loaded.cancel()

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _load(self, after: threading.Thread | None) -> None:
        if after is not None:
            after.join()
        for part, loaded in zip(self._parts, self._loaded, strict=True):
            if loaded.set_running_or_notify_cancel():
                try:
                    loaded.set_result(load_all(self._population, part))
                except Exception as error:
                    loaded.set_exception(error)
