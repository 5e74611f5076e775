"""What a federated description says: a table of columns, plain data, a picture, and what its release told of whom."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpact.data.preprocess.columns import Value
from fedpact.data.summary.histograms import Histogram
from fedpact.data.table_schema import Kind, TableSchema
from fedpact.privacy.statement import Statement
from fedpact.store.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_EPOCH = datetime(1970, 1, 1)


@dataclass(frozen=True)
class Quantile:
    """A quantile of a column.

    Args:
        at: which, from 0 to 1.
        value: of numpy's definition (Hyndman and Fan's seventh).
        error: the true one is no farther from it than this; 0 where it is exact. Where noise was added, with a
            probability of 95 %.
    """

    at: float
    value: float
    error: float = 0.0


@dataclass(frozen=True)
class ColumnSummary:
    """What is known of a column over all clients' rows. Dates are numbers of days since the start of 1970.

    Errors are standard deviations of the noise that was added, 0 where there is none. With noise, numbers
    need not add up.

    Args:
        name: the column.
        kind: its kind.
        unit: what its numbers are measured in.
        count: how many rows have a value;
        missing: and how many have none.
        mean: of numbers and dates, and so the following.
        deviation: the standard deviation, of the population, as numpy's.
        least: the smallest value, where it was asked for; with noise the lower edge of the first bin that has values
            beyond doubt;
        most: and the largest; with noise the upper edge of the last such bin.
        quantiles: each with its error.
        histogram: None where nothing says where its bins should lie.
        categories: category → rows, the most frequent first, of those with enough rows.
        others: how many rows have another category.
        unnamed_at_most: no category that is not listed has more rows than this; with noise, in 99 cases of 100.
        count_error: of `count`, and of `missing`.
        mean_error: of `mean`.
        deviation_error: of `deviation`.
        cell_error: of each count of the histogram, or of a category.
    """

    name: str
    kind: Kind
    unit: str | None
    count: int
    missing: int
    mean: float | None = None
    deviation: float | None = None
    least: float | None = None
    most: float | None = None
    quantiles: tuple[Quantile, ...] = ()
    histogram: Histogram | None = None
    categories: Mapping[Value, int] | None = None
    others: int = 0
    unnamed_at_most: int = 0
    count_error: float = 0.0
    mean_error: float = 0.0
    deviation_error: float = 0.0
    cell_error: float = 0.0

    def number(self, value: float | None) -> Any:
        """Return a number of the column as people write it: a date as text of ISO 8601."""
        return date_of(value) if self.kind == "date" and value is not None else value

    def errors(self) -> dict[str, float | None]:
        """Return the errors of count, mean and standard deviation by name; None of what is not told."""
        measured = self.mean is not None
        return {
            "count error": self.count_error,
            "mean error": self.mean_error if measured else None,
            "sd error": self.deviation_error if measured else None,
        }

    def to_json(self) -> dict[str, Any]:
        """Return what is known as plain data; dates as text, deviations and errors of dates in days."""
        data: dict[str, Any] = {"name": self.name, "kind": self.kind, "unit": self.unit}
        data |= {"count": self.count, "missing": self.missing}
        if self.mean is not None:
            ends = {"min": self.number(self.least), "max": self.number(self.most)}
            data |= {"mean": self.number(self.mean), "sd": self.deviation, **ends}
            data["quantiles"] = [
                {"at": each.at, "value": self.number(each.value), "error": each.error}
                for each in self.quantiles
            ]
        if self.histogram is not None:
            histogram = self.histogram.to_json()
            data["histogram"] = {**histogram, "edges": [self.number(edge) for edge in histogram["edges"]]}
        if self.categories is not None:
            data["categories"] = [{"value": value, "rows": rows} for value, rows in self.categories.items()]
            data |= {"other_rows": self.others, "unnamed_at_most": self.unnamed_at_most}
        errors = {
            "count": self.count_error,
            "mean": self.mean_error,
            "sd": self.deviation_error,
            "each": self.cell_error,
        }
        if any(errors.values()):
            data["errors"] = {name: error for name, error in errors.items() if error}
        return data


@dataclass(frozen=True)
class Description:
    """A summary of the rows of many clients, made of sums over them.

    Args:
        clients: how many clients there are.
        rows: how many rows they have together.
        columns: what is known of each column.
        schema: what the clients' tables have in common.
        labels: client → label → rows, and None → rows of other labels; empty where that was not asked, or is masked.
        minimum: the rows that a category has at least to be named.
        privacy: what was released, and who saw what.
        rows_error: the standard deviation of the noise in `rows`; 0 where there is none.
    """

    clients: int
    rows: int
    columns: tuple[ColumnSummary, ...]
    schema: TableSchema
    labels: Mapping[str, Mapping[Value | None, int]] = field(default_factory=dict)
    minimum: int = 5
    privacy: Statement | None = None
    rows_error: float = 0.0

    def __getitem__(self, name: str) -> ColumnSummary:
        """Return what is known of a column.

        Raises:
            ConfigError: there is none of this name.
        """
        return {column.name: column for column in self.columns}[self.schema[name].name]

    @property
    def table(self) -> pd.DataFrame:
        """One row per column: kind, unit, count, missing, mean, sd, min, quantiles, max, most frequent category.

        Where noise was added, behind it the standard deviations of the noise in count, mean and sd.
        """
        import pandas as pd

        at = sorted({each.at for column in self.columns for each in column.quantiles})
        rows = []
        for column in self.columns:
            quantiles = {each.at: column.number(each.value) for each in column.quantiles}
            rows.append(
                {
                    "kind": column.kind,
                    "unit": column.unit,
                    "count": column.count,
                    "missing": column.missing,
                    "mean": column.number(column.mean),
                    "sd": column.deviation,
                    "min": column.number(column.least),
                    **{f"{100 * q:g}%": quantiles.get(q) for q in at},
                    "max": column.number(column.most),
                    "top": next(iter(column.categories or ()), None),
                    **(column.errors() if self.rows_error else {}),
                }
            )
        index = pd.Index([column.name for column in self.columns], name="column")
        return pd.DataFrame(rows, index=index)

    @property
    def label_balance(self) -> pd.DataFrame:
        """One row per client: how many of its rows have each label; without columns where that is not known."""
        import pandas as pd

        counts = {
            id: {"others" if label is None else label: rows for label, rows in labels.items()}
            for id, labels in self.labels.items()
        }
        table = pd.DataFrame.from_dict(counts, orient="index")
        return table.rename_axis("client")

    def to_json(self) -> dict[str, Any]:
        """Return the description as plain data."""
        return {
            "clients": self.clients,
            "rows": self.rows,
            **({"rows_error": self.rows_error} if self.rows_error else {}),
            "columns": [column.to_json() for column in self.columns],
            "labels": {
                id: [{"value": label, "rows": rows} for label, rows in labels.items()]
                for id, labels in self.labels.items()
            },
            "minimum": self.minimum,
            "privacy": None if self.privacy is None else self.privacy.to_json(),
        }

    def draw(self) -> Figure:
        """Return a figure of the columns' histograms and frequent categories.

        Raises:
            DependencyError: matplotlib is not installed.
        """
        from fedpact.engine.description_picture import draw_description

        return draw_description(self)

    def save(self, path: str | Path) -> None:
        """Write the description as JSON, or, where the name ends in .png, .svg or .pdf, as a picture.

        Raises:
            DependencyError: matplotlib is not installed.
        """
        path = Path(path)
        if path.suffix.lower() in (".png", ".svg", ".pdf"):
            self.draw().savefig(path)
        else:
            text = json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
            write_atomically(path, (text + "\n").encode())


def date_of(days: float) -> str:
    """Return a number of days since the start of 1970 as text of ISO 8601, without a time of day at midnight."""
    moment = _EPOCH + timedelta(microseconds=round(days * 86_400_000_000))
    whole = moment.time() == _EPOCH.time()
    return moment.date().isoformat() if whole else moment.isoformat(timespec="seconds")
