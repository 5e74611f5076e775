import re
import subprocess
import sys

import pytest

import fedpact
from tests.cli.terminal import call, process


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("library", ["pandas", "torch", "sklearn", "matplotlib", "pyarrow"])
def test_command_line_loads_no_library_before_it_knows_what_to_do(library: str) -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from fedpact.cli import app; "
        f"CliRunner().invoke(app, ['--help']); print({library!r} in sys.modules)"
    )
    assert run_python(code).strip() == "False"


def test_help_takes_less_than_four_tenths_of_a_second() -> None:
    # Processor time of the whole process, the best of three: other work on the machine does not count.
    code = (
        "import resource, subprocess, sys; subprocess.run([sys.executable, '-m', 'fedpact', '--help'], "
        "capture_output=True, check=True); used = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(used.ru_utime + used.ru_stime)"
    )
    assert min(float(run_python(code)) for _ in range(3)) < 0.4


def test_version_is_the_package_s() -> None:
    assert call("--version").stdout == f"fedpact {fedpact.__version__}\n"


def test_help_names_every_command() -> None:
    shown = call("--help").stdout
    for name in ("demo", "run", "report", "predict", "list", "show"):
        assert re.search(rf"\b{name}\b", shown)


def test_python_m_fedpact_is_the_command_line() -> None:
    assert process("--version").stdout == f"fedpact {fedpact.__version__}\n"
