"""Claims about resampling by random rows and extra passes: how many of each class there are, and which."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imblearn.over_sampling import RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler
from numpy.typing import NDArray

import fedpact as fp
from fedpact.core.errors import ConfigError
from fedpact.core.seeds import Seed
from fedpact.data import STEPS
from fedpact.data.agree import Labels
from fedpact.data.preprocess.class_counts import ClassCounts
from fedpact.data.preprocess.resample import Resampler, resampling_apart
from tests.data.test_preprocess import fit

NO_COUNTS = np.zeros(0, np.int64)
RATIOS = st.sampled_from([1.0, 0.7, 0.5, 0.29, 0.1])
CLASSES = st.lists(st.integers(0, 3), min_size=1, max_size=60).map(lambda labels: np.array(labels, np.int64))


def numbered(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return a row for each label, which says which one it is."""
    return np.arange(len(labels), dtype=np.float64)[:, None]


def resampled(
    step: Any, labels: NDArray[np.int64], seed: int = 0, counts: Sequence[int] = ()
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which rows there are behind a step, and their labels."""
    x, classes = step.resample(numbered(labels), labels, np.array(counts, np.int64), Seed.of(seed))
    return x[:, 0].astype(np.int64), classes


def of_rare(common: int, rare: int) -> NDArray[np.int64]:
    return np.repeat([0, 1], [common, rare])


@given(CLASSES, RATIOS)
def test_oversampling_brings_rare_classes_to_a_share_of_the_commonest(
    labels: NDArray[np.int64], ratio: float
) -> None:
    before, after = Counter(labels.tolist()), Counter(resampled(fp.OverSample(ratio), labels)[1].tolist())
    wanted = int(max(before.values()) * ratio)
    assert after == {c: max(n, wanted) for c, n in before.items()}


@given(CLASSES, RATIOS)
def test_undersampling_leaves_of_common_classes_what_the_rarest_is_a_share_of(
    labels: NDArray[np.int64], ratio: float
) -> None:
    before, after = Counter(labels.tolist()), Counter(resampled(fp.UnderSample(ratio), labels)[1].tolist())
    most = int(min(before.values()) / ratio)
    assert after == {c: min(n, most) for c, n in before.items()}


@pytest.mark.parametrize("ratio", [1.0, 0.5, 0.29])
def test_there_are_as_many_rows_as_imbalanced_learn_leaves(ratio: float) -> None:
    labels = of_rare(97, 5)
    for step, sampler in [
        (fp.OverSample(ratio), RandomOverSampler(sampling_strategy=ratio)),
        (fp.UnderSample(ratio), RandomUnderSampler(sampling_strategy=ratio)),
    ]:
        _, theirs = sampler.fit_resample(numbered(labels), labels)
        assert Counter(resampled(step, labels)[1].tolist()) == Counter(theirs.tolist())


@given(CLASSES)
def test_oversampling_keeps_all_rows_in_order_and_repeats_rows_of_the_same_class(
    labels: NDArray[np.int64],
) -> None:
    rows, classes = resampled(fp.OverSample(), labels)
    np.testing.assert_array_equal(rows[: len(labels)], np.arange(len(labels)))
    np.testing.assert_array_equal(classes, labels[rows])


@given(CLASSES)
def test_undersampling_keeps_rows_in_order_and_none_twice(labels: NDArray[np.int64]) -> None:
    rows, classes = resampled(fp.UnderSample(), labels)
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(classes, labels[rows])


@pytest.mark.parametrize("step", [fp.OverSample(), fp.UnderSample()])
def test_rows_are_drawn_from_the_seed_alone(step: Any) -> None:
    labels = of_rare(40, 7)
    first, again, other = (resampled(step, labels, seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert first.tolist() != other.tolist()


def test_each_row_is_as_likely_to_be_repeated() -> None:
    # 30,000 draws of 3 rows: a share of 1/3 has the standard deviation 0.0027.
    rows, _ = resampled(fp.OverSample(), of_rare(30_003, 3))
    shares = np.bincount(rows[30_006:] - 30_003) / 30_000
    np.testing.assert_allclose(shares, 1 / 3, atol=0.014)


def test_extra_passes_are_the_rounded_share_of_the_commonest_class() -> None:
    # 100/100, 100/40 = 2.5, 100/41 = 2.44, 100/3 = 33.3, and a class that nobody has.
    passes = fp.ExtraPasses(most=20).passes(np.array([100, 40, 41, 3, 0]))
    assert passes.tolist() == [1, 3, 2, 20, 20]


def test_extra_passes_visit_all_rows_of_a_class_alike_one_pass_after_the_other() -> None:
    rows, classes = resampled(fp.ExtraPasses(), np.array([0, 1, 0, 2]), counts=[90, 45, 30])
    assert rows.tolist() == [0, 1, 2, 3, 1, 3, 3]
    assert classes.tolist() == [0, 1, 0, 2, 1, 2, 2]


def test_extra_passes_are_by_the_counts_of_all_clients_and_not_by_its_own() -> None:
    own = of_rare(1, 9)
    assert Counter(resampled(fp.ExtraPasses(), own, counts=[80, 20])[1].tolist()) == {0: 1, 1: 36}


@given(CLASSES, st.integers(1, 4), st.data())
def test_class_counts_are_those_of_all_rows_however_they_are_spread(
    labels: NDArray[np.int64], clients: int, data: st.DataObject
) -> None:
    owners = np.array(
        data.draw(st.lists(st.integers(0, clients), min_size=len(labels), max_size=len(labels)))
    )
    counting = ClassCounts(4, lambda client: np.asarray(client.train.y))
    parts = [
        fp.ClientData(f"client {owner}", fp.Rows(numbered(labels[owners == owner]), labels[owners == owner]))
        for owner in np.unique(owners)
    ]
    assert fit(counting, parts) == tuple(np.bincount(labels, minlength=4))


@pytest.mark.parametrize("step", [fp.OverSample(), fp.UnderSample(), fp.SMOTE(), fp.ADASYN()])
@pytest.mark.parametrize("labels", [[1, 1, 1], [0]])
def test_client_with_one_class_keeps_its_rows(step: Any, labels: list[int]) -> None:
    rows, classes = resampled(step, np.array(labels))
    assert rows.tolist() == list(range(len(labels)))
    assert classes.tolist() == labels


def test_client_with_one_row_of_a_class_repeats_it() -> None:
    rows, _ = resampled(fp.OverSample(), of_rare(4, 1))
    assert rows.tolist() == [0, 1, 2, 3, 4, 4, 4, 4]


def test_images_are_resampled_as_they_are() -> None:
    images = np.arange(5 * 2 * 2, dtype=np.uint8).reshape(5, 2, 2)
    x, labels = fp.OverSample().resample(images, of_rare(4, 1), NO_COUNTS, Seed.of(0))
    assert x.dtype == np.uint8
    assert x.shape == (8, 2, 2)
    np.testing.assert_array_equal(x[5:], images[[4, 4, 4]])
    assert labels.tolist() == [0] * 4 + [1] * 4


def test_over_and_under_go_together_in_their_order() -> None:
    both = Resampler((fp.OverSample(0.1), fp.UnderSample(0.5)), Seed.of(0).key.hex())
    _, labels = both.resample(numbered(of_rare(100, 3)), of_rare(100, 3), "lyon")
    # 3 become a tenth of 100, and 100 twice these.
    assert Counter(labels.tolist()) == {0: 20, 1: 10}


def test_each_client_and_step_draws_from_a_stream_of_its_own() -> None:
    labels = of_rare(40, 7)
    over = Resampler((fp.OverSample(),), Seed.of(0).key.hex())
    second = Resampler((fp.UnderSample(0.01), fp.OverSample()), Seed.of(0).key.hex())
    drawn = [
        who.resample(numbered(labels), labels, name)[0][47:, 0].tolist()
        for who, name in ((over, "lyon"), (over, "nice"), (second, "lyon"))
    ]
    assert len({tuple(each) for each in drawn}) == 3


def test_resampler_is_the_same_after_json() -> None:
    steps = (fp.UnderSample(0.5), fp.SMOTE(3, kind="borderline-2"))
    resampler = Resampler(steps, Seed.of(0).key.hex(), (5, 6))
    assert Resampler.from_json(json.loads(json.dumps(resampler.to_json()))) == resampler


def test_steps_that_resample_are_taken_from_the_end() -> None:
    steps = [fp.Standardize(), fp.OverSample(0.1), fp.UnderSample()]
    assert resampling_apart(steps) == ((fp.Standardize(),), (fp.OverSample(0.1), fp.UnderSample()))


@pytest.mark.parametrize(
    "step", [fp.OverSample(), fp.UnderSample(), fp.SMOTE(), fp.ADASYN(), fp.ExtraPasses()]
)
def test_step_that_resamples_before_one_that_prepares_is_refused(step: Any) -> None:
    with pytest.raises(ConfigError, match="put it at the end of preprocess"):
        resampling_apart([step, fp.Standardize()])


@pytest.mark.parametrize(
    "steps",
    [
        [fp.OverSample(), fp.SMOTE()],
        [fp.OverSample(0.5), fp.OverSample()],
        [fp.UnderSample(), fp.UnderSample(0.5)],
        [fp.ExtraPasses(), fp.UnderSample()],
        [fp.ADASYN(), fp.ExtraPasses()],
    ],
)
def test_steps_that_do_the_same_twice_are_refused(steps: list[Any]) -> None:
    with pytest.raises(ConfigError, match="leave one out"):
        resampling_apart(steps)


@pytest.mark.parametrize(
    ("spec", "about"),
    [
        ({"name": "OverSample", "ratio": 0.0}, "ratio is 0.0"),
        ({"name": "UnderSample", "ratio": 1.5}, "ratio is 1.5"),
        ({"name": "SMOTE", "neighbors": 0}, "neighbors is 0"),
        ({"name": "SMOTE", "kind": "border"}, "kind"),
        ({"name": "ADASYN", "ratio": -1.0}, "ratio is -1.0"),
        ({"name": "ExtraPasses", "most": 0}, "most is 0"),
    ],
)
def test_settings_out_of_their_range_are_refused(spec: dict[str, Any], about: str) -> None:
    with pytest.raises(ConfigError, match=about):
        STEPS.build(spec)


@pytest.mark.parametrize("step", [fp.OverSample(), fp.SMOTE(), fp.ExtraPasses()])
def test_labels_that_are_no_classes_of_rows_are_refused(step: Any) -> None:
    with pytest.raises(ConfigError, match="numbers to predict"):
        step.check(Labels("regression"), (3,))
    with pytest.raises(ConfigError, match="one label for each row"):
        step.check(Labels("multiclass", (0, 1, 2), (80,)), (80,))


@pytest.mark.parametrize("step", [fp.SMOTE(), fp.ADASYN()])
def test_synthetic_rows_of_images_are_refused(step: Any) -> None:
    with pytest.raises(ConfigError, match=r"arrays of shape \(28, 28\); use OverSample"):
        step.check(Labels("binary", (0, 1)), (28, 28))
