"""The simplest engine: clients train one after another in this process."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedpact.channel.channel import Channel, RoundContext
from fedpact.core.algorithm import Algorithm, ClientState
from fedpact.core.errors import ChannelError, ConfigError, DependencyError, ModelError
from fedpact.core.messages import Task, Update
from fedpact.core.seeds import Seed
from fedpact.engine.population import Population

# Mistakes in the job, which every client would make again: these end the run instead of the client's round.
FATAL = (ChannelError, ConfigError, DependencyError, ModelError)


@dataclass(frozen=True)
class Answer:
    """What came back from one client.

    Args:
        client: who was asked.
        seconds: how long it took.
        update: the update, as it left the client; None if the client failed.
        kept: what the client keeps for its next round.
        error: why it failed.
    """

    client: str
    seconds: float
    update: Update | None = None
    kept: ClientState | None = None
    error: Exception | None = None


class InProcess:
    """Runs clients in this process, in turn.

    Args:
        timeout_s: how long one client may take; one that takes longer is given up and its answer ignored.
    """

    def __init__(self, timeout_s: float | None = None) -> None:
        self._timeout_s = timeout_s

    def ask(
        self,
        algorithm: Algorithm[Any],
        model: Any,
        task: Task,
        population: Population,
        ids: Sequence[str],
        kept: Mapping[str, ClientState],
        channel: Channel,
        context: RoundContext,
        seed: Seed,
    ) -> Iterator[Answer]:
        """Give the task to these clients and yield their answers as they come.

        Args:
            algorithm: whose `client` is run.
            model: the model it is run with.
            task: the task.
            population: the clients.
            ids: the clients asked.
            kept: what clients kept from earlier rounds.
            channel: what updates go through before they leave the client.
            context: what the channel may know of the round.
            seed: of this task; each client draws from a child of its own.
        """

        def work(id: str) -> tuple[Update, ClientState]:
            data = population.load(id)
            update, keeps = algorithm.client(model, task, data, kept.get(id, {}), seed.child("client", id))
            return channel.encode(update, context), keeps

        for id in ids:
            start = time.perf_counter()
            try:
                update, keeps = self._within_time(work, id)
            except FATAL:
                raise
            except Exception as error:
                yield Answer(id, time.perf_counter() - start, error=error)
            else:
                yield Answer(id, time.perf_counter() - start, update, keeps)

    def _within_time(self, work: Callable[[str], Any], id: str) -> Any:
        if self._timeout_s is None:
            return work(id)
        result: list[Any] = []
        failure: list[BaseException] = []

        def run() -> None:
            try:
                result.append(work(id))
            except BaseException as error:
                failure.append(error)

        # A thread cannot be stopped, only abandoned: a daemon, so that it does not hold the process at its end.
        thread = threading.Thread(target=run, name=f"fedpact client {id}", daemon=True)
        thread.start()
        thread.join(self._timeout_s)
        if thread.is_alive():
            raise TimeoutError(f"no answer within {self._timeout_s:g} s")
        if failure:
            raise failure[0]
        return result[0]
