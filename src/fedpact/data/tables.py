"""Tables: a CSV or Parquet file, or a DataFrame, checked column by column and parted from its label."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DataError, DependencyError, suggest
from fedpact.core.rows import Rows
from fedpact.data.objects import is_text
from fedpact.data.wording import what_else

if TYPE_CHECKING:
    import pandas as pd

_SEPARATORS = {".csv": ",", ".data": ",", ".tsv": "\t"}
_PARQUET = (".parquet", ".pq")


def read_table(
    whose: str, path: Path, *, text: Collection[str] = (), names: Sequence[str] | None = None
) -> pd.DataFrame:
    """Read a file whose name ends in .csv, .data, .tsv (each also .gz) or .parquet.

    In a text file an empty cell, "?" and what pandas takes for missing are missing.

    Args:
        whose: in whose name errors speak: 'Client "lyon"'.
        path: the file.
        text: columns of a text file to read as text although they look like numbers.
        names: the columns' names, for a text file without a line of names.

    Raises:
        DataError: no such file, one that is not what its name says, a text file without names for its
            columns, or one with a column of numbers that has a few words in it.
        ConfigError: `names` for a Parquet file, which has its own.
        DependencyError: Parquet without pyarrow.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:])
    if kind not in _SEPARATORS and kind not in _PARQUET:
        known = ", ".join([*_SEPARATORS, ".parquet"])
        raise DataError(f"{whose}: {path} is no table that can be read; its name must end in {known}.")
    if not path.is_file():
        siblings = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"{whose}: there is no file {path.absolute()}.{suggest(path.name, siblings)}")
    if kind in _SEPARATORS:
        return _read_text(whose, path, _SEPARATORS[kind], text, names)
    if names:
        raise ConfigError(f"{whose}: {path} has its own column names; leave names=[...] out.")
    return _read_parquet(whose, path)


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
    names = list(table.columns)
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise DataError(f'{whose} has two columns called "{twice[0]}": rename one of them.')
    for column in [*(columns or ()), *text, *([] if label is None else [label])]:
        if column not in names:
            raise DataError(f'{whose} has no column "{column}".{what_else(column, names)}')
    if columns is not None and label in columns:
        raise ConfigError(f'{whose}: column "{label}" is the label; leave it out of columns.')
    wanted = list(columns) if columns is not None else [name for name in names if name != label]
    if not wanted:
        raise DataError(f"{whose} has no feature column beside its label.")
    for column in text:
        table[column] = table[column].map(str, na_action="ignore")
    for column in [*wanted, *([] if label is None else [label])]:
        _check_types(whose, table[column])
    return Rows(table[wanted], None if label is None else _labels(whose, table[label]))


def check_labels(whose: str, missing: NDArray[np.bool_], where: str) -> None:
    """Raise DataError with the count and the first row if a label is missing."""
    if missing.any():
        raise DataError(
            f"{whose}: {int(missing.sum())} label(s) are missing in {where}, the first in row "
            f"{int(np.argmax(missing)) + 1}. Fill them in or leave these rows out."
        )


def _read_parquet(whose: str, path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except ImportError as error:
        raise DependencyError(f"{whose}: reading {path} needs pyarrow: install pyarrow.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{whose}: {path} cannot be read as Parquet: {error}") from error


def _read_text(
    whose: str, path: Path, separator: str, text: Collection[str], names: Sequence[str] | None
) -> pd.DataFrame:
    import pandas as pd

    try:
        _check_names(whose, path, separator, names)
        table = pd.read_csv(
            path,
            sep=separator,
            header=None if names else "infer",
            names=list(names) if names else None,
            na_values="?",
            dtype=dict.fromkeys(text, str),
            skipinitialspace=True,
            low_memory=False,
        )
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{whose} has no rows: {path} is empty.") from error
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{whose}: {path} cannot be read as a table: {error}") from error
    for column in table.columns:
        if column not in text:
            _check_numbers(whose, table[column])
    return table


def _check_names(whose: str, path: Path, separator: str, names: Sequence[str] | None) -> None:
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


def _check_numbers(whose: str, values: pd.Series[Any]) -> None:
    """Refuse a column of numbers with a few words in it: pandas would read it as text in silence."""
    import pandas as pd

    if values.dtype != object and str(values.dtype) not in ("str", "string"):
        return
    present = values[values.notna()]
    # Each distinct value once: a column of text has few as a rule.
    codes, distinct = pd.factorize(present)
    is_word = np.isnan(pd.to_numeric(distinct.to_numpy(object), errors="coerce"))[codes]
    if 0 < is_word.sum() < len(is_word) / 2:
        _mixed(whose, present[is_word])


def _check_types(whose: str, values: pd.Series[Any]) -> None:
    if values.dtype != object:
        return
    present = values[values.notna()]
    is_word = is_text(present)
    if 0 < is_word.sum() < len(is_word):
        _mixed(whose, present[is_word])


def _mixed(whose: str, words: pd.Series[Any]) -> None:
    raise DataError(
        f'{whose}: column "{words.name}" mixes numbers and text: row {words.index[0] + 1} has '
        f'"{words.iloc[0]}" ({len(words)} such row(s)). Leave missing values empty, or name the column in '
        "text=[...] if it is text."
    )


def _labels(whose: str, values: pd.Series[Any]) -> NDArray[Any]:
    check_labels(whose, values.isna().to_numpy(), f'column "{values.name}"')
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
