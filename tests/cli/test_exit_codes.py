import re
from pathlib import Path

import pytest

from fedpact.core import errors
from tests.cli.terminal import JOB, call, job_file, process

DOCS = Path(__file__).parents[2] / "docs"
KINDS = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)]
CODES = sorted({each.exit_code for each in KINDS} | {2, 130})


@pytest.mark.parametrize(
    ("folder", "title", "advice"),
    [
        ("exit-codes", "# Exit code {}: ", "**What to do.**"),
        ("zh/exit-codes", "# 退出码 {}：", "**怎么办。**"),
    ],
)
def test_every_exit_code_has_a_page_that_says_what_to_do(folder: str, title: str, advice: str) -> None:
    for code in CODES:
        page = (DOCS / folder / f"{code}.md").read_text(encoding="utf-8")
        assert page.startswith(title.format(code))
        assert advice in page


@pytest.mark.parametrize("folder", ["exit-codes", "zh/exit-codes"])
def test_index_of_exit_codes_links_every_page_and_no_other(folder: str) -> None:
    linked = re.findall(r"\((\d+)\.md\)", (DOCS / folder / "index.md").read_text(encoding="utf-8"))
    assert sorted(map(int, linked)) == CODES
    assert sorted(int(path.stem) for path in (DOCS / folder).glob("[0-9]*.md")) == CODES


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (("lr = 0.1", "leaning_rate = 0.1"), 3, 'no setting "leaning_rate"'),
        (("FedAvg", "FedAvgg"), 3, 'Did you mean "FedAvg"?'),
        (("rounds = 3", "rounds = 0"), 3, "rounds"),
        (("[data]", "[data"), 3, "not valid TOML"),
        (('name = "breast_cancer"', 'label = "y"\nclients = { a = "nowhere.csv" }'), 4, "nowhere.csv"),
        (('name = "Logistic"', 'name = "Softmax"'), 5, "Logistic"),
        (
            ("[[preprocess]]", '[[channel]]\nname = "GaussianNoise"\nmultiplier = 1.0\n[[preprocess]]'),
            6,
            'weighting="uniform" in FedAvg',
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else None,
)
def test_error_is_one_message_a_page_and_the_code_of_its_kind(
    tmp_path: Path, change: tuple[str, str], code: int, words: str
) -> None:
    path = job_file(tmp_path, JOB.replace(*change))
    ended = call("run", path, "--quiet", "--folder", tmp_path / "run")
    assert ended.exit_code == code
    assert ended.stdout == ""
    assert ended.stderr.startswith("Error: ")
    assert words in ended.stderr
    assert ended.stderr.endswith(f"Exit code {code}: the documentation has a page on each.\n")


def test_error_has_no_traceback(tmp_path: Path) -> None:
    ended = process("run", tmp_path / "none.toml", cwd=tmp_path)
    assert ended.returncode == 3
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 2


def test_traceback_is_there_for_who_asks(tmp_path: Path) -> None:
    ended = process("run", tmp_path / "none.toml", FEDPACT_DEBUG="1")
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    assert "ConfigError" in ended.stderr


def test_unforeseen_error_keeps_its_traceback_and_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("nobody foresaw this")

    monkeypatch.setattr("fedpact.core.job.Job.from_toml", broken)
    ended = call("run", tmp_path / "job.toml")
    assert ended.exit_code == 1
    assert isinstance(ended.exception, ZeroDivisionError)


@pytest.mark.parametrize(
    "words",
    [
        ["rum", "job.toml"],
        ["run"],
        ["run", "job.toml", "--fast"],
        ["run", "job.toml", "--set", "algorithm.lr"],
        ["list", "colours"],
        ["demo", "--rounds", "many"],
        ["demo", "--rounds", "0"],
    ],
    ids=" ".join,
)
def test_wrong_use_ends_with_2(words: list[str]) -> None:
    ended = call(*words)
    assert ended.exit_code == 2
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
