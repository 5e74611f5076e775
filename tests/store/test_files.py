"""Claims about files that are complete or not there."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedpact.core.errors import FedpactError
from fedpact.store.files import remove_leftovers, write_atomically

# Writes without end: one chunk, then a word to whoever started it, then it waits.
ENDLESS = """
import sys, time
from fedpact.store.files import write_atomically

def chunks():
    yield b"half"
    print("writing", flush=True)
    time.sleep(60)

write_atomically(sys.argv[1], chunks())
"""

LIMITED = """
import resource, sys
from fedpact.core.errors import FedpactError
from fedpact.store.files import write_atomically

resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_atomically(sys.argv[1], [b"x" * 4096, b"x" * 4096])
except FedpactError as error:
    print(error)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_holds_all_chunks_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", (bytes([i]) for i in range(3)))
    assert (tmp_path / "file").read_bytes() == b"\0\1\2"
    assert names(tmp_path) == ["file"]


def test_one_piece_of_bytes_is_written_as_it_is(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_error_while_writing_leaves_the_old_file_alone(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"new"
        raise KeyboardInterrupt

    write_atomically(tmp_path / "file", b"old")
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", broken())
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_full_disk_is_a_sentence_with_the_path(tmp_path: Path) -> None:
    def full() -> Iterator[bytes]:
        yield b"new"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(FedpactError, match=r"cannot write \".*/file\": the disk is full; free some space"):
        write_atomically(tmp_path / "file", full())
    assert names(tmp_path) == []


def test_write_that_the_system_cuts_short_leaves_the_old_file_alone(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"old")
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "file")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == f'cannot write "{tmp_path / "file"}": the file would be larger than is allowed here.\n'
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_missing_folder_is_a_sentence_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(FedpactError, match=r"none/file\": its folder does not exist; create it first"):
        write_atomically(tmp_path / "none" / "file", b"")


def test_folder_of_that_name_is_a_sentence_with_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(FedpactError, match=r"file\": there is a folder of that name"):
        write_atomically(tmp_path / "file", b"")
    assert names(tmp_path) == ["file"]


def test_file_is_on_disk_before_its_name_is_and_its_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def seen_fsync(descriptor: int) -> None:
        steps.append("fsync folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "fsync file")
        fsync(descriptor)

    def seen_replace(old: Path, new: Path) -> None:
        steps.append("rename")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "replace", seen_replace)
    write_atomically(tmp_path / "file", b"new")
    assert steps == ["fsync file", "rename", "fsync folder"]


def test_file_may_be_read_by_those_whom_the_umask_allows(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", b"new")
    finally:
        os.umask(old)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_leftover_stays_while_its_writer_lives_and_goes_when_it_was_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ENDLESS, str(tmp_path / "file")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        (leftover,) = names(tmp_path)
        assert leftover.startswith(".")
        assert leftover.endswith(".tmp")
        remove_leftovers(tmp_path)
        assert names(tmp_path) == [leftover]
        writer.send_signal(signal.SIGKILL)
    assert names(tmp_path) == [leftover]
    remove_leftovers(tmp_path)
    assert names(tmp_path) == []


def test_files_of_others_are_no_leftovers(tmp_path: Path) -> None:
    others = [
        ".fedpact-notes.tmp",
        ".other.tmp",
        "fedpact-0123456789abcdef.tmp",
        "round-00000001.safetensors",
    ]
    for name in others:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted(others)


def test_folder_that_is_not_there_has_no_leftovers(tmp_path: Path) -> None:
    remove_leftovers(tmp_path / "none")
    assert names(tmp_path) == []
