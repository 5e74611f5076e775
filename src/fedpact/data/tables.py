"""Tables: a CSV, Parquet or Arrow file, or a DataFrame, checked column by column and parted from its label."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DataError
from fedpact.core.rows import Rows
from fedpact.data.objects import is_text
from fedpact.data.wording import missing_file, what_else

if TYPE_CHECKING:
    import pandas as pd

_SEPARATORS = {".csv": ",", ".data": ",", ".tsv": "\t"}
_PARQUET = (".parquet", ".pq")
_ARROW = (".arrow", ".feather", ".ipc")


def read_table(
    whose: str, path: Path, *, text: Collection[str] = (), names: Sequence[str] | None = None
) -> pd.DataFrame:
    """Read a file whose name ends in .csv, .data, .tsv (each also .gz), .parquet, .arrow or .feather.

    In a text file an empty cell, "?" and what pandas takes for missing are missing.

    Args:
        whose: in whose name errors speak: 'Client "lyon"'.
        path: the file.
        text: columns of a text file to read as text although they look like numbers.
        names: the columns' names, for a text file without a line of names.

    Raises:
        DataError: no such file, one that is not what its name says, a text file without names for its
            columns, or one with a column of numbers that has a few words in it.
        ConfigError: `names` for a Parquet or Arrow file, which has its own.
    """
    separator = separator_of(whose, path, names)
    return _read_typed(whose, path) if separator is None else _read_text(whose, path, separator, text, names)


def separator_of(whose: str, path: Path, names: Sequence[str] | None = None) -> str | None:
    """Return what parts the cells of a text file; None of a Parquet or Arrow file.

    Raises:
        DataError: no such file, or one that is not called as a table is.
        ConfigError: `names` for a Parquet or Arrow file.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:])
    if kind not in (*_SEPARATORS, *_PARQUET, *_ARROW):
        known = ", ".join([*_SEPARATORS, ".parquet", ".arrow", ".feather"])
        raise DataError(f"{whose}: {path} is no table that can be read; its name must end in {known}.")
    if not path.is_file():
        raise DataError(f"{whose}: {missing_file(path)}")
    if kind not in _SEPARATORS and names:
        raise ConfigError(f"{whose}: {path} has its own column names; leave names=[...] out.")
    return _SEPARATORS.get(kind)


def rows_of(
    whose: str,
    table: pd.DataFrame,
    label: str | None,
    *,
    columns: Sequence[str] | None = None,
    text: Collection[str] = (),
) -> Rows:
    """Part a table into features, a DataFrame, and the label's column, an array (None without a label).

    Args:
        whose: in whose name errors speak.
        table: may be empty.
        label: the label's column.
        columns: the feature columns to keep, in this order; all by default.
        text: columns to turn into text.

    Raises:
        DataError: a column that is not there or there twice, that mixes numbers and text, or a label
            that is missing in some row.
        ConfigError: the label among the features.
    """
    table = table.reset_index(drop=True)
    wanted = feature_columns(whose, list(table.columns), label, columns, text)
    as_text(table, text)
    for column in [*wanted, *([] if label is None else [label])]:
        words = Words(column)
        words.note_types(table[column])
        words.check(whose)
    if label is None:
        return Rows(table[wanted])
    check_labels(whose, table[label].isna().to_numpy(), f'column "{label}"')
    return Rows(table[wanted], labels_in(table[label]))


def feature_columns(
    whose: str,
    names: Sequence[str],
    label: str | None,
    columns: Sequence[str] | None = None,
    text: Collection[str] = (),
) -> list[str]:
    """Return the feature columns of a table with these columns.

    Raises:
        DataError: a column that is not there or there twice, or none beside the label.
        ConfigError: the label among the features.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f'{whose} has two columns called "{name}": rename one of them.')
        seen.add(name)
    for column in [*(columns or ()), *text, *([] if label is None else [label])]:
        if column not in names:
            raise DataError(f'{whose} has no column "{column}".{what_else(column, names)}')
    if columns is not None and label in columns:
        raise ConfigError(f'{whose}: column "{label}" is the label; leave it out of columns.')
    wanted = list(columns) if columns is not None else [name for name in names if name != label]
    if not wanted:
        raise DataError(f"{whose} has no feature column beside its label.")
    return wanted


def as_text(table: pd.DataFrame, text: Collection[str]) -> None:
    """Turn columns of a table into text."""
    for column in text:
        table[column] = table[column].map(str, na_action="ignore")


def check_labels(whose: str, missing: NDArray[np.bool_], where: str) -> None:
    """Raise DataError with the count and the first row if a label is missing."""
    if missing.any():
        raise missing_labels(whose, int(missing.sum()), int(np.argmax(missing)) + 1, where)


def missing_labels(whose: str, count: int, row: int, where: str) -> DataError:
    """Return the error for so many missing labels, the first in this row."""
    return DataError(
        f"{whose}: {count} label(s) are missing in {where}, the first in row {row}. Fill them in or leave these "
        "rows out."
    )


@contextmanager
def reading_text(whose: str, path: Path) -> Iterator[None]:
    """Say of a text file that cannot be read what is wrong with it.

    Raises:
        DataError: it is empty, or no table.
    """
    import pandas as pd

    try:
        yield
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{whose} has no rows: {path} is empty.") from error
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{whose}: {path} cannot be read as a table: {error}") from error


def text_options(separator: str, names: Sequence[str] | None) -> dict[str, Any]:
    """Return the options by which pandas reads a text file."""
    return {
        "sep": separator,
        "header": None if names else "infer",
        "names": list(names) if names else None,
        "na_values": "?",
        "skipinitialspace": True,
        "low_memory": False,
    }


def is_arrow(path: Path) -> bool:
    """Return whether a file that is no text is an Arrow file, and no Parquet file."""
    return path.suffix.lower() in _ARROW


@contextmanager
def reading_typed(whose: str, path: Path) -> Iterator[None]:
    """Say of a Parquet or Arrow file that cannot be read what is wrong with it.

    Raises:
        DataError: it is none.
    """
    import pyarrow as pa

    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        kind = "Arrow" if is_arrow(path) else "Parquet"
        raise DataError(f"{whose}: {path} cannot be read as {kind}: {error}") from error


def _read_typed(whose: str, path: Path) -> pd.DataFrame:
    import pandas as pd

    with reading_typed(whose, path):
        return pd.read_feather(path) if is_arrow(path) else pd.read_parquet(path)


def _read_text(
    whose: str, path: Path, separator: str, text: Collection[str], names: Sequence[str] | None
) -> pd.DataFrame:
    import pandas as pd

    with reading_text(whose, path):
        check_names(whose, path, separator, names)
        table = pd.read_csv(path, dtype=dict.fromkeys(text, str), **text_options(separator, names))
    for column in table.columns:
        if column not in text:
            words = Words(column)
            words.note_spelt(table[column])
            words.check(whose, most=1 / 2)
    return table


def check_names(whose: str, path: Path, separator: str, names: Sequence[str] | None) -> None:
    """Make sure that a text file has a line of names, or is given one for each column.

    Raises:
        DataError: it does not.
    """
    import pandas as pd

    # The second line is read for the error that it gives if it is longer: beside a line of names, pandas
    # would take its first cells for row labels, and shift the names.
    lines = pd.read_csv(path, sep=separator, header=None, nrows=2, dtype=str, keep_default_na=False)
    cells = [str(cell).strip() for cell in lines.iloc[0]]
    if names:
        if len(names) != len(cells):
            raise DataError(
                f"{whose}: {path} has {len(cells)} columns, and names has {len(names)}: give one each."
            )
        return
    numbers = [float(cell) for cell in cells if _is_number(cell)]
    # Columns may well be called 0, 1, 2 or 2019, 2020; the numbers in a row of data are hardly ever sorted.
    if "?" in cells or np.any(np.diff(numbers) <= 0):
        raise DataError(
            f'{whose}: {path} has no line of column names; its first line, "{separator.join(cells)}", '
            f"looks like data. Give its {len(cells)} names with names=[...]."
        )


@dataclass
class Words:
    """How many values of a column are words, which may stand among numbers by mistake.

    Args:
        column: the column.
        present: its number of values that are not missing.
        count: the words among them.
        first: the row of the first word, counted from 1, and the word.
    """

    column: str
    present: int = 0
    count: int = 0
    first: tuple[int, Any] | None = None

    def note_spelt(self, values: pd.Series[Any], before: int = 0) -> None:
        """Count the text that spells no number: pandas would read the numbers beside it as text in silence.

        Args:
            values: of the column, or of a chunk of it.
            before: how many rows came before these.
        """
        import pandas as pd

        if values.dtype != object and str(values.dtype) not in ("str", "string"):
            return
        present = values[values.notna()]
        # Each distinct value once: a column of text has few as a rule.
        codes, distinct = pd.factorize(present)
        numbers = pd.to_numeric(distinct.to_numpy(object), errors="coerce")
        self._note(present, np.isnan(numbers)[codes], before)

    def note_types(self, values: pd.Series[Any], before: int = 0) -> None:
        """Count the text in a column of objects; arguments as of `note_spelt`."""
        if values.dtype == object:
            present = values[values.notna()]
            self._note(present, is_text(present), before)

    def check(self, whose: str, most: float = 1.0) -> None:
        """Refuse a column of numbers with words in it.

        Args:
            whose: in whose name the error speaks.
            most: the share of words from which on the column is one of text.

        Raises:
            DataError: it is; the first word is named.
        """
        if self.first is not None and self.count < most * self.present:
            row, word = self.first
            raise DataError(
                f'{whose}: column "{self.column}" mixes numbers and text: row {row} has "{word}" ({self.count} such '
                "row(s)). Leave missing values empty, or name the column in text=[...] if it is text."
            )

    def _note(self, present: pd.Series[Any], is_word: NDArray[np.bool_], before: int) -> None:
        self.present += len(present)
        self.count += int(is_word.sum())
        if self.first is None and is_word.any():
            words = present[is_word]
            self.first = before + int(words.index[0]) + 1, words.iloc[0]


def labels_in(values: pd.Series[Any]) -> NDArray[Any]:
    """Return the labels in a column, of which none is missing, as an array."""
    if isinstance(values.dtype, np.dtype) and values.dtype != object:
        return values.to_numpy(copy=True)
    # By way of a list, as numpy has no dtype for categories, nullable integers and Arrow's strings.
    return np.asarray(values.tolist())


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True
