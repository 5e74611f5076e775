"""Claims about records that are appended to a file."""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpact.core.errors import CheckpointError, FedpactError
from fedpact.store.records import Records
from fedpact.store.tree import pack, unpack

resource = pytest.importorskip("resource")

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
RECORDS = st.lists(st.dictionaries(st.text(), VALUES, max_size=4), max_size=4)


def rounds(*numbers: int) -> list[dict[str, Any]]:
    return [{"round": number, "loss": 1 / number} for number in numbers]


def written(path: Path, *numbers: int) -> Records:
    records = Records(path)
    records.append(rounds(*numbers))
    return records


@settings(max_examples=30)
@given(RECORDS, RECORDS)
def test_records_come_back_as_they_were(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        records = Records(Path(folder) / "records")
        records.append(first)
        records.append(second)
        assert list(records.read()) == first + second
        assert len(records) == len(first + second)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(["append", "position", "resume"]), RECORDS), max_size=12))
def test_records_are_like_a_list_whatever_is_done(steps: list[tuple[str, list[dict[str, Any]]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records"
        records, held = Records(path), list[dict[str, Any]]()
        position, noted = records.position(), list[dict[str, Any]]()
        for step, given_records in steps:
            if step == "append":
                records.append(given_records)
                held += given_records
            elif step == "position":
                position, noted = records.position(), list(held)
            else:
                records, held = Records(path), list(noted)
                records.cut(position)
            assert list(records.read()) == held
            assert records.position()["count"] == len(held)


def test_numbers_that_are_not_finite_and_those_of_numpy_are_numbers(tmp_path: Path) -> None:
    records = Records(tmp_path / "records")
    records.append([{"a": math.inf, "b": -math.inf, "c": np.float32(0.5), "d": np.int64(3), "e": math.nan}])
    (found,) = records.read()
    assert math.isnan(found.pop("e"))
    assert found == {"a": math.inf, "b": -math.inf, "c": 0.5, "d": 3}
    assert [type(value) for value in found.values()] == [float, float, float, int]


def test_file_is_json_lines_in_the_words_that_were_given(tmp_path: Path) -> None:
    records = Records(tmp_path / "records")
    records.append([{"客户": "上海"}, {"round": 1}])
    assert (tmp_path / "records").read_text("utf-8") == '{"客户":"上海"}\n{"round":1}\n'


def test_position_is_the_digest_of_the_whole_file_and_can_be_held_by_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "records"
    records = written(path, 1, 2)
    records.position()
    records.append(rounds(3))
    position = records.position()
    data = path.read_bytes()
    assert position == {"count": 3, "nbytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert unpack(*pack(position), Records(path).position()) == position


def test_appended_records_are_on_the_disk_when_their_position_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, synced, fsync = written(tmp_path / "records", 1), [], os.fsync

    def seen(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", seen)
    assert synced == []
    records.position()
    records.position()
    assert synced == [records.position()["nbytes"]]


def test_append_cut_short_at_any_byte_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "records"
    records = written(path, 1, 2)
    position = records.position()
    records.append(rounds(3, 4))
    data = path.read_bytes()
    for length in range(position["nbytes"], len(data) + 1):
        path.write_bytes(data[:length])
        resumed = Records(path)
        resumed.cut(position)
        assert list(resumed.read()) == rounds(1, 2)
        resumed.append(rounds(3))
        assert list(resumed.read()) == rounds(1, 2, 3)
        assert path.read_bytes() == data[: resumed.position()["nbytes"]]


def test_any_changed_byte_before_the_position_is_found(tmp_path: Path) -> None:
    path = tmp_path / "records"
    position = written(path, 1, 2, 3).position()
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(CheckpointError, match=r'records" is damaged: its first 3 records do not have'):
            Records(path).cut(position)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "cannot be read: No such file or directory"),
        (
            lambda path: os.truncate(path, 30),
            "is truncated: it has 30 bytes, and the checkpoint counts on 46",
        ),
    ],
)
def test_file_that_lacks_records_of_the_checkpoint_is_refused(
    damage: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "records"
    records = written(path, 1, 2)
    position = records.position()
    damage(path)
    with pytest.raises(CheckpointError, match=f'"{path}" {said}'):
        Records(path).cut(position)
    with pytest.raises(CheckpointError, match=f'"{path}" {said}'):
        list(records.read())


def test_line_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "records"
    records = written(path, 1)
    path.write_bytes(b"x" * path.stat().st_size + b"\n")
    records.append(rounds(2))
    with pytest.raises(CheckpointError, match="a line of it is no JSON"):
        list(records.read())


def test_file_that_a_run_left_before_its_first_checkpoint_is_replaced(tmp_path: Path) -> None:
    written(tmp_path / "records", 1, 2)
    records = Records(tmp_path / "records")
    assert list(records.read()) == []
    records.append(rounds(3))
    assert (tmp_path / "records").read_bytes() == json.dumps(
        rounds(3)[0], separators=(",", ":")
    ).encode() + b"\n"
    assert [path.name for path in tmp_path.iterdir()] == ["records"]


def test_nothing_is_written_before_there_is_a_record(tmp_path: Path) -> None:
    records = Records(tmp_path / "none" / "records")
    records.append([])
    again = Records(tmp_path / "none" / "records")
    again.cut(records.position())
    assert (list(again.read()), list(tmp_path.iterdir())) == ([], [])


def test_what_json_cannot_hold_is_refused_and_nothing_of_it_is_written(tmp_path: Path) -> None:
    records = written(tmp_path / "records", 1)
    with pytest.raises(CheckpointError, match="cannot be written down: set is nothing that JSON holds"):
        records.append([{"round": 2}, {"round": {3}}])
    assert list(records.read()) == rounds(1)


def test_full_disk_is_a_sentence_and_the_file_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "records"
    records = written(path, 1)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 5, hard))
    try:
        with pytest.raises(FedpactError, match=rf'cannot write "{path}": the file would be larger'):
            records.append(rounds(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    records.append(rounds(3))
    assert list(records.read()) == rounds(1, 3)


def test_missing_folder_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FedpactError, match=r'cannot write ".*none/records": its folder does not exist'):
        written(tmp_path / "none" / "records", 1)
