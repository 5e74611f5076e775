"""Claims about the benchmark of tables made ready: that contestants make the same matrix, and what is counted."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks.preparation import LARGEST_DIFFERENCE, LEVELS, NUMBERS, largest_difference, notes, write
from benchmarks.preparation_runs import RUNS


def test_contestants_make_the_same_matrix_with_one_pass_for_a_statistic(tmp_path: Path) -> None:
    write(tmp_path, 3, 200)
    turn = {name: run(tmp_path) for name, run in RUNS.items()}
    assert largest_difference(turn) <= LARGEST_DIFFERENCE
    assert all(figures["seconds"] > 0 and figures["reading_s"] > 0 for figures in turn.values())
    ours = turn["Fedpact"]
    # The most frequent category takes the categories' names first, and then their numbers of rows.
    assert ours["passes"] == {
        "labels": 1,
        "columns": 1,
        "means": 1,
        "most frequent categories": 2,
        "means and deviations": 1,
        "categories": 1,
    }
    assert ours["reads"] == 3 * (7 + 1)
    assert (
        "Passes over the rows: labels 1, columns 1, means 1, most frequent categories 2" in notes([turn])[1]
    )


def test_clients_files_are_the_same_rows_wherever_they_are_made(tmp_path: Path) -> None:
    tables = []
    for folder in ("here", "there"):
        write(tmp_path / folder, 2, 50)
        tables += [pd.read_parquet(file) for file in sorted((tmp_path / folder).iterdir())]
    pd.testing.assert_frame_equal(tables[0], tables[2])
    pd.testing.assert_frame_equal(tables[1], tables[3])
    assert not tables[0].equals(tables[1])
    assert tables[0].shape == (50, NUMBERS + len(LEVELS) + 1)


def test_contestants_that_differ_in_one_column_differ_by_what_it_does() -> None:
    turn = {"ours": {"sizes": [4.0, 10.0]}, "theirs": {"sizes": [4.0, 8.0]}}
    assert largest_difference(turn) == pytest.approx(0.2)
