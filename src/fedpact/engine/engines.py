"""Engines by name."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from fedpact.core.errors import ConfigError, suggest
from fedpact.engine.auto import Arithmetic, Auto
from fedpact.engine.batched import Batched
from fedpact.engine.devices import Devices
from fedpact.engine.in_process import InProcess
from fedpact.engine.words import listed
from fedpact.engine.work import Engine
from fedpact.engine.workers import Workers

ENGINES = ("auto", "in_process", "batched", "workers", "ray")


def engine_of(
    engine: str | Engine,
    workers: int | None,
    timeout_s: float | None,
    rounds: int,
    arithmetic: Arithmetic | None = None,
    devices: Sequence[str] = (),
) -> Engine:
    """Return the engine of this name, or the engine itself.

    Args:
        engine: one of `ENGINES`, or an engine.
        workers: processes, or Ray's actors; None for one a core. With "batched", each trains its clients batched.
        timeout_s: how long one client may take, in seconds.
        rounds: how many rounds are to come, by which "auto" weighs what workers cost to start.
        arithmetic: the way that a resumed run began with.
        devices: those that the model computes on, where it says so; with several, each has a thread.

    Raises:
        ConfigError: there is no such engine, or a setting has no effect on it.
    """
    if workers is not None and (not isinstance(workers, int) or isinstance(workers, bool) or workers < 1):
        raise ConfigError(f"workers is {workers!r}; it must be a whole number of processes, 1 or more.")
    if not isinstance(engine, str):
        if workers is not None or timeout_s is not None:
            raise ConfigError(
                f"workers and timeout_s have no effect on an engine that is given ready made: set them in "
                f"{type(engine).__name__}(...)."
            )
        if len(devices) > 1 and not isinstance(engine, Devices):
            raise ConfigError(_one_device(type(engine).__name__, devices))
        return engine
    if engine not in ENGINES:
        raise ConfigError(
            f'there is no engine "{engine}": it is {", ".join(ENGINES)}.{suggest(engine, ENGINES)}'
        )
    if engine == "in_process" and workers is not None:
        raise ConfigError(f'engine="in_process" has one process, so workers={workers} would have no effect.')
    if engine == "batched" and timeout_s is not None:
        raise ConfigError(
            'engine="batched" trains many clients at once, so that none can be given up alone: leave timeout_s out, '
            'or use engine="workers".'
        )
    if len(devices) < 2:
        return _named(engine, workers, timeout_s, rounds, arithmetic)
    if engine in ("workers", "ray"):
        raise ConfigError(_one_device(f'engine="{engine}"', devices))
    if workers is not None:
        raise ConfigError(
            f"each of the model's {len(devices)} devices has a thread of this process, so workers={workers} would have "
            "no effect; name as many devices as are to be used."
        )
    return _on_devices(engine, timeout_s, rounds, arithmetic)


def _named(
    engine: str, workers: int | None, timeout_s: float | None, rounds: int, arithmetic: Arithmetic | None
) -> Engine:
    if engine == "in_process":
        return InProcess(timeout_s)
    if engine == "batched":
        return Batched() if workers in (None, 1) else Workers(workers, inner=Batched())
    if engine == "workers":
        return Workers(workers, timeout_s=timeout_s)
    if engine == "ray":
        from fedpact.engine.ray import Ray

        return Ray(workers, timeout_s=timeout_s)
    return Auto(rounds, workers, timeout_s, arithmetic)


def _on_devices(engine: str, timeout_s: float | None, rounds: int, arithmetic: Arithmetic | None) -> Engine:
    alone, together = Devices(partial(InProcess, timeout_s)), Devices(Batched)
    if engine == "in_process":
        return alone
    if engine == "batched":
        return together
    return Auto(rounds, None, timeout_s, arithmetic, spread=(alone, together))


def _one_device(engine: str, devices: Sequence[str]) -> str:
    return (
        f"{engine} computes on one device, and the model names {listed(devices)}. Leave engine out, or give "
        '"in_process" or "batched", which use all of them from this process; or name one device: with '
        "engine=fp.Ray(gpus=1) each actor has a GPU of its own."
    )


def arithmetic_of(engine: Any) -> Arithmetic | None:
    """Return the way that an engine chose to train in, which a resumed run must keep; None if there is no choice."""
    return engine.arithmetic if isinstance(engine, Auto) else None
