"""Splits of clients' rows: train, validation and test; folds; a client left out."""

from itertools import chain, combinations, pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fedpact as fp
from fedpact.core.errors import ConfigError, DataError
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.data.federation import Federation
from fedpact.data.split import hold_out
from fedpact.data.splits import folds, leave_one_client_out, train_validation_test

seeds = st.integers(0, 99)
classes = st.lists(st.integers(0, 3), min_size=4, max_size=80).map(np.array)
# Of one row each, labels are names rather than classes, and are split as one class.
several = classes.filter(lambda y: 2 * np.sum(np.bincount(y) == 1) <= len(y))
shares = st.sampled_from([(0.2, 0.2), (0.1, 0.25), (0.0, 0.3), (0.3, 0.0), (0.15, 0.5)])


def numbered(id: str, y, **columns) -> ClientData:
    table = pd.DataFrame({"row": np.arange(len(y)), **columns})
    return ClientData(id, Rows(table, np.asarray(y)))


def row_numbers(rows: Rows | None) -> list[int]:
    return [] if rows is None else rows.x["row"].tolist()


def three(split, place: int = 0) -> tuple[list[int], list[int], list[int]]:
    return (
        row_numbers(split.validation[place].train),
        row_numbers(split.validation[place].test),
        row_numbers(split.test[place].test),
    )


@given(classes, shares, seeds, st.booleans())
def test_every_row_is_on_one_side_once_in_its_old_order(y, share, seed, stratify) -> None:
    split = train_validation_test([numbered("a", y)], *share, seed=seed, stratify=stratify)
    parts = three(split)
    assert sorted(chain(*parts)) == list(range(len(y)))
    assert all(part == sorted(part) for part in parts)
    for rows in (split.validation[0].train, split.validation[0].test, split.test[0].test):
        assert rows is None or np.array_equal(rows.y, y[rows.x["row"]])


@given(st.lists(st.integers(9, 40), min_size=1, max_size=5), shares, seeds)
def test_validation_and_test_rows_have_each_class_s_share_to_within_a_row(sizes, share, seed) -> None:
    y = np.repeat(np.arange(len(sizes)), sizes)
    train, *held = three(train_validation_test([numbered("a", y)], *share, seed=seed))
    for part, wanted in zip(held, share, strict=True):
        counts = np.bincount(y[part], minlength=len(sizes))
        assert np.all(np.abs(counts - wanted * np.array(sizes)) < 1 + 1e-9)
        assert abs(len(part) - wanted * len(y)) <= 0.5 + 1e-9
    assert set(y[train]) == set(y)


@given(several, shares, seeds)
def test_every_class_keeps_a_row_to_train_on(y, share, seed) -> None:
    train, *_ = three(train_validation_test([numbered("a", y)], *share, seed=seed))
    assert set(y[train]) == set(y)


@given(classes, shares, seeds)
def test_refit_trains_on_train_and_validation_rows(y, share, seed) -> None:
    split = train_validation_test([numbered("a", y)], *share, seed=seed)
    train, validation, test = three(split)
    assert row_numbers(split.refit[0].train) == sorted(train + validation)
    assert row_numbers(split.refit[0].test) == row_numbers(split.test[0].test) == test
    assert row_numbers(split.test[0].train) == train


@given(classes, seeds)
def test_test_rows_are_those_of_a_plain_holdout_whatever_the_validation_rows(y, seed) -> None:
    client = numbered("a", y)
    plain = hold_out("a", client.train, 0.25, Seed.of(seed))
    split = train_validation_test([client], 0.3, 0.25, seed=seed)
    assert row_numbers(split.test[0].test) == row_numbers(plain.test)


def test_clients_own_test_rows_are_kept_where_no_share_is_asked() -> None:
    clients = fp.datasets.breast_cancer()
    split = train_validation_test(clients, 0.2)
    for before, tuned, judged in zip(clients, split.validation, split.test, strict=True):
        assert judged.test is not None
        assert judged.test.x.equals(before.test.x)
        assert len(tuned.train) + len(tuned.test) == len(before.train)


@pytest.mark.parametrize("order", [[2, 0, 1], [1, 2, 0]])
def test_a_client_is_split_alike_in_any_order_and_any_company(order) -> None:
    y = np.tile([0, 1, 2], 10)
    given = [numbered(id, y, who=np.arange(30) // 3) for id in ("a", "b", "c")]
    ways = [
        lambda clients: train_validation_test(clients, 0.2, 0.2).test,
        lambda clients: train_validation_test(clients, 0.2, 0.2, group="who").test,
        lambda clients: next(folds(clients, 4)),
        lambda clients: next(folds(clients, 4, group="who")),
    ]
    for way in ways:
        whole, moved, alone = way(given), way([given[i] for i in order]), way(given[1:2])
        for id in ("a", "b", "c"):
            assert row_numbers(whole[id].test) == row_numbers(moved[id].test)
        assert row_numbers(whole["b"].test) == row_numbers(alone["b"].test)
        assert row_numbers(whole["a"].test) != row_numbers(whole["b"].test)


def test_another_seed_gives_another_split() -> None:
    client = numbered("a", np.tile([0, 1], 30))
    for way in (
        lambda seed: train_validation_test([client], 0.2, 0.2, seed=seed).test,
        lambda seed: next(folds([client], 4, seed=seed)),
    ):
        assert row_numbers(way(1)[0].test) == row_numbers(way(1)[0].test)
        assert row_numbers(way(1)[0].test) != row_numbers(way(2)[0].test)


patients = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1)), min_size=6, max_size=80).map(np.array)


@given(patients, shares, seeds)
def test_no_group_is_on_two_sides(rows, share, seed) -> None:
    who, y = rows.T
    parts = three(train_validation_test([numbered("a", y, who=who)], *share, group="who", seed=seed))
    assert sorted(chain(*parts)) == list(range(len(y)))
    seen = [set(who[part]) for part in parts]
    assert all(one.isdisjoint(other) for one, other in combinations(seen, 2))
    assert seen[0]


@given(patients, st.integers(2, 5), seeds)
def test_no_group_is_in_two_folds(rows, k, seed) -> None:
    who, y = rows.T
    if len(set(who)) < 2:
        return
    kept = [
        row_numbers(fold[0].test) for fold in folds([numbered("a", y, who=who)], k, group="who", seed=seed)
    ]
    assert sorted(chain(*kept)) == list(range(len(y)))
    assert sum(len(set(who[part])) for part in kept) == len(set(who))


def test_many_small_groups_come_near_their_shares_of_every_class() -> None:
    draw = np.random.default_rng(0)
    who = draw.integers(0, 200, 1000)
    y = (draw.random(1000) < np.where(who % 4 == 0, 0.8, 0.1)).astype(int)
    _, validation, test = three(train_validation_test([numbered("a", y, who=who)], 0.1, 0.2, group="who"))
    for part, share in ((validation, 0.1), (test, 0.2)):
        np.testing.assert_allclose(np.bincount(y[part]), share * np.bincount(y), atol=3)


def test_groups_of_ten_rows_fill_folds_evenly() -> None:
    who = np.repeat(np.arange(20), 10)
    sizes = [len(fold[0].test) for fold in folds([numbered("a", np.zeros(200), who=who)], 5, group="who")]
    assert sizes == [40, 40, 40, 40, 40]


def test_one_group_alone_is_trained_on() -> None:
    split = train_validation_test([numbered("a", np.zeros(9), who="p1")], 0.3, 0.6, group="who")
    assert (len(split.test[0].train), split.test[0].test) == (9, None)


@settings(deadline=None)
@given(seeds)
def test_a_patient_of_two_clients_is_on_one_side_at_both(seed) -> None:
    draw = np.random.default_rng(seed)
    clients = [numbered(id, np.zeros(200), who=draw.integers(0, 60, 200)) for id in ("a", "b")]
    split = train_validation_test(
        clients, 0.2, 0.2, group="who", shared_groups=True, keep_columns=True, seed=seed
    )
    sides = [
        set().union(*(set(rows.x["who"]) for rows in rows_of))
        for rows_of in (
            [each.train for each in split.validation],
            [each.test for each in split.validation if each.test],
            [each.test for each in split.test if each.test],
        )
    ]
    assert all(one.isdisjoint(other) for one, other in combinations(sides, 2))


def test_shared_groups_meet_their_shares_as_chance_has_it() -> None:
    clients = [numbered("a", np.zeros(5000), who=np.arange(5000))]
    split = train_validation_test(clients, 0.1, 0.3, group="who", shared_groups=True)
    # 5000 draws of probability 0.3 have a standard deviation of 32, of 0.1 one of 21.
    assert len(split.test[0].test) == pytest.approx(1500, abs=130)
    assert len(split.validation[0].test) == pytest.approx(500, abs=85)


def test_shared_groups_are_in_one_fold_at_every_client() -> None:
    who = np.arange(60)
    clients = [numbered("a", np.zeros(60), who=who), numbered("b", np.zeros(60), who=who[::-1])]
    for fold in folds(clients, 3, group="who", shared_groups=True, keep_columns=True):
        assert sorted(fold["a"].test.x["who"]) == sorted(fold["b"].test.x["who"])


@given(st.lists(st.integers(0, 30), min_size=3, max_size=60).map(np.array), shares)
def test_by_time_every_side_is_later_than_the_one_before(when, share) -> None:
    split = train_validation_test([numbered("a", np.zeros(len(when)), when=when)], *share, time="when")
    parts = [part for part in three(split) if part]
    assert sorted(chain(*parts)) == list(range(len(when)))
    for before, after in pairwise(parts):
        assert when[before].max() < when[after].min()
    assert row_numbers(split.test[0].train)


def test_by_time_shares_are_met_where_every_row_has_a_time_of_its_own() -> None:
    when = pd.date_range("2020-01-01", periods=50)[np.random.default_rng(0).permutation(50)]
    train, validation, test = three(
        train_validation_test([numbered("a", np.zeros(50), when=when)], 0.2, 0.1, time="when")
    )
    assert (len(train), len(validation), len(test)) == (35, 10, 5)
    assert when[test].min() == pd.Timestamp("2020-02-15")


@given(classes, st.integers(2, 6), seeds)
def test_every_row_is_kept_aside_in_one_fold_and_trained_on_in_the_others(y, k, seed) -> None:
    found = list(folds([numbered("a", y)], k, seed=seed))
    assert len(found) == k
    kept = [row_numbers(fold[0].test) for fold in found]
    assert sorted(chain(*kept)) == list(range(len(y)))
    for fold, part in zip(found, kept, strict=True):
        assert row_numbers(fold[0].train) == sorted(set(range(len(y))) - set(part))


@given(several, st.integers(2, 6), seeds)
def test_folds_have_each_class_s_share_to_within_a_row(y, k, seed) -> None:
    sizes = np.bincount(y)
    for fold in folds([numbered("a", y)], k, seed=seed):
        counts = np.bincount(y[row_numbers(fold[0].test)], minlength=len(sizes))
        assert np.all(np.abs(counts - sizes / k) < 1)
        assert abs(counts.sum() - len(y) / k) < 1


def test_folds_leave_clients_own_test_rows_out() -> None:
    clients = fp.datasets.breast_cancer()
    for before, after in zip(clients, next(folds(clients, 3)), strict=True):
        assert len(after.train) + len(after.test) == len(before.train)


def test_what_a_federation_is_called_goes_with_its_folds() -> None:
    clients = fp.datasets.breast_cancer()
    _, second = folds(clients, 2)
    assert (second.name, second.reads, second.label) == (clients.name, clients.reads, clients.label)
    assert second.note.endswith("Fold 2 of 2.")


def test_a_fold_is_trained_on_and_judged_like_any_federation() -> None:
    scores = [
        fp.train(fp.models.Logistic(), fold, preprocess=[fp.Standardize()], rounds=2).evaluation.metrics[
            "accuracy"
        ]
        for fold in folds(fp.datasets.breast_cancer(test=0), 3)
    ]
    assert len(scores) == 3
    assert min(scores) > 0.85


def test_a_client_left_out_is_judged_with_all_its_rows_and_never_trained_on() -> None:
    clients = fp.datasets.breast_cancer()
    for place, left in enumerate(leave_one_client_out(clients)):
        before = clients[place]
        assert left.id == before.id
        assert left.id not in left.clients.ids
        assert len(left.clients) == len(clients) - 1
        (alone,) = left.left_out
        assert alone.test.x.equals(pd.concat([before.train.x, before.test.x], ignore_index=True))
        assert np.array_equal(alone.test.y, np.concatenate([before.train.y, before.test.y]))


def test_a_model_is_evaluated_at_the_client_that_was_left_out() -> None:
    left = next(leave_one_client_out(fp.datasets.breast_cancer(test=0)))
    result = fp.train(fp.models.Logistic(), left.clients, preprocess=[fp.Standardize()], rounds=3)
    evaluation = fp.evaluate(result, left.left_out)
    assert evaluation.rows == {left.id: len(left.left_out[0].test)}
    assert evaluation.metrics["accuracy"] > 0.8


def test_the_column_of_groups_is_no_feature_unless_it_is_kept() -> None:
    client = numbered("a", np.zeros(20), who=np.arange(20) // 2)
    with_tests = ClientData("a", client.train, numbered("a", np.zeros(2), who=[50, 51]).train)
    for keep in (False, True):
        split = train_validation_test([with_tests], 0.2, group="who", keep_columns=keep)
        fold = next(folds([client], 2, group="who", keep_columns=keep))
        for rows in (
            split.test[0].train,
            split.test[0].test,
            split.validation[0].test,
            fold[0].train,
            fold[0].test,
        ):
            assert ("who" in rows.x) is keep


def test_groups_and_times_of_arrays_are_given_beside_them() -> None:
    client = ClientData("a", Rows(np.arange(12.0)[:, None]))
    who = {"a": np.arange(12) // 3}
    test = train_validation_test([client], 0.0, 0.25, group=who).test[0].test
    assert len(set(test.x[:, 0] // 3)) == 1
    assert len(test) == 3
    late = train_validation_test([client], 0.0, 0.25, time={"a": np.arange(12)[::-1]}).test[0].test
    assert late.x[:, 0].tolist() == [0, 1, 2]


HELD = ClientData(
    "a", numbered("a", [0, 1], who=["p", "q"]).train, numbered("a", [0, 1], who=["q", "r"]).train
)
PLAIN = numbered("a", np.zeros(6), who=["p", None, "q", "q", "r", "r"], when=["x"] * 6)


@pytest.mark.parametrize(
    ("make", "error", "why"),
    [
        (lambda: train_validation_test([PLAIN], 0.5, 0.5), ConfigError, "nothing to train on"),
        (lambda: train_validation_test([PLAIN], -0.1), ConfigError, "no shares|are no"),
        (
            lambda: train_validation_test([PLAIN], group="row", time="row"),
            ConfigError,
            "leave one of the two",
        ),
        (lambda: train_validation_test([PLAIN], shared_groups=True), ConfigError, "group="),
        (lambda: train_validation_test([HELD], 0.2, 0.2), DataError, "test rows of its own"),
        (
            lambda: train_validation_test([HELD], group="who"),
            DataError,
            'group "q".*train rows and test rows',
        ),
        (lambda: train_validation_test([HELD], group="who", shared_groups=True), DataError, "test=0"),
        (lambda: train_validation_test([HELD], group={"a": [1, 2]}), DataError, "test=0"),
        (lambda: train_validation_test([PLAIN], group="whoo"), DataError, 'client "a".*Did you mean "who"'),
        (lambda: train_validation_test([PLAIN], group="who"), DataError, "first in row 2"),
        (lambda: train_validation_test([PLAIN], time="when"), DataError, "2024-03-31"),
        (lambda: train_validation_test([PLAIN], time={"b": [1]}), DataError, "no time is given"),
        (
            lambda: train_validation_test([PLAIN], time={"a": [1, 2, None, 3, 4, 5]}),
            DataError,
            "first in row 3",
        ),
        (lambda: train_validation_test([PLAIN], time={"a": ["spring"] * 6}), DataError, "ordered by time"),
        (lambda: train_validation_test([PLAIN], group={"a": [1]}), DataError, r"\[1\], and there are 6"),
        (lambda: folds([PLAIN], 1), ConfigError, "at least 2 folds"),
        (lambda: folds([numbered("a", [0])], 3), DataError, "two rows at each client"),
        (lambda: folds([numbered("a", [0] * 4, who="p")], 3, group="who"), DataError, "two groups"),
        (lambda: leave_one_client_out([PLAIN]), DataError, "none to train on"),
        (
            lambda: train_validation_test(
                [numbered("a", [0], who="p")], 0.0, 0.99, group="who", shared_groups=True, seed=1
            ),
            DataError,
            "no group is left to train on",
        ),
    ],
)
def test_what_cannot_be_split_is_refused(make, error, why) -> None:
    with pytest.raises(error, match=why):
        make()


def test_splits_take_a_federation_or_a_list_of_clients() -> None:
    client = numbered("a", np.tile([0, 1], 10))
    listed, federated = (
        train_validation_test(given, 0.2, 0.2) for given in ([client], Federation((client,), name="toy"))
    )
    assert three(listed) == three(federated)
    assert federated.test.name == "toy"
