"""The contestants of `benchmarks.preparation`, each run alone in a process: what it takes, and what comes out.

Memory is what is resident above what was after the imports. Of Fedpact, while it reads a client's file and while it
prepares the rows it has read are told apart: how much the reader takes and gives back is the reader's business.
"""

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fedpact as fp
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.data.populations.folder import Folder
from fedpact.data.preprocess.fit import FitPipeline
from fedpact.engine.in_process import InProcess
from fedpact.engine.preparing import prepare
from fedpact.engine.work import Intake, Rules, Work

OURS, DENSE, SPARSE = "Fedpact", "scikit-learn", "scikit-learn, sparse"
# What each step has to know of the rows.
STEPS = {
    "means": fp.Impute("mean"),
    "most frequent categories": fp.Impute("most_frequent"),
    "means and deviations": fp.Standardize(),
    "categories": fp.OneHot(),
}


class Memory:
    """This process's resident memory, read from /proc; all of it is 0 where there is none."""

    def __init__(self) -> None:
        self._before = self._read("VmRSS")

    def peak(self) -> int:
        """Return the most bytes above the start since the last time that this was asked."""
        peak = self._read("VmHWM") - self._before
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return peak
        return peak

    def _read(self, which: str) -> int:
        try:
            status = Path("/proc/self/status").read_text()
        except OSError:
            return 0
        found = re.search(rf"^{which}:\s+(\d+) kB", status, re.MULTILINE)
        return int(found[1]) * 1024 if found else 0


class Files(Folder):
    """Clients whose files are read again for every pass, and what that takes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "label")
        self.memory = Memory()
        self.reads, self.reading_s, self.raw_bytes = 0, 0.0, 0
        self.reading_bytes = self.preparing_bytes = 0

    def load(self, id: str) -> ClientData:
        """Return a client's rows."""
        import pyarrow as pa

        self.note_preparing(0)
        start = time.perf_counter()
        client = super().load(id)
        # What the reader keeps for the next file is none of the client's rows.
        pa.default_memory_pool().release_unused()
        self.reading_s += time.perf_counter() - start
        self.reading_bytes = max(self.reading_bytes, self.memory.peak())
        self.reads += 1
        raw = client.train.x.memory_usage(index=False, deep=True).sum()
        self.raw_bytes = max(self.raw_bytes, int(raw))
        return client

    def note_preparing(self, made_bytes: int) -> None:
        """Note the peak since the last file was read, without what was made."""
        peak = self.memory.peak()
        if self.reads:
            self.preparing_bytes = max(self.preparing_bytes, peak - made_bytes)


class Counting(InProcess):
    """Who runs the clients, and counts how often all are asked for a statistic."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: dict[str, int] = {}

    def ask(self, work: Work, ids: Sequence[str], intake: Intake) -> None:
        """Run these clients."""
        fitted = work.task.parameters.get("pipeline")
        if fitted is not None:
            what = list(STEPS)[len(fitted["steps"])]
        else:
            what = "columns" if isinstance(work.setting.algorithm, FitPipeline) else "labels"
        self.passes[what] = self.passes.get(what, 0) + 1
        super().ask(work, ids, intake)


def ours(folder: Path) -> Mapping[str, Any]:
    """Fit over the clients and prepare each one's rows, as a job does."""
    import pandas as pd  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    files, engine = Files(folder), Counting()
    start = time.perf_counter()
    fitted = prepare(fp.models.Logistic(), list(STEPS.values()), files, engine, Rules(), Seed.of(0))
    files.note_preparing(0)
    fit_s = time.perf_counter() - start - files.reading_s
    fitting_bytes, files.preparing_bytes = files.preparing_bytes, 0
    transform_s, sizes = 0.0, []
    for id in files.ids(0):
        client = files.load(id)
        start = time.perf_counter()
        matrix = fitted.client(client, "float64").train.x
        transform_s += time.perf_counter() - start
        files.note_preparing(matrix.nbytes)
        sizes.append(_sizes(matrix))
        del client, matrix
        # What looking took is not Fedpact's.
        files.memory.peak()
    return {
        "seconds": fit_s + transform_s,
        "fit_s": fit_s,
        "transform_s": transform_s,
        "reading_s": files.reading_s,
        "reads": files.reads,
        "passes": engine.passes,
        "raw_bytes": files.raw_bytes,
        "peak_bytes": max(fitting_bytes, files.preparing_bytes),
        "fitting_bytes": fitting_bytes,
        "transforming_bytes": files.preparing_bytes,
        "reading_bytes": files.reading_bytes,
        "sizes": np.sum(sizes, axis=0).tolist(),
    }


def dense(folder: Path) -> Mapping[str, Any]:
    """Prepare all rows in one table with scikit-learn, to a dense matrix as ours is."""
    return _pooled(folder, sparse=False)


def sparse(folder: Path) -> Mapping[str, Any]:
    """Prepare all rows in one table with scikit-learn, to a sparse matrix."""
    return _pooled(folder, sparse=True)


RUNS = {OURS: ours, DENSE: dense, SPARSE: sparse}


def _pooled(folder: Path, sparse: bool) -> Mapping[str, Any]:
    import pandas as pd
    import pyarrow.parquet  # noqa: F401
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    memory = Memory()
    start = time.perf_counter()
    files = sorted(folder.glob("*.parquet"))
    table = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True).drop(columns="label")
    reading_s = time.perf_counter() - start
    raw_bytes = int(table.memory_usage(index=False, deep=True).sum())
    numbers = [name for name in table.columns if name.startswith("number")]
    encoder = OneHotEncoder(sparse_output=sparse, handle_unknown="ignore")
    transformer = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(strategy="mean"), StandardScaler()), numbers),
            (
                "categories",
                make_pipeline(SimpleImputer(strategy="most_frequent"), encoder),
                [name for name in table.columns if name not in numbers],
            ),
        ],
        sparse_threshold=1.0 if sparse else 0.0,
    )
    start = time.perf_counter()
    matrix = transformer.fit_transform(table)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "reading_s": reading_s,
        "reads": len(files),
        "raw_bytes": raw_bytes,
        "peak_bytes": memory.peak(),
        "sizes": _sizes(matrix).tolist(),
    }


def _sizes(matrix: Any) -> Any:
    """Return each column's sum of absolute values, by which contestants can be compared."""
    # In parts, so that to look takes no memory worth counting.
    parts = [abs(matrix[first : first + 10_000]).sum(axis=0) for first in range(0, matrix.shape[0], 10_000)]
    return np.sum([np.asarray(part).ravel() for part in parts], axis=0)
