"""Claims about what each client has done in a run."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fedpact.store.totals import NO_WORK, ClientTotals
from fedpact.store.tree import pack, unpack

SECONDS = st.floats(0, 1e6)
WORK = st.tuples(st.sampled_from(["nice", "lyon", "上海"]), st.booleans(), SECONDS, st.integers(0, 10**12))


@given(st.lists(st.lists(WORK, max_size=5), max_size=8))
def test_totals_are_those_of_adding_up_one_client_after_another(
    rounds: list[list[tuple[str, bool, float, int]]],
) -> None:
    totals, added = ClientTotals(), dict[str, dict[str, Any]]()
    for work in rounds:
        ids, failed, seconds, nbytes = ([one[i] for one in work] for i in range(4))
        totals.note(ids, [not one for one in failed], failed, seconds, nbytes)
        for id, failure, took, sent in work:
            client = added.setdefault(id, dict(NO_WORK))
            client["rounds"] += not failure
            client["failures"] += failure
            client["seconds"] += took
            client["upload_bytes"] += sent
        assert list(totals.items()) == sorted(added.items())
        assert len(totals) == len(added)


def test_totals_are_plain_numbers_that_json_can_hold() -> None:
    totals = ClientTotals()
    totals.note(["lyon"], 1, 0, 0.5, 800)
    types = {name: type(value) for name, value in totals.get("lyon").items()}
    assert types == {"rounds": int, "failures": int, "seconds": float, "upload_bytes": int}


def test_client_that_was_never_asked_has_done_no_work() -> None:
    assert ClientTotals().get("lyon") == NO_WORK


def test_one_number_stands_for_all_clients() -> None:
    totals = ClientTotals()
    totals.note(["lyon", "nice"], 1, 0, 0.25, [800, 400])
    assert totals.get("nice") == {"rounds": 1, "failures": 0, "seconds": 0.25, "upload_bytes": 400}


def test_totals_go_on_where_a_checkpoint_noted_them() -> None:
    totals = ClientTotals()
    totals.note(["lyon", "nice"], 1, 0, 0.1, 800)
    again = ClientTotals()
    again.restore(unpack(*pack(totals.contents()), ClientTotals().contents()))
    for one in (totals, again):
        one.note(["paris", "lyon"], 1, 0, 0.2, 800)
    assert list(again.items()) == list(totals.items())
