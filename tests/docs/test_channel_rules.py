"""The tables of the channel's rules in the documentation are those that channels are checked by."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("channel_rules", ROOT / "scripts" / "channel_rules.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["docs/guide/channel.md", "docs/zh/guide/channel.md"])
def test_the_page_has_the_tables_of_todays_rules(script: ModuleType, page: str) -> None:
    written = (ROOT / page).read_text(encoding="utf-8")
    assert script.rewritten(ROOT / page) == written, "run: python scripts/channel_rules.py"


@pytest.mark.parametrize("page", ["docs/guide/channel.md", "docs/zh/guide/channel.md"])
def test_every_stage_has_a_line_of_its_own(script: ModuleType, page: str) -> None:
    lines = [
        line for line in (ROOT / page).read_text(encoding="utf-8").splitlines() if line.startswith("| `")
    ]
    for name in script.TRANSFORMS:
        assert any(f"`{name}(" in line or f"`{name}`" in line for line in lines), name
