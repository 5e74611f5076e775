"""Rows to train on, rows to choose settings by, and rows to be judged on at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedpact.core.errors import ConfigError, DataError
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.data.federation import Federation
from fedpact.data.keys import key_column
from fedpact.data.split import held_out, strata_of
from fedpact.data.splits.assign import Parts, in_time
from fedpact.data.splits.given import Grouping, Key, annotated, as_federation, stripped, values_of
from fedpact.data.wording import at_client

_TRAIN, _VALIDATION, _TEST = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Split:
    """One federation three times, for the three things that are done with it.

    What keeps rows aside for evaluation in each is `ClientData.test`, so that training, evaluation and stop
    rules work alike on all.

    Args:
        validation: train rows, with the validation rows kept aside: to choose settings, and when to stop.
        test: the same train rows, with the test rows kept aside.
        refit: train and validation rows to train on, with the test rows kept aside: the last training, once
            everything is chosen.
    """

    validation: Federation
    test: Federation
    refit: Federation


def train_validation_test(
    clients: Sequence[ClientData],
    validation: float = 0.2,
    test: float | None = None,
    *,
    group: Key | None = None,
    time: Key | None = None,
    stratify: bool = True,
    shared_groups: bool = False,
    keep_columns: bool = False,
    seed: int = 0,
) -> Split:
    """Split every client's rows in three: each row is in one of them, in its old order.

    Without group and time, the test rows are those that `fp.client(..., test=..., seed=...)` keeps aside, and a
    share of validation rows changes none of them. Stratified, validation and test rows have each class's share to
    within one row, and their totals to within half a row; a class keeps a row to train on.

    By group, groups stay whole, and shares come as near as that allows. By time, every validation row is later
    than every train row, and every test row later than these; rows of one time stay together. Test rows that a client
    has already are left as they are, from whatever time.

    Args:
        clients: a federation.
        validation: the share of a client's train rows (all of them, if they are split in three) that become its
            validation rows; 0 for none.
        test: the share that becomes its test rows, at clients that have none; None to keep the test rows that
            clients have.
        group: the column that says which group a row belongs to, such as its patient; or client id → the group of
            each train row.
        time: the column that says when, as dates or numbers; or client id → the time of each train row.
        stratify: keep each class's share; without effect by time.
        shared_groups: a group may have rows at several clients: which side it is on is drawn from its name, so
            that it is the same at all of them, and shares are met as far as chance has it.
        keep_columns: leave these columns among the features; else they are taken out.
        seed: the root of every choice.

    Raises:
        ConfigError: shares that leave nothing to train on, or options that exclude each other.
        DataError: no such column, values missing in it, a share of test rows for a client that has some, a group
            that has rows on both sides already, or (with `shared_groups`) a client left with no train rows.
    """
    federation = as_federation(clients)
    shares = _shares(validation, test)
    if group is not None and time is not None:
        raise ConfigError("Rows are split by group or by time: leave one of the two out.")
    grouping = Grouping.of(group, shared_groups)
    root = Seed.of(seed)
    three: list[tuple[ClientData, ClientData, ClientData]] = []
    for client in federation:
        _check_own_tests(client, test, grouping)
        if grouping is not None:
            parts = grouping.parts(client, shares, stratify, root)
        elif time is not None:
            parts = in_time(values_of(client, time, "time"), shares)
        else:
            parts = _one_by_one(client, shares, stratify, root)
        three.append(_three(client, parts, (group, time), keep_columns))
    tuned, judged, refitted = zip(*three, strict=True)
    return Split(
        annotated(federation, tuned, "Validation rows kept aside."),
        annotated(federation, judged, "Test rows kept aside."),
        annotated(federation, refitted, "Test rows kept aside, validation rows trained on."),
    )


def _shares(validation: float, test: float | None) -> tuple[float, float, float]:
    held = test or 0.0
    if not (0 <= validation < 1 and 0 <= held < 1 and validation + held < 1):
        raise ConfigError(
            f"Shares of {validation} validation rows and {held} test rows leave nothing to train on, or are no "
            "shares: take 0.2 and 0.2, say."
        )
    return 1 - validation - held, validation, held


def _check_own_tests(client: ClientData, test: float | None, grouping: Grouping | None) -> None:
    if client.test is None:
        return
    if test is not None:
        raise DataError(
            f'client "{client.id}" has test rows of its own: leave test out to keep them, or load the rows '
            "with test=0 to split all of them."
        )
    if grouping is None:
        return
    if grouping.shared or not isinstance(grouping.group, str):
        raise DataError(
            f'client "{client.id}" has test rows of its own, of which the groups are not known, or may have rows '
            "elsewhere: load the rows with test=0 and give a share of test rows here."
        )
    with at_client(client.id):
        train, kept = (
            set(key_column(rows, grouping.group).astype(str)) for rows in (client.train, client.test)
        )
        if both := sorted(train & kept):
            raise DataError(
                f'group "{both[0]}" of column "{grouping.group}" has train rows and test rows ({len(both)} such '
                "group(s)): load the rows with test=0 and give a share of test rows here."
            )


def _one_by_one(client: ClientData, shares: Sequence[float], stratify: bool, root: Seed) -> Parts:
    strata = strata_of(client.train, stratify)
    parts = np.zeros(len(client.train), np.intp)
    for part, name in ((_TEST, "test rows"), (_VALIDATION, "validation rows")):
        if shares[part] > 0:
            stream = root.child("client", client.id, name)
            parts[held_out(strata, shares[part], stream, parts == _TRAIN)] = part
    return parts


def _three(
    client: ClientData, parts: Parts, keys: Sequence[Key | None], keep: bool
) -> tuple[ClientData, ClientData, ClientData]:
    if not np.any(parts == _TRAIN):
        raise DataError(
            f'client "{client.id}": no group is left to train on: take smaller shares or another seed.'
        )
    rows = stripped(client.train, keys, keep)
    train, validation, test = (
        rows.take(np.flatnonzero(parts == part)) for part in (_TRAIN, _VALIDATION, _TEST)
    )
    kept = test or None if client.test is None else stripped(client.test, keys, keep)
    return (
        ClientData(client.id, train, validation or None),
        ClientData(client.id, train, kept),
        ClientData(client.id, rows.take(np.flatnonzero(parts != _TEST)), kept),
    )
