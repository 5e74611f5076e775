import json

import pytest

from tests.cli.terminal import call, said

SILOS = ("privacy", "--clients", "100", "--rounds", "100", "--sampling", "all", "--delta", "1e-5")


def test_noise_gives_an_epsilon() -> None:
    ended = call(*SILOS, "--noise", "5")
    assert ended.exit_code == 0
    assert "epsilon 9.9973 solved for" in said(ended.stdout)
    assert "every client in every round; no amplification" in said(ended.stdout)


def test_the_other_relation_is_said_too() -> None:
    ended = call(*SILOS, "--noise", "5")
    assert "Where one client is replaced by another, epsilon is 24.382" in said(ended.stdout)


def test_an_epsilon_gives_the_noise() -> None:
    ended = call(*SILOS, "--epsilon", "9.9973", "--json")
    found = json.loads(ended.stdout)
    assert found["noise_multiplier"] == pytest.approx(5.0, rel=1e-3)
    assert found["solved_for"] == "noise multiplier"
    assert found["guarantee"]["epsilon"] <= 9.9973
    assert found["releases"][0]["sampling"] == {"name": "Everyone"}


def test_a_sample_is_in_the_words_of_its_unit() -> None:
    ended = call(
        "privacy", "--records", "60000", "--batch", "256", "--steps", "100", "--noise", "1.1", "--unit", "record",
        "--accountant", "rdp",
    )  # fmt: skip
    assert "each record by a coin of its own, 0.004267 a step" in said(ended.stdout)
    assert "delta 5.5467e-06 clients^-1.1" in said(ended.stdout)


def test_fixed_size_under_replacement() -> None:
    ended = call(
        "privacy", "--clients", "1000", "--cohort", "50", "--rounds", "10", "--noise", "4", "--sampling", "fixed",
        "--relation", "replace_one", "--json",
    )  # fmt: skip
    found = json.loads(ended.stdout)
    assert found["guarantee"]["accountant"] == "rdp"
    assert found["guarantee"]["relation"] == "replace_one"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--clients", "100"], 3, "leave out exactly one"),
        ([*SILOS[1:], "--noise", "5", "--unit", "patient"], 2, "none of client, record"),
        ([*SILOS[1:], "--noise", "5", "--relation", "replace-one"], 2, 'Did you mean "replace_one"?'),
        (["--rounds", "3"], 2, "--clients"),
    ],
)
def test_a_wrong_question_is_answered_with_what_to_do(words: list[str], code: int, message: str) -> None:
    ended = call("privacy", *words) if words[0] != "privacy" else call(*words)
    assert ended.exit_code == code
    assert message in said(ended.stderr)
