"""Claims about the project itself: what it installs, what it imports, what it ships."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import fedpact

ROOT = Path(__file__).parents[1]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT: dict[str, Any] = PYPROJECT["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def installed_by(name: str, extras: frozenset[str] = frozenset()) -> set[str]:
    found: set[str] = set()
    queue = [(canonicalize_name(name), extras)]
    seen = set()
    while queue:
        package, wanted = item = queue.pop()
        if item in seen:
            continue
        seen.add(item)
        found.add(package)
        for requirement in map(Requirement, metadata.requires(package) or []):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in wanted | {""}):
                queue.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return found


def test_version_of_the_package_is_the_version_that_is_installed() -> None:
    assert metadata.version("fedpact") == fedpact.__version__


@pytest.mark.parametrize("library", ["torch", "sklearn", "keras", "ray", "pandas", "pyarrow", "matplotlib"])
def test_import_loads_no_framework(library: str) -> None:
    assert run_python(f"import sys, fedpact; print({library!r} in sys.modules)").strip() == "False"


def test_base_install_has_fewer_than_thirty_packages() -> None:
    assert len(installed_by("fedpact")) < 30


def test_base_install_has_no_framework() -> None:
    assert not installed_by("fedpact") & {"torch", "scikit-learn", "matplotlib", "keras", "ray"}


def test_extra_all_names_every_other_extra() -> None:
    (everything,) = map(Requirement, EXTRAS["all"])
    assert everything.name == "fedpact"
    assert everything.extras == EXTRAS.keys() - {"all"}


@pytest.mark.parametrize("name", PROJECT["scripts"])
def test_console_script_can_be_called(name: str) -> None:
    (script,) = metadata.entry_points(group="console_scripts", name=name)
    assert script.value == PROJECT["scripts"][name]
    assert callable(script.load())


def test_every_direct_requirement_is_pinned_within_its_bounds() -> None:
    lines = (ROOT / "requirements" / "dev.txt").read_text().splitlines()
    pins = {
        canonicalize_name(name): Version(version)
        for name, version in (line.split("==") for line in lines if not line.startswith("#"))
    }
    groups = [PROJECT["dependencies"], *EXTRAS.values(), *PYPROJECT["dependency-groups"].values()]
    direct = [Requirement(entry) for group in groups for entry in group if isinstance(entry, str)]
    for requirement in direct:
        if requirement.name != "fedpact":
            assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_wheel_ships_the_package_its_licence_and_the_type_marker_alone(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    licence = f"fedpact-{fedpact.__version__}.dist-info/licenses/LICENSE"
    assert {"fedpact/py.typed", "fedpact/core/errors.py", licence} <= set(names)
    assert all(re.match(r"fedpact(-[^/]+\.dist-info)?/", name) for name in names)


def test_help_describes_every_command_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^  make (\S+) +\S", shown, re.MULTILINE) == phony.split()


def test_names_that_types_know_are_those_that_are_there() -> None:
    source = ast.parse((ROOT / "src" / "fedpact" / "__init__.py").read_text(encoding="utf-8"))
    (checking,) = (node for node in source.body if isinstance(node, ast.If))
    typed = {alias.name for node in checking.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed | {"__version__"} == set(dir(fedpact))
    for name in typed:
        assert getattr(fedpact, name) is not None


def test_misspelt_name_of_the_package_names_the_nearest() -> None:
    with pytest.raises(AttributeError, match=r'fedpact has no "FedAvgg".* Did you mean "FedAvg"'):
        _ = fedpact.FedAvgg
