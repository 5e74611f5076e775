from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpact.core.errors import ConfigError, DataError
from fedpact.data.preprocess.dates import DateParts
from tests.data.test_preprocess import fit_steps
from tests.data.test_preprocess_errors import message

ALL = (
    "year",
    "quarter",
    "month",
    "week",
    "day",
    "day_of_year",
    "weekday",
    "hour",
    "minute",
    "second",
    "days",
)


@given(st.datetimes())
def test_parts_are_those_of_the_standard_librarys_calendar(when: datetime) -> None:
    made = fit_steps([DateParts(("t",), ALL)], pd.DataFrame({"t": pd.Series([when], dtype=object)}))
    (row,) = made.matrix(pd.DataFrame({"t": pd.Series([when], dtype=object)})).tolist()
    day = when.timetuple().tm_yday
    assert row[:4] == [when.year, (when.month + 2) // 3, when.month, when.isocalendar().week]
    assert row[4:10] == [when.day, day, when.weekday(), when.hour, when.minute, when.second]
    assert row[10] == pytest.approx((when - datetime(1970, 1, 1)) / timedelta(days=1), rel=1e-15)


@pytest.mark.parametrize(
    "values",
    [
        pd.Series(pd.to_datetime(["2024-02-29 23:30", None])),
        pd.Series(pd.to_datetime(["2024-02-29 23:30", None])).dt.tz_localize("Europe/Berlin"),
        pd.Series(pd.to_datetime(["2024-02-29 23:30", None])).astype("datetime64[s]"),
        pd.Series(["2024-02-29T23:30", None]),
        pd.Series(["2024-02-29 23:30:00+05:00", None], dtype="string"),
        pd.Series(["20240229T233000Z", None], dtype="category"),
        pd.Series([datetime(2024, 2, 29, 23, 30), None], dtype=object),
        pd.Series([datetime(2024, 2, 29, 23, 30, tzinfo=UTC), None], dtype=object),
    ],
    ids=lambda values: str(values.dtype) + str(values[0]),
)
def test_times_are_read_as_they_are_written(values: pd.Series) -> None:
    table = pd.DataFrame({"t": values})
    made = fit_steps([DateParts(("t",), ("year", "month", "day", "weekday", "hour", "minute"))], table)
    # 29 February 2024 was a Thursday.
    assert made.transform(table).iloc[0].tolist() == [2024, 2, 29, 3, 23, 30]
    assert made.transform(table).iloc[1].isna().all()


def test_days_without_a_time_begin_at_midnight() -> None:
    table = pd.DataFrame({"t": pd.Series([date(1970, 1, 3)], dtype=object)})
    assert fit_steps([DateParts(parts=("days", "hour"))], table).matrix(table).tolist() == [[2, 0]]


def test_dates_of_arrow_are_dates() -> None:
    table = pd.DataFrame({"t": pd.Series([date(2024, 2, 29), None], dtype="date32[pyarrow]")})
    made = fit_steps([DateParts()], table).transform(table)
    assert made.iloc[0].tolist() == [2024, 2, 29, 3]
    assert made.iloc[1].isna().all()


def test_columns_of_dates_are_found_and_named() -> None:
    table = pd.DataFrame({"a": [1.0], "t": [pd.Timestamp("2024-02-29")], "b": [2.0]})
    made = fit_steps([DateParts()], table, table)
    assert made.feature_names_out == ("a", "t:year", "t:month", "t:day", "t:weekday", "b")


@pytest.mark.parametrize("bad", ["yesterday", "2024-02-30", 7])
def test_value_that_is_no_date_names_its_row_and_not_itself(bad: Any) -> None:
    pipeline = fit_steps([DateParts(("t",))], pd.DataFrame({"t": ["2024-02-29"]}))
    said = message(DataError, pipeline.matrix, pd.DataFrame({"t": ["2024-01-01", None, bad]}))
    assert 'column "t" holds no date in row 3' in said
    assert str(bad) not in said.replace("row 3", "").replace('"2024-02-29', "")


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (("yaer",), 'Did you mean "year"?'),
        ((), "one part or more"),
        (("day", "day"), "once"),
        ("day", "list"),
    ],
)
def test_parts_that_cannot_be_are_refused(parts: Any, said: str) -> None:
    assert said in message(ConfigError, DateParts, None, parts)


def test_numbers_are_no_dates() -> None:
    said = message(ConfigError, fit_steps, [DateParts(("x",))], pd.DataFrame({"x": np.arange(3)}))
    assert 'column "x" holds numbers' in said
