"""`fedpact predict`: a trained model's predictions for the rows of a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedpact.cli.common import AsJson, Output

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from fedpact.engine.fitted import Fitted


def predict(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="A run's folder, a model.safetensors, or a checkpoint of a run.",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA", help="The rows: .csv, .tsv (also .gz) or .parquet.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where to: .csv or .parquet; else CSV is printed.", show_default=False
        ),
    ] = None,
    proba: Annotated[bool, typer.Option("--proba", help="Give the probability of each class too.")] = False,
    with_input: Annotated[bool, typer.Option("--with-input", help="Give the columns of DATA too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Predict raw rows: the model's preparation (missing values, scales, categories) is applied to them.

    Each line of the answer has the row's number, from 1, and its prediction.
    """
    from fedpact.data.tables import read_table
    from fedpact.engine.fitted import Fitted
    from fedpact.engine.words import many
    from fedpact.report.source import check_finished

    if model.is_dir():
        check_finished(model)
    fitted = Fitted.load(model / "model.safetensors" if model.is_dir() else model)
    rows = read_table("The table to predict", data)
    answers = _answers(fitted, rows, proba, with_input)
    output = Output(as_json)
    summary: dict[str, Any] = {"rows": len(rows), "classes": list(fitted.preparation.labels.classes)}
    if out is not None:
        _write(answers, out)
        output.result({**summary, "out": str(out)})
        output.show(f"Predicted {many(len(rows), 'row')}: {out}")
    elif as_json:
        output.result({**summary, "predictions": answers.to_dict(orient="records")})
    else:
        typer.echo(answers.to_csv(index=False), nl=False)


def _answers(fitted: "Fitted", rows: "pd.DataFrame", proba: bool, with_input: bool) -> "pd.DataFrame":
    import pandas as pd

    from fedpact.core.errors import ConfigError

    if proba and fitted.preparation.labels.kind == "regression":
        raise ConfigError("a regression has no class probabilities; leave out --proba.")
    columns: dict[str, Any] = {"row": range(1, len(rows) + 1), **_columns("prediction", fitted.predict(rows))}
    if proba:
        shares = fitted.predict_proba(rows)
        for place, name in enumerate(fitted.preparation.labels.classes):
            columns |= _columns(f"probability of {name}", shares[..., place])
    answers = pd.DataFrame(columns)
    if not with_input:
        return answers
    twice = [str(name) for name in rows.columns if name in columns]
    if twice:
        raise ConfigError(
            f'the rows have a column "{twice[0]}" of their own; leave --with-input out, or rename it.'
        )
    return pd.concat([answers[["row"]], rows.reset_index(drop=True), answers.drop(columns="row")], axis=1)


def _columns(name: str, values: "NDArray[Any]") -> "dict[str, NDArray[Any]]":
    """Return a column, or one for every position of a row, counted from 1: "prediction 2", "prediction 2.1"."""
    import numpy as np

    if values.ndim == 1:
        return {name: values}
    places = np.ndindex(values.shape[1:])
    return {f"{name} {'.'.join(str(i + 1) for i in place)}": values[:, *place] for place in places}


def _write(answers: "pd.DataFrame", out: Path) -> None:
    from fedpact.core.errors import ConfigError
    from fedpact.store.files import write_atomically

    if out.suffix == ".parquet":
        write_atomically(out, answers.to_parquet(index=False))
    elif out.suffix == ".csv":
        write_atomically(out, answers.to_csv(index=False).encode())
    else:
        raise ConfigError(f'--out is "{out}"; its name must end in .csv or .parquet.')
