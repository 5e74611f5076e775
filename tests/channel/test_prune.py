"""Pruning: the schedule's share of the smallest weights is 0, is not sent, and stays 0 in the model."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedpact as fp
from fedpact.algorithms.fedavg import FedAvg, FedAvgState
from fedpact.algorithms.fedopt import FedAvgM
from fedpact.algorithms.fedprox import FedProx
from fedpact.algorithms.fedsgd import FedSGD
from fedpact.algorithms.newton import Newton
from fedpact.channel.channel import Channel
from fedpact.channel.clip import Clip
from fedpact.channel.count_sketch import CountSketch
from fedpact.channel.noise import GaussianNoise
from fedpact.channel.prune import Prune
from fedpact.channel.secure_sum import SecureSum
from fedpact.channel.send_quantized import SendQuantized
from fedpact.channel.top_k import TopK
from fedpact.core.accumulator import Accumulator
from fedpact.core.errors import ChannelError, ConfigError
from fedpact.core.messages import Task
from fedpact.core.seeds import Seed
from fedpact.core.vector import Entry, Layout
from tests.channel.rounds import random_vector, update

LAYOUT = Layout(
    [
        Entry("conv", (6, 2, 4)),
        Entry("bias", (6,)),
        Entry("half", (5, 8), "bfloat16"),
        Entry("head", (3, 10), "float64"),
        Entry("var", (3, 3), role="buffer"),
        Entry("steps", (), "int64", "buffer"),
    ]
)


def model_of(seed=0, layout=LAYOUT):
    return random_vector(layout.wide, np.random.default_rng(seed)).narrowed(layout)


def held(stages, model, changes, version=0):
    """What goes down in a round, the clients' bytes, and the model that it ends with."""
    channel = Channel(stages, FedAvg(), model.layout)
    task = Task("train", version, {"model": model}, "delta")
    ids = [str(i) for i in range(len(changes))]
    opened = channel.begin(task, ids, Seed.of(0))
    sent = channel.send(task, opened)
    sums = Accumulator(sent, 65536.0, len(ids), len(ids), expected=opened.expected)
    sizes = []
    for id, change in zip(ids, changes, strict=True):
        encoded, _ = channel.encode(update(id, model=change), opened, {}, {})
        sizes.append(encoded.nbytes)
        sums.add(channel.receive(encoded, opened))
    aggregate, states = channel.aggregate(sums, opened)
    after = FedAvg().server(None, FedAvgState(version, model, {}), aggregate).model
    return sent, sizes, after, states


def told_bytes(stage, model):
    """What clients are told of the stage besides the model."""
    channel = Channel([stage], FedAvg(), model.layout)
    return channel.begin(Task("train", arrays={"model": model}), ["a"], Seed.of(0)).told_bytes


def changes_of(number, layout=LAYOUT):
    return [random_vector(layout.wide, np.random.default_rng(10 + i)) for i in range(number)]


def test_the_share_follows_the_schedule_of_the_paper():
    stage = Prune(0.8, start=2, end=12, initial=0.2)
    assert [stage.sparsity_in(t) for t in (0, 1, 2)] == [0.0, 0.0, pytest.approx(0.2)]
    # 0.8 + (0.2 − 0.8)·(1 − 5/10)³ by hand.
    assert stage.sparsity_in(7) == pytest.approx(0.8 - 0.6 / 8)
    assert stage.sparsity_in(12) == stage.sparsity_in(99) == 0.8
    steps = [Prune(0.8, end=10, every=4).sparsity_in(t) for t in range(11)]
    assert len(set(steps)) == 4
    assert steps == sorted(steps)
    assert Prune(0.5, start=3).sparsity_in(3) == 0.5


@given(st.floats(0.01, 0.99), st.integers(0, 3))
def test_the_smallest_weights_of_each_matrix_go_down_as_zeros(sparsity, seed):
    model = model_of(seed)
    sent, _, after, _ = held([Prune(sparsity)], model, changes_of(2))
    for name in ("conv", "half", "head"):
        size = np.abs(model.widened()[name]).reshape(-1).astype(float)
        left = np.zeros(size.size, bool)
        left[np.argsort(-size, kind="stable")[: max(1, size.size - round(sparsity * size.size))]] = True
        down = sent.arrays["model"].widened()[name].reshape(-1)
        np.testing.assert_array_equal(down, np.where(left, model.widened()[name].reshape(-1), 0))
        assert not after.widened()[name].reshape(-1)[~left].any()
    for name in ("bias", "var", "steps"):
        np.testing.assert_array_equal(sent.arrays["model"][name], model[name])


def test_what_is_left_changes_by_the_mean_and_the_rest_ends_as_zero():
    model, changes = model_of(), changes_of(3)
    _, _, after, states = held([Prune(0.5)], model, changes)
    whole, _, plain, _ = held([], model, changes)
    assert whole.nbytes == model.layout.nbytes
    for name, array in after.items():
        zero = array == 0 if name in ("conv", "half", "head") else np.zeros(array.shape, bool)
        assert zero.sum() == (array.size // 2 if zero.any() else 0)
        np.testing.assert_array_equal(array[~zero], plain[name][~zero])
    assert states == ({},)


def test_what_is_zero_is_sent_neither_down_nor_up():
    model = model_of()
    sent, sizes, _, _ = held([Prune(0.75)], model, changes_of(2))
    told = told_bytes(Prune(0.75), model)
    # What is left of conv, half and head in their dtypes, the rest whole; and a bit for each weight that may be pruned.
    assert sent.nbytes == model.layout.nbytes - 36 * 4 - 30 * 2 - 22 * 8
    assert told == 6 + 5 + 4
    # Of 48, 40 and 30 are 12, 10 and 8 left; a bias of 6, and buffers. Arrays of one dtype start on cache lines.
    entries = [
        ("conv", 12, "float32"),
        ("bias", 6, "float32"),
        ("half", 10, "float32"),
        ("head", 8, "float64"),
    ]
    buffers = [Entry("var", (3, 3), role="buffer"), Entry("steps", (), "float64", "buffer")]
    left = Layout([*(Entry(name, (size,), dtype) for name, size, dtype in entries), *buffers])
    assert sizes == [left.nbytes] * 2


def test_before_the_start_nothing_changes():
    model, changes = model_of(), changes_of(2)
    sent, sizes, after, _ = held([Prune(0.5, start=1)], model, changes)
    plain, whole, wanted, _ = held([], model, changes)
    assert sent.arrays["model"] == plain.arrays["model"] == model
    assert (sent.nbytes, sizes, after) == (plain.nbytes, whole, wanted)


def test_whole_rows_of_least_norm_are_pruned_in_all_matrices_but_the_last():
    model = model_of()
    sent, _, after, _ = held([Prune(0.5, structured=True)], model, changes_of(2))
    down = sent.arrays["model"].widened()
    for name, rows in (("conv", 3), ("half", 2)):
        norms = np.linalg.norm(model.widened()[name].reshape(len(model[name]), -1), axis=1)
        gone = np.sort(np.argsort(norms)[:rows])
        zeros = [i for i, row in enumerate(down[name]) if not row.any()]
        assert zeros == gone.tolist()
        assert [i for i, row in enumerate(after.widened()[name]) if not row.any()] == zeros
    np.testing.assert_array_equal(down["head"], model["head"])
    assert sent.nbytes == model.layout.nbytes - 3 * 8 * 4 - 2 * 8 * 2
    # A bit for each row, in whole bytes.
    assert told_bytes(Prune(0.5, structured=True), model) == 2


def test_of_each_matrix_a_row_is_left_however_few_there_are():
    # Of 6 and 5 rows 0.95 would be 6 and 5: behind a layer of zeros nothing is learned any more.
    down = held([Prune(0.95, structured=True)], model_of(), changes_of(1))[0].arrays["model"].widened()
    for name in ("conv", "half"):
        assert sum(row.any() for row in down[name]) == 1


def test_parameters_may_be_skipped_and_a_model_without_matrices_is_pruned_too():
    sent = held([Prune(0.5, skip=("conv", "half"))], model_of(), changes_of(1))[0].arrays["model"]
    assert np.count_nonzero(sent["conv"]) == 48
    assert np.count_nonzero(sent["head"]) == 15
    layout = Layout([Entry("coef", (10,), "float64"), Entry("intercept", (), "float64")])
    sent = held([Prune(0.5)], model_of(0, layout), changes_of(1, layout))[0].arrays["model"]
    assert np.count_nonzero(sent["coef"]) == 5
    assert sent["intercept"] != 0


def test_what_is_pruned_may_be_rounded_packed_and_masked():
    model, changes = model_of(), changes_of(3)
    wanted = held([Prune(0.5)], model, changes)[2]
    packed = held([Prune(0.5), TopK(1.0, error_feedback=False)], model, changes)[2]
    for name in ("conv", "head"):
        np.testing.assert_allclose(packed[name], wanted[name], atol=1e-6)
    down = held([Prune(0.5), SendQuantized()], model, changes)[0]
    assert np.count_nonzero(down.arrays["model"]["conv"]) <= 24
    uniform = FedAvg(weighting="uniform")
    layout = Layout([Entry("a", (4, 3)), Entry("b", (2,))])
    for stages in ([Clip(1.0), Prune(0.5), SecureSum()], [Clip(1.0), Prune(0.5), GaussianNoise(1.0)]):
        assert Channel(stages, uniform, layout).stages[1] == Prune(0.5)


def test_the_model_that_training_ends_with_has_these_zeros():
    settings = {
        "model": fp.models.Logistic(),
        "clients": fp.datasets.breast_cancer(),
        "preprocess": fp.Standardize(),
        "algorithm": fp.FedAvg(lr=0.1),
        "rounds": 6,
        "engine": "in_process",
    }
    pruned, plain = fp.train(**settings, channel=fp.Prune(0.7, start=1, end=4)), fp.train(**settings)
    assert np.count_nonzero(pruned.weights["coef"] == 0) == 21
    assert np.count_nonzero(plain.weights["coef"] == 0) == 0
    assert pruned.evaluation.metrics["accuracy"] > 0.93
    # To four clients 30 float64 and an intercept, of which in the end 9 and it are left, and 4 bytes that say which.
    down = pruned.history["download_bytes"].tolist()
    assert down[0] == 4 * 31 * 8
    assert down[-1] == 4 * (10 * 8 + 4)
    up, whole = (each.history["upload_bytes"].tolist() for each in (pruned, plain))
    assert up[0] == whole[0]
    assert whole[-1] - up[-1] == 4 * 21 * 8
    assert sorted(up, reverse=True) == up


def test_algorithms_stages_models_and_settings_that_it_does_not_go_with_are_refused():
    Prune(0.5).check([], FedProx(), LAYOUT)
    for algorithm in (FedAvgM(), FedSGD(), FedAvg(server_lr=0.5)):
        with pytest.raises(ChannelError, match="Prune needs a server that adds the mean change"):
            Prune(0.5).check([], algorithm, None)
    with pytest.raises(ChannelError, match="take Prune out"):
        Prune(0.5).check([], Newton(), None)
    with pytest.raises(ChannelError, match="put Prune before SendQuantized"):
        Channel([SendQuantized(), Prune(0.5)], FedAvg())
    for stage in (TopK(0.5), CountSketch(3, 4, 5)):
        with pytest.raises(ChannelError, match="behind Prune a number stands for something else"):
            Channel([Prune(0.5), stage], FedAvg())
    with pytest.raises(ChannelError, match=r'no parameter "haed" to skip\. Did you mean "head"'):
        Prune(0.5, skip=("haed",)).check([], FedAvg(), LAYOUT)
    with pytest.raises(ChannelError, match="finds nothing to prune: the model has no matrix but the last"):
        Prune(0.5, structured=True).check([], FedAvg(), Layout([Entry("w", (3, 3))]))
    with pytest.raises(ChannelError, match="Prune keeps only part"):
        Prune(0.5).encode(update(kind="model", model=model_of()), None)
    task = Task("train", arrays={"model": model_of(), "other": model_of(0, Layout([Entry("x", (2,))]))})
    with pytest.raises(ChannelError, match='"other" of this one is none'):
        Prune(0.5).begin(task, {})
    for settings in (
        {"sparsity": 0},
        {"sparsity": 1},
        {"sparsity": 0.5, "initial": 0.6},
        {"sparsity": 0.5, "start": -1},
        {"sparsity": 0.5, "start": 3, "end": 2},
        {"sparsity": 0.5, "end": 1.5},
        {"sparsity": 0.5, "every": 0},
        {"sparsity": 0.5, "structured": 1},
    ):
        with pytest.raises(ConfigError, match="Prune: "):
            Prune(**settings)
