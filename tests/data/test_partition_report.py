"""The report on a simulation: sizes, labels, distances from IID, and the picture."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon

from fedpact.core.rows import Rows
from fedpact.data.partitions import (
    IID,
    Dirichlet,
    FlippedLabels,
    Noise,
    PermutedLabels,
    Rotation,
    Shards,
    TimeSlices,
    simulate,
)
from fedpact.data.partitions.distances import distances


def rows_of(n: int = 4000, classes: int = 10) -> Rows:
    draw = np.random.default_rng(1)
    return Rows(draw.normal(size=(n, 6, 6)), draw.integers(0, classes, n))


def test_distances_are_those_of_a_hand_calculation() -> None:
    # Clients (3, 1) and (1, 3) of 4 rows; the whole is (½, ½). Total variation ½(¼ + ¼) = ¼. A client of 4 of the
    # 8 rows has a share with the variance ¼·(8 − 4)/7/4 = 1/28, so by chance √(2/π)·(√(1/28) + √(1/28))/2.
    found = distances(np.array([[3, 1], [1, 3]]))
    np.testing.assert_allclose(found.total_variation, 0.25)
    np.testing.assert_allclose(found.by_chance, np.sqrt(2 / np.pi / 28))


@given(arrays(np.int64, (3, 4), elements=st.integers(1, 50)))
def test_jensen_shannon_distance_is_scipys(counts) -> None:
    shares = counts / counts.sum(axis=1, keepdims=True)
    whole = counts.sum(axis=0) / counts.sum()
    theirs = [jensenshannon(own, whole, base=2) for own in shares]
    np.testing.assert_allclose(distances(counts).jensen_shannon, theirs, atol=1e-7)


@given(arrays(np.int64, (4, 5), elements=st.integers(0, 20)).filter(lambda c: c.sum(axis=1).min() > 0))
def test_distances_lie_between_0_and_1(counts) -> None:
    found = distances(counts)
    for values in (found.total_variation, found.jensen_shannon):
        assert np.all((values >= 0) & (values <= 1))


def test_clients_that_share_no_label_are_as_far_as_the_whole_allows() -> None:
    # One of two equal clients: ½(|1 − ½| + |0 − ½|) = ½.
    report = simulate(Rows(np.zeros((40, 1)), np.repeat([0, 1], 20)), Shards(2, 1)).report
    assert report.distance["labels"] == pytest.approx(0.5)


def test_iid_clients_are_as_far_as_chance_has_it() -> None:
    mean = simulate(rows_of(), IID(20), seed=2).report.distance
    assert mean["labels"] < 0.1
    assert mean["labels"] == pytest.approx(mean["labels_by_chance"], rel=0.15)
    assert mean["features"] == pytest.approx(mean["features_by_chance"], rel=0.15)
    assert mean["relabelled"] == 0


def test_label_distance_falls_as_alpha_grows() -> None:
    found = [
        simulate(rows_of(), Dirichlet(10, alpha=alpha)).report.distance["labels"]
        for alpha in (0.05, 0.5, 5.0, 500.0)
    ]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.5
    assert found[-1] < 0.1


def test_noise_shifts_features_and_no_labels() -> None:
    plain, noisy = (
        simulate(rows_of(), how).report.distance for how in (IID(4), Noise(IID(4), variance=20.0))
    )
    assert noisy["features"] > 2 * plain["features"]
    assert noisy["labels"] == plain["labels"]


def test_rotation_shifts_the_features_of_pictures_that_have_an_up_and_a_down() -> None:
    x = rows_of(800).x
    x[:, :3] += 3.0
    report = simulate(Rows(x), Rotation(IID(4))).report
    assert report.distance["features"] > 0.3


def test_concept_shift_shows_as_relabelled_rows_alone() -> None:
    rows = Rows(np.random.default_rng(0).normal(size=(1000, 3)), np.tile([0, 1], 500))
    report = simulate(rows, FlippedLabels(IID(4), shares=(0.0, 0.2))).report
    assert report.distances["relabelled"].tolist() == [0.0, 0.2, 0.0, 0.2]
    flipped = simulate(rows, PermutedLabels(IID(4))).report
    assert flipped.distances["relabelled"].tolist() == [0.0, 1.0, 0.0, 1.0]
    assert flipped.distance["labels"] < 0.1


def test_drift_shows_in_the_features_of_a_table() -> None:
    draw = np.random.default_rng(2)
    year = np.sort(draw.integers(2000, 2020, 2000))
    table = pd.DataFrame(
        {"year": year, "dose": year + draw.normal(size=2000), "site": draw.choice(["a", "b"], 2000)}
    )
    drifting = simulate(Rows(table), TimeSlices(4, "year")).report.distances
    shuffled = simulate(Rows(table.drop(columns="year")), IID(4)).report.distances
    # The dose of a quarter of the years is elsewhere than three quarters of all doses; the site is anywhere.
    assert np.all(drifting["features"] > 0.3)
    assert np.all(shuffled["features"] < 0.06)


def test_sizes_and_labels_are_counted_over_train_and_test_rows() -> None:
    rows = rows_of(200, classes=3)
    report = simulate(rows, IID(4)).report
    assert report.sizes.tolist() == [50, 50, 50, 50]
    assert report.labels.columns.tolist() == ["label 0", "label 1", "label 2"]
    assert report.labels.sum().tolist() == np.bincount(rows.y).tolist()
    assert report.table().shape == (4, 1 + 3 + 6)


def test_rows_without_labels_have_a_report_of_their_features() -> None:
    report = simulate(Rows(np.random.default_rng(0).normal(size=(60, 2))), IID(3)).report
    assert report.distances.columns.tolist() == ["features", "features_by_chance"]
    assert "features" in str(report)


def test_missing_values_constant_columns_and_text_are_counted_too() -> None:
    table = pd.DataFrame(
        {"dose": [np.nan] * 10 + [1.0] * 10, "one": 1, "ward": ["a"] * 10 + ["b"] * 10, "none": np.nan}
    )
    report = simulate(Rows(table, np.repeat([0, 1], 10)), Shards(2, 1)).report
    # Missing against 1.0, and "a" against "b", are ½ each from the whole; the constant columns do not count.
    assert report.distance["features"] == pytest.approx(0.5)


@pytest.mark.parametrize("clients", [3, 60])
def test_the_picture_is_saved(clients, tmp_path) -> None:
    report = simulate(rows_of(600), Noise(Dirichlet(clients, alpha=2.0), variance=1.0)).report
    figure = report.plot()
    figure.savefig(tmp_path / "clients.png")
    assert (tmp_path / "clients.png").read_bytes().startswith(b"\x89PNG")
    bars, dots = figure.axes
    # Ten labels' bars of each client, and its distance and chance by labels and by features.
    assert len(bars.patches) == 10 * clients
    assert [len(line.get_ydata()) for line in dots.lines] == [clients] * 4


def test_the_picture_of_rows_without_labels_shows_their_sizes() -> None:
    report = simulate(Rows(np.random.default_rng(0).normal(size=(60, 2))), IID(3)).report
    assert [bar.get_width() for bar in report.plot().axes[0].patches] == [20, 20, 20]


def test_the_report_says_what_was_made_in_words() -> None:
    said = str(simulate(rows_of(100), PermutedLabels(IID(4)), seed=5).report)
    assert said.startswith(
        "PermutedLabels(of=IID(clients=4), groups=2), seed 5\n4 clients of 25 to 25 rows, 100 in all"
    )
    assert "relabelled" in said
