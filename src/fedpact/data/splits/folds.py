"""Cross-validation: K folds of every client's rows at once, and each client left out in turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fedpact.core.errors import ConfigError, DataError
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.data.federation import Federation
from fedpact.data.split import strata_of
from fedpact.data.splits.assign import Parts, dealt
from fedpact.data.splits.given import Grouping, Key, annotated, as_federation, stripped


def folds(
    clients: Sequence[ClientData],
    k: int = 5,
    *,
    group: Key | None = None,
    stratify: bool = True,
    shared_groups: bool = False,
    keep_columns: bool = False,
    seed: int = 0,
) -> Iterator[Federation]:
    """Yield k federations: in each, every client keeps another of its k folds aside and trains on the others.

    The folds are of the clients' train rows, and every one of these is kept aside once. Test rows that clients
    have stay out of it, for the last judgement; load clients with `test=0` to have all rows in the folds.
    Stratified, folds have each class's share to within one row.

    Args:
        clients: a federation.
        k: how many folds, at least 2. A client with fewer rows keeps nothing aside in some.
        group: the column that says which group a row belongs to, such as its patient; or client id → the group of
            each train row. Groups stay whole.
        stratify: keep each class's share.
        shared_groups: a group may have rows at several clients: its fold is drawn from its name, so that it is the
            same at all of them.
        keep_columns: leave the group's column among the features; else it is taken out.
        seed: the root of every choice, the same at every client.

    Raises:
        ConfigError: fewer than two folds.
        DataError: no such column, values missing in it, or a client with all its rows in one fold, which would
            have none left to train on.
    """
    if k < 2:
        raise ConfigError(f"Cross-validation needs at least 2 folds, and not {k}.")
    federation = as_federation(clients)
    grouping, root = Grouping.of(group, shared_groups), Seed.of(seed)
    fold_of = {client.id: _fold_of(client, k, grouping, stratify, root) for client in federation}
    bare = [ClientData(each.id, stripped(each.train, (group,), keep_columns)) for each in federation]
    return (
        annotated(
            federation,
            (_without(client, fold_of[client.id] == fold) for client in bare),
            f"Fold {fold + 1} of {k}.",
        )
        for fold in range(k)
    )


def _fold_of(client: ClientData, k: int, grouping: Grouping | None, stratify: bool, root: Seed) -> Parts:
    stream = root.child("folds")
    if grouping is None:
        parts = dealt(strata_of(client.train, stratify), k, stream.child("client", client.id))
    else:
        parts = grouping.parts(client, [1 / k] * k, stratify, stream)
    if len(np.unique(parts)) < 2:
        what = "row" if grouping is None else "group"
        raise DataError(
            f'client "{client.id}" has all its {len(parts)} row(s) in one fold, and would have none to train '
            f"on: cross-validation needs two {what}s at each client; leave this one out."
        )
    return parts


def _without(client: ClientData, kept_aside: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> ClientData:
    train = client.train.take(np.flatnonzero(~kept_aside))
    return ClientData(client.id, train, client.train.take(np.flatnonzero(kept_aside)) or None)


@dataclass(frozen=True, eq=False)
class LeftOut:
    """One client that a model is not trained on, but judged on.

    Args:
        id: the client's name.
        clients: the others, as they are: to train on.
        left_out: the client alone, with all its rows kept aside: for `fp.evaluate`. They are its train rows as
            well, since a client without any is none; nothing reads these in an evaluation.
    """

    id: str
    clients: Federation
    left_out: Federation


def leave_one_client_out(clients: Sequence[ClientData]) -> Iterator[LeftOut]:
    """Yield each client left out in turn: how well does a model do at a site that had no part in it?

    Args:
        clients: a federation of at least two.

    Raises:
        DataError: fewer than two clients, or (when it comes to it) one whose train and test rows do not fit together.
    """
    federation = as_federation(clients)
    if len(federation) < 2:
        raise DataError("One client cannot be left out: there would be none to train on.")
    return (_left_out(federation, id) for id in federation.ids)


def _left_out(federation: Federation, id: str) -> LeftOut:
    client = federation[id]
    parts = [client.train, *([] if client.test is None else [client.test])]
    # Joined as the rows of different clients are.
    rows = Federation(tuple(ClientData(str(part), rows) for part, rows in enumerate(parts))).pooled().train
    return LeftOut(
        id,
        annotated(federation, (each for each in federation if each.id != id), f'Without client "{id}".'),
        annotated(federation, [ClientData(id, rows, rows)], f'Client "{id}", left out.'),
    )
