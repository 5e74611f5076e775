"""The simplest engine: clients train one after another in this process."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from fedpact.engine.threads import one_torch_thread
from fedpact.engine.work import FATAL, Intake, Work


class InProcess:
    """Runs clients in this process, in turn, with one thread of torch.

    Args:
        timeout_s: how long one client may take; one that takes longer is given up and its answer ignored.
    """

    loads_here = True

    def __init__(self, timeout_s: float | None = None) -> None:
        self._timeout_s = timeout_s

    def ask(self, work: Work, ids: Sequence[str], intake: Intake) -> None:
        """Run these clients and take in their answers as they come."""
        with one_torch_thread():
            for id in ids:
                self._run(work, id, intake)

    def _run(self, work: Work, id: str, intake: Intake) -> None:
        start = time.perf_counter()
        try:
            update, keeps = within(self._timeout_s, work.client, id)
        except FATAL:
            raise
        except Exception as error:
            intake.fail(id, error, time.perf_counter() - start)
        else:
            intake.take(update, keeps, time.perf_counter() - start)

    def describe(self) -> str:
        """Return how the clients are trained."""
        return "one by one, in this process"

    def close(self) -> None:
        """There is nothing to give back."""


def within(timeout_s: float | None, run_client: Callable[[str], Any], id: str) -> Any:
    """Return what a client returns, if it does within the time.

    Raises:
        TimeoutError: it does not.
    """
    if timeout_s is None:
        return run_client(id)
    result: list[Any] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(run_client(id))
        except BaseException as error:
            failure.append(error)

    # A thread cannot be stopped, only abandoned: a daemon, so that it does not hold the process at its end.
    thread = threading.Thread(target=run, name=f"fedpact client {id}", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {timeout_s:g} s")
    if failure:
        raise failure[0]
    return result[0]
