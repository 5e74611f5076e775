"""`fedpact demo`: a whole federation on this machine, beside its alternatives, on real data."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedpact.cli.common import AsJson, Output, grid, one_of
from fedpact.engine.progress import console

if TYPE_CHECKING:
    from rich.table import Table

    from fedpact.report.comparison import Comparison

# In a terminal of less than this width some columns are left out, and what left a hospital is said in words.
_ROOM_FOR_ALL_COLUMNS = 112
_ROWS_TO_PREDICT = 10


class Data(StrEnum):
    """The data sets of the demo."""

    breast_cancer = "breast_cancer"
    heart = "heart"


def demo(
    data: Annotated[
        Data,
        typer.Option(
            parser=one_of(Data),
            metavar="|".join(Data),
            help="Diagnosis of breast cancer, or of heart disease.",
        ),
    ] = Data.breast_cancer,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of the federation.")] = 20,
    seed: Annotated[int, typer.Option(help="Of every random choice; repetition n has SEED + n.")] = 0,
    repeats: Annotated[
        int, typer.Option(min=1, help="How often to do everything; the numbers are means.")
    ] = 10,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to write.")] = Path("fedpact-demo"),
    as_json: AsJson = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Print only; write nothing.")] = False,
) -> None:
    """Train four hospitals' models: each alone, all as a federation, and from all rows in one place.

    All are judged on the same held-out rows of every hospital.
    """
    from fedpact.report.comparison import compare, study

    chosen = study(data.value)
    with _Trainings(6 * repeats) as progress:
        comparison = compare(chosen, rounds, seed, repeats, progress)
    output = Output(as_json)
    files = {} if no_report else _write(output, comparison, out)
    output.result({**comparison.to_json(), "files": {name: str(path) for name, path in files.items()}})
    _show(output, comparison)
    if files:
        _show_next(output, files)


class _Trainings:
    """Shows which model is being trained, in a terminal alone."""

    def __init__(self, total: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        screen = console(sys.stderr)
        self._bar = Progress(
            BarColumn(bar_width=24),
            TextColumn("training: {task.description}"),
            console=screen,
            transient=True,
            disable=not screen.is_terminal,
        )
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> "_Trainings":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def __call__(self, name: str) -> None:
        self._bar.update(self._task, advance=1, description=name)


def _show(output: Output, comparison: "Comparison") -> None:
    federation = comparison.federation
    is_wide = console(sys.stdout).width >= _ROOM_FOR_ALL_COLUMNS
    output.show(
        f"{comparison.study.title} ({federation.note})" if federation.note else comparison.study.title, ""
    )
    output.show(_table(comparison, is_wide), "", *comparison.sentences())
    if not is_wide:
        left = {each.kind: each.left for each in comparison.candidates}
        output.show(
            f"What left a hospital: alone {left['alone']}, for the federation {left['federation']}, to be pooled "
            f"{left['pooled']}."
        )
    output.show(
        "Besides updates, sums left each hospital: to standardise the columns, and to judge the model."
    )
    output.show("", comparison.method())


def _table(comparison: "Comparison", is_wide: bool) -> "Table":
    from fedpact.engine.words import label, score

    ids = comparison.federation.ids
    metrics = ("auc", "balanced_accuracy") if is_wide else ("auc",)
    head = [
        *map(_stacked, [*ids, "all rows", *map(label, metrics)]),
        *(["what left a hospital"] if is_wide else []),
    ]
    table = grid(["trained by", *head], [], (0, len(head)) if is_wide else (0,))
    table.title, table.title_justify, table.title_style = (
        "Accuracy in % on the held-out rows of:",
        "left",
        "none",
    )
    for place, each in enumerate(comparison.candidates):
        shares = [*(each.at(id, "accuracy") for id in ids), each.mean("accuracy")]
        table.add_row(
            each.name,
            *(score("accuracy", share).removesuffix(" %") for share in shares),
            *(score(metric, each.mean(metric)) for metric in metrics),
            *([each.left] if is_wide else []),
            style="bold" if each.kind == "federation" else None,
            end_section=place == len(comparison.alone) - 1,
        )
    return table


def _stacked(name: str) -> str:
    """Return a heading with a line for each word."""
    return name.replace(" ", "\n")


def _write(output: Output, comparison: "Comparison", out: Path) -> dict[str, Path]:
    """Write picture, report, job, run, and rows to predict; return where each is."""
    from fedpact.core.errors import DependencyError
    from fedpact.report.comparison_page import comparison_page
    from fedpact.report.toml import job_toml
    from fedpact.store.files import write_atomically

    _make(out)
    files = {
        "report": out / "report.html",
        "picture": out / "picture.png",
        "job": out / "job.toml",
        "run": out / "federation",
        "rows": out / "patients.csv",
    }
    comparison.result.save(files["run"])
    write_atomically(files["report"], comparison_page(comparison).encode())
    write_atomically(files["job"], job_toml(comparison.job).encode())
    test: Any = comparison.federation[0].test
    write_atomically(files["rows"], test.x.head(_ROWS_TO_PREDICT).to_csv(index=False).encode())
    try:
        _draw(comparison, files["picture"])
    except DependencyError as error:
        output.say(f"No picture: {error}")
        del files["picture"]
    return files


def _make(out: Path) -> None:
    from fedpact.store.files import cannot

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot("make", out, error) from error


def _draw(comparison: "Comparison", path: Path) -> None:
    import io

    from fedpact.report.pictures import draw_comparison
    from fedpact.store.files import write_atomically

    picture = io.BytesIO()
    draw_comparison(comparison).savefig(picture, format="png")
    write_atomically(path, picture.getvalue())


def _show_next(output: Output, files: dict[str, Path]) -> None:
    picture = f" and {files['picture']}" if "picture" in files else ""
    commands = {
        "The same federation, from a file": ["run", str(files["job"])],
        "Its model, on new patients": ["predict", str(files["run"]), str(files["rows"]), "--proba"],
        "What else there is": ["list", "algorithms"],
    }
    width = max(map(len, commands))
    output.show("", f"To look at: {files['report']}{picture}")
    for what, words in commands.items():
        output.command("fedpact", *words, before=f"{what:<{width}}  ")
