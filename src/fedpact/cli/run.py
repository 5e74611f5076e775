"""`fedpact run`: carry out a job from a file."""

import shlex
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedpact.cli.common import AsJson, Output

if TYPE_CHECKING:
    from fedpact.core.job import Job
    from fedpact.engine.result import Result

INTERRUPTED = 130


def run(
    job_file: Annotated[Path, typer.Argument(metavar="JOB.TOML", help="The job.", show_default=False)],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last finished round, or start if there is none.")
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option(help="Where to keep the run; runs/NAME-IDENTITY unless given.", show_default=False),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Replace a setting, as in --set algorithm.lr=0.1.",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="Who runs the clients: auto, in_process, batched, workers or ray.")
    ] = "auto",
    workers: Annotated[
        int | None, typer.Option(help="Processes at most; one a core unless given.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
) -> None:
    """Carry out a job. Every round is kept, so that Ctrl-C and --resume change nothing in the result."""
    overrides = dict(_setting(text) for text in settings or [])

    from fedpact.core.job import Job
    from fedpact.engine.train import complete
    from fedpact.engine.train import run as run_job
    from fedpact.engine.words import many

    job = complete(Job.from_toml(job_file, overrides))
    place = folder or _default_folder(job, resume)
    output = Output(as_json, quiet)
    output.say(f"Job {job.name} ({job.digest[:8]}), at most {many(job.rounds, 'round')}, kept in {place}")
    again = ["fedpact", "run", str(job_file), "--resume", "--folder", str(place)]
    again += [word for text in settings or [] for word in ("--set", text)]
    again += ["--engine", engine] if engine != "auto" else []
    again += ["--workers", str(workers)] if workers is not None else []
    try:
        result = run_job(job, engine=engine, workers=workers, folder=place, resume=resume, progress=not quiet)
    except KeyboardInterrupt:
        _say_stopped(place, shlex.join(again))
        raise typer.Exit(INTERRUPTED) from None
    _show(output, result, place)


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not (key.strip() and equals):
        raise typer.BadParameter(
            f'"{text}" is not of the form KEY=VALUE, such as algorithm.lr=0.1.', param_hint="--set"
        )
    try:
        parsed = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()
    return key.strip(), parsed["value"] if len(parsed) == 1 else value.strip()


def _default_folder(job: "Job", resume: bool) -> Path:
    """Return the job's own folder; to resume, that of a run of this job with another length, if there is one."""
    # A name may hold anything, a file's name may not.
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in job.name).lstrip(".") or "job"
    own = Path("runs") / f"{name}-{job.identity[:8]}"
    if not resume or own.exists():
        return own
    begun = sorted(Path("runs").glob("*/job.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for folder in (path.parent for path in begun):
        before = _job_in(folder)
        if before and (before.name, before.lineage, before.data) == (job.name, job.lineage, job.data):
            return folder
    return own


def _job_in(folder: Path) -> "Job | None":
    """Return the job of a run's folder; None if there is none, or none that can be read."""
    from fedpact.core.errors import FedpactError
    from fedpact.engine.folder import RunFolder

    try:
        return RunFolder(folder).read_job()
    except FedpactError:
        return None


def _say_stopped(place: Path, again: str) -> None:
    from fedpact.engine.folder import RunFolder
    from fedpact.store.checkpoint import Checkpoints

    rounds = Checkpoints(RunFolder(place).checkpoints).rounds()
    kept = f"after round {rounds[-1]}, which is kept" if rounds else "before the first round ended"
    typer.echo(f"\nStopped {kept}. Go on with:\n  {again}", err=True)


def _show(output: Output, result: "Result", place: Path) -> None:
    from fedpact.cli.tables import client_table, failure_table, metric_table, note_table, result_data
    from fedpact.engine import words
    from fedpact.report.html import verdict

    output.result({**result_data(result), "folder": str(place)})
    tables = [client_table(result)] + ([failure_table(result)] if len(result.failures) else [])
    tables += [note_table(result)] if result.notes else []
    output.show("", verdict(result), "")
    if result.evaluation is not None and result.evaluation.total_rows:
        output.show(metric_table(result.evaluation), "")
    for table, note in tables:
        output.show(table, *([note] if note else []), "")
    output.show(
        f"The run ended because: {result.stopped}.",
        f"{words.many(len(result.history), 'round')} took {words.duration(result.seconds)}; clients sent "
        f"{words.size(result.upload_bytes)} and were sent {words.size(result.download_bytes)}.",
        f"Clients were trained {result.engine}.",
        f"The result is in {place}",
    )
    output.command("fedpact", "report", str(place), before="To read it: ")
