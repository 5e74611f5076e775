"""How many threads numerical libraries start, and how many processor cores there are for them."""

import ctypes
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
# What OpenBLAS calls it, by how it was built.
_OPENBLAS = [
    f"{prefix}openblas_%s_num_threads{suffix}" for prefix in ("", "scipy_") for suffix in ("", "64_")
]


def usable_cores() -> int:
    """Return how many cores this process may use: its affinity, and the quota of the container that it is in."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        # There is no such file, or its quota is "max".
        return cores


@contextmanager
def single_threaded() -> Iterator[None]:
    """Let processes that are started in it compute with one thread each.

    Libraries that they load later read it from the environment; OpenBLAS, which numpy has loaded by now, is told here
    already, since in a forked process it would start as many threads as this one has before it can be told.
    """
    before = {name: os.environ.get(name) for name in _VARIABLES}
    os.environ.update(dict.fromkeys(_VARIABLES, "1"))
    counts = [(tell, ask()) for ask, tell in _openblas()]
    for tell, _ in counts:
        tell(1)
    try:
        yield
    finally:
        for tell, count in counts:
            tell(count)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let torch compute with one thread, if it is in use at all.

    Sums that several threads add up in parts are rounded otherwise: on one thread a client's update has the same bits
    in this process and in a worker.
    """
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 1
    if torch is None or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _openblas() -> Iterator[tuple[Callable[[], int], Callable[[int], Any]]]:
    """Yield how each OpenBLAS in this process is asked for its number of threads, and how it is told another."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return
    for path in {line.split(maxsplit=5)[-1] for line in lines if "openblas" in line}:
        library = ctypes.CDLL(path)
        name = next((name for name in _OPENBLAS if hasattr(library, name % "set")), None)
        if name is not None:
            yield getattr(library, name % "get"), getattr(library, name % "set")
