"""One table of visits in every kind of file that a population is read from, and what makes two populations alike."""

import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather

import fedpact as fp
from fedpact.engine.population import Population


def visits(sites, seed=0):
    """A table with numbers, numbers with gaps, whole numbers with gaps, and text with gaps."""
    random = np.random.default_rng(seed)
    n = len(sites)
    return pd.DataFrame(
        {
            "site": sites,
            "dose": random.normal(size=n),
            "age": pd.array(random.integers(20, 90, n), dtype="Int64"),
            "gene": random.choice(["a", "b", "c"], n),
            "ill": random.integers(0, 2, n),
        }
    ).assign(
        age=lambda t: t["age"].mask(t.index % 5 == 1),
        gene=lambda t: t["gene"].mask(t.index % 7 == 2),
    )


def write_parquet(table: pd.DataFrame, folder: Path) -> Path:
    table.to_parquet(folder / "all.parquet", row_group_size=4)
    return folder / "all.parquet"


def write_arrow(table: pd.DataFrame, folder: Path) -> Path:
    plain = pa.Table.from_pandas(table, preserve_index=False)
    pa.feather.write_feather(plain, folder / "all.feather", compression="uncompressed", chunksize=3)
    return folder / "all.feather"


def write_compressed(table: pd.DataFrame, folder: Path) -> Path:
    pa.feather.write_feather(table, folder / "all.arrow", compression="lz4", chunksize=3)
    return folder / "all.arrow"


def write_several(table: pd.DataFrame, folder: Path) -> Path:
    for place, part in enumerate(np.array_split(np.arange(len(table)), min(3, len(table)))):
        table.iloc[part].to_parquet(folder / f"part-{place}.parquet")
    return folder


def write_sqlite(table: pd.DataFrame, folder: Path) -> Path:
    path = folder / "all.db"
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as database:
        table.to_sql("visits", database, index=False)
        database.execute("CREATE INDEX by_site ON visits (site)")
    database.close()
    return path


WRITERS = {
    "parquet": write_parquet,
    "arrow": write_arrow,
    "compressed arrow": write_compressed,
    "several files": write_several,
    "sqlite": write_sqlite,
}


def opened(writer, table, folder, **options):
    path = WRITERS[writer](table, folder)
    asked = {"client": "site", "label": "ill", **options}
    return (
        fp.populations.sqlite(path, "visits", **asked)
        if writer == "sqlite"
        else fp.populations.parquet(path, **asked)
    )


def assert_same_rows(a, b):
    assert (a is None) == (b is None)
    if a is None:
        return
    assert list(a.x.columns) == list(b.x.columns)
    for name in a.x.columns:
        ours, other = a.x[name], b.x[name]
        assert ours.isna().tolist() == other.isna().tolist()
        assert ours[ours.notna()].tolist() == other[other.notna()].tolist()
    assert a.y.tolist() == b.y.tolist()


def assert_same_clients(population, in_memory):
    assert isinstance(population, Population)
    assert list(population.ids(0)) == list(in_memory.ids(0))
    together = population.load_many(population.ids(0)[::-1])
    for id, gathered in zip(population.ids(0)[::-1], together, strict=True):
        ours, other = population.load(id), in_memory.load(id)
        assert ours.id == gathered.id == id
        for train, test in ((ours.train, ours.test), (gathered.train, gathered.test)):
            assert_same_rows(train, other.train)
            assert_same_rows(test, other.test)
        assert population.size(id) == in_memory.size(id)
