"""Partitions for simulation, each against the statistics that define it."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import fedpact as fp
from fedpact.core.errors import ConfigError, DataError
from fedpact.core.rows import Rows
from fedpact.core.seeds import Seed
from fedpact.data.partitions import (
    IID,
    PARTITIONS,
    ByColumn,
    Dirichlet,
    FlippedLabels,
    Noise,
    Partitioner,
    PermutedLabels,
    QuantitySkew,
    Rotation,
    Shards,
    TimeSlices,
    simulate,
)
from fedpact.data.partitions.features import rotated

ROOT = Seed.of(0)


def labelled(y) -> Rows:
    return Rows(np.arange(float(len(y)))[:, None], np.asarray(y))


def visits(rows: int = 60) -> Rows:
    draw = np.random.default_rng(5)
    days = pd.Timestamp("2020-01-01") + pd.to_timedelta(draw.integers(0, 900, rows), unit="D")
    table = pd.DataFrame({"age": draw.integers(20, 90, rows), "day": days.strftime("%Y-%m-%d"), "site": "a"})
    table.loc[draw.random(rows) < 0.4, "site"] = "b"
    return Rows(table, draw.integers(0, 3, rows))


def images(rows: int = 40) -> Rows:
    draw = np.random.default_rng(6)
    return Rows(draw.random((rows, 1, 8, 8), np.float32), draw.integers(0, 3, rows))


EVERY = [
    (IID(4), visits()),
    (QuantitySkew(4, exponent=1.2), visits()),
    (Dirichlet(4, alpha=0.5), visits()),
    (Shards(4, shards=2), visits()),
    (ByColumn("site"), visits()),
    (TimeSlices(4, "day"), visits()),
    (Noise(IID(4), variance=0.3), images()),
    (Rotation(Shards(4), degrees=(0, 30, 90)), images()),
    (PermutedLabels(IID(4), groups=3), visits()),
    (FlippedLabels(Dirichlet(4, alpha=1.0), shares=(0.0, 0.5)), visits()),
    (Noise(Rotation(IID(4)), variance=0.1), images()),
]
names = [str(how) for how, _ in EVERY]


def test_every_registered_partition_is_tested_here() -> None:
    assert {type(how).__name__ for how, _ in EVERY} == set(PARTITIONS)


@pytest.mark.parametrize(("how", "rows"), EVERY, ids=names)
def test_every_row_goes_to_exactly_one_client(how, rows) -> None:
    dealt = how.deal(rows, ROOT)
    assert sorted(np.concatenate(list(dealt.values())).tolist()) == list(range(len(rows)))


@pytest.mark.parametrize(("how", "rows"), EVERY, ids=names)
def test_a_simulation_is_the_same_bits_for_the_same_seed(how, rows) -> None:
    for one, other in zip(
        simulate(rows, how, seed=3).clients, simulate(rows, how, seed=3).clients, strict=True
    ):
        assert one.id == other.id
        assert np.array_equal(np.asarray(one.train.x), np.asarray(other.train.x))
        assert np.array_equal(one.train.y, other.train.y)
        assert np.array_equal(one.test.y, other.test.y)


@pytest.mark.parametrize(
    ("how", "rows"), [each for each in EVERY if not isinstance(each[0], ByColumn | TimeSlices)]
)
def test_another_seed_gives_other_clients(how, rows) -> None:
    one, other = how.deal(rows, ROOT), how.deal(rows, Seed.of(1))
    assert any(not np.array_equal(*pair) for pair in zip(one.values(), other.values(), strict=True))


@pytest.mark.parametrize(("how", "rows"), EVERY, ids=names)
def test_a_partition_is_written_down_and_read_back(how, rows) -> None:
    assert PARTITIONS.build(PARTITIONS.describe(how)) == how


@dataclass(frozen=True)
class OddAndEven(Partitioner):
    def deal(self, rows: Rows, seed: Seed):
        return {"even": np.arange(0, len(rows), 2), "odd": np.arange(1, len(rows), 2)}


def test_a_partition_of_ones_own_needs_one_method_and_no_registration() -> None:
    made = simulate(labelled(np.arange(10)), {"name": f"{__name__}:OddAndEven"}, test=0).clients
    assert {each.id: each.train.y.tolist() for each in made} == {
        "even": [0, 2, 4, 6, 8],
        "odd": [1, 3, 5, 7, 9],
    }
    noisy = simulate(labelled(np.arange(10)), Noise(OddAndEven(), variance=0.0), test=0).clients
    assert noisy.ids == ("even", "odd")


def test_simulation_gives_the_clients_of_the_functions() -> None:
    rows = visits()
    made = simulate(rows, Dirichlet(5, alpha=0.5), seed=7).clients
    called = fp.partition.federate(rows, fp.partition.dirichlet(rows, 5, alpha=0.5, seed=7), seed=7)
    for one, other in zip(made, called, strict=True):
        assert one.train.x.equals(other.train.x)
        assert one.test.x.equals(other.test.x)


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(1, 4), st.integers(1, 30), st.integers(0, 99))
def test_shards_give_at_most_so_many_classes_where_classes_fill_shards(clients, shards, size, seed) -> None:
    # As many classes as shards, each of the size of a shard.
    y = np.repeat(np.arange(clients * shards), size)
    for part in Shards(clients, shards).deal(labelled(y), Seed.of(seed)).values():
        assert len(np.unique(y[part])) <= shards
        assert len(part) == shards * size


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=40, max_size=200), st.integers(0, 99))
def test_shards_of_any_classes_give_a_class_more_for_each_border_inside_a_shard(y, seed) -> None:
    y = np.array(y)
    # Shards are runs of the sorted labels, so what all of them hold beyond one class are the borders inside them.
    cut = np.array_split(np.sort(y), 10)
    extra = sorted(len(np.unique(shard)) - 1 for shard in cut)
    for part in Shards(5, 2).deal(labelled(y), Seed.of(seed)).values():
        assert len(np.unique(y[part])) <= 2 + sum(extra[-2:])


def test_shards_leave_most_clients_two_classes_as_in_the_paper() -> None:
    # 100 clients, 200 shards of 300, ten classes of 6,000: every class is twenty whole shards.
    y = np.tile(np.arange(10), 6000)
    seen = [len(np.unique(y[part])) for part in Shards(100, 2).deal(labelled(y), ROOT).values()]
    assert max(seen) == 2
    # Two of 200 shards are of one class with probability 19/199, of two with 180/199: 90 clients of 100, sd 3.
    assert 80 <= seen.count(2) <= 100


def test_dirichlet_proportions_have_the_mean_and_variance_of_their_alpha() -> None:
    # Dir(alpha) over J=5 clients: mean 0.2, variance 0.2·0.8/(5·0.3 + 1) = 0.064. Of 1000 draws the mean has a
    # standard error of 0.008, and the variance one near 0.004.
    y = np.repeat(np.arange(1000), 50)
    dealt = Dirichlet(5, alpha=0.3, min_rows=0).deal(labelled(y), ROOT)
    shares = np.array([np.bincount(y[part], minlength=1000) / 50 for part in dealt.values()])
    np.testing.assert_allclose(shares.mean(axis=1), 0.2, atol=0.03)
    np.testing.assert_allclose(shares.var(axis=1), 0.064, atol=0.013)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.7])
def test_sizes_follow_the_power_law_of_their_exponent(exponent) -> None:
    dealt = QuantitySkew(20, exponent=exponent).deal(labelled(np.zeros(200_000)), ROOT)
    sizes = np.array([len(part) for part in dealt.values()])
    slope = np.polyfit(np.log(np.arange(1, 21)), np.log(sizes), 1)[0]
    assert slope == pytest.approx(-exponent, abs=2e-3)
    assert sizes.sum() == 200_000


def test_quantity_skew_leaves_labels_as_they_are() -> None:
    y = np.tile([0, 0, 0, 1], 5000)
    for part in QuantitySkew(5).deal(labelled(y), ROOT).values():
        # A share of 1/4 of at least 1,750 rows has a standard deviation of 0.01.
        assert y[part].mean() == pytest.approx(0.25, abs=0.04)


def test_time_slices_are_in_order_and_of_one_size() -> None:
    rows = visits(61)
    dealt = list(TimeSlices(4, "day").deal(rows, ROOT).values())
    for before, after in pairwise(dealt):
        assert rows.x["day"].iloc[before].max() <= rows.x["day"].iloc[after].min()
    assert [len(part) for part in dealt] == [16, 15, 15, 15]


def test_time_may_be_numbers_dates_or_text_of_iso_8601() -> None:
    days = pd.to_datetime(["2021-03-01", "2019-12-31", "2020-06-01", "2022-01-01"])
    for column in (days, days.strftime("%Y-%m-%d"), [2021, 2019, 2020, 2022]):
        rows = Rows(pd.DataFrame({"when": column, "x": range(4)}))
        assert [p.tolist() for p in TimeSlices(2, "when").deal(rows, ROOT).values()] == [[1, 2], [0, 3]]


@pytest.mark.parametrize(("how", "gone"), [(ByColumn("site"), "site"), (TimeSlices(2, "day"), "day")])
def test_the_column_that_names_the_client_is_no_feature_unless_it_is_kept(how, gone) -> None:
    assert gone not in simulate(visits(), how).clients[0].train.x
    kept = type(how)(**{**vars(how), "keep": True})
    assert gone in simulate(visits(), kept).clients[0].test.x


def test_noise_grows_from_client_to_client_as_it_says() -> None:
    # 500 images of 100 pixels at each client: the variance has a standard error of 0.6 %.
    rows = Rows(np.zeros((2000, 10, 10)))
    clients = simulate(rows, Noise(IID(4), variance=0.8), test=0).clients
    for place, client in enumerate(clients, start=1):
        assert client.train.x.mean() == pytest.approx(0, abs=0.02)
        assert client.train.x.var() == pytest.approx(0.8 * place / 4, rel=0.03)


def test_noise_in_two_layers_adds_up_instead_of_repeating_itself() -> None:
    rows = Rows(np.zeros((1000, 50)))
    (client,) = simulate(rows, Noise(Noise(IID(1), variance=1.0), variance=1.0), test=0).clients
    # The same noise twice would have the variance 4.
    assert client.train.x.var() == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270, -90, 30, 45, 101.5])
@pytest.mark.parametrize("shape", [(2, 9, 9), (2, 1, 8, 8), (1, 3, 7, 10)])
def test_rotation_equals_scipys(degrees, shape) -> None:
    picture = np.random.default_rng(0).random(shape)
    # Sampled outside the outermost pixels' centres, scipy mixes in the 0 behind them; inside both interpolate.
    theirs = ndimage.rotate(picture, degrees, axes=(-1, -2), reshape=False, order=1, mode="constant")
    ours = rotated(picture, degrees)
    inside = ours != 0
    assert inside.mean() > 0.4
    np.testing.assert_allclose(ours[inside], theirs[inside], atol=1e-9)


def test_a_quarter_turn_moves_pixels_and_changes_none() -> None:
    picture = np.arange(9.0, dtype=np.float32).reshape(1, 3, 3)
    assert np.array_equal(rotated(picture, 90), np.rot90(picture, axes=(-2, -1)))
    assert np.array_equal(rotated(rotated(picture, 90), 270), picture)


def test_groups_of_clients_take_turns_with_angles() -> None:
    rows = images(8)
    plain = simulate(rows, IID(4), test=0).clients
    turned = simulate(rows, Rotation(IID(4), degrees=(0, 180)), test=0).clients
    for place in range(4):
        expected = plain[place].train.x if place % 2 == 0 else plain[place].train.x[..., ::-1, ::-1]
        assert np.array_equal(turned[place].train.x, expected)


@pytest.mark.parametrize("groups", [2, 3, 6])
def test_each_group_has_a_permutation_of_labels_of_its_own(groups) -> None:
    rows = labelled(np.tile([0, 1, 2], 60))
    plain = simulate(rows, IID(6), test=0).clients
    shifted = simulate(rows, PermutedLabels(IID(6), groups=groups), test=0).clients
    found = []
    for before, after in zip(plain, shifted, strict=True):
        mapping = {old: set(after.train.y[before.train.y == old]) for old in (0, 1, 2)}
        assert all(len(new) == 1 for new in mapping.values())
        found.append(tuple(new.pop() for new in mapping.values()))
        assert sorted(found[-1]) == [0, 1, 2]
    assert found[0] == (0, 1, 2)
    assert len(set(found)) == groups
    assert all(found[place] == found[place % groups] for place in range(6))


def test_two_classes_are_flipped_in_the_second_group() -> None:
    y = np.array(["ill", "well"] * 10)
    plain = simulate(labelled(y), IID(2), test=0).clients
    shifted = simulate(labelled(y), PermutedLabels(IID(2)), test=0).clients
    assert np.array_equal(shifted[0].train.y, plain[0].train.y)
    assert np.all(shifted[1].train.y != plain[1].train.y)
    assert shifted[1].train.y.dtype == y.dtype


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_so_many_labels_are_flipped_and_each_other_class_alike(share) -> None:
    rows = labelled(np.repeat([0, 1, 2, 3], 750))
    plain = simulate(rows, IID(2), test=0).clients
    shifted = simulate(rows, FlippedLabels(IID(2), shares=(0.0, share)), test=0).clients
    assert np.array_equal(plain[0].train.y, shifted[0].train.y)
    moved = (shifted[1].train.y - plain[1].train.y) % 4
    assert np.count_nonzero(moved) == round(share * 1500)
    if share:
        # Three other classes: a third each, with a standard deviation of at most 0.022.
        np.testing.assert_allclose(np.bincount(moved[moved > 0])[1:] / (share * 1500), 1 / 3, atol=0.09)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Shards(3, shards=0), "at least one shard"),
        (lambda: QuantitySkew(3, exponent=-1.0), "exponent"),
        (lambda: Noise(IID(3), variance=-0.1), "variance"),
        (lambda: Rotation(IID(3), degrees=()), "degrees"),
        (lambda: PermutedLabels(IID(3), groups=1), "at least 2 groups"),
        (lambda: FlippedLabels(IID(3), shares=(0.0, 1.2)), "0 to 1"),
        (lambda: simulate(labelled([0, 1]), IID(3)), "fewer clients"),
        (lambda: simulate(labelled(np.zeros(9)), Shards(5, shards=2)), "9 rows cannot be cut into 10 shards"),
        (lambda: simulate(labelled(np.zeros(50)), QuantitySkew(20, exponent=3.0)), "smaller exponent"),
        (lambda: simulate(labelled([0, 1, 0, 1]), PermutedLabels(IID(2), groups=3)), "2 permutations"),
        (lambda: simulate(labelled([0, 1]), "Dirichlett"), 'Did you mean "Dirichlet"'),
        (lambda: simulate(labelled([0, 1]), {"name": "Noise", "off": "IID"}), 'Did you mean "of"'),
    ],
)
def test_settings_that_cannot_be_are_refused(make, why) -> None:
    with pytest.raises(ConfigError, match=why):
        make()


@pytest.mark.parametrize(
    ("rows", "how", "why"),
    [
        (Rows(np.zeros((4, 2))), Shards(2, 1), "no labels"),
        (Rows(np.zeros((4, 2)), np.array([1, "a", 2, "b"], object)), Shards(2, 1), "mix kinds"),
        (Rows(np.zeros((4, 2))), PermutedLabels(IID(2)), "class labels"),
        (labelled([0.5, 1.5, 2.5, 0.1]), FlippedLabels(IID(2)), "class labels"),
        (labelled([1, 1, 1, 1]), FlippedLabels(IID(2)), "one class only"),
        (Rows(np.zeros((4, 2), np.uint8)), Noise(IID(2)), "uint8"),
        (visits(), Noise(IID(2)), "DataFrame"),
        (Rows(np.zeros((4, 2))), Rotation(IID(2)), r"\[2, 2\]"),
        (Rows(np.zeros((4, 2))), TimeSlices(2, "day"), "array"),
        (visits(), TimeSlices(2, "dai"), 'Did you mean "day"'),
        (visits(), TimeSlices(2, "site"), "2024-03-31"),
        (Rows(pd.DataFrame({"when": [2020, None], "x": 1})), TimeSlices(2, "when"), "first in row 2"),
        (Rows(pd.DataFrame({"when": [2020, 2021]})), TimeSlices(2, "when"), "no feature column"),
    ],
)
def test_rows_that_lack_what_a_partition_needs_are_refused(rows, how, why) -> None:
    with pytest.raises(DataError, match=why):
        simulate(rows, how)
