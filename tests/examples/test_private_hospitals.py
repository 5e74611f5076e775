"""The example of four private hospitals: what it promises is what its runs enforce."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import fedpact as fp
from fedpact.privacy.ledger import Budget, Ledger

FOLDER = Path(__file__).parents[2] / "examples" / "private_hospitals"

pytestmark = pytest.mark.skipif(
    os.environ.get("FEDPACT_DATA") is None,
    reason="the heart data are not here (FEDPACT_DATA), and tests download nothing",
)


@pytest.fixture(scope="module")
def example() -> ModuleType:
    pytest.importorskip("dp_accounting")
    spec = importlib.util.spec_from_file_location("private_hospitals", FOLDER / "__main__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_hospitals_spend_their_budget_and_a_second_training_is_refused(
    example: ModuleType, tmp_path: Path
) -> None:
    clients, noise = example.hospitals(), example.hospital_noise(8.0)
    ledger = Ledger(tmp_path / "ledger.jsonl", Budget(8.0, example.DELTA))
    result = example.protect_hospitals(clients, noise, ledger)
    (protection,) = result.privacy.protections
    assert protection.unit == "client"
    assert 7.5 < protection.guarantee.epsilon <= 8.0
    assert ledger.spent().epsilon == pytest.approx(protection.guarantee.epsilon)
    with pytest.raises(fp.errors.PrivacyError, match="epsilon 8"):
        example.protect_hospitals(clients, noise, ledger)
    assert len(ledger.charges()) == example.HOSPITAL_ROUNDS


def test_the_server_sees_a_sum_of_three_hospitals_at_least(example: ModuleType) -> None:
    statement = example.protect_hospitals(example.hospitals(), example.hospital_noise(8.0)).privacy
    assert "of no client its own" in statement.server_sees
    assert statement.dropouts == 1
    # What is scaled by a textbook has told nothing of its own.
    assert not any("preparation" in told for told in statement.in_clear)


def test_patients_are_protected_as_was_asked_for_and_the_model_still_works(example: ModuleType) -> None:
    clients = example.hospitals()
    result = example.protect_patients(clients, example.patient_noise(clients, 4.0))
    (protection,) = result.privacy.protections
    assert protection.unit == "record"
    assert 3.9 < protection.guarantee.epsilon <= 4.0
    # 0.79 ± 0.01 over 20 runs; 0.5 is a coin.
    assert example.accuracy(result) > 0.7


def test_one_command_prints_both_statements_and_what_they_cost(tmp_path: Path) -> None:
    pytest.importorskip("dp_accounting")
    ended = subprocess.run(
        [sys.executable, str(FOLDER), "--repeats", "1"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "differential privacy for each client" in ended.stdout
    assert "differential privacy for each record" in ended.stdout
    assert "A second training: the budget" in ended.stdout
    assert ended.stdout.splitlines()[-1].split()[0] == "none"
    assert not list(tmp_path.iterdir())
