"""What clients keep from one round to the next, in memory or in one file, as of any checkpoint that is kept."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from fedpact.core.algorithm import ClientState
from fedpact.core.errors import CheckpointError
from fedpact.store.states_on_disk import StatesOnDisk, refers_to_a_file


class ClientStates(Protocol):
    """The states of a run's clients.

    A round stages what its clients keep; when the server's step is done `commit` makes all of it true together, or
    `discard` forgets it. A checkpoint holds `contents`; `restore` goes back to one.
    """

    def __len__(self) -> int:
        """The number of clients that keep something."""
        ...

    def ids(self) -> list[str]:
        """Return the clients that keep something."""
        ...

    def get(self, id: str) -> ClientState:
        """Return what a client keeps, {} for nothing; not to be written to.

        Raises:
            CheckpointError: it was damaged on the disk.
        """
        ...

    def view(self, ids: Iterable[str]) -> Mapping[str, ClientState]:
        """Return what these clients keep, those that keep nothing left out; true until the next commit.

        It may be sent to another process on this machine, which reads what it asks for.
        """
        ...

    def stage(self, id: str, state: ClientState) -> None:
        """Note what a client is to keep from the next commit on, {} for nothing; its vectors are not written to again.

        Raises:
            ModelError: the state does not fit those of the other clients.
            FedpactError: it cannot be written.
        """
        ...

    def commit(self) -> None:
        """Make true what was staged."""
        ...

    def discard(self) -> None:
        """Forget what was staged."""
        ...

    def contents(self, round: int) -> dict[str, Any]:
        """Return what the checkpoint of this round is to hold; what that refers to is on the disk.

        Raises:
            FedpactError: it cannot be written.
        """
        ...

    def restore(self, contents: Mapping[str, Any]) -> None:
        """Go back to what a checkpoint holds.

        Raises:
            CheckpointError: what it refers to is missing, truncated, or another run's.
        """
        ...

    def retain(self, rounds: Iterable[int]) -> None:
        """Say of which rounds there are checkpoints: what others alone refer to is given up."""
        ...


def states_for(path: Path | None) -> ClientStates:
    """Return an empty store of states: in one file at `path`, or in memory for None."""
    return StatesInMemory() if path is None else StatesOnDisk(path)


class StatesInMemory:
    """States in memory; a checkpoint holds all of them."""

    def __init__(self) -> None:
        self._kept: dict[str, ClientState] = {}
        self._staged: dict[str, ClientState] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def ids(self) -> list[str]:
        return list(self._kept)

    def get(self, id: str) -> ClientState:
        return self._kept.get(id, {})

    def view(self, ids: Iterable[str]) -> Mapping[str, ClientState]:
        return {id: self._kept[id] for id in ids if id in self._kept}

    def stage(self, id: str, state: ClientState) -> None:
        self._staged[id] = state

    def commit(self) -> None:
        for id, state in self._staged.items():
            if state:
                self._kept[id] = state
            else:
                self._kept.pop(id, None)
        self._staged.clear()

    def discard(self) -> None:
        self._staged.clear()

    def contents(self, round: int) -> dict[str, Any]:
        return dict(self._kept)

    def restore(self, contents: Mapping[str, Any]) -> None:
        if refers_to_a_file(contents):
            raise CheckpointError(
                "the checkpoint's run keeps its clients' states in a file: resume it so, or choose another folder."
            )
        self._kept, self._staged = dict(contents), {}

    def retain(self, rounds: Iterable[int]) -> None:
        """There is nothing to give up: each checkpoint holds its own states."""
