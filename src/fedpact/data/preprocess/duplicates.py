"""Duplicates: of rows that are the same, one is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DataError
from fedpact.data.preprocess.columns import Columns, column, with_columns
from fedpact.data.preprocess.estimate import Estimate
from fedpact.data.preprocess.shared_keys import Elsewhere, SharedKeys, not_elsewhere
from fedpact.data.preprocess.steps import as_names

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class DropDuplicates:
    """Leave out rows whose key another row of the same client has before them and, on demand, another client's.

    Inside a client training rows are compared with training rows and test rows with test rows, as pandas'
    `drop_duplicates`: missing values are equal to each other, and labels are not looked at. Nothing leaves a client for
    it. Rows that are to be predicted are never left out.

    With across=True, of training rows whose key several clients have, those of the first client in order of names are
    kept; keys with a missing value are not compared, and neither are test rows. Clients send HMAC-SHA256 of their keys
    under a secret of theirs (`SharedKeys` says what that protects, and what not), in one round. It depends on who has
    which rows, so the fitted step is not the same for any partition of the rows. Of what was found the model holds how
    many keys each client has, and the places of those left out in an order that only holders of the secret know.

    Args:
        by: the columns of the key; by default all that are there at this place in the preprocessing.
        leave_out: whether to leave the columns of the key out behind it, such as a patient's number.
        across: whether to compare clients.
        secret: the environment variable that holds the same secret at every client, and must not be set at the server.

    Raises:
        ConfigError: a setting that cannot be.
    """

    needs_all_rows: ClassVar[bool] = True

    by: tuple[str, ...] | None = None
    leave_out: bool = False
    across: bool = False
    secret: str = "FEDPACT_DUPLICATES_SECRET"

    def __post_init__(self) -> None:
        names = as_names("DropDuplicates", self.by)
        if names == () or (self.leave_out and names is None):
            raise ConfigError('DropDuplicates: name the columns of the key, such as by=["patient"].')
        if not isinstance(self.secret, str) or not self.secret.isidentifier():
            raise ConfigError(
                "DropDuplicates: secret is the name of an environment variable, and not the secret itself, which the "
                "server must not know."
            )
        object.__setattr__(self, "by", names)

    def estimate(self, columns: Columns) -> Estimate:
        """Return what finds the keys that clients share; an estimate of no columns inside clients.

        Raises:
            ConfigError: there is no such column.
        """
        return SharedKeys(self._names(columns) if self.across else (), self.secret)

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> FittedDropDuplicates:
        """Return the step."""
        return FittedDropDuplicates(self._names(columns), self.leave_out, self.secret, estimates)

    def _names(self, columns: Columns) -> tuple[str, ...]:
        return columns.names if self.by is None else columns.check("DropDuplicates", self.by)


@dataclass(frozen=True)
class FittedDropDuplicates:
    """What tells rows apart.

    Args:
        by: the columns of the key.
        leave_out: whether to leave these columns out.
        secret: the environment variable that holds the secret.
        elsewhere: client → which of its keys other clients keep.
    """

    needs_all_rows: ClassVar[bool] = True

    by: tuple[str, ...]
    leave_out: bool = False
    secret: str = ""
    elsewhere: Mapping[str, Elsewhere] = field(default_factory=dict)

    def rows_kept(self, frame: pd.DataFrame, training_of: str | None) -> NDArray[np.bool_]:
        """Return which rows are the first of their key, and not kept by another client [n].

        Raises:
            DataError: a column is missing, or holds what cannot be compared, or these are other training rows than
                were compared with other clients'.
            ConfigError: clients were compared, and there is no secret.
        """
        for name in self.by:
            column(frame, name)
        try:
            first = np.asarray(~frame.duplicated(list(self.by)), np.bool_)
        except TypeError as error:
            raise DataError(
                f"DropDuplicates: a column of {', '.join(self.by)} holds what cannot be compared ({error}); leave it "
                "out of the key."
            ) from None
        if training_of is None or training_of not in self.elsewhere:
            return first
        return first & not_elsewhere(frame, self.by, self.secret, self.elsewhere[training_of])

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the table, without the columns of the key where they are left out.

        Raises:
            DataError: a column is missing.
        """
        for name in self.by:
            column(frame, name)
        return with_columns(frame, {name: {} for name in self.by}) if self.leave_out else frame

    def columns_out(self, columns: Columns) -> Columns:
        """Return the columns that stay."""
        return columns.replaced("DropDuplicates", {name: [] for name in self.by} if self.leave_out else {})

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain data."""
        elsewhere = {client: [each.of, list(each.places)] for client, each in self.elsewhere.items()}
        return {
            "by": list(self.by),
            "leave_out": self.leave_out,
            "secret": self.secret,
            "elsewhere": elsewhere,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FittedDropDuplicates:
        """Return the step that `to_json` wrote down."""
        elsewhere = {
            client: Elsewhere(of, tuple(places)) for client, (of, places) in data["elsewhere"].items()
        }
        return cls(tuple(data["by"]), data["leave_out"], data["secret"], elsewhere)
