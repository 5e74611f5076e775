"""`fedpact data`: what is in clients' tables, described as a federation would, and their schemas."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedpact.cli.common import AsJson, Output, grid

if TYPE_CHECKING:
    from rich.table import Table

    from fedpact.data.federation import Federation
    from fedpact.engine.description import ColumnSummary, Description

_TOP = 3
# From here on a number of two digits would be written with an exponent.
_LONG = 99.5
_NONE = "–"

app = typer.Typer(no_args_is_help=True, help="Describe clients' tables, and write down their schemas.")

Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE...",
        help="A table of each client: .csv, .tsv (also .gz), .parquet or .arrow.",
        show_default=False,
    ),
]
ChunkRows = Annotated[
    int | None,
    typer.Option(
        metavar="ROWS",
        help="Hold so many rows in memory at a time, such as 100000, instead of a whole table.",
        show_default=False,
    ),
]
Label = Annotated[str | None, typer.Option(help="The column that is to be predicted.", show_default=False)]


@app.command("describe")
def describe(
    files: Files,
    label: Label = None,
    by_column: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="One file: a client of each value of this column.", show_default=False
        ),
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(metavar="TOML", help="The schema that all tables are to have.", show_default=False),
    ] = None,
    secure: Annotated[
        bool, typer.Option("--secure", help="Under secure aggregation: sums over all clients alone.")
    ] = False,
    exact: Annotated[
        bool | None,
        typer.Option(
            "--exact/--bins-only",
            help="Least, largest and exact quantile values; or bins alone.",
            show_default="--exact without --epsilon",
        ),
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(
            help="Add noise: differentially private for each row, of a --schema's columns.",
            show_default=False,
        ),
    ] = None,
    delta: Annotated[float | None, typer.Option(help="Of --epsilon.", show_default="1e-06")] = None,
    bins: Annotated[int, typer.Option(help="Bins of a histogram.")] = 20,
    minimum: Annotated[int, typer.Option(help="Rows that a category has at least to be named.")] = 5,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where to draw histograms: .png, .svg or .pdf.", show_default=False
        ),
    ] = None,
    chunk_rows: ChunkRows = None,
    as_json: AsJson = False,
) -> None:
    """Describe the tables of several clients together, each number a sum over them."""
    from fedpact.channel.secure_sum import SecureSum
    from fedpact.core.errors import ConfigError
    from fedpact.data.table_schema import TableSchema
    from fedpact.engine.describe import describe as described

    if picture is not None and picture.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ConfigError(f"{picture} is no picture; its name must end in .png, .svg or .pdf.")
    wanted = None if schema is None else TableSchema.from_toml(schema)
    if label is None and wanted is not None and wanted.label is not None:
        label = wanted.label.name
    summary = described(
        _clients(files, label, by_column, chunk_rows),
        schema=wanted,
        channel=[SecureSum()] if secure else [],
        epsilon=epsilon,
        delta=delta,
        exact=exact,
        bins=bins,
        minimum=minimum,
        label=label or "label",
    )
    if picture is not None:
        summary.save(picture)
    output = Output(as_json)
    output.result({**summary.to_json(), "picture": None if picture is None else str(picture)})
    output.show(*_shown(summary))
    if picture is not None:
        output.show(f"The histograms are in {picture}")


@app.command("schema")
def schema(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A table: .csv, .tsv (also .gz), .parquet or .arrow.", show_default=False
        ),
    ],
    label: Label = None,
    out: Annotated[
        Path | None, typer.Option(metavar="TOML", help="Where to; else it is printed.", show_default=False)
    ] = None,
    chunk_rows: ChunkRows = None,
) -> None:
    """Write the schema that a table shows as TOML, to be completed by hand: units, ranges, groups."""
    from fedpact.data.read import read_rows
    from fedpact.data.table_schema import TableSchema
    from fedpact.store.files import write_atomically

    rows = read_rows(file, label, chunk_rows=chunk_rows)
    toml = TableSchema.infer(rows, label or "label").to_toml()
    if out is None:
        typer.echo(toml, nl=False)
    else:
        write_atomically(out, toml.encode())
        Output().show(f"The schema is in {out}")


def _clients(
    files: list[Path], label: str | None, by_column: str | None, chunk_rows: int | None
) -> "Federation":
    from fedpact.core.errors import ConfigError
    from fedpact.data import read

    if by_column is not None:
        if len(files) > 1:
            raise ConfigError("--by-column makes clients of one file; give one, or leave it out.")
        if chunk_rows is not None:
            raise ConfigError(
                "--by-column needs all rows of the table at once; leave it out, or --chunk-rows."
            )
        return read.by_column(files[0], by_column, label, test=0.0)
    names = [_stem(file) for file in files]
    twice = next((name for name in names if names.count(name) > 1), None)
    ids = [str(file) for file in files] if twice is not None else names
    return read.clients(dict(zip(ids, files, strict=True)), label, test=0.0, chunk_rows=chunk_rows)


def _stem(file: Path) -> str:
    return file.name.removesuffix(".gz").rsplit(".", 1)[0] or file.name


def _shown(summary: "Description") -> list[Any]:
    from fedpact.engine.words import many

    noise = _error(summary.rows_error)
    shown: list[Any] = [f"{many(summary.rows, 'row')}{noise} of {many(summary.clients, 'client')}", ""]
    if noise:
        shown += ["± is a standard deviation of the noise; at quantiles, what holds 95 times of 100", ""]
    measured = [column for column in summary.columns if column.mean is not None]
    listed = [column for column in summary.columns if column.categories is not None]
    rest = [column for column in summary.columns if column not in measured and column not in listed]
    if measured:
        shown += [_measured_table(measured), ""]
    if listed:
        shown += [_listed_table(listed, summary.minimum), ""]
    if rest:
        rows = [[column.name, column.kind, _count(column), f"{column.missing:,}"] for column in rest]
        shown += [grid(["column", "kind", "count", "missing"], rows, (0, 1)), ""]
    if summary.labels:
        balance = summary.label_balance
        rows = [
            [str(id), *(f"{int(n):,}" for n in counts)]
            for id, counts in zip(balance.index, balance.to_numpy(), strict=True)
        ]
        shown += [grid(["labels of", *map(str, balance.columns)], rows), ""]
    return [*shown, str(summary.privacy)]


def _measured_table(columns: "list[ColumnSummary]") -> "Table":
    at = sorted({each.at for column in columns for each in column.quantiles})
    rows = []
    for column in columns:
        quantiles = {each.at: each for each in column.quantiles}
        rows.append(
            [
                f"{column.name} ({column.unit})" if column.unit else column.name,
                _count(column),
                f"{column.missing:,}",
                _number(column, column.mean) + _error(column.mean_error),
                f"{column.deviation:.4g}{_error(column.deviation_error)}",
                _number(column, column.least),
                *(_quantile(column, quantiles.get(q)) for q in at),
                _number(column, column.most),
            ]
        )
    head = ["column", "count", "missing", "mean", "sd", "min", *(f"{100 * q:g} %" for q in at), "max"]
    return grid(head, rows)


def _quantile(column: "ColumnSummary", quantile: Any) -> str:
    if quantile is None:
        return _NONE
    return _number(column, quantile.value) + _error(quantile.error)


def _count(column: "ColumnSummary") -> str:
    return f"{column.count:,}{_error(column.count_error)}"


def _error(error: float) -> str:
    return f" ±{error:,.0f}" if error >= _LONG else f" ±{error:.2g}" if error else ""


def _number(column: "ColumnSummary", value: float | None) -> str:
    shown = column.number(value)
    return _NONE if shown is None else shown if isinstance(shown, str) else f"{shown:.5g}"


def _listed_table(columns: "list[ColumnSummary]", minimum: int) -> "Table":
    rows = []
    for column in columns:
        counts = column.categories or {}
        top = [f"{value} ({n:,}{_error(column.cell_error)})" for value, n in list(counts.items())[:_TOP]]
        more = len(counts) - len(top)
        rows.append(
            [
                column.name,
                _count(column),
                f"{column.missing:,}",
                ", ".join([*top, *([f"{more:,} more"] if more > 0 else [])]) or _NONE,
                f"{column.others:,}",
            ]
        )
    return grid(
        ["column", "count", "missing", f"categories of {minimum} rows or more", "other rows"], rows, (0, 3)
    )
