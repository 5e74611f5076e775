"""A table read in chunks is the table that is read whole: the same values, types and errors, for chunks of any size."""

import gzip
import pickle
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fedpact as fp
from fedpact.core.errors import ConfigError, DataError
from fedpact.core.rows import Rows
from fedpact.data.chunked import ChunkedRows
from fedpact.data.read import client, clients

N = 60


def stays(seed: int = 0, rows: int = N) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": draw.normal(60, 10, rows).round(1),
            "beds": draw.integers(0, 9, rows),
            "ward": draw.choice(["a", "b", None], rows),
            "score": np.where(draw.random(rows) < 0.5, np.nan, draw.integers(0, 5, rows)),
            "never": np.nan,
            "ill": draw.integers(0, 2, rows),
        }
    )


def gathered(rows: Rows | None) -> tuple[pd.DataFrame, list[object]]:
    assert isinstance(rows, ChunkedRows)
    chunks = list(rows.chunks())
    assert sum(map(len, chunks)) == len(rows)
    x = pd.concat([chunk.x for chunk in chunks], ignore_index=True)
    return x, [label for chunk in chunks for label in np.asarray(chunk.y).tolist()]


def assert_same_rows(chunked: Rows | None, whole: Rows | None) -> None:
    assert whole is not None
    x, y = gathered(chunked)
    pd.testing.assert_frame_equal(x, whole.x)
    assert y == np.asarray(whole.y).tolist()


def refusal(source: Any, **options: Any) -> str | None:
    """Return why a source cannot be read; None where it can."""
    try:
        client("lyon", source, test=0, **options)
    except DataError as error:
        return str(error)
    return None


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("chunk_rows", [1, 7, N, N + 1])
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.tsv", "t.parquet", "t.arrow"])
def test_a_file_in_chunks_holds_the_rows_of_the_file(tmp_path, name, chunk_rows):
    path = tmp_path / name
    if name.endswith(".parquet"):
        stays().to_parquet(path, row_group_size=20)
    elif name.endswith(".arrow"):
        stays().to_feather(path, chunksize=20)
    else:
        stays().to_csv(path, index=False, na_rep="?", sep="\t" if "tsv" in name else ",")
    chunked = client("lyon", path, "ill", test=0, chunk_rows=chunk_rows)
    assert_same_rows(chunked.train, client("lyon", path, "ill", test=0).train)


def test_a_frame_in_chunks_holds_the_rows_of_the_frame():
    table = stays().assign(
        day=pd.date_range("2020", periods=N),
        kind=pd.Categorical(["x", "y"] * (N // 2)),
        whole=pd.array(range(N)),
    )
    chunked = client("lyon", table, "ill", test=0, chunk_rows=9)
    assert_same_rows(chunked.train, client("lyon", table, "ill", test=0).train)


def test_a_query_in_chunks_has_the_types_of_all_its_rows(tmp_path):
    sqlalchemy = pytest.importorskip("sqlalchemy")
    del sqlalchemy
    with sqlite3.connect(tmp_path / "ward.db") as database:
        stays().to_sql("stays", database, index=False)
    database.close()
    query = {"name": "SQL", "url": f"sqlite:///{tmp_path / 'ward.db'}", "query": "select * from stays"}
    chunked = client("lyon", query, "ill", test=0, chunk_rows=7)
    x, y = gathered(chunked.train)
    whole = client("lyon", query, "ill", test=0).train
    for name in whole.x.columns:
        assert x[name].isna().tolist() == whole.x[name].isna().tolist()
        assert x[name].dropna().tolist() == whole.x[name].dropna().tolist()
    assert y == whole.y.tolist()


CELLS = ["1", "-2", "2.5", "", "?", "True", "false", "x", " y", "007", "9007199254740993", "1e30", "1.50"]


@settings(max_examples=80, deadline=None)
@given(cells=st.lists(st.sampled_from(CELLS), min_size=1, max_size=12), chunk_rows=st.integers(1, 13))
def test_a_column_has_the_type_that_all_its_cells_give_it(tmp_path_factory, cells, chunk_rows):
    path = tmp_path_factory.mktemp("cells") / "t.csv"
    path.write_text("\n".join(["cell,other", *(f"{cell},{row}" for row, cell in enumerate(cells))]) + "\n")
    error = refusal(path)
    assert refusal(path, chunk_rows=chunk_rows) == error
    if error is not None:
        return
    whole = client("lyon", path, test=0).train
    chunks = list(client("lyon", path, test=0, chunk_rows=chunk_rows).train.chunks())
    for chunk in chunks:
        assert chunk.x.dtypes.tolist() == whole.x.dtypes.tolist()
    pd.testing.assert_frame_equal(pd.concat([chunk.x for chunk in chunks], ignore_index=True), whole.x)


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.sampled_from([1, 2.5, None, "x", True]), min_size=1, max_size=9),
    rows=st.integers(1, 9),
)
def test_a_frame_of_objects_is_refused_in_chunks_as_it_is_whole(values, rows):
    table = pd.DataFrame({"cell": pd.Series(values, dtype=object), "other": 1})
    assert refusal(table) == refusal(table, chunk_rows=rows)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("age,ill\n1,0\n2,\n3,?\n", {}),
        ("age,ill\n1,0\n2,1\n3,1\n4,0\nfive,1\n", {}),
        ("age,ill\n1,0\n2,1,3\n", {}),
        ("age,ill\n1,0\n2,1\n3,1,0\n", {}),
        ("age,ill\n", {}),
        ("", {}),
        ("1,2\n3,4\n", {}),
        ("age,ill\n1,0\n", {"columns": ["sex"]}),
        ("age,ill\n1,0\n", {"columns": ["ill"]}),
        ("age,ill\n1,0\n", {"names": ["age"]}),
    ],
)
def test_what_is_wrong_with_a_file_is_said_alike(tmp_path, text, options):
    path = written(tmp_path, "t.csv", text)
    said = []
    for chunk_rows in (None, 2):
        with pytest.raises((DataError, ConfigError)) as refused:
            client("lyon", path, "ill", chunk_rows=chunk_rows, **options)
        said.append((type(refused.value), str(refused.value)))
    assert said[0] == said[1]


def test_text_and_names_and_columns_are_as_of_the_whole_file(tmp_path):
    path = written(tmp_path, "t.data", "01,?,3\n02,5,4\n03,6,5\n")
    options = {"names": ["zip", "ill", "age"], "text": ["zip"], "columns": ["age", "zip"], "test": 0}
    chunked = client("lyon", path, "age", **{**options, "columns": ["zip", "ill"]}, chunk_rows=1)
    assert_same_rows(
        chunked.train, client("lyon", path, "age", **{**options, "columns": ["zip", "ill"]}).train
    )


def test_numbers_of_too_many_digits_ask_for_text(tmp_path):
    path = written(tmp_path, "t.csv", "id,ill\n18446744073709551615,0\n-1,1\n")
    with pytest.raises(DataError, match=r'column "id" holds whole numbers of more digits .* text='):
        client("lyon", path, "ill", chunk_rows=1)
    assert len(client("lyon", path, "ill", chunk_rows=1, text=["id"], test=0).train) == 2


def test_numbers_of_any_number_of_digits_beside_text_are_text(tmp_path):
    cells = ["100000000000000000000", "x", "y", "-9223372036854775809"]
    path = written(tmp_path, "t.csv", "\n".join(["id,ill", *(f"{cell},0" for cell in cells)]) + "\n")
    chunked = client("lyon", path, "ill", chunk_rows=1, test=0)
    assert_same_rows(chunked.train, client("lyon", path, "ill", test=0).train)
    path = written(tmp_path, "u.csv", "id,ill\n100000000000000000000,0\n1.5,1\n")
    with pytest.raises(DataError, match="whole numbers of more digits"):
        client("lyon", path, "ill", chunk_rows=1)


def test_a_row_is_a_test_row_whatever_the_size_of_chunks(tmp_path):
    stays().to_csv(tmp_path / "t.csv", index=False)
    read = [client("lyon", tmp_path / "t.csv", "ill", chunk_rows=rows) for rows in (1, 7, N)]
    for other in read[1:]:
        pd.testing.assert_frame_equal(gathered(read[0].test)[0], gathered(other.test)[0])
    train, test = (gathered(rows)[0] for rows in (read[0].train, read[0].test))
    # Each row is in one of them, once.
    together = pd.concat([train, test]).sort_values(list(stays().columns[:3]), ignore_index=True)
    alone = stays().drop(columns="ill").sort_values(list(stays().columns[:3]), ignore_index=True)
    pd.testing.assert_frame_equal(together.astype(object), alone.astype(object), check_dtype=False)
    # 60 draws of probability 1/4 are 15 in the mean, and their standard deviation is 3.4.
    assert 2 < len(read[0].test) < 28


def test_the_draw_of_test_rows_is_the_clients_and_the_seeds_own():
    of = {
        (id, seed): len(client(id, stays(), "ill", chunk_rows=50, seed=seed).test or ())
        for id in ("lyon", "nice", "paris")
        for seed in (0, 1)
    }
    assert len(set(of.values())) > 1


def test_a_share_that_leaves_no_row_to_train_on_is_refused():
    with pytest.raises(DataError, match=r"all 2 row\(s\) were drawn as test rows"):
        client("lyon", stays(rows=2), "ill", test=1 - 1e-12, chunk_rows=1)
    with pytest.raises(ConfigError, match="share of test rows"):
        client("lyon", stays(rows=2), "ill", test=1.5, chunk_rows=1)


def test_test_rows_of_their_own_come_in_the_order_of_the_train_columns():
    both = client("lyon", stays(), "ill", test=stays(1)[sorted(stays().columns)], chunk_rows=30)
    assert_same_rows(both.test, Rows(stays(1).drop(columns="ill"), stays(1)["ill"].to_numpy()))
    with pytest.raises(DataError, match='the test rows lack column "age"'):
        client("lyon", stays(), "ill", test=stays().drop(columns="age"), chunk_rows=30)


def test_rows_in_chunks_say_what_to_do_where_all_are_needed():
    federation = clients({"lyon": stays(), "nice": stays(1)}, "ill", chunk_rows=20)
    rows = federation["lyon"].train
    refused = r'Client "(lyon|nice)" is read in chunks, .* leave chunk_rows out'
    for needs in (
        lambda: rows.x,
        lambda: rows.y,
        lambda: rows.take(np.array([0])),
        federation.pooled,
        federation.describe,
    ):
        with pytest.raises(DataError, match=refused):
            needs()
    assert repr(federation) == "<Federation: 2 clients, 120 rows>"


@pytest.mark.parametrize("chunk_rows", [0, -1, 1.5, True, "10"])
def test_chunk_rows_is_a_number_of_rows(chunk_rows):
    with pytest.raises(ConfigError, match="chunk_rows is"):
        client("lyon", stays(), "ill", chunk_rows=chunk_rows)


def test_arrays_are_not_read_in_chunks():
    with pytest.raises(ConfigError, match="only tables are read in chunks"):
        client("lyon", (np.zeros((4, 2)), np.zeros(4)), chunk_rows=2)


def test_an_error_counts_rows_from_the_first_of_all_chunks():
    rows = client("lyon", stays(), "ill", test=0, chunk_rows=30).train

    whole = stays()

    def refuse(chunk: Rows) -> None:
        place = np.flatnonzero(chunk.x["age"] == whole["age"][44])
        if place.size:
            raise DataError(f'column "row 3" is bad in row {place[-1] + 1}')

    last = int(np.flatnonzero(whole["age"] == whole["age"][44])[-1]) + 1
    assert last > 30
    with pytest.raises(DataError, match=rf'^column "row 3" is bad in row {last}$'):
        list(rows.mapped(refuse))


def test_a_table_that_changes_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    stays().to_parquet(path)
    lyon = client("lyon", path, "ill", test=0, chunk_rows=30)
    stays(rows=40).to_parquet(path)
    with pytest.raises(DataError, match="had 60 rows at first and 40 when they were read again"):
        list(lyon.train.chunks())


def test_a_text_file_is_parsed_once(tmp_path):
    path = tmp_path / "t.csv.gz"
    with gzip.open(path, "wt") as file:
        stays().to_csv(file, index=False)
    lyon = client("lyon", path, "ill", test=0, chunk_rows=30)
    path.unlink()
    assert len(gathered(lyon.train)[0]) == N


def test_rows_in_chunks_go_to_another_process_without_their_rows(tmp_path):
    stays().to_csv(tmp_path / "t.csv", index=False)
    lyon = client("lyon", tmp_path / "t.csv", "ill", chunk_rows=30)
    sent = pickle.dumps(lyon.test)
    assert len(sent) < 4000
    arrived = pickle.loads(sent)  # noqa: S301
    pd.testing.assert_frame_equal(gathered(arrived)[0], gathered(lyon.test)[0])


def test_a_file_that_could_not_be_read_to_its_end_is_read_again(tmp_path):
    path = tmp_path / "t.csv"
    stays().to_csv(path, index=False)
    # As another process would read it, which parses the file itself.
    lyon = pickle.loads(pickle.dumps(client("lyon", path, "ill", test=0, chunk_rows=10)))  # noqa: S301
    whole = path.read_text()
    path.write_text(whole + "1,2,3,4,5,6,7,8\n")
    with pytest.raises(DataError, match="cannot be read as a table"):
        list(lyon.train.chunks())
    path.write_text(whole)
    assert len(gathered(lyon.train)[0]) == N


def test_a_schema_is_inferred_from_all_chunks():
    table = stays().assign(
        patient_id=[*range(N - 1), 0.5],
        stay_id=[f"s{i}" for i in range(N)],
        seen=[*["2020-01-01"] * (N - 1), "soon"],
        born=[None, *["1960-05-05"] * (N - 1)],
        note=[*["fine"] * (N - 1), "long " * 20],
        flag=pd.Series([True, None] * (N // 2), dtype=object),
    )
    whole = fp.TableSchema.infer(client("lyon", table, "ill", test=0).train, "ill")
    for chunk_rows in (1, 7, N):
        rows = client("lyon", table, "ill", test=0, chunk_rows=chunk_rows).train
        assert fp.TableSchema.infer(rows, "ill") == whole
