"""Claims about numbers by client."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedpact.store.table import ClientTable
from fedpact.store.tree import pack, unpack

# Any text, halves of surrogate pairs too: names of files that are no UTF-8 come with them.
IDS = st.text(st.characters(codec=None), max_size=5)


def table() -> ClientTable:
    return ClientTable({"count": np.int64, "share": np.float32})


@given(st.lists(st.lists(IDS, unique=True, max_size=30), max_size=4))
def test_every_client_has_a_row_of_its_own_in_the_order_they_came(cohorts: list[list[str]]) -> None:
    made, counts = table(), dict[str, int]()
    for cohort in cohorts:
        rows = made.rows(cohort)
        made["count"][rows] += 1
        counts.update({id: counts.get(id, 0) + 1 for id in cohort})
    assert list(made) == list(counts)
    assert made["count"].tolist() == list(counts.values())
    assert [made.row(id) for id in counts] == list(range(len(made)))


@given(st.lists(IDS, unique=True, max_size=40), st.lists(IDS, unique=True, max_size=40))
def test_table_goes_on_where_its_contents_were_noted(before: list[str], after: list[str]) -> None:
    made, again = table(), table()
    rows = made.rows(before)
    made["share"][rows] = np.arange(len(before)) / 8
    again.restore(unpack(*pack(made.contents()), again.contents()))
    for one in (made, again):
        rows = one.rows(after)
        one["count"][rows] += 1
    assert list(again) == list(made)
    for column in ("count", "share"):
        assert again[column].dtype == made[column].dtype
        assert again[column].tolist() == made[column].tolist()


def test_unknown_client_has_no_row() -> None:
    assert table().row("lyon") is None


def test_contents_do_not_change_with_the_table() -> None:
    made = table()
    made.rows(["lyon"])
    noted = made.contents()
    made.rows(["nice"])
    made["count"][:] = 7
    assert noted["columns"]["count"].tolist() == [0]
    assert noted["text"].tobytes() == b"lyon"


def test_table_does_not_change_with_what_it_was_restored_from() -> None:
    made = table()
    made.rows(["lyon"])
    made["count"][:] = 7
    noted = made.contents()
    again = table()
    again.restore(noted)
    noted["columns"]["count"][:] = 0
    again.rows(["nice"])
    assert (list(again), again["count"].tolist()) == (["lyon", "nice"], [7, 0])


class Same(str):
    """An id whose hash is that of all others of its kind."""

    def __hash__(self) -> int:
        return 7


@given(st.lists(st.lists(IDS.map(Same), max_size=12), max_size=4), st.integers(0, 40))
def test_clients_whose_ids_have_one_hash_are_told_apart(cohorts: list[list[Same]], expected: int) -> None:
    made, counts = ClientTable({"count": np.int64}, expected), dict[str, int]()
    for cohort in cohorts:
        rows = made.rows(cohort)
        np.add.at(made["count"], rows, 1)
        for id in map(str, cohort):
            counts[id] = counts.get(id, 0) + 1
    assert dict(zip(made, made["count"].tolist(), strict=True)) == counts


def test_room_that_was_taken_ahead_changes_nothing_in_what_is_noted() -> None:
    made, roomy = table(), ClientTable({"count": np.int64, "share": np.float32}, expected=1000)
    for each in (made, roomy):
        rows = each.rows(["lyon", "上海"])
        each["share"][rows] = 0.5
    one, other = made.contents(), roomy.contents()
    assert one["text"].tobytes() == other["text"].tobytes()
    assert one["ends"].tolist() == other["ends"].tolist()
    assert one["columns"]["share"].tolist() == other["columns"]["share"].tolist()
