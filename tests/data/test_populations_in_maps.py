"""Populations in memory-mapped arrays: the same rows as in memory, and no file that piles up there."""

import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

import fedpact as fp
from fedpact.core.errors import DataError
from fedpact.core.rows import ClientStack
from fedpact.data.populations import in_file

sees_maps = pytest.mark.skipif(
    not Path("/proc/self/smaps").exists(), reason="says what of a file is in memory: Linux alone"
)


def resident_kb(path):
    maps = Path("/proc/self/smaps").read_text().split(str(path))
    return sum(int(re.search(r"Rss:\s+(\d+)", each)[1]) for each in maps[1:])


def in_a_file(path, array, mode="r"):
    np.save(path, array)
    return np.load(path, mmap_mode=mode)


@pytest.fixture
def none_is_small(monkeypatch):
    """Have arrays of any size read from their files."""
    monkeypatch.setattr(in_file, "_SMALL_BYTES", 0)


def examples(shape=(300, 2, 600)):
    return np.arange(np.prod(shape), dtype=np.float64).reshape(shape), np.tile(
        [0, 1], (shape[0], shape[1] // 2)
    )


@sees_maps
@pytest.mark.parametrize("cut", ["one by one", "at once", "from one axis"])
def test_of_a_large_file_nothing_stays_in_memory(tmp_path, cut):
    mapped, y = in_a_file(tmp_path / "x.npy", np.ones((100, 2, 32_768))), np.tile([0, 1], (100, 1))
    if cut == "from one axis":
        population = fp.populations.arrays(mapped.reshape(200, -1), y.reshape(-1), sizes=[2] * 100)
    else:
        population = fp.populations.arrays(mapped, y)
    ids = list(population.ids(0))
    for client in population.load_many(ids) if cut == "at once" else map(population.load, ids):
        assert client.train.x.sum() == 2 * 32_768
    assert resident_kb(tmp_path / "x.npy") == 0


@sees_maps
def test_rows_that_do_not_lie_together_are_views_and_their_pages_are_handed_back(tmp_path):
    x, y = examples()
    mapped = in_a_file(tmp_path / "x.npy", x)[:, :, :500]
    population = fp.populations.arrays(mapped, y)
    views = [population.load(id).train.x for id in population.ids(0)]
    _ = [view.sum() for view in views]
    assert resident_kb(tmp_path / "x.npy") > 0
    # Small clients count as 128 KB each, so that 64 of them are 8 MB: the 65th hands them back.
    for id in population.ids(0)[:65]:
        population.load(id)
    assert resident_kb(tmp_path / "x.npy") == 0
    np.testing.assert_array_equal(np.stack(views), x[:, :, :500])


@pytest.mark.parametrize("offset", [0, 7])
def test_rows_in_files_are_those_in_memory(tmp_path, none_is_small, offset):
    (x, y), (test_x, test_y) = examples((9, 4, 5)), examples((9, 2, 5))
    sizes = np.array([3, 0, 1, 2, 2, 1, 2, 3, 4])
    # A file may begin with something else, and an array be a part of what is mapped.
    (tmp_path / "raw").write_bytes(bytes(offset) + x.tobytes())
    raw = np.memmap(tmp_path / "raw", np.float64, "r", offset, (9, 4, 5))
    files = [in_a_file(tmp_path / f"{i}.npy", array) for i, array in enumerate((y, test_x, test_y))]
    ragged = test_x.reshape(18, 5), test_y.reshape(18), sizes
    for ours, plain in [
        (fp.populations.arrays(raw, files[0]), fp.populations.arrays(x, y)),
        (fp.populations.arrays(raw[2:7], files[0][2:7]), fp.populations.arrays(x[2:7], y[2:7])),
        (
            fp.populations.arrays(raw, files[0], test=tuple(files[1:])),
            fp.populations.arrays(x, y, test=(test_x, test_y)),
        ),
        (
            fp.populations.arrays(raw, files[0], test=(files[1].reshape(18, 5), files[2].reshape(18), sizes)),
            fp.populations.arrays(x, y, test=ragged),
        ),
    ]:
        ids = list(plain.ids(0))
        assert list(ours.tested(0)) == list(plain.tested(0))
        assert isinstance(ours.load_many(ids), ClientStack) == isinstance(plain.load_many(ids), ClientStack)
        for id, together in zip(ids[::-1], ours.load_many(ids[::-1]), strict=True):
            expected = plain.load(id)
            for client in (ours.load(id), together):
                np.testing.assert_array_equal(client.train.x, expected.train.x)
                np.testing.assert_array_equal(client.train.y, expected.train.y)
                assert (client.test is None) == (expected.test is None)
                if client.test is not None:
                    np.testing.assert_array_equal(client.test.x, expected.test.x)
                    np.testing.assert_array_equal(client.test.y, expected.test.y)
        assert set(ours.description().train.y.tolist()) == set(plain.description().train.y.tolist())


def test_small_files_are_read_at_once(tmp_path):
    x, y = examples()
    population = fp.populations.arrays(in_a_file(tmp_path / "x.npy", x), y)
    os.truncate(tmp_path / "x.npy", 0)
    np.testing.assert_array_equal(population.load("0299").train.x, x[299])


def test_file_that_has_become_shorter_is_an_error_and_not_the_end_of_the_process(tmp_path, none_is_small):
    x, y = examples()
    population = fp.populations.arrays(in_a_file(tmp_path / "x.npy", x), y)
    os.truncate(tmp_path / "x.npy", 50_000)
    np.testing.assert_array_equal(population.load("0001").train.x, x[1])
    with pytest.raises(
        DataError, match=r"x\.npy has become shorter since it was opened: it ends at byte 50000"
    ):
        population.load("0005")


def test_file_that_has_gone_is_read_through_its_map(tmp_path, none_is_small):
    x, y = examples()
    mapped = in_a_file(tmp_path / "x.npy", x)
    (tmp_path / "x.npy").unlink()
    np.testing.assert_array_equal(fp.populations.arrays(mapped, y).load("0299").train.x, x[299])


def test_changes_to_a_copy_on_write_map_are_kept(tmp_path, none_is_small):
    x, y = examples()
    mapped = in_a_file(tmp_path / "x.npy", x, mode="c")
    mapped[0] = -1
    population = fp.populations.arrays(mapped, y)
    for id in population.ids(0):
        population.load(id)
    assert (population.load("0000").train.x == -1).all()


def test_forked_processes_read_a_file_side_by_side(tmp_path, none_is_small):
    x, y = examples()
    population = fp.populations.arrays(in_a_file(tmp_path / "x.npy", x), y)
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            alike = all((population.load(id).train.x == x[int(id)]).all() for id in population.ids(0))
            os._exit(0 if alike else 1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]


def test_arrays_in_files_reach_another_process(tmp_path, none_is_small):
    x, y = examples()
    population = fp.populations.arrays(in_a_file(tmp_path / "x.npy", x), y)
    again = pickle.loads(pickle.dumps(population))  # noqa: S301
    (tmp_path / "x.npy").unlink()
    np.testing.assert_array_equal(again.load("0299").train.x, x[299])
