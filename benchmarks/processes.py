"""A command and all processes that it starts: its time, memory and share of the machine's cores.

Memory and cores are read from /proc, so on systems without it they are unknown.
"""

import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# A look at the memory of large processes takes a while; at most this share of one core goes into looking.
_SHARE_SPENT_LOOKING = 0.05
_SHORTEST_PAUSE_S = 0.05
_IDLE_CORES = 0.15


@dataclass(frozen=True)
class Sample:
    """One look at a tree of processes.

    Args:
        time: seconds since the epoch.
        pss_bytes: proportional set size, added up: a page that n processes share counts 1/n in each.
        processes: how many there were.
    """

    time: float
    pss_bytes: int
    processes: int


@dataclass(frozen=True)
class Ran:
    """A command that has ended.

    Args:
        code: its exit status.
        timed_out: whether it was ended because it took too long.
        start: when it was started, in seconds since the epoch.
        seconds: how long it ran.
        samples: what was seen of its processes.
        cores_used: cores that they kept busy, on average; None where unknown.
        outside_load: cores that others kept busy meanwhile, on average; None where unknown.
        output: what it printed.
    """

    code: int
    timed_out: bool
    start: float
    seconds: float
    samples: Sequence[Sample]
    cores_used: float | None
    outside_load: float | None
    output: str

    def peak_pss_bytes(self, until: float) -> int | None:
        """Return the most memory seen before a moment; None if it was never seen."""
        seen = [sample.pss_bytes for sample in self.samples if sample.time <= until]
        return max(seen, default=0) or None


def run(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path, limit_s: float
) -> Ran:
    """Run a command to its end, and end what it leaves behind.

    Args:
        command: the program and its arguments.
        environment: its environment variables.
        folder: where to run it.
        log: the file that takes what it prints.
        limit_s: how long it may take.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    busy, reaped = _machine_seconds(), _reaped_seconds()
    timed_out, samples = False, []
    with log.open("wb") as output:
        start = time.time()
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )
    tree = _Tree(process.pid)
    try:
        while process.poll() is None:
            look = time.perf_counter()
            samples.append(tree.look())
            cost = time.perf_counter() - look
            if time.time() - start > limit_s:
                timed_out = True
                break
            _wait(process, max(_SHORTEST_PAUSE_S, cost / _SHARE_SPENT_LOOKING))
        seconds = time.time() - start
    finally:
        # In a session of its own it does not hear of an interrupt from the keyboard.
        tree.end()
    code = process.wait()
    own = max(tree.cpu_seconds(), _reaped_seconds() - reaped)
    machine = _machine_seconds()
    return Ran(
        code=code,
        timed_out=timed_out,
        start=start,
        seconds=seconds,
        samples=samples,
        cores_used=None if machine is None else own / seconds,
        outside_load=None if machine is None or busy is None else max(0.0, (machine - busy - own) / seconds),
        output=log.read_text(encoding="utf-8", errors="replace"),
    )


def wait_for_idle(limit_s: float) -> None:
    """Wait until nobody uses the machine, or for `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    before, moment = _machine_seconds(), time.monotonic()
    while before is not None and time.monotonic() < deadline:
        time.sleep(min(1.0, limit_s))
        now = _machine_seconds() or before
        if (now - before) / (time.monotonic() - moment) < _IDLE_CORES:
            return
        before, moment = now, time.monotonic()


class _Tree:
    """The processes that descend from one, also those whose parents have ended.

    A process is known by its number and the time of its start: numbers are used again.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._cpu: dict[tuple[int, int], float] = {}

    def look(self) -> Sample:
        """Return what there is now."""
        living = self._living()
        return Sample(time.time(), sum(_pss_bytes(pid) for pid in living), len(living))

    def cpu_seconds(self) -> float:
        """Return the processor time that was seen to be used."""
        return sum(self._cpu.values())

    def end(self) -> None:
        """End those that are left, at first politely."""
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            left = self._living()
            for pid in left:
                try:
                    os.kill(pid, signal_number)
                except ProcessLookupError:
                    continue
            deadline = time.monotonic() + 2
            while left and self._living() and time.monotonic() < deadline:
                time.sleep(0.05)

    def _living(self) -> list[int]:
        present = _processes()
        known = {pid for pid, started in self._cpu if pid in present and present[pid].started == started}
        # Of the session that it was started with are also those whose parents ended before they were seen.
        known |= {pid for pid, process in present.items() if self._root in (pid, process.session)}
        grown = True
        while grown:
            children = {pid for pid, process in present.items() if process.parent in known} - known
            known |= children
            grown = bool(children)
        living = [pid for pid in known if pid in present and not present[pid].ended]
        for pid in living:
            self._cpu[pid, present[pid].started] = present[pid].cpu_seconds
        return living


@dataclass(frozen=True)
class _Process:
    parent: int
    session: int
    started: int
    cpu_seconds: float
    ended: bool


def _processes() -> dict[int, _Process]:
    found = {}
    for entry in _PROC.glob("[0-9]*"):
        try:
            # The name, in brackets, may hold spaces and brackets of its own.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        cpu = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
        parent, session, started = int(fields[1]), int(fields[3]), int(fields[19])
        found[int(entry.name)] = _Process(parent, session, started, cpu, fields[0] == "Z")
    return found


def _pss_bytes(pid: int) -> int:
    try:
        text = (_PROC / str(pid) / "smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _machine_seconds() -> float | None:
    """Return the processor time that the whole machine has used since it was started."""
    try:
        user, nice, system, _, _, irq, softirq = map(int, (_PROC / "stat").read_text().split()[1:8])
    except OSError:
        return None
    return (user + nice + system + irq + softirq) / _TICKS_PER_S


def _reaped_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return
