"""Arrow and Parquet as populations: what is mapped, and what files may hold."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

import fedpact as fp
from fedpact.core.errors import DataError
from tests.data.visits import opened, visits

TABLE = visits(list("ab"))


def test_an_uncompressed_arrow_file_is_mapped_and_a_client_whose_rows_lie_together_is_a_view(tmp_path):
    images = np.arange(12 * 6, dtype=np.float32).reshape(12, 6)
    column = pa.FixedSizeListArray.from_arrays(pa.array(images.reshape(-1)), 6)
    table = pa.table({"site": list("aaaabbbbcccc"), "image": column, "digit": [0, 1] * 6})
    path = tmp_path / "all.arrow"
    pa.feather.write_feather(table, path, compression="uncompressed", chunksize=8)
    before = pa.total_allocated_bytes()
    population = fp.populations.parquet(path, "site", "digit")
    rows = population.load("b").train
    np.testing.assert_array_equal(rows.x, images[4:8])
    assert rows.x.dtype == np.float32
    assert not rows.x.flags.owndata
    assert pa.total_allocated_bytes() - before < images.nbytes
    assert population.description().train.x.shape[1:] == (6,)


def test_arrays_and_labels_for_each_position_come_in_lists_and_tensors(tmp_path):
    x = np.arange(4 * 2 * 3).reshape(4, 2, 3)
    y = np.arange(4 * 2).reshape(4, 2) % 3
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(x)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(y.reshape(-1)), 2)
    table = pa.table({"site": list("baab"), "x": tensors, "y": lists})
    for suffix in ("arrow", "parquet"):
        path = tmp_path / f"all.{suffix}"
        (pa.feather.write_feather if suffix == "arrow" else pa.parquet.write_table)(table, path)
        client = fp.populations.parquet(path, "site", "y").load("b")
        np.testing.assert_array_equal(client.train.x, x[[0, 3]])
        np.testing.assert_array_equal(client.train.y, y[[0, 3]])
    described = fp.populations.parquet(path, "site", "y").description()
    assert (described.train.y.shape[1:], set(described.train.y.flat)) == ((2,), {0, 1, 2})


def test_categories_are_read_though_their_codes_differ_from_file_to_file(tmp_path):
    table = visits(list("abab")).assign(gene=["x", "y", "z", "x"])
    for place, part in enumerate((table[:2], table[2:])):
        part.astype({"gene": "category", "site": "category"}).to_parquet(tmp_path / f"{place}.parquet")
    population = fp.populations.parquet(tmp_path, "site", "ill")
    assert [list(population.load(id).train.x["gene"]) for id in "ab"] == [["x", "z"], ["y", "x"]]


def test_files_may_differ_in_the_types_that_gaps_and_the_order_of_columns_make(tmp_path):
    table = pd.DataFrame(
        {"site": list("abab"), "age": [1.0, 2, None, 4], "gene": [None, None, "x", "y"], "ill": 0}
    )
    table[:2].astype({"age": int, "gene": object}).to_parquet(tmp_path / "0.parquet")
    table[2:][["ill", "gene", "site", "age"]].to_parquet(tmp_path / "1.parquet")
    population = fp.populations.parquet(tmp_path, "site", "ill")
    rows = population.load("a").train.x
    assert list(rows.columns) == ["age", "gene"]
    assert rows["age"].fillna(-1).tolist() == [1, -1]
    assert rows["gene"].fillna("none").tolist() == ["none", "x"]
    assert population.load("b").train.x["age"].dtype == rows["age"].dtype == np.float64


def test_files_with_other_columns_or_text_for_numbers_are_named(tmp_path):
    TABLE.to_parquet(tmp_path / "0.parquet")
    TABLE.drop(columns="dose").to_parquet(tmp_path / "1.parquet")
    with pytest.raises(DataError, match=r"1\.parquet has other columns than .*0\.parquet"):
        fp.populations.parquet(tmp_path, "site", "ill")
    TABLE.assign(dose="much").to_parquet(tmp_path / "1.parquet")
    with pytest.raises(DataError, match="dose"):
        fp.populations.parquet(tmp_path, "site", "ill")


def test_a_file_of_very_many_batches_is_written_anew_in_larger_ones(tmp_path, monkeypatch):
    monkeypatch.setattr("fedpact.data.populations.arrow._MOST_BATCHES", 1)
    table = visits(list("abcabc"))
    population = opened("arrow", table.assign(gene="x"), tmp_path)
    assert len(population._batches.parts) == 1
    assert population.load("b").train.x["dose"].tolist() == table["dose"][[1, 4]].tolist()


def test_the_row_labels_of_a_frame_are_no_feature(tmp_path):
    table = visits(["a", "b"]).set_index(pd.Index([7, 8], name="row"))
    table.to_parquet(tmp_path / "all.parquet")
    assert "row" not in fp.populations.parquet(tmp_path / "all.parquet", "site", "ill").load("a").train.x
