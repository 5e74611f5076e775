"""`fedpact report`: a finished run as one HTML file."""

from pathlib import Path
from typing import Annotated

import typer

from fedpact.cli.common import AsJson, Output


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to; RUN/report.html unless given.", show_default=False),
    ] = None,
    with_data: Annotated[
        bool, typer.Option("--with-data", help="Read the job's data too, to show each client's labels.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a finished run as one HTML file, to be read, printed and sent."""
    from fedpact.core.errors import ConfigError
    from fedpact.data.federation import Federation
    from fedpact.engine.sources import load_clients
    from fedpact.report.html import run_page, verdict
    from fedpact.report.source import load_run
    from fedpact.store.files import write_atomically

    result = load_run(folder)
    clients = load_clients(result.job) if with_data else None
    if not isinstance(clients, Federation | None):
        raise ConfigError("the labels of a population are not read for a report; leave --with-data out.")
    labels = clients.describe() if clients else None
    path = out or folder / "report.html"
    write_atomically(path, run_page(result, labels).encode())
    output = Output(as_json)
    output.result({"report": str(path), "verdict": verdict(result)})
    output.show(verdict(result), f"The report is in {path}")
