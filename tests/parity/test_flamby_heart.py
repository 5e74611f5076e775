"""Fed-Heart-Disease against the accuracies that FLamby published, one for each seed and centre."""

import os
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")
# The example is a folder of scripts that import one another by name.
sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "heart"))
import flamby_by_hand as by_hand
from flamby_heart import METHODS, SEEDS, accuracies, clients, differ, held_out, judged, newton
from flamby_published import published

import fedpact as fp

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("FEDPACT_DATA", "/nonexistent"))
for folder in ("heart_disease_4centres", "flamby_reference_results"):
    if not (DATA / folder).is_dir():
        pytest.skip(f"FEDPACT_DATA holds no {folder}", allow_module_level=True)

LIKE_FLAMBY = [name for name in METHODS if name != "Cyclic"]
TEST_ROWS = np.array([len(held_out(centre)) for centre in clients("per centre")])


def mean(table) -> float:
    return float(table.to_numpy().mean())


def rows_apart(table, other) -> np.ndarray:
    """For each seed and centre, by how many of the centre's test rows two models differ in their hits."""
    return np.abs(table.to_numpy() - other.to_numpy()) * TEST_ROWS


def test_fedavg_lands_on_the_published_mean() -> None:
    assert mean(published("FedAvg")) == pytest.approx(0.685, abs=5e-4)
    assert mean(accuracies(METHODS["FedAvg"], "per centre")) == pytest.approx(0.685, abs=0.03)


@pytest.mark.parametrize("name", LIKE_FLAMBY)
def test_19_of_20_models_are_within_two_test_rows_of_the_published_ones_and_all_within_three(
    name: str,
) -> None:
    found = accuracies(METHODS[name], "per centre")
    assert list(found.index) == list(published(name).index) == list(SEEDS)
    # The published order of the rows is not known, and FedAdagrad moves by three rows from one order to another.
    apart = rows_apart(found, published(name))
    assert (apart < 2.5).mean() >= 0.95
    assert apart.max() < 3.5


def test_published_order_holds_wherever_it_is_significant() -> None:
    pairs = [pair for pair in combinations(METHODS, 2) if differ(*map(published, pair))]
    assert len(pairs) == 14
    for one, other in pairs:
        order = mean(published(one)) - mean(published(other))
        assert (mean(judged(one)) - mean(judged(other))) * order > 0, (one, other)


def test_published_cyclic_is_cleveland_trained_alone() -> None:
    assert rows_apart(judged("Cyclic"), published("Cyclic")).max() < 2.5


def test_cyclic_hands_the_model_on_and_ends_elsewhere() -> None:
    handed_on = accuracies(METHODS["Cyclic"], "per centre")
    assert rows_apart(handed_on, published("Cyclic")).max() > 10


def test_fedadagrad_with_a_moving_average_is_fedyogi_at_a_smaller_rate() -> None:
    # From v = 0, and while v < g², Yogi's v is (1 − β₂)·Σ g²: with β₂ = 0.999 and rate 0.01, the step of Adagrad at
    # rate 0.01/√0.001 = 0.316228.
    assert published("FedAdagrad").equals(published("FedYogi"))
    found = [accuracies(METHODS[name], "per centre") for name in ("FedAdagrad", "FedYogi")]
    assert found[0].equals(found[1])


@pytest.mark.parametrize("name", [pytest.param("FedAvg", marks=pytest.mark.slow), "Cyclic"])
def test_flamby_s_procedure_by_hand_gives_the_published_rows(name: str) -> None:
    by_name = {"FedAvg": by_hand.fedavg, "Cyclic": by_hand.cyclic}
    # One row, because another processor may round a score of 0.5 to the other side.
    assert rows_apart(by_name[name](), published(name)).max() < 1.5


@pytest.mark.slow
def test_published_pooled_accuracy_is_that_of_test_rows_scaled_otherwise_than_in_training() -> None:
    as_published, as_trained = by_hand.pooled()
    assert rows_apart(as_published, published("Pooled")).max() < 1.5
    assert mean(as_trained) > mean(as_published) + 0.05


def test_published_protocol_from_zeros_reaches_the_published_pooled_accuracy() -> None:
    from_zeros = accuracies(METHODS["FedAvg"], "per centre", "zeros")
    assert mean(from_zeros) == pytest.approx(mean(published("Pooled")), abs=0.01)


def test_plain_fedavg_with_federated_scaling_passes_the_published_pooled_accuracy() -> None:
    found = accuracies(fp.FedAvg(lr=0.003, local_steps=100, batch_size=4), "federated")
    assert mean(found) >= 0.79 > mean(published("Pooled"))


@pytest.mark.parametrize("name", METHODS)
def test_federated_scaling_is_better_than_scaling_per_centre(name: str) -> None:
    federated, per_centre = (accuracies(METHODS[name], scaling) for scaling in ("federated", "per centre"))
    assert (federated.mean(axis=1) > per_centre.mean(axis=1)).all()


def test_newton_with_federated_scaling_reaches_079() -> None:
    assert mean(newton("federated")) >= 0.79


def test_centres_scaled_by_themselves_have_mean_0_and_deviation_1() -> None:
    for centre in clients("per centre"):
        constant = centre.train.x.std() == 0
        assert list(centre.train.x.columns[constant]) == (["chol"] if centre.id == "Switzerland" else [])
        np.testing.assert_allclose(centre.train.x.mean(), 0, atol=1e-12)
        np.testing.assert_allclose(centre.train.x.loc[:, ~constant].std(ddof=1), 1, atol=1e-7)


@pytest.mark.slow
def test_pages_show_what_the_example_prints() -> None:
    script = ROOT / "examples" / "heart" / "tables.py"
    printed = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout
    figures = figures_in(printed)
    assert len(figures) > 60
    for page in ("docs/heart.md", "docs/zh/heart.md"):
        shown = figures_in((ROOT / page).read_text(encoding="utf-8"))
        assert [len(line) for line in shown] == [len(line) for line in figures], page
        # One row of Switzerland's 16 moves the mean of the centres by 0.016.
        np.testing.assert_allclose(np.concatenate(shown), np.concatenate(figures), atol=0.017, err_msg=page)


def figures_in(text: str) -> list[list[float]]:
    """The figures with three decimals of every line of a table, without the line's label."""
    lines = [line.split("|", 2)[2] for line in text.splitlines() if line.startswith("|")]
    found = [[float(figure) for figure in re.findall(r"[-+]?\d\.\d{3}", line)] for line in lines]
    return [figures for figures in found if figures]
