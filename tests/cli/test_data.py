import json
from pathlib import Path

import pandas as pd
import pytest

from fedpact.data.table_schema import TableSchema
from tests.cli.terminal import call, said


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = []
    for place, name in enumerate(("lyon", "nice", "metz")):
        table = pd.DataFrame(
            {
                "age": [30.5 + place, 41.0, None, 60.0] * 3,
                "sex": ["f", "m", "f", "m"] * 3,
                "seen": ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"] * 3,
                "patient_id": range(12),
                "risk": [0, 1, 0, 0] * 3,
            }
        )
        paths.append(tmp_path / f"{name}.csv")
        table.to_csv(paths[-1], index=False)
    return paths


def test_describe_prints_tables_of_all_clients_together(files: list[Path]) -> None:
    ended = call("data", "describe", *files, "--label", "risk")
    assert ended.exit_code == 0
    text = said(ended.stdout)
    assert "36 rows of 3 clients" in text
    # The mean of 31.5, 41 and 60: of the first three times each of 30.5, 31.5 and 32.5.
    assert "age 27 9 44.167" in text
    assert "sex 36 0 f (18), m (18) 0" in text
    assert "patient_id id 36 0" in text
    assert "lyon 9 3 0" in text
    assert "2024-01-01" in text
    assert "The server sees each client's part of every sum, as it is." in text


def test_describe_gives_json_and_a_picture(files: list[Path], tmp_path: Path) -> None:
    picture = tmp_path / "histograms.png"
    ended = call("data", "describe", *files, "--label", "risk", "--json", "--picture", picture)
    found = json.loads(ended.stdout)
    assert (found["clients"], found["rows"], found["picture"]) == (3, 36, str(picture))
    assert [column["name"] for column in found["columns"]] == ["age", "sex", "seen", "patient_id", "risk"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_describe_under_secure_aggregation_says_the_same_without_label_balances(files: list[Path]) -> None:
    clear, secure = (
        json.loads(call("data", "describe", *files, "--label", "risk", "--json", *more).stdout)
        for more in ([], ["--secure"])
    )
    assert clear["columns"] == secure["columns"]
    assert clear["labels"]
    assert not secure["labels"]


def test_one_file_is_parted_by_a_column(files: list[Path]) -> None:
    ended = call("data", "describe", files[0], "--by-column", "sex", "--json")
    assert json.loads(ended.stdout)["clients"] == 2


def test_schema_is_written_completed_and_read_again(files: list[Path], tmp_path: Path) -> None:
    toml = tmp_path / "schema.toml"
    assert call("data", "schema", files[0], "--label", "risk", "--out", toml).exit_code == 0
    completed = TableSchema.from_toml(toml).with_column("age", unit="a", range=(0, 120))
    toml.write_text(completed.to_toml(), encoding="utf-8")
    found = json.loads(call("data", "describe", *files, "--schema", toml, "--bins-only", "--json").stdout)
    age = found["columns"][0]
    assert (age["unit"], age["min"], age["histogram"]["edges"][-1]) == ("a", None, 120.0)
    assert found["columns"][-1]["kind"] == "label"


def test_schema_is_printed(files: list[Path]) -> None:
    ended = call("data", "schema", files[0], "--label", "risk")
    assert TableSchema.from_toml(ended.stdout)["seen"].kind == "date"


def test_conflicts_end_the_command_with_their_table(files: list[Path], tmp_path: Path) -> None:
    odd = tmp_path / "odd.csv"
    pd.read_csv(files[0]).rename(columns={"age": "Age"}).to_csv(odd, index=False)
    ended = call("data", "describe", *files, odd, "--label", "risk")
    assert ended.exit_code == 4
    assert 'odd age is missing Did you mean "Age"?' in said(ended.stderr)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--picture", "x.doc"], "must end in .png"),
        (["--by-column", "sex"], "--by-column makes clients of one file"),
        (["--bins", "0"], "bins is 0"),
    ],
)
def test_what_cannot_be_done_is_said(files: list[Path], more: list[str], message: str) -> None:
    ended = call("data", "describe", *files, *more)
    assert ended.exit_code == 3
    assert message in said(ended.stderr)


def test_tables_are_described_in_chunks_to_the_same_bits(files: list[Path]) -> None:
    whole, chunked = (
        call("data", "describe", *files, "--label", "risk", "--json", *more).stdout
        for more in ([], ["--chunk-rows", 5])
    )
    assert json.loads(whole) == json.loads(chunked)
    whole, chunked = (
        call("data", "schema", files[0], "--label", "risk", *more).stdout
        for more in ([], ["--chunk-rows", 5])
    )
    assert whole == chunked
    ended = call("data", "describe", files[0], "--by-column", "sex", "--chunk-rows", 5)
    assert ended.exit_code != 0
    assert "--by-column needs all rows" in said(ended.stderr)
