"""A table that is read in chunks takes memory for a few chunks, however many rows it has."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

# In a process of its own, whose largest size is told in KiB, with all that is imported. What getrusage says of it
# begins at the size of the process that started it.
RUN = """
import sys
from pathlib import Path
import fedpact as fp
from fedpact.core.seeds import Seed
from fedpact.engine.in_process import InProcess
from fedpact.engine.population import InMemory
from fedpact.engine.preparing import prepare
from fedpact.engine.work import Rules

path, exact, rows = sys.argv[1], sys.argv[2] == "exact", int(sys.argv[3]) or None
lyon = fp.client("lyon", path, "y", chunk_rows=rows)
described = fp.describe([lyon], exact=exact, label="y")
steps = (fp.Impute("mean"), fp.Standardize(), fp.OneHot())
preparation = prepare(fp.models.Logistic(), steps, InMemory([lyon]), InProcess(), Rules(), Seed.of(0))
made = preparation.client(lyon, "float64")
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(described.rows, len(made.train), status["VmHWM"].split()[0])
"""

COLUMNS = 24


def write(path: Path, megabytes: int) -> int:
    """Write a table of about so many MB, and return how many rows it has."""
    draw = np.random.default_rng(0)
    n = 5000
    numbers, colours = draw.normal(size=(n, COLUMNS)), draw.choice(["red", "green", "blue"], n)
    rows = [
        ",".join([*(f"{x:.6f}" for x in row), colour]) for row, colour in zip(numbers, colours, strict=True)
    ]
    block, labels = "\n".join(rows), draw.integers(0, 2, n)
    size = written = 0
    with path.open("w") as file:
        file.write(",".join([*(f"x{i}" for i in range(COLUMNS)), "colour", "y"]) + "\n")
        while size < megabytes * 10**6:
            # Of all blocks the numbers have the same digits, each in an order of its own.
            digits = str.maketrans("0123456789", "".join(map(str, draw.permutation(10))))
            lines = block.translate(digits).split("\n")
            size += file.write(
                "".join(f"{line},{label}\n" for line, label in zip(lines, labels, strict=True))
            )
            written += n
    return written


def peak(path: Path, kind: str, chunk_rows: int, rows: int) -> int:
    """Return the MB that a process took to describe and standardise a table."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(path), kind, str(chunk_rows)],
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    described, trained, kilobytes = map(int, done.stdout.split())
    assert described == trained < rows
    return kilobytes // 1024


@pytest.mark.skipif(sys.platform != "linux", reason="measures resident memory as Linux tells it")
def test_describing_and_standardising_a_table_takes_less_memory_than_the_table(tmp_path):
    rows = write(tmp_path / "t.csv", 45)
    in_chunks = peak(tmp_path / "t.csv", "bins", 20_000, rows)
    # Of so many rows the numbers alone are 39 MB, and the prepared table is 42 MB.
    assert peak(tmp_path / "t.csv", "bins", 0, rows) > in_chunks + 40
    assert in_chunks < 250


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measures resident memory as Linux tells it")
@pytest.mark.parametrize(("megabytes", "kind"), [(500, "exact"), (5000, "bins")])
def test_a_table_of_any_size_takes_less_than_500_mb(tmp_path, megabytes, kind):
    rows = write(tmp_path / "t.csv", megabytes)
    assert peak(tmp_path / "t.csv", kind, 50_000, rows) < 500
