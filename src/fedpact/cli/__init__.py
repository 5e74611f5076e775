"""The command line, one file per command group."""

from fedpact.cli.app import app


def main() -> None:
    """Run the command line with the arguments of this process, and exit."""
    app()
