"""A page in Chinese has the figures and the commands of its page in English."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
CHINESE = DOCS / "zh"
PAGES = sorted(page.relative_to(CHINESE).as_posix() for page in CHINESE.rglob("*.md"))

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FIGURE = re.compile(r"[-+−]?\d+(?:[.,]\d+)*")
CODE = re.compile(r"`[^`]+`")
PICTURE = re.compile(r"!\[.*?\]\((?:.*/)?(.*?)\)")


def both(page: str) -> list[str]:
    return [(folder / page).read_text(encoding="utf-8") for folder in (DOCS, CHINESE)]


def cells(text: str) -> list[list[str]]:
    """The cells of every line of every table."""
    lines = [line for line in FENCED.sub("", text).splitlines() if line.startswith("|")]
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]


PAGES_WITH_TABLES = [page for page in PAGES if cells((CHINESE / page).read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", PAGES_WITH_TABLES)
def test_tables_have_the_same_figures_and_code_in_every_cell(page: str) -> None:
    english, chinese = map(cells, both(page))
    assert len(english) == len(chinese)
    for line, counterpart in zip(english, chinese, strict=True):
        for what in (FIGURE, CODE):
            # Within a cell a sentence may put them in another order.
            found, expected = ([sorted(what.findall(cell)) for cell in each] for each in (counterpart, line))
            assert found == expected, f"in the line with {counterpart[0].strip()}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_pictures_are_the_same(page: str) -> None:
    english, chinese = map(commands_and_pictures, both(page))
    assert chinese == english


def commands_and_pictures(text: str) -> tuple[list[str], list[str]]:
    """What is to be typed at a shell, without the comments, and the files of the pictures."""
    typed = "".join(block for language, block in FENCED.findall(text) if language == "bash")
    lines = [re.sub(r"(^|\s+)# .*", "", line) for line in typed.splitlines()]
    return [line for line in lines if line], PICTURE.findall(text)
