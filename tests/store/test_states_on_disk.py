"""Claims about the file of client states: its size, its errors, and those who read it."""

import errno
import multiprocessing
import os
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpact.core import Vector
from fedpact.core.algorithm import ClientState
from fedpact.core.errors import CheckpointError, FedpactError, ModelError
from fedpact.store.states_on_disk import StatesOnDisk
from fedpact.store.tree import pack, unpack
from tests.store.client_states import CLIENTS, CONTROL, OWN, all_of, state, vector

resource = pytest.importorskip("resource")


@contextmanager
def files_of_at_most(nbytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_nothing_is_written_before_a_client_keeps_something(tmp_path: Path) -> None:
    states = StatesOnDisk(tmp_path / "none" / "states")
    states.stage("lyon", {})
    states.commit()
    again = StatesOnDisk(tmp_path / "none" / "states")
    again.restore(unpack(*pack(states.contents(1)), again.contents(0)))
    assert (again.ids(), list(tmp_path.iterdir())) == ([], [])


def test_file_that_a_run_left_before_its_first_checkpoint_is_replaced(tmp_path: Path) -> None:
    for value in (1, 2):
        states = StatesOnDisk(tmp_path / "states")
        states.stage("lyon", state(value))
        states.commit()
    assert all_of(states) == {"lyon": state(2)}
    assert [path.name for path in tmp_path.iterdir()] == ["states"]


def test_file_of_another_kind_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "states").write_text("Notes on the rounds so far.")
    with pytest.raises(FedpactError, match=r"states\" is there already, .* choose another path"):
        StatesOnDisk(tmp_path / "states").stage("lyon", state(1))
    assert (tmp_path / "states").read_text() == "Notes on the rounds so far."


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"control": Vector.zeros(CONTROL)}, 'would keep "control", and others keep "control", "own"'),
        (
            {"control": Vector.zeros(CONTROL), "own": vector(5, 1)},
            'would keep another "own" than others: "head" is missing',
        ),
    ],
)
def test_state_of_other_arrays_is_refused_in_a_file(
    other: dict[str, Vector], said: str, tmp_path: Path
) -> None:
    states = StatesOnDisk(tmp_path / "states")
    states.stage("lyon", state(1))
    with pytest.raises(ModelError, match=f'client "nice" {said}'):
        states.stage("nice", other)
    states.commit()
    assert all_of(states) == {"lyon": state(1)}


def test_checkpoint_holds_no_states_but_a_few_numbers_for_each_client(tmp_path: Path) -> None:
    states = StatesOnDisk(tmp_path / "states")
    for i in range(100):
        states.stage(f"client-{i:04}", {"w": vector(1000, i)})
    states.commit()
    _, arrays = pack(states.contents(1))
    # Of a state of 4,000 bytes: its place, checksum and round, the client's name and where that ends.
    assert sum(array.nbytes for array in arrays.values()) == 100 * (8 + 4 + 8 + 11 + 8)


def test_slots_are_used_again_and_the_file_does_not_grow_with_rounds(tmp_path: Path) -> None:
    states, random = StatesOnDisk(tmp_path / "states"), np.random.default_rng(0)
    sizes = []
    for round in range(1, 200):
        for i in random.choice(20, 5, replace=False):
            states.stage(f"client-{i}", {"w": vector(1024, round)})
        if round % 7 == 0:
            states.discard()
        states.commit()
        states.contents(round)
        states.retain([round - 1, round])
        sizes.append((tmp_path / "states").stat().st_size)
    assert len(states) == 20
    # 20 that are kept, 5 staged, and 5 for each of the three checkpoints that may still be on the disk.
    assert sizes[-1] <= 4096 + (20 + 5 + 15) * 4096
    assert sizes[-1] == sizes[50]


def test_what_no_checkpoint_holds_takes_no_slots(tmp_path: Path) -> None:
    states = StatesOnDisk(tmp_path / "states")
    for round in range(1, 100):
        for i in range(10):
            # The first is staged again before it was ever true.
            states.stage(f"client-{i % 9}", {"w": vector(1024, round)})
        states.commit()
        if round % 25 == 0:
            states.contents(round)
            states.retain([round])
    # 9 that are kept, 9 staged, and 9 for each of the two checkpoints that may still be on the disk.
    assert (tmp_path / "states").stat().st_size <= 4096 + 36 * 4096


def test_states_of_a_deleted_checkpoint_are_written_over_after_the_next_is_saved(tmp_path: Path) -> None:
    states = StatesOnDisk(tmp_path / "states")
    saved_at: dict[int, dict[str, Any]] = {}

    def hold(round: int, retained: list[int]) -> None:
        states.stage("lyon", state(round))
        states.commit()
        saved_at[round] = states.contents(round)
        states.retain(retained)

    def found(round: int) -> Mapping[str, ClientState]:
        again = StatesOnDisk(tmp_path / "states")
        again.restore(saved_at[round])
        return all_of(again)

    hold(1, [1])
    hold(2, [2])
    # Were the power cut now, the file of round 1 might be there again.
    for id in CLIENTS[1:]:
        states.stage(id, state(9))
    assert found(1) == {"lyon": state(1)}
    states.discard()
    hold(3, [3])
    for id in CLIENTS[1:]:
        states.stage(id, state(9))
    with pytest.raises(CheckpointError, match='what client "lyon" keeps'):
        found(1)
    assert found(3) == {"lyon": state(3)}


def test_memory_does_not_grow_over_rounds(tmp_path: Path) -> None:
    states, random = StatesOnDisk(tmp_path / "states"), np.random.default_rng(0)
    fitted = {"control": vector(10_000, 1.0)}

    def hold(rounds: range) -> None:
        for round in rounds:
            cohort = [f"client-{i}" for i in random.choice(60, 20, replace=False)]
            view = states.view(cohort)
            for id in cohort:
                states.stage(id, fitted)
            assert view.get(cohort[0], fitted) == fitted
            states.commit()
            if round % 50 == 0:
                states.contents(round)
                states.retain([round - 50, round])

    hold(range(200))
    tracemalloc.start()
    try:
        hold(range(200, 300))
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        hold(range(300, 2000))
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A round's states are 800 kB, all together 1.4 GB.
    assert after - before < 20_000
    assert peak - before < 200_000


def has_sparse_files(folder: Path) -> bool:
    with open(folder / "probe", "wb") as file:
        file.seek(1 << 24)
        file.write(b"x")
        file.flush()
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_blocks * 512 < 1 << 20


def test_file_for_100_000_clients_of_100_000_parameters_takes_the_room_of_those_that_were_asked(
    tmp_path: Path,
) -> None:
    states, random = StatesOnDisk(tmp_path / "states"), np.random.default_rng(0)
    asked = {f"client-{i}": float(i) for i in random.choice(100_000, 50, replace=False)}
    for id, value in asked.items():
        states.stage(id, {"control": vector(100_000, value)})
    states.commit()
    again = StatesOnDisk(tmp_path / "states")
    again.restore(states.contents(1))
    assert all(again.get(id)["control"]["w"].tolist() == [value] * 100_000 for id, value in asked.items())
    assert (tmp_path / "states").stat().st_size < 51 * 402_000


def test_states_beyond_32_bits_of_a_file_are_found(tmp_path: Path) -> None:
    if not has_sparse_files(tmp_path):
        pytest.skip("this file system has no sparse files")
    states = StatesOnDisk(tmp_path / "states")
    states.stage("first", {"control": vector(100_000, 1.0)})
    states.commit()
    # As if 99,999 others had been asked, and a checkpoint held what they kept.
    others = np.stack([np.arange(1, 100_000), np.ones(99_999), np.ones(99_999)], axis=1).astype(np.int64)
    states.restore({**states.contents(1), "slots": 100_000, "retired": others})
    states.stage("last", {"control": vector(100_000, 2.0)})
    states.commit()
    again = StatesOnDisk(tmp_path / "states")
    again.restore(states.contents(2))
    found = {id: set(kept["control"]["w"].tolist()) for id, kept in all_of(again).items()}
    assert found == {"first": {1.0}, "last": {2.0}}
    about = (tmp_path / "states").stat()
    assert about.st_size > 40_000_000_000
    assert about.st_blocks * 512 < 2_000_000


def saved(path: Path, values: Mapping[str, float]) -> dict[str, Any]:
    """Return what the checkpoint of a new run holds in which these clients keep these states."""
    states = StatesOnDisk(path)
    for id, value in values.items():
        states.stage(id, state(value))
    states.commit()
    return states.contents(1)


def test_any_changed_byte_of_a_state_is_found_and_its_client_and_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "states"
    contents = saved(path, {"lyon": 1, "nice": 2})
    states = StatesOnDisk(path)
    states.restore(contents)
    data = path.read_bytes()
    nbytes = CONTROL.nbytes + OWN.nbytes
    # The second slot, the last of the file.
    for position in range(len(data) - nbytes, len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])
        with pytest.raises(
            CheckpointError, match=rf'what client "nice" keeps, in "{path}", is damaged.* earlier checkpoint'
        ):
            states.get("nice")
        assert states.get("lyon") == state(1)


def test_truncated_file_is_refused_at_once_and_one_cut_later_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "states"
    contents = saved(path, {"lyon": 1, "nice": 2})
    states = StatesOnDisk(path)
    states.restore(contents)
    size = path.stat().st_size
    os.truncate(path, size - 1)
    with pytest.raises(CheckpointError, match=rf"is truncated: it ends at byte {size - 1}"):
        states.get("nice")
    with pytest.raises(CheckpointError, match=rf"is truncated: it has {size - 1} of {size} bytes"):
        StatesOnDisk(path).restore(contents)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.unlink(), "cannot be read: No such file or directory"),
        (lambda path: path.write_bytes(b""), "is no file of slots, or no longer"),
        (lambda path: saved(path, {"lyon": 1}), "is that of another run, or of another start of this one"),
    ],
)
def test_file_that_is_not_that_of_the_checkpoint_is_refused(
    change: Callable[[Path], Any], said: str, tmp_path: Path
) -> None:
    contents = saved(tmp_path / "states", {"lyon": 1})
    change(tmp_path / "states")
    with pytest.raises(CheckpointError, match=f'{tmp_path / "states"}" {said}'):
        StatesOnDisk(tmp_path / "states").restore(contents)


def test_full_disk_is_a_sentence_and_every_client_keeps_what_it_kept(tmp_path: Path) -> None:
    path = tmp_path / "states"
    states = StatesOnDisk(path)
    states.stage("lyon", state(1))
    states.commit()
    with (
        files_of_at_most(path.stat().st_size + 10),
        pytest.raises(
            FedpactError, match=rf'cannot write "{path}": the file would be larger than is allowed'
        ),
    ):
        states.stage("nice", state(2))
    states.discard()
    assert all_of(states) == {"lyon": state(1)}
    states.stage("nice", state(3))
    states.commit()
    assert all_of(states) == {"lyon": state(1), "nice": state(3)}
    # The slot that could not be written is used: slots of 112 bytes are 128 apart.
    assert path.stat().st_size == 4096 + 128 + 112


def test_states_are_read_where_nothing_can_be_written_and_a_write_there_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = saved(tmp_path / "states", {"lyon": 1})
    system_open = os.open

    def read_only(path: Any, flags: int, *mode: int) -> int:
        if flags & os.O_RDWR:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return system_open(path, flags, *mode)

    monkeypatch.setattr(os, "open", read_only)
    states = StatesOnDisk(tmp_path / "states")
    states.restore(contents)
    assert states.get("lyon") == state(1)
    with pytest.raises(FedpactError, match=r'cannot write ".*states": the disk is read-only'):
        states.stage("lyon", state(2))


def read(connection: Any, get: Callable[[str], ClientState], clients: list[str]) -> None:
    for _ in range(20):
        found = [get(id)["control"]["steps"].item() for id in clients]
    connection.send(found)


def read_what_is_sent(connection: Any, clients: list[str]) -> None:
    read(connection, connection.recv().__getitem__, clients)


def test_system_that_reads_and_writes_a_part_at_a_time_gives_the_same_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As it does where a state has more than 2 GiB.
    write, read = os.pwrite, os.preadv
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: write(file, data[:7], offset))
    monkeypatch.setattr(os, "preadv", lambda file, data, offset: read(file, [data[0][:5]], offset))
    states = StatesOnDisk(tmp_path / "states")
    states.stage("lyon", state(3))
    states.commit()
    kept = {name: vector.buffer.tolist() for name, vector in states.get("lyon").items()}
    assert kept == {name: vector.buffer.tolist() for name, vector in state(3).items()}


def test_forked_processes_read_states_side_by_side(tmp_path: Path) -> None:
    states = StatesOnDisk(tmp_path / "states")
    clients = [f"client-{i}" for i in range(50)]
    for value, id in enumerate(clients):
        states.stage(id, state(value))
    states.commit()
    context = multiprocessing.get_context("fork")
    ends = []
    for _ in range(3):
        here, there = context.Pipe()
        process = context.Process(target=read, args=(there, states.get, clients))
        process.start()
        ends.append((here, process))
    for here, process in ends:
        assert here.poll(60)
        assert here.recv() == list(range(50))
        process.join()


def test_process_that_is_older_than_the_file_reads_the_view_that_it_is_sent(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=read_what_is_sent, args=(there, ["nice", "lyon"]))
    process.start()
    states = StatesOnDisk(tmp_path / "states")
    for id, value in (("lyon", 1), ("nice", 2), ("paris", 3)):
        states.stage(id, state(value))
    states.commit()
    # Now the file is open for reading too, and what is open here is not there.
    assert states.get("paris")
    here.send(states.view(["lyon", "nice"]))
    assert here.poll(60)
    assert here.recv() == [2, 1]
    process.join()
