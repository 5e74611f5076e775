import gzip
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from fedpact.core.errors import ConfigError, DataError
from fedpact.core.rows import ClientData, Rows
from fedpact.data.federation import Federation
from fedpact.data.read import by_column, client, clients

TABLE = pd.DataFrame(
    {
        "age": [63.0, 37.0, 41.0, 56.0, 57.0, 44.0, 52.0, 54.0],
        "sex": ["m", "m", "f", "m", "f", "m", "m", "f"],
        "bp": [145.0, None, 130.0, 120.0, 140.0, 120.0, None, 150.0],
        "ill": [1, 1, 0, 0, 1, 0, 1, 0],
    }
)


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def assert_same(one: ClientData, other: ClientData) -> None:
    assert one.id == other.id
    for rows, others in ((one.train, other.train), (one.test, other.test)):
        assert rows is not None
        assert others is not None
        assert np.array_equal(rows.y, others.y)
        if isinstance(rows.x, pd.DataFrame):
            pd.testing.assert_frame_equal(rows.x, others.x)
        else:
            assert np.array_equal(rows.x, others.x)


@pytest.mark.parametrize(
    "name", ["t.csv", "t.csv.gz", "t.data", "t.tsv", "t.tsv.gz", "t.parquet", "t.feather", "t.arrow"]
)
def test_a_file_gives_the_same_client_as_the_table_that_was_written(tmp_path, name):
    path = tmp_path / name
    if name.endswith(".parquet"):
        TABLE.to_parquet(path)
    elif name.endswith((".feather", ".arrow")):
        TABLE.to_feather(path)
    else:
        TABLE.to_csv(path, index=False, na_rep="?", sep="\t" if "tsv" in name else ",")
    assert_same(client("lyon", path, "ill"), client("lyon", TABLE, "ill"))


def test_arrays_and_a_torch_dataset_give_the_same_client():
    torch = pytest.importorskip("torch")
    x = np.arange(24, dtype=np.float32).reshape(8, 3)
    y = np.array([0, 1] * 4)
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    assert_same(client("lyon", dataset), client("lyon", (x, y)))


def test_the_values_of_a_table_and_of_its_array_are_split_alike():
    x = TABLE[["age", "bp"]]
    table = client("lyon", TABLE, "ill", columns=["age", "bp"])
    array = client("lyon", (x.to_numpy(), TABLE["ill"].to_numpy()))
    assert np.array_equal(table.train.x.to_numpy(), array.train.x, equal_nan=True)
    assert np.array_equal(table.test.y, array.test.y)


def test_features_are_a_table_without_the_label_and_labels_an_array():
    lyon = client("lyon", TABLE, "ill")
    assert list(lyon.train.x.columns) == ["age", "sex", "bp"]
    assert lyon.train.y.dtype == np.int64
    assert (len(lyon.train), len(lyon.test)) == (6, 2)


def test_a_label_of_one_per_example_in_a_dataset_becomes_a_flat_array():
    examples = [(np.zeros(2), np.array([number % 2])) for number in range(8)]
    assert client("lyon", examples).train.y.shape == (6,)


def test_a_dataset_of_examples_without_labels_has_none():
    assert client("lyon", [np.zeros((2, 2))] * 4).train.y is None


def test_an_array_alone_is_features():
    lyon = client("lyon", np.zeros((4, 2)), test=0)
    assert lyon.train.x.shape == (4, 2)
    assert lyon.train.y is None


def test_categories_and_nullable_integers_become_plain_labels():
    named = TABLE.assign(ill=TABLE["ill"].map({0: "well", 1: "ill"}).astype("category"))
    nullable = TABLE.assign(ill=TABLE["ill"].astype("Int64"))
    assert set(client("lyon", named, "ill").train.y) == {"ill", "well"}
    assert client("lyon", nullable, "ill").train.y.dtype == np.int64


def test_test_rows_may_come_from_a_source_of_their_own(tmp_path):
    TABLE[["ill", "bp", "sex", "age"]].to_csv(tmp_path / "test.csv", index=False)
    lyon = client("lyon", TABLE, "ill", test=tmp_path / "test.csv")
    assert len(lyon.train) == 8
    pd.testing.assert_frame_equal(lyon.test.x, lyon.train.x)


def test_test_rows_with_other_columns_are_refused():
    with pytest.raises(DataError, match='the test rows lack column "sex"'):
        client("lyon", TABLE, "ill", test=TABLE.drop(columns="sex"))
    with pytest.raises(DataError, match="different shapes"):
        client("lyon", (np.zeros((4, 3)), np.zeros(4)), test=(np.zeros((4, 2)), np.zeros(4)))
    with pytest.raises(DataError, match="have labels"):
        client("lyon", np.zeros((4, 3)), test=(np.zeros((4, 3)), np.zeros(4)))


def test_columns_keeps_these_features_in_this_order():
    assert list(client("lyon", TABLE, "ill", columns=["sex", "age"]).train.x.columns) == ["sex", "age"]


def test_text_keeps_the_zeros_of_a_code(tmp_path):
    path = written(tmp_path, "t.csv", "zip,ill\n01234,0\n,1\n99999,1\n")
    codes = client("lyon", path, "ill", text=["zip"], test=0).train.x["zip"]
    assert codes[0] == "01234"
    assert codes.isna().tolist() == [False, True, False]


def test_names_are_given_to_a_file_without_a_line_of_names(tmp_path):
    path = written(tmp_path, "t.data", "63.0,1.0,?\n37.0,1.0,2\n")
    lyon = client("lyon", path, "sex", names=["age", "sex", "ca"], test=0)
    assert lyon.train.x["age"].tolist() == [63.0, 37.0]
    assert np.isnan(lyon.train.x["ca"][0])


@pytest.mark.parametrize("first", ["63.0,1.0,?", "A11,6,5", "63,,1", "f,?,well"])
def test_a_first_line_of_data_is_not_taken_for_names(tmp_path, first):
    path = written(tmp_path, "t.data", f"{first}\n37.0,1.0,2\n")
    with pytest.raises(
        DataError, match=f'first line, "{re.escape(first)}", looks like data. Give its 3 names'
    ):
        client("lyon", path)


@pytest.mark.parametrize("names", ["2019,2020,ill", ",0,1", "ill,-1,0"])
def test_columns_may_be_named_by_ascending_numbers(tmp_path, names):
    path = written(tmp_path, "t.csv", f"{names}\n5,1,2\n5,1,3\n")
    assert len(client("lyon", path, test=0).train) == 2


@pytest.mark.parametrize(
    ("text", "options", "why"),
    [
        ("age,ill\n1,0\n2,?\n3,\n", {}, r'2 label\(s\) are missing in column "ill", the first in row 2'),
        ("age,ill\n1,0\n", {"label": "il"}, 'has no column "il". Did you mean "ill"'),
        ("age,ill\n1,0\n", {"label": "y"}, 'has no column "y". Columns: age, ill'),
        ("age,ill\n1,0\n", {"columns": ["agee"]}, 'Did you mean "age"'),
        ("age,ill\n1,0\n", {"text": ["zip"]}, 'no column "zip"'),
        ("age,ill\n", {}, "has no rows"),
        ("", {}, "has no rows"),
        ("ill\n0\n", {}, "no feature column"),
        ("age,ill\n1,0\n2,1\nten,1\n", {}, 'column "age" mixes numbers and text: row 3 has "ten"'),
        ("age,ill\n1,0\n2,1,7\n", {}, "cannot be read as a table"),
        ("age,ill\n1,0\n", {"names": ["age"]}, "has 2 columns, and names has 1"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_the_clients_name(tmp_path, text, options, why):
    path = written(tmp_path, "t.csv", text)
    with pytest.raises(DataError, match=f'Client "lyon".*{why}'):
        client("lyon", path, **{"label": "ill", **options})


@pytest.mark.parametrize("text", ["age,ill\n1,0,5\n2,1,5\n", "age,ill\n1,0,\n2,1,\n"])
def test_lines_longer_than_the_names_are_refused_since_pandas_would_shift_the_names(tmp_path, text):
    with pytest.raises(DataError, match="Expected 2 fields in line 2, saw 3"):
        client("lyon", written(tmp_path, "t.csv", text), "ill")


def test_a_later_line_longer_than_the_given_names_is_refused(tmp_path):
    path = written(tmp_path, "t.data", "1,0\n2,1,5\n")
    with pytest.raises(DataError, match="cannot be read as a table"):
        client("lyon", path, "ill", names=["age", "ill"])


def test_the_first_of_equal_words_among_numbers_is_named_and_all_are_counted(tmp_path):
    path = written(tmp_path, "t.csv", "age,ill\n1,0\nten,1\n,1\n3,0\n4,0\nten,0\n5,1\n")
    with pytest.raises(DataError, match=r'row 2 has "ten" \(2 such row\(s\)\)'):
        client("lyon", path, "ill")


def test_a_number_that_pandas_takes_for_text_is_a_word_among_numbers(tmp_path):
    path = written(tmp_path, "t.csv", "age,ill\n1,0\n1_000,1\n3,0\n")
    with pytest.raises(DataError, match='row 2 has "1_000"'):
        client("lyon", path, "ill")


def test_a_column_of_codes_that_are_mostly_words_is_text(tmp_path):
    path = written(tmp_path, "t.csv", "icd,ill\nE11,0\n250,1\nV45,1\n")
    assert client("lyon", path, "ill", test=0).train.x["icd"].tolist() == ["E11", "250", "V45"]


def test_a_frame_that_mixes_numbers_and_text_names_the_first_word():
    frame = pd.DataFrame({"age": [1, None, "n/a", 4], "ill": 0})
    with pytest.raises(DataError, match='column "age" mixes numbers and text: row 3 has "n/a"'):
        client("lyon", frame, "ill")


def test_two_columns_of_one_name_are_refused():
    with pytest.raises(DataError, match='two columns called "a"'):
        client("lyon", pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_a_missing_file_names_its_neighbour(tmp_path):
    written(tmp_path, "hungary.csv", "a\n1\n")
    with pytest.raises(DataError, match=r'no file .*hungery.csv. Did you mean "hungary.csv"'):
        client("hungary", tmp_path / "hungery.csv")


@pytest.mark.parametrize("name", ["t.xlsx", "t", "t.gz"])
def test_a_file_of_another_kind_is_refused(tmp_path, name):
    with pytest.raises(DataError, match=r"must end in \.csv"):
        client("lyon", written(tmp_path, name, "a\n1\n"))


@pytest.mark.parametrize("name", ["t.parquet", "t.csv.gz", "t.csv"])
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"\xff\xfe\x00 no table")
    with pytest.raises(DataError, match="cannot be read"):
        client("lyon", path)


def test_a_truncated_gzip_file_is_refused(tmp_path):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(TABLE.to_csv(index=False).encode() * 100)[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        client("lyon", path, "ill")


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ((np.zeros((3, 2)), np.zeros(2)), "3 rows of features and 2 labels"),
        (
            (np.zeros((3, 2)), np.array([0, np.nan, np.nan])),
            r"2 label\(s\) are missing in y, the first in row 2",
        ),
        ((np.zeros((0, 2)), np.zeros(0)), "no rows"),
        ([], "no rows"),
        ((np.array([[1, "a"]], dtype=object), np.zeros(1)), "array of objects"),
        ((3, 4), "one entry per row"),
        (3, "a int is no source"),
        ([(np.zeros(2), 0), (np.zeros(3), 0)], "cannot be stacked"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(source, why):
    with pytest.raises(DataError, match=f'Client "lyon".*{why}'):
        client("lyon", source)


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ((np.zeros((2, 1)), np.zeros(2)), {"label": "ill"}),
        ((np.zeros((2, 1)), np.zeros(2)), {"columns": ["age"]}),
        (TABLE, {"label": "ill", "names": ["age"]}),
        (TABLE, {"label": "ill", "columns": ["age", "ill"]}),
    ],
)
def test_an_option_that_the_source_does_not_have_is_refused(source, options):
    with pytest.raises(ConfigError):
        client("lyon", source, **options)


def test_a_client_needs_a_name():
    with pytest.raises(ConfigError, match="needs a name"):
        client("", TABLE, "ill")


def test_clients_reads_each_as_client_does():
    federation = clients({"lyon": TABLE, "nice": TABLE}, "ill", name="demo", columns=["age"])
    assert federation.ids == ("lyon", "nice")
    assert_same(federation["nice"], client("nice", TABLE, "ill", columns=["age"]))


def test_clients_takes_test_rows_by_client():
    federation = clients({"lyon": TABLE, "nice": TABLE}, "ill", test={"lyon": 0.5, "nice": TABLE})
    assert [len(member.test) for member in federation] == [4, 8]
    with pytest.raises(DataError, match='"nice" has no test rows given'):
        clients({"lyon": TABLE, "nice": TABLE}, "ill", test={"lyon": 0.5})


def test_by_column_makes_a_client_of_each_value_and_no_feature_of_the_column(tmp_path):
    TABLE.to_csv(tmp_path / "t.csv", index=False)
    federation = by_column(tmp_path / "t.csv", "sex", "ill", columns=["bp"], test=0)
    assert federation.ids == ("m", "f")
    assert list(federation["f"].train.x.columns) == ["bp"]
    assert federation["f"].train.y.tolist() == [0, 1, 0]


def test_a_federation_is_found_by_name_by_number_and_by_slice():
    federation = clients({"lyon": TABLE, "nice": TABLE, "metz": TABLE}, "ill")
    assert federation["nice"] is federation[1]
    assert federation[1:].ids == ("nice", "metz")
    assert "nice" in federation
    assert federation[1] in federation
    assert "paris" not in federation
    with pytest.raises(DataError, match=r'no client "lyn"\. Did you mean "lyon"'):
        federation["lyn"]


def test_a_federation_refuses_two_clients_of_one_name():
    lyon = client("lyon", TABLE, "ill")
    with pytest.raises(DataError, match='more than one client called "lyon"'):
        Federation((lyon, lyon))


def test_pooled_holds_every_clients_rows_in_order():
    federation = clients({"lyon": TABLE, "nice": TABLE.iloc[::-1]}, "ill")
    pooled = federation.pooled()
    assert len(pooled.train) + len(pooled.test) == 16
    pd.testing.assert_frame_equal(pooled.train.x.iloc[: len(federation[0].train)], federation[0].train.x)


def test_pooled_refuses_clients_of_different_columns():
    with pytest.raises(DataError, match='"lyon" and "nice" cannot be pooled'):
        clients({"lyon": TABLE, "nice": TABLE.drop(columns="sex")}, "ill").pooled()


def test_describe_counts_rows_and_labels_of_each_client():
    table = clients({"lyon": TABLE, "nice": TABLE.head(2)}, "ill").describe()
    assert table.loc["lyon"].to_dict() == {"train": 6, "test": 2, "label 0": 4, "label 1": 4}
    assert table.loc["nice", "label 1"] == 2


def test_describe_counts_measured_labels_in_bins():
    y = np.linspace(0, 1, 101)
    table = Federation((ClientData("lyon", Rows(y, y)),)).describe()
    assert table.shape == (1, 12)
    assert table.iloc[0, 2:].sum() == 101


@pytest.mark.parametrize(("labels", "columns"), [(62, 62), (100, 100), (101, 10)])
def test_describe_names_up_to_a_hundred_labels(labels, columns):
    y = np.arange(labels)
    assert Federation((ClientData("lyon", Rows(y, y)),)).describe().shape == (1, 2 + columns)


def test_describe_of_rows_without_labels_counts_rows():
    assert list(Federation((ClientData("lyon", Rows(np.zeros(3))),)).describe().columns) == ["train", "test"]


def test_an_arrow_table_is_a_table():
    table = pa.Table.from_pandas(TABLE)
    assert_same(client("lyon", table, "ill"), client("lyon", TABLE, "ill"))
    read = client("lyon", table, "ill", test=0, chunk_rows=3).train
    parts = list(read.chunks())
    assert [len(part) for part in parts] == [3, 3, 2]
    together = pd.concat([part.x for part in parts], ignore_index=True)
    pd.testing.assert_frame_equal(together, TABLE.drop(columns="ill"))


@pytest.mark.parametrize(("name", "kind"), [("t.parquet", "Parquet"), ("t.arrow", "Arrow")])
@pytest.mark.parametrize("options", [{}, {"chunk_rows": 2}])
def test_a_file_that_is_not_what_its_name_says_is_named(tmp_path, name, kind, options) -> None:
    (tmp_path / name).write_bytes(b"age,ill\n3,1\n")
    with pytest.raises(DataError, match=rf'Client "a": .*{re.escape(name)} cannot be read as {kind}'):
        client("a", tmp_path / name, "ill", **options)


def test_a_misspelt_setting_of_a_source_names_the_client() -> None:
    with pytest.raises(ConfigError, match=r'Client "a": .*"foldr".*Did you mean "folder"'):
        client("a", {"name": "TextFolder", "foldr": "here"})
