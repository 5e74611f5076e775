import datetime
import json
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fedpact as fp
from fedpact.core.errors import ConfigError, DataError, DependencyError
from fedpact.data.preprocess.dates import FittedDateParts
from fedpact.data.sql_columns import Column, as_series
from fedpact.data.sql_connection import _said
from tests.data.postgres import PASSWORD, Server, running

pytest.importorskip("sqlalchemy")

WHOSE = 'Client "lyon"'
STAYS = pd.DataFrame(
    {
        "age": [63, 37, 41, 56, 57, 44, 52, 54],
        "bp": [145.0, None, 130.5, 120.0, 140.0, 120.0, None, 150.0],
        "beds": [None, None, None, None, None, None, 3, 4],
        "ward": ["a", None, "b", "b", "a", "ä", "b", ""],
        "unknown": [None] * 8,
        "ill": [1, 1, 0, 0, 1, 0, 1, 0],
    }
).astype({"unknown": np.float64})


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    path = tmp_path / "ward.db"
    with sqlite3.connect(path) as connection:
        STAYS.to_sql("stays", connection, index=False)
    connection.close()
    return path


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    with running() as server:
        server.carry_out(
            """CREATE TABLE stays (id int8, age int2, bp numeric(5, 1), weight float4, ward varchar, nurse uuid,
               at_home bool, ill bool NOT NULL, born date, came timestamp, left_at timestamptz, rounds time,
               "for" interval, unknown text)""",
            """INSERT INTO stays VALUES
               (1, NULL, NULL, 70.5, 'a', NULL, NULL, true, NULL, NULL, NULL, NULL, NULL, NULL),
               (2, 37, 130.5, NULL, 'ä', 'c56a4180-65aa-42ec-a945-5fd21dec0538', true, false, '1961-02-28',
                '2024-02-29 13:45:00.25', '9999-12-31 23:30:00Z', '07:30', '36 hours', NULL),
               (9007199254740993, 41, 120, 81, NULL, NULL, false, true, '2001-01-01', NULL,
                '2024-03-01 01:00:00+01', NULL, '90 seconds', NULL)""",
            "CREATE FUNCTION forget() RETURNS int LANGUAGE sql AS 'DELETE FROM stays; SELECT 1'",
        )
        yield server


@pytest.fixture
def password(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("WARD_PASSWORD", PASSWORD)
    return PASSWORD


def sqlite(path: Path, query: str = "SELECT * FROM stays", **parameters: object) -> fp.SQL:
    return fp.SQL(f"sqlite:///{path}", query, parameters or None)


def test_the_rows_of_a_query_are_those_of_the_table_given_directly(ward: Path) -> None:
    read = fp.client("lyon", sqlite(ward), "ill")
    given = fp.client("lyon", STAYS, "ill")
    pd.testing.assert_frame_equal(read.train.x, given.train.x)
    assert given.test is not None
    assert read.test is not None
    assert np.array_equal(read.test.y, given.test.y)
    pd.testing.assert_frame_equal(read.test.x, given.test.x)


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 100])
def test_chunks_are_the_table_with_its_dtypes_whatever_their_size(ward: Path, rows: int) -> None:
    chunks = list(sqlite(ward).chunks(WHOSE, rows))
    assert max(map(len, chunks)) <= rows
    assert all(chunk.dtypes.equals(STAYS.dtypes) for chunk in chunks)
    pd.testing.assert_frame_equal(pd.concat(chunks, ignore_index=True), STAYS)


def test_a_column_of_postgres_has_the_dtype_of_its_kind(postgres: Server, password: str) -> None:
    table = fp.SQL(postgres.url, "SELECT * FROM stays ORDER BY id").table(WHOSE)
    text = pd.Series([""]).dtype
    expected = pd.DataFrame(
        {
            "id": [1, 2, 2**53 + 1],
            "age": [np.nan, 37, 41],
            "bp": [np.nan, 130.5, 120],
            "weight": [70.5, np.nan, 81],
            "ward": pd.Series(["a", "ä", None], dtype=text),
            "nurse": pd.Series([None, "c56a4180-65aa-42ec-a945-5fd21dec0538", None], dtype=text),
            "at_home": pd.Series([None, True, False], dtype=object),
            "ill": [True, False, True],
            "born": np.array(["NaT", "1961-02-28", "2001-01-01"], "datetime64[us]"),
            "came": np.array(["NaT", "2024-02-29T13:45:00.25", "NaT"], "datetime64[us]"),
            "left_at": pd.Series(
                np.array(["NaT", "9999-12-31T23:30", "2024-03-01T00:00"], "datetime64[us]")
            ).dt.tz_localize("UTC"),
            "rounds": pd.Series([None, "07:30:00", None], dtype=text),
            "for": [np.nan, 36 * 3600, 90],
            "unknown": [np.nan] * 3,
        }
    )
    pd.testing.assert_frame_equal(table, expected)


@pytest.mark.parametrize("rows", [1, 2])
def test_chunks_of_postgres_have_the_dtypes_of_the_table(postgres: Server, password: str, rows: int) -> None:
    source = fp.SQL(postgres.url, "SELECT * FROM stays ORDER BY id")
    table = source.table(WHOSE)
    chunks = list(source.chunks(WHOSE, rows))
    assert [chunk.dtypes.equals(table.dtypes) for chunk in chunks] == [True] * -(-3 // rows)
    pd.testing.assert_frame_equal(pd.concat(chunks, ignore_index=True), table)


def test_a_socket_and_a_url_in_the_environment_lead_to_the_same_rows(
    postgres: Server, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARD", f"postgresql://ward:t%2Fu%3Al%40i p%25n@127.0.0.1:{postgres.port}/postgres")
    query = "SELECT * FROM stays ORDER BY id"
    tables = [fp.SQL(url, query).table(WHOSE) for url in (postgres.url, postgres.socket_url, "${WARD}")]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    pd.testing.assert_frame_equal(tables[0], tables[2])


def test_both_passes_over_the_chunks_see_the_rows_of_one_moment(postgres: Server, password: str) -> None:
    postgres.carry_out("CREATE TABLE moments AS SELECT generate_series(1, 6) AS number")
    chunks = fp.SQL(postgres.url, "SELECT number FROM moments ORDER BY number").chunks(WHOSE, 2)
    first = next(chunks)
    postgres.carry_out("INSERT INTO moments VALUES (NULL), (7)")
    assert [int(number) for chunk in (first, *chunks) for number in chunk["number"]] == [1, 2, 3, 4, 5, 6]


def test_chunks_taken_again_carry_the_query_out_once(ward: Path) -> None:
    event, engine = pytest.importorskip("sqlalchemy.event"), pytest.importorskip("sqlalchemy.engine")
    seen: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        seen.append(statement)

    source = sqlite(ward)
    event.listen(engine.Engine, "before_cursor_execute", note)
    try:
        first = list(source.chunks(WHOSE, 3))
        assert seen.count(source.query) == 2
        again = list(source.chunks(WHOSE, 3))
        assert seen.count(source.query) == 3
    finally:
        event.remove(engine.Engine, "before_cursor_execute", note)
    for one, other in zip(first, again, strict=True):
        pd.testing.assert_frame_equal(one, other)


@pytest.mark.parametrize("change", ["SET age = NULL", "SET ill = 0.5", "SET bp = 'high'", "SET unknown = 1"])
def test_chunks_taken_again_of_a_table_that_has_changed_are_refused(ward: Path, change: str) -> None:
    source = sqlite(ward)
    list(source.chunks(WHOSE, 3))
    with sqlite3.connect(ward) as connection:
        connection.execute(f"UPDATE stays {change} WHERE rowid = 8")
    connection.close()
    with pytest.raises(DataError, match=r'^Client "lyon": column .* of the query'):
        list(source.chunks(WHOSE, 3))


def test_a_client_read_in_chunks_trains_the_model_of_all_rows_at_once(ward: Path) -> None:
    def weights(**options: int) -> bytes:
        clients = [fp.client("lyon", sqlite(ward), "ill", columns=["age", "bp"], test=0, **options)]
        steps = [fp.Impute("median"), fp.Standardize()]
        return fp.train(
            fp.models.Logistic(), clients, preprocess=steps, rounds=2, progress=False
        ).weights.buffer.tobytes()

    assert weights(chunk_rows=3) == weights()


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM stays",
        "UPDATE stays SET age = 0 RETURNING age",
        "DROP TABLE stays",
        "CREATE TABLE stolen AS SELECT * FROM stays",
        "SELECT * FROM nothing; DELETE FROM stays",
        "SELECT * FROM stays; COMMIT; BEGIN READ WRITE; DELETE FROM stays; COMMIT",
    ],
)
def test_a_query_that_writes_is_refused_and_changes_nothing(
    ward: Path, postgres: Server, password: str, query: str
) -> None:
    before = ward.read_bytes()
    for url in (f"sqlite:///{ward}", postgres.url):
        with pytest.raises(DataError, match=r'^Client "lyon": .* cannot be read: '):
            fp.SQL(url, query).table(WHOSE)
        with pytest.raises(DataError, match=r'^Client "lyon": .* cannot be read: '):
            list(fp.SQL(url, query).chunks(WHOSE, 2))
    assert ward.read_bytes() == before
    assert postgres.carry_out("SELECT count(*), sum(age) FROM stays") == [[3, 78]]


def test_a_function_that_writes_is_refused_by_postgres(postgres: Server, password: str) -> None:
    with pytest.raises(DataError, match="cannot execute DELETE in a read-only transaction"):
        fp.SQL(postgres.url, "SELECT forget()").table(WHOSE)
    assert postgres.carry_out("SELECT count(*) FROM stays") == [[3]]


def test_parameters_are_values_and_never_statements(ward: Path, postgres: Server, password: str) -> None:
    for url in (f"sqlite:///{ward}", postgres.url):
        found = fp.SQL(url, "SELECT * FROM stays WHERE ward = :ward", {"ward": "ä"}).table(WHOSE)
        assert found["ward"].tolist() == ["ä"]
        with pytest.raises(DataError, match="the query gives none"):
            fp.SQL(url, "SELECT * FROM stays WHERE ward = :ward", {"ward": "a' OR '1' = '1"}).table(WHOSE)


@pytest.mark.parametrize("parameters", [None, {"most": 100}])
def test_a_percent_sign_in_a_query_is_the_databases_own(
    ward: Path, postgres: Server, password: str, parameters: dict[str, int] | None
) -> None:
    query = "SELECT age % 7 AS rest, '50%' AS share FROM stays WHERE age = 37 AND ward IS NULL OR age = 41"
    query += " AND age < :most" * (parameters is not None) + " ORDER BY age DESC"
    found = [fp.SQL(url, query, parameters).table(WHOSE) for url in (f"sqlite:///{ward}", postgres.url)]
    # 41 = 5·7 + 6, and 37 = 5·7 + 2; in PostgreSQL the ward of who is 37 is known.
    assert [table["rest"].tolist() for table in found] == [[6, 2], [6]]
    assert {share for table in found for share in table["share"]} == {"50%"}


def test_parameters_that_are_not_those_of_the_query_are_refused() -> None:
    with pytest.raises(ConfigError, match=r'the query has the parameter ":ward"; give it'):
        fp.SQL("sqlite:///ward.db", "SELECT * FROM stays WHERE ward = :ward")
    with pytest.raises(ConfigError, match=r'no parameter ":wrad".* Did you mean "ward"'):
        fp.SQL("sqlite:///ward.db", "SELECT * FROM stays WHERE ward = :ward", {"ward": "a", "wrad": "b"})
    fp.SQL("postgresql://host/stays", r"SELECT age::text, ' \:ward', '12:30' FROM stays")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ward:tulip@host/stays",
        "postgresql://ward:tulip${NAME}@host/stays",
        "postgresql://ward@lyon:tulip@host/stays",
        "postgresql://host/stays?user=ward&password=tulip",
        "mssql+pyodbc:///?odbc_connect=SERVER%3Dhost%3BPWD%3Dtulip",
        "mssql+pyodbc:///?odbc_connect=SERVER+%3D+host%3BPWD+%3D+tulip",
    ],
)
def test_a_password_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^SQL: url holds a password.* write \$\{NAME\}") as refused:
        fp.SQL(url, "SELECT 1")
    assert "tulip" not in str(refused.value)
    # In a job nothing is connected to and nothing written before this.
    with pytest.raises(ConfigError, match=r"^the job's data\.clients\.lyon\.url holds a password") as refused:
        fp.Job.of(
            {
                "model": "Logistic",
                "algorithm": "FedAvg",
                "data": {
                    "clients": {"lyon": {"name": "SQL", "url": url, "query": "SELECT 1"}},
                    "label": "ill",
                },
            }
        )
    assert "tulip" not in str(refused.value)


def test_a_wrong_password_is_in_no_error_and_no_repr(
    postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARD_PASSWORD", "hyacinth")
    source = fp.SQL(postgres.url, "SELECT 1")
    with pytest.raises(DataError, match='password authentication failed for user "ward"') as refused:
        source.table(WHOSE)
    assert "hyacinth" not in repr(source) + str(refused.value)
    assert refused.value.__cause__ is None


def test_a_job_file_reads_a_database_and_its_record_has_no_password(
    postgres: Server, password: str, tmp_path: Path
) -> None:
    rows = ", ".join(f"({number % 7}, {number % 2})" for number in range(40))
    postgres.carry_out("CREATE TABLE visits (age int, ill int)", f"INSERT INTO visits VALUES {rows}")
    clients = {
        town: {
            "name": "SQL",
            "url": postgres.url,
            "query": "SELECT age, ill FROM visits WHERE age < :most ORDER BY age",
            "parameters": {"most": most},
        }
        for town, most in {"lyon": 5, "nice": 7}.items()
    }
    job = {
        "model": "Logistic",
        "algorithm": "FedAvg",
        "rounds": 2,
        "data": {"clients": clients, "label": "ill"},
    }
    result = fp.run(fp.Job.of(job), folder=tmp_path / "run", progress=False)
    assert len(result.history) == 2
    written = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert any(b"${WARD_PASSWORD}" in path.read_bytes() for path in written)
    for form in (password, json.dumps(password)):
        assert not any(form.encode() in path.read_bytes() for path in written)


def test_what_cannot_be_read_is_said_of_the_client(ward: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.db").write_bytes(b"no database at all" * 100)
    for source, said in [
        (sqlite(tmp_path / "wrad.db"), r'there is no file .*wrad\.db\. Did you mean "ward\.db"'),
        (sqlite(tmp_path / "torn.db"), "file is not a database"),
        (sqlite(ward, "SELECT * FROM stay"), "cannot be read: no such table: stay"),
        (sqlite(ward, "SELEC age FROM stays"), 'near "SELEC": syntax error'),
        (sqlite(ward, "SELECT * FROM stays WHERE age > 200"), "has no rows: the query gives none"),
        (sqlite(ward, "PRAGMA query_only = OFF"), "the query is no SELECT"),
        (sqlite(ward, "SELECT x'00ff' AS scan"), r'column "scan" .* holds a bytes in row 1'),
        (sqlite(ward, "SELECT age AS a, age AS a, ill FROM stays"), 'two columns called "a"'),
    ]:
        with pytest.raises(DataError, match=rf'^Client "lyon".*{said}'):
            fp.client("lyon", source, "ill")
    assert not (tmp_path / "wrad.db").exists()


def test_what_cannot_be_connected_to_is_said_of_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WARD_PASSWORD", raising=False)
    for url, kind, said in [
        ("postgresql://ward@127.0.0.1:1/stays", DataError, "cannot be read: .*127.0.0.1"),
        ("postgres://ward@host/stays", ConfigError, r'begins with "postgres".* Did you mean "postgresql"'),
        ("ward.db", ConfigError, "the URL of the database cannot be read; write it as"),
        ("sqlite://", ConfigError, "names no file"),
        (
            "postgresql://ward:${WARD_PASSWORD}@host/stays",
            ConfigError,
            "variable WARD_PASSWORD, which is not set",
        ),
        ("oracle+cx_oracle://host/stays", DependencyError, "needs cx_Oracle: pip install cx_Oracle"),
    ]:
        with pytest.raises(kind, match=rf'^Client "lyon": .*{said}'):
            fp.SQL(url, "SELECT 1").table(WHOSE)


def test_a_value_in_an_error_of_the_database_is_not_repeated(postgres: Server, password: str) -> None:
    with pytest.raises(DataError, match="SQLSTATE 22P02") as refused:
        fp.SQL(postgres.url, "SELECT ward::int FROM stays").table(WHOSE)
    assert "ä" not in str(refused.value)


def test_nothing_is_logged_of_what_goes_wrong_in_a_database(
    postgres: Server, password: str, caplog: pytest.LogCaptureFixture
) -> None:
    for query in ("SELECT ward::int FROM stays", "SELEC age FROM stays"):
        with pytest.raises(DataError):
            fp.SQL(postgres.url, query).table(WHOSE)
    assert not caplog.records


class OdbcError(Exception):
    """What pyodbc raises: the SQLSTATE, and what the server says."""


def test_a_value_that_a_driver_quotes_after_its_sqlstate_is_not_repeated() -> None:
    url = pytest.importorskip("sqlalchemy").make_url("mssql+pyodbc://host/stays")
    error = OdbcError(
        "22018", "[22018] Conversion failed when converting the varchar value 'Müller' to data type int."
    )
    assert _said(error, url) == "a value does not fit what the query does with it (SQLSTATE 22018)"
    missing = OdbcError("42S02", "[42S02] Invalid object name 'stay'. (208)")
    assert "Invalid object name 'stay'" in _said(missing, url)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": 5, "query": "SELECT 1"}, "SQL: url is 5; it must be text."),
        ({"url": "sqlite:///ward.db", "query": ["SELECT 1"]}, "it must be text"),
        ({"url": "sqlite:///ward.db", "query": " "}, "the query is empty"),
        ({"url": "sqlite:///ward.db", "query": "SELECT :a", "parameters": ["a"]}, "must be names and values"),
    ],
)
def test_a_setting_of_another_kind_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        fp.SQL(**settings)


def test_a_column_of_two_kinds_is_refused_with_a_row_of_each(tmp_path: Path) -> None:
    path = tmp_path / "mixed.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE stays (age, weight, id)")
        connection.executemany(
            "INSERT INTO stays VALUES (?, ?, ?)", [(61, 1, 2**60), (None, 2.5, None), ("Müller", 3, 7)]
        )
    connection.close()
    for read in (lambda source: source.table(WHOSE), lambda source: list(source.chunks(WHOSE, 1))):
        with pytest.raises(
            DataError, match=r'"age" .* mixes numbers \(row 1\) and text \(row 3\)'
        ) as refused:
            read(sqlite(path, "SELECT age FROM stays"))
        assert "Müller" not in str(refused.value)
        with pytest.raises(
            DataError, match=r'"id" of the query holds whole numbers beyond ±9007199254740992'
        ):
            read(sqlite(path, "SELECT id FROM stays"))
    assert sqlite(path, "SELECT weight FROM stays").table(WHOSE)["weight"].tolist() == [1, 2.5, 3]
    # Alone, the large number is exact.
    assert sqlite(path, "SELECT id FROM stays LIMIT 1").table(WHOSE)["id"].tolist() == [2**60]


def test_dates_of_postgres_become_parts(postgres: Server, password: str) -> None:
    table = fp.SQL(postgres.url, "SELECT born, left_at FROM stays ORDER BY id").table(WHOSE)
    parts = FittedDateParts(("born", "left_at"), ("year", "hour")).transform(table)
    assert np.array_equal(parts.iloc[1:], [[1961, 0, 9999, 23], [2001, 0, 2024, 0]])
    assert parts.iloc[0].isna().all()


def test_an_instant_later_than_the_last_of_python_is_that_of_utc() -> None:
    west = datetime.timezone(datetime.timedelta(hours=-5))
    values = [None, datetime.datetime(9999, 12, 31, 23, 30, tzinfo=west)]
    kind = Column(WHOSE, "left_at").see(values, 1)
    # Half past four on the first day of the year 10000.
    assert as_series(values, kind).astype("int64")[1] == 253402300800_000000 + int(4.5 * 3600) * 10**6


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(DependencyError, match=r'SQL needs SQLAlchemy: pip install "fedpact\[sql\]"'):
        fp.SQL("sqlite:///ward.db", "SELECT 1")


def test_a_driver_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pg8000", None)
    with pytest.raises(
        DependencyError, match=r'^Client "lyon": .* needs pg8000: pip install "fedpact\[sql\]"'
    ):
        fp.SQL("postgresql://ward@host/stays", "SELECT 1").table(WHOSE)
