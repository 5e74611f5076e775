import json
import multiprocessing
import signal
import subprocess
import sys
from pathlib import Path

import dp_accounting
import numpy as np
import pytest

from fedpact.core.errors import ConfigError, FedpactError, PrivacyError
from fedpact.privacy.accounting import account
from fedpact.privacy.events import FixedSize, Gaussian, Poisson, Release
from fedpact.privacy.ledger import Budget, Ledger

BUDGET = Budget(epsilon=2.0, delta=1e-5, population="heart")
ROUND = Release(Gaussian(50.0))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "heart.jsonl", BUDGET)


def test_charges_of_two_runs_are_composed(ledger: Ledger) -> None:
    ledger.charge([Release(Gaussian(20.0), count=30)], "first run")
    spent = Ledger(ledger.path).charge([Release(Gaussian(20.0), count=20)], "second run")
    # Fifty Gaussians of noise 20 are one of noise 20/√50.
    assert spent.epsilon == pytest.approx(dp_accounting.get_epsilon_gaussian(20.0 / 50**0.5, 1e-5))
    assert ledger.spent() == spent


def test_a_charge_is_kept_as_its_events(ledger: Ledger) -> None:
    release = Release(Gaussian(3.0), Poisson(0.01), 10)
    ledger.charge([release, ROUND], "round 7")
    (charge,) = Ledger(ledger.path).charges()
    assert charge.releases == (release, ROUND)
    assert charge.purpose == "round 7"
    assert "epsilon" not in ledger.path.read_text().splitlines()[1]


def test_a_charge_over_the_budget_is_refused_and_nothing_is_charged(ledger: Ledger) -> None:
    ledger.charge([ROUND])
    before = ledger.path.read_bytes()
    with pytest.raises(PrivacyError, match=r'budget of "heart" is epsilon 2 .* nothing was charged'):
        ledger.charge([Release(Gaussian(1.0))])
    assert ledger.path.read_bytes() == before


def test_as_many_rounds_are_released_as_the_budget_allows(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l", Budget(1.0, 1e-5))
    with pytest.raises(PrivacyError):
        charge_many(ledger, 100, Release(Gaussian(10.0)))
    done = ledger.verify()
    assert account([Release(Gaussian(10.0), count=done)], 1e-5).epsilon <= 1.0
    assert account([Release(Gaussian(10.0), count=done + 1)], 1e-5).epsilon > 1.0


def test_the_last_of_a_budget_is_measured_by_the_tightest_accountant(tmp_path: Path) -> None:
    # Rényi divergences say 2.10, and the privacy loss distribution 1.83.
    ledger = Ledger(tmp_path / "l", Budget(1.9, 1e-5))
    spent = ledger.charge([Release(Gaussian(1.0), Poisson(0.01), 1000)])
    assert spent.accountant == "pld"
    assert spent.epsilon == pytest.approx(1.8282, abs=1e-3)


def test_what_no_accountant_covers_is_not_charged(ledger: Ledger) -> None:
    with pytest.raises(ConfigError, match="replace_one"):
        ledger.charge([Release(Gaussian(9.0), FixedSize(10, 100))])
    assert ledger.charges() == ()


def test_nothing_cannot_be_charged(ledger: Ledger) -> None:
    with pytest.raises(ConfigError, match="nothing is charged"):
        ledger.charge([])


def test_a_budget_cannot_be_changed(ledger: Ledger) -> None:
    ledger.charge([ROUND])
    with pytest.raises(PrivacyError, match="another budget"):
        Ledger(ledger.path, Budget(100.0, 1e-5, population="heart"))
    assert Ledger(ledger.path).budget == BUDGET


def test_a_ledger_that_is_not_there_needs_a_budget(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give the budget"):
        Ledger(tmp_path / "none")


def test_a_line_cut_off_at_any_byte_was_never_charged(ledger: Ledger) -> None:
    ledger.charge([ROUND], "one")
    whole = ledger.path.read_bytes()
    ledger.charge([ROUND], "two")
    both = ledger.path.read_bytes()
    for end in range(len(whole), len(both), 7):
        ledger.path.write_bytes(both[:end])
        assert [charge.purpose for charge in Ledger(ledger.path).charges()] == ["one"]
    ledger.path.write_bytes(both[:-1])
    ledger.charge([ROUND], "three")
    assert ledger.verify() == 2
    assert [charge.purpose for charge in ledger.charges()] == ["one", "three"]


def test_a_ledger_cut_off_in_its_first_line_is_empty(ledger: Ledger) -> None:
    ledger.charge([ROUND])
    ledger.path.write_bytes(ledger.path.read_bytes()[:40])
    ledger.charge([ROUND])
    assert ledger.verify() == 1


@pytest.mark.parametrize("line", [1, 2, 3, 4])
def test_a_changed_number_is_found_in_its_line(ledger: Ledger, line: int) -> None:
    for _ in range(3):
        ledger.charge([ROUND])
    lines = ledger.path.read_text().splitlines()
    changed = lines[line - 1].replace("50.0", "500.0").replace('"epsilon":2.0', '"epsilon":20.0')
    assert changed != lines[line - 1]
    lines[line - 1] = changed
    ledger.path.write_text("\n".join(lines) + "\n")
    with pytest.raises(PrivacyError, match=f"line {line} of the ledger .* is damaged"):
        ledger.verify()
    with pytest.raises(PrivacyError, match=f"line {line} "):
        ledger.charge([ROUND])


def test_a_line_taken_out_is_found(ledger: Ledger) -> None:
    for _ in range(3):
        ledger.charge([ROUND])
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    with pytest.raises(PrivacyError, match=r"line 3 .* does not follow the line before it"):
        ledger.verify()


@pytest.mark.parametrize("rubbish", [b"\n", b"{}\n", b"[1]\n", b'"x"\n', b"\xff\n", b"null\n"])
def test_a_line_that_is_no_charge_is_damage(ledger: Ledger, rubbish: bytes) -> None:
    ledger.charge([ROUND])
    with ledger.path.open("ab") as file:
        file.write(rubbish)
    with pytest.raises(PrivacyError, match=r"line 3 .* is damaged"):
        ledger.verify()


def test_lines_missing_at_the_end_are_found_by_who_kept_the_head(ledger: Ledger) -> None:
    ledger.charge([ROUND])
    shorter = ledger.path.read_bytes()
    ledger.charge([ROUND])
    head = ledger.head
    assert ledger.verify(head) == 2
    ledger.path.write_bytes(shorter)
    assert ledger.verify() == 1
    with pytest.raises(PrivacyError, match="lines are missing"):
        ledger.verify(head)


def charge_many(ledger: Ledger, times: int, release: Release = ROUND) -> None:
    for _ in range(times):
        ledger.charge([release])


def test_two_processes_at_once_lose_no_charge(ledger: Ledger) -> None:
    ledger.charge([ROUND])
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=charge_many, args=(ledger, 20)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert ledger.verify() == 41


def test_two_processes_at_once_do_not_overdraw(tmp_path: Path) -> None:
    # Twenty rounds are within the budget, and twenty-one are not.
    limit = account([Release(Gaussian(50.0), count=20)], 1e-5).epsilon
    ledger = Ledger(tmp_path / "l", Budget(limit, 1e-5))
    ledger.charge([ROUND])
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=charge_many, args=(ledger, 30)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [1, 1]
    assert ledger.verify() == 20


RELEASING = """
import sys
from fedpact.privacy.events import Gaussian, Release
from fedpact.privacy.ledger import Budget, Ledger

ledger = Ledger(sys.argv[1], Budget(1e6, 1e-5))
while True:
    ledger.charge([Release(Gaussian(50.0))])
    print("released", flush=True)
"""


def test_whatever_was_released_before_a_kill_was_charged(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    moments = np.random.default_rng(0)
    released = 0
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", RELEASING, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(int(moments.integers(1, 30))):
            assert process.stdout.readline() == "released\n"
            released += 1
        try:
            process.wait(float(moments.uniform(0, 0.01)))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        released += process.stdout.read().count("released\n")
        process.wait()
        process.stdout.close()
        charged = Ledger(path).verify()
        # One charge may have been written whose release never came.
        assert released <= charged <= released + 6
    assert released >= 6


def test_a_ledger_that_cannot_be_written_releases_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "none" / "ledger.jsonl", BUDGET)
    with pytest.raises(FedpactError, match="nothing may be released"):
        ledger.charge([ROUND])


def test_every_line_is_json_that_names_the_one_before(ledger: Ledger) -> None:
    ledger.charge([ROUND])
    ledger.charge([ROUND])
    lines = [json.loads(line) for line in ledger.path.read_text().splitlines()]
    assert [line["previous"] for line in lines] == ["", lines[0]["sha256"], lines[1]["sha256"]]
    assert ledger.head == lines[2]["sha256"]
    assert lines[0]["budget"] == {
        "epsilon": 2.0,
        "delta": 1e-5,
        "relation": "add_or_remove",
        "unit": "client",
        "population": "heart",
    }


@pytest.mark.parametrize(
    "settings", [{"epsilon": 0.0}, {"delta": 1.0}, {"relation": "substitute"}, {"unit": "patient"}]
)
def test_a_budget_out_of_its_range_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Budget(**{"epsilon": 1.0, "delta": 1e-5, **settings})  # type: ignore[arg-type]
