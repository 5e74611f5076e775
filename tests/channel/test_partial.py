"""Partial updates: the arrays that are named travel bit for bit, and the others are zero in the mean."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedpact as fp
from fedpact.algorithms.fed_df import FedDF
from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.newton import Newton
from fedpact.algorithms.scaffold import SCAFFOLD
from fedpact.channel import TRANSFORMS
from fedpact.channel.channel import Channel
from fedpact.channel.partial import Partial
from fedpact.core.errors import ChannelError, ConfigError
from fedpact.core.messages import Task
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.core.vector import Entry, Layout
from tests.channel.rounds import MIXED, begin, mean, norm, random_vector, through, update

RANDOM = np.random.default_rng(0)


@given(st.sets(st.sampled_from(["a", "b", "var", "steps"]), min_size=1), st.integers(0, 2**32))
def test_named_arrays_arrive_bit_for_bit_and_the_others_as_zeros(names, seed):
    vectors = {"model": random_vector(MIXED, np.random.default_rng(seed))}
    found = through(Partial(tuple(names)), vectors)["model"]
    assert found.layout == MIXED
    for name, array in vectors["model"].items():
        expected = array if name in names else np.zeros_like(array)
        np.testing.assert_array_equal(found[name], expected)


def test_means_of_the_named_arrays_are_those_of_whole_updates():
    vectors = [random_vector(MIXED, RANDOM) for _ in range(3)]
    stage = Partial("b")
    context = begin(stage, {"model": vectors[0]})
    updates = [update(id, weight, model=v) for id, weight, v in zip("xyz", (1, 2, 5), vectors, strict=True)]
    found = stage.decode(mean([stage.encode(each, context) for each in updates]), context).means["model"]
    np.testing.assert_array_equal(found["b"], mean(updates).means["model"]["b"])
    assert not found["a"].any()


def test_only_the_bytes_of_the_named_arrays_are_sent():
    vectors = {"model": random_vector(MIXED, RANDOM)}
    sent = Partial(("a", "steps")).encode(update(**vectors), begin(Partial("a"), vectors))
    # 20 numbers of float32 on one cache line and a quarter, and a counter, widened to float64, on the next.
    assert [(e.name, e.dtype) for e in sent.averaged["model"].layout.entries] == [
        ("a", "float32"),
        ("steps", "float64"),
    ]
    assert sent.nbytes == 128 + 8


def test_what_is_excluded_is_left_out_of_what_is_included():
    layout = Layout(
        [Entry(name, (2,)) for name in ("body.0.weight", "body.1.bias", "head.weight", "head.bias")]
    )

    def names(**patterns):
        return [entry.name for entry in Partial(**patterns).layout_behind(layout).entries]

    assert names(include="head.*") == ["head.weight", "head.bias"]
    assert names(exclude="head.*") == ["body.0.weight", "body.1.bias"]
    assert names(include=("body.*", "head.*"), exclude=["*.bias"]) == ["body.0.weight", "head.weight"]


def test_a_tied_array_is_known_by_each_of_its_names():
    layout = Layout([Entry("embedding.weight", (2,), aliases=("head.weight",)), Entry("bias", (1,))])
    assert [entry.name for entry in Partial("head.*").layout_behind(layout).entries] == ["embedding.weight"]
    assert [entry.name for entry in Partial(exclude="head.*").layout_behind(layout).entries] == ["bias"]


def test_nothing_gets_larger_and_counts_of_other_stages_pass():
    vectors = {"model": random_vector(MIXED, RANDOM)}
    count = random_vector(Layout([Entry("x", (1,))]), RANDOM)
    sent = Partial("b").encode(update(**vectors, clip_count=count), begin(Partial("b"), vectors))
    assert norm(sent) <= norm(update(**vectors, clip_count=count))
    assert sent.averaged["clip_count"] is count


def test_patterns_that_no_array_fits_are_refused_before_a_client_is_asked():
    layout = Layout([Entry("coef", (2,)), Entry("intercept", ())])
    with pytest.raises(
        ChannelError, match=r'Partial would send nothing: .* Did you mean "coef"\? There are "coef", "int'
    ):
        Partial("coeff").check([], FedAvg(), layout)
    clients = [ClientData("a", Rows(np.eye(2), np.arange(2)))]
    with pytest.raises(ChannelError, match="no name fits its patterns"):
        fp.train(fp.models.Logistic(), clients, channel=[Partial("head.*")], rounds=1)
    # It is not for scores of public rows, which have other names than the arrays of the model.
    algorithm = FedDF(public=np.eye(2))
    with pytest.raises(ChannelError, match="no name fits its patterns"):
        fp.train(fp.models.Logistic(), clients, algorithm=algorithm, channel=[Partial("coef")], rounds=1)


def test_errors_may_be_kept_of_the_arrays_that_are_sent():
    layout = Layout([Entry("body", (6,)), Entry("head", (4,))])
    stages, model = [Partial("head"), fp.TopK(k=1)], random_vector(layout, RANDOM)
    channel = Channel(stages, FedAvg(), layout)
    opened = channel.begin(Task("train", arrays={"model": model}), ["lyon"], Seed.of(0))
    sent, kept = channel.encode(update(model=model), opened, {}, {})
    arrived = channel.receive(sent, opened).averaged["model"]["head"]
    (error,) = kept.values()
    np.testing.assert_array_equal(arrived + error["parameters"], model["head"])
    assert np.count_nonzero(arrived) == 1


def test_algorithms_that_it_does_not_go_with_are_refused():
    for algorithm in (Newton(), SCAFFOLD()):
        with pytest.raises(ChannelError, match="take Partial out"):
            Partial("a").check([], algorithm, None)
    vectors = {"model": random_vector(MIXED, RANDOM)}
    with pytest.raises(ChannelError, match="sent a whole model"):
        Partial("a").encode(update(kind="model", **vectors), begin(Partial("a"), vectors))


@pytest.mark.parametrize("settings", [{"include": 3}, {"include": ("a", 3)}, {"exclude": ("",)}])
def test_what_is_no_pattern_is_refused(settings):
    with pytest.raises(ConfigError, match=r'Partial: .* it must be a pattern such as "head\.\*", or a list'):
        Partial(**settings)


def test_a_job_file_may_give_one_pattern_or_several():
    one, several = (TRANSFORMS.build({"name": "Partial", "include": given}) for given in ("a", ["a"]))
    assert one == several == Partial("a")
    assert TRANSFORMS.build(TRANSFORMS.describe(Partial("a", "b"))) == Partial("a", "b")


def test_what_is_left_out_of_a_run_stays_as_it_was_and_its_bytes_are_saved():
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 4))
    rows = Rows(x, (x[:, 0] > 0.3).astype(int))
    clients = [ClientData(id, rows.take(np.arange(30) + start)) for id, start in (("a", 0), ("b", 30))]
    options = {"algorithm": FedAvg(lr=0.5), "rounds": 3, "engine": "in_process"}
    whole = fp.train(fp.models.Logistic(), clients, **options)
    part = fp.train(fp.models.Logistic(), clients, channel=[Partial(exclude="intercept")], **options)
    assert part.fitted.weights["intercept"] == 0 != whole.fitted.weights["intercept"]
    assert part.fitted.weights["coef"].any()
    # Four numbers of float64 instead of five, and two for the record, of two clients.
    assert set(whole.history["upload_bytes"]) == {2 * (5 * 8 + 16)}
    assert set(part.history["upload_bytes"]) == {2 * (4 * 8 + 16)}


def test_under_masks_the_sum_is_that_in_clear():
    clients = [ClientData(id, Rows(RANDOM.normal(size=(20, 4)), RANDOM.integers(0, 2, 20))) for id in "abc"]
    options = {"algorithm": FedAvg(lr=0.5, weighting="uniform"), "rounds": 2, "engine": "in_process"}
    ends = [
        fp.train(fp.models.Logistic(), clients, channel=[fp.Clip(10.0), Partial("coef"), *stages], **options)
        for stages in ([], [fp.SecureSum()])
    ]
    first, second = (end.fitted.weights["coef"] for end in ends)
    np.testing.assert_allclose(first, second, atol=1e-6)
    assert ends[1].fitted.weights["intercept"] == 0
