"""Claims about the records of rounds."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpact.store.history import History

# Each name is always a whole number or always a real one, as a run's records have it.
RECORDS = st.fixed_dictionaries(
    {"round": st.integers(0, 2**62)},
    optional={
        "loss": st.floats(allow_nan=False),
        "bytes": st.integers(0, 2**62),
        "auc": st.floats(allow_nan=False),
    },
)


@given(st.lists(RECORDS, max_size=60), st.integers(0, 100))
def test_records_are_read_as_they_were_appended(records: list[dict[str, float]], expected: int) -> None:
    history = History(expected)
    for record in records:
        history.append(record)
    assert [dict(record) for record in history] == records
    assert len(history) == len(records)
    for record, original in zip(history, records, strict=True):
        assert {name: type(value) for name, value in record.items()} == {
            name: type(value) for name, value in original.items()
        }
        assert ("auc" in record) == ("auc" in original)


def test_last_records_are_at_the_end() -> None:
    history = History()
    for round in range(40):
        history.append({"round": round})
    assert history[-1] == {"round": 39}
    assert history[38:] == [{"round": 38}, {"round": 39}]
    with pytest.raises(IndexError):
        history[40]


def test_nan_is_not_a_number_that_is_missing() -> None:
    history = History()
    history.append({"round": 1, "auc": math.nan})
    history.append({"round": 2})
    assert math.isnan(history[0]["auc"])
    assert "auc" not in history[1]
    with pytest.raises(KeyError):
        history[1]["auc"]


def test_history_that_is_cleared_is_as_new() -> None:
    history = History()
    history.append({"round": 1, "loss": 0.5})
    history.clear()
    assert list(history) == []
    history.append({"round": 1})
    assert list(history) == [{"round": 1}]
