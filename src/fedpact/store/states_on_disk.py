"""What clients keep from one round to the next, in one file: see `fedpact.store.states.ClientStates`."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.algorithm import ClientState
from fedpact.core.errors import CheckpointError, ModelError
from fedpact.core.vector import Layout, Vector
from fedpact.store.slots import SlotFile
from fedpact.store.table import ClientTable

# As the round of the first checkpoint that holds a state: none does yet.
_UNSAVED = np.iinfo(np.int64).max


class StatesOnDisk:
    """States in one file, of which a checkpoint holds no more than where each client's lies and its checksum.

    What a client is to keep is written into a free slot, never over what it kept, and a slot is free again when
    neither a client nor a checkpoint refers to it. So each checkpoint finds its states as they were, whatever ends
    the process and when. The file holds the states of all clients once, and what the checkpoints that are retained
    differ in; memory holds a table with an entry for each client.

    All clients keep vectors of the same names and layouts, those of the first state staged. A checkpoint that is
    taken out of its folder loses its states when the run goes on from an earlier one.

    Args:
        path: where the file is; made when the first state is staged.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._forget()

    def _forget(self) -> None:
        self._file: SlotFile | None = None
        self._layouts: dict[str, Layout] = {}
        # Where a client's state lies: its slot + 1, or 0 for none; `since` is the round of the first checkpoint
        # that holds it.
        self._table = ClientTable({"place": np.int64, "checksum": np.uint32, "since": np.int64})
        self._staged: dict[str, tuple[int, int]] = {}
        # Slots that clients do not refer to any more and checkpoints may: [n, slot, first round, last round].
        self._retired = np.zeros((0, 3), np.int64)
        self._free: list[int] = []
        self._slots = 0
        self._saved = -1
        self._retained: set[int] = set()

    def __len__(self) -> int:
        return int(np.count_nonzero(self._table["place"]))

    def ids(self) -> list[str]:
        return [id for id, place in zip(self._table, self._table["place"], strict=True) if place]

    def get(self, id: str) -> ClientState:
        return self.view([id]).get(id, {})

    def view(self, ids: Iterable[str]) -> Mapping[str, ClientState]:
        places = {}
        for id in ids:
            row = self._table.row(id)
            if row is not None and (place := int(self._table["place"][row])):
                places[id] = place - 1, int(self._table["checksum"][row])
        return _View(self._file, self._layouts, places)

    def stage(self, id: str, state: ClientState) -> None:
        self._unstage(id)
        if not state:
            self._staged[id] = 0, 0
            return
        if self._file is None:
            layouts = {name: vector.layout for name, vector in state.items()}
            nbytes = sum(layout.nbytes for layout in layouts.values())
            self._file, self._layouts = SlotFile.create(self._path, nbytes), layouts
        self._check_fits(id, state)
        slot = self._take()
        try:
            checksum = self._file.write(slot, [state[name].buffer for name in self._layouts])
        except BaseException:
            self._free.append(slot)
            raise
        self._staged[id] = slot + 1, checksum

    def commit(self) -> None:
        if self._staged:
            rows = self._table.rows(self._staged)
            place, since = self._table["place"], self._table["since"]
            self._retire(place[rows], since[rows])
            place[rows], self._table["checksum"][rows] = np.array(list(self._staged.values())).T
            since[rows] = _UNSAVED
            self._staged.clear()

    def discard(self) -> None:
        for id in list(self._staged):
            self._unstage(id)

    def contents(self, round: int) -> dict[str, Any]:
        if self._file:
            self._file.sync()
        since = self._table["since"]
        since[since == _UNSAVED] = round
        self._saved = round
        return {
            "file": self._file and self._file.identity,
            "layouts": dict(self._layouts),
            "clients": self._table.contents(),
            "retired": self._retired.copy(),
            "slots": self._slots,
            "saved": round,
        }

    def restore(self, contents: Mapping[str, Any]) -> None:
        self._forget()
        if not refers_to_a_file(contents):
            # A run that kept its states in memory goes on with them in a file.
            for id, state in contents.items():
                self.stage(id, state)
            self.commit()
            return
        layouts = dict(contents["layouts"])
        self._table.restore(contents["clients"])
        self._retired = contents["retired"].copy()
        self._slots, self._saved = contents["slots"], contents["saved"]
        places = self._table["place"]
        if contents["file"] is not None:
            nbytes = sum(layout.nbytes for layout in layouts.values())
            self._file, self._layouts = SlotFile.open(self._path, nbytes, contents["file"]), layouts
            self._file.check_length(int(places.max(initial=0)))
        used = np.zeros(self._slots, np.bool_)
        used[places[places > 0] - 1] = True
        used[self._retired[:, 0]] = True
        self._free = np.flatnonzero(~used)[::-1].tolist()

    def retain(self, rounds: Iterable[int]) -> None:
        # That a checkpoint is deleted is on the disk for certain when the next one is: its folder is synced then.
        now, before = set(rounds), self._retained
        kept = np.array(sorted(now | before), np.int64)
        self._retained = now
        first, last = self._retired[:, 1], self._retired[:, 2]
        held = np.searchsorted(kept, first, "left") < np.searchsorted(kept, last, "right")
        self._free.extend(self._retired[~held, 0].tolist())
        self._retired = self._retired[held]

    def _take(self) -> int:
        if self._free:
            return self._free.pop()
        self._slots += 1
        return self._slots - 1

    def _unstage(self, id: str) -> None:
        place, _ = self._staged.pop(id, (0, 0))
        if place:
            self._free.append(place - 1)

    def _retire(self, places: NDArray[np.int64], since: NDArray[np.int64]) -> None:
        places, since = places[places > 0], since[places > 0]
        held = since <= self._saved
        self._free.extend((places[~held] - 1).tolist())
        last = np.full(np.count_nonzero(held), self._saved)
        retired = np.stack([places[held] - 1, since[held], last], axis=1)
        self._retired = np.concatenate([self._retired, retired])

    def _check_fits(self, id: str, state: ClientState) -> None:
        if state.keys() != self._layouts.keys():
            raise ModelError(
                f'client "{id}" would keep {_listed(state)}, and others keep {_listed(self._layouts)}; in a file '
                "all keep the same."
            )
        for name, layout in self._layouts.items():
            if state[name].layout != layout:
                raise ModelError(
                    f'client "{id}" would keep another "{name}" than others: {layout.difference(state[name].layout)}; '
                    "in a file all keep the same."
                )


def refers_to_a_file(contents: Mapping[str, Any]) -> bool:
    """Return whether states that a checkpoint holds are `StatesOnDisk.contents`, and not the states themselves."""
    # In the contents of `StatesInMemory` a client of that name has a mapping there.
    return "file" in contents and not isinstance(contents["file"], Mapping)


class _View(Mapping[str, ClientState]):
    """What some clients keep: places in a file, each read when it is asked for."""

    def __init__(
        self, file: SlotFile | None, layouts: Mapping[str, Layout], places: Mapping[str, tuple[int, int]]
    ) -> None:
        self._file = file
        self._layouts = layouts
        self._places = places

    def __getitem__(self, id: str) -> ClientState:
        slot, expected = self._places[id]
        assert self._file is not None
        state = {name: Vector.zeros(layout) for name, layout in self._layouts.items()}
        if self._file.read(slot, [vector.buffer for vector in state.values()]) != expected:
            raise CheckpointError(
                f'what client "{id}" keeps, in "{self._file.path}", is damaged: it does not have the checksum that it '
                "was written with. Resume from an earlier checkpoint, or start the run anew in another folder."
            )
        return state

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
