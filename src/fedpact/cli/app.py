"""The commands, and what they have in common: how an error ends them."""

import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fedpact.cli import data, demo, listing, predict, privacy, report, run

INTERRUPTED = 130


class Commands(TyperGroup):
    """The commands; an error meant for the user ends them with its sentence and its exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command. With FEDPACT_DEBUG=1 an error keeps its traceback."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("Stopped.", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            from fedpact.core.errors import FedpactError

            if not isinstance(error, FedpactError) or os.environ.get("FEDPACT_DEBUG") == "1":
                raise
            typer.echo(
                f"Error: {error}\nExit code {error.exit_code}: the documentation has a page on each.",
                err=True,
            )
            raise typer.Exit(error.exit_code) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    help="Federated learning with the data owner's signature on it.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from fedpact import __version__

        typer.echo(f"fedpact {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


app.command("demo")(demo.demo)
app.command("run")(run.run)
app.command("report")(report.report)
app.command("predict")(predict.predict)
app.command("privacy")(privacy.privacy)
app.add_typer(data.app, name="data")
app.command("list")(listing.list_parts)
app.command("show")(listing.show)
