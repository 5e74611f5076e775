"""What is left of a round for several devices, each of which may have to hand back what it has no memory for."""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """Clients that one device runs at once.

    Args:
        ids: the clients.
        tried: the devices that had no memory for them.
    """

    ids: Sequence[str]
    tried: frozenset[int] = frozenset()


class Parts:
    """The parts of a round, handed out in their order; what comes back goes to a device that has not tried it.

    Args:
        parts: the parts.
        devices: how many devices there are, counted from 0.
    """

    def __init__(self, parts: Iterable[Part], devices: int) -> None:
        self._open = list(parts)[::-1]
        self._devices = devices
        self._out = 0
        self._stopped = False
        self._changed = threading.Condition()

    def take(self, device: int) -> Part | None:
        """Return the next part for a device, waiting for those that may still come back; None if there is none."""
        with self._changed:
            while True:
                for place in range(len(self._open) - 1, -1, -1):
                    if device not in self._open[place].tried:
                        self._out += 1
                        return self._open.pop(place)
                if self._stopped or not self._out:
                    return None
                self._changed.wait()

    def give_back(self, part: Part, short: Sequence[str], device: int) -> Sequence[str]:
        """Note that a device is done with a part; return the clients that no device has memory for.

        Args:
            part: the part.
            short: its clients that this device had no memory for.
            device: the device.
        """
        tried = part.tried | {device}
        last = len(tried) == self._devices
        with self._changed:
            self._out -= 1
            if not last and not self._stopped:
                self._open[:0] = [Part((id,), tried) for id in reversed(short)]
            self._changed.notify_all()
        return short if last else ()

    def stop(self) -> None:
        """Hand out nothing any more."""
        with self._changed:
            self._open.clear()
            self._stopped = True
            self._changed.notify_all()
