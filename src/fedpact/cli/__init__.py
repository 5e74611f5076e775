"""The command line, one file per command group."""

import sys

from fedpact.cli.app import app


def main() -> None:
    """Run the command line with the arguments of this process, and exit."""
    # An installed command does not look for modules beside the job, as `python -m` does; last, so that a file there
    # cannot take the place of a library.
    sys.path.append("")
    app()
