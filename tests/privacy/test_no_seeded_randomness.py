"""The claim that no noise, mask or key comes from a generator that can be seeded."""

import ast
from pathlib import Path

import pytest

import fedpact

PACKAGE = Path(fedpact.__file__).parent
SECRET = sorted(file for folder in ("privacy", "secure") for file in (PACKAGE / folder).rglob("*.py"))
NOISE = ["secret", "blocks", "discrete_gaussian", "discrete_laplace", "skellam"]


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names.add(f"{node.value.id}.{node.attr}".replace("np.", "numpy."))
    return names


def seeded(source: str) -> set[str]:
    return {
        name
        for name in imported(ast.parse(source))
        if name in ("random", "numpy.random") or name.startswith(("random.", "numpy.random."))
    }


@pytest.mark.parametrize("file", SECRET, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_module_uses_no_generator_that_can_be_seeded(file: Path) -> None:
    assert seeded(file.read_text()) == set()


@pytest.mark.parametrize("name", NOISE)
def test_noise_does_not_know_the_job_s_seed(name: str) -> None:
    source = (PACKAGE / "privacy" / f"{name}.py").read_text()
    assert "fedpact.core.seeds" not in imported(ast.parse(source))


@pytest.mark.parametrize(
    "line",
    [
        "import random",
        "from random import getrandbits",
        "import numpy.random as nr",
        "from numpy import random",
        "from numpy.random import default_rng",
        "import numpy as np\nnp.random.default_rng(0)",
    ],
)
def test_every_way_to_such_a_generator_is_noticed(line: str) -> None:
    assert seeded(line)
