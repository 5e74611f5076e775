"""Whole runs behind each compressor: they learn, they send less, and every engine comes to the same bits."""

from contextlib import closing

import numpy as np
import pytest

import fedpact as fp
from fedpact.channel import TRANSFORMS
from fedpact.channel.channel import Channel
from fedpact.core.accumulator import Accumulator
from fedpact.core.errors import ChannelError
from fedpact.core.messages import Task, Update
from fedpact.core.seeds import Seed
from fedpact.core.vector import Entry, Layout
from tests.channel.rounds import random_vector

PACK = [
    fp.TopK(0.2),
    fp.TopK(k=5, momentum=0.5),
    fp.SignSGD(0.05),
    fp.EFSignSGD(),
    fp.TernGrad(),
    fp.QSGD(7),
    fp.QSGD(3, coding="elias"),
    fp.Drive(),
    fp.Drive(unbiased=False),
    fp.Eden(3),
    fp.Lossless(),
    fp.Cast(),
]
STAGES = [*PACK, fp.SendQuantized(), fp.Prune(0.5, start=1, end=2)]
UNIFORM = fp.FedAvg(lr=0.1, weighting="uniform")


@pytest.fixture(scope="module")
def clients():
    return fp.datasets.breast_cancer()


def trained(clients, channel, engine="in_process", algorithm=None, rounds=3, **more):
    return fp.train(
        fp.models.Logistic(),
        clients,
        preprocess=fp.Standardize(),
        algorithm=algorithm or fp.FedAvg(lr=0.1),
        channel=channel,
        rounds=rounds,
        evaluate_every=rounds,
        engine=engine,
        **more,
    )


def traffic(run):
    return run.history[["download_bytes", "upload_bytes"]]


@pytest.fixture(scope="module")
def plain(clients):
    return trained(clients, ())


@pytest.mark.parametrize("stage", STAGES, ids=str)
def test_runs_learn_with_fewer_bytes(stage, clients, plain):
    run = trained(clients, stage)
    assert run.evaluation.metrics["accuracy"] > 0.93
    assert run.failures.empty
    # Of 31 float64 their frame takes more than it saves.
    if not isinstance(stage, fp.Lossless):
        assert traffic(run).to_numpy().sum() < traffic(plain).to_numpy().sum()


def test_runs_in_processes_come_to_the_same_bits(clients):
    # Clients that remember, draw, and are told which weights are left.
    with closing(fp.Workers(2)) as engine:
        for stage in (fp.TopK(k=5, momentum=0.5), fp.QSGD(3, coding="elias"), fp.Prune(0.5, start=1, end=2)):
            here, there = trained(clients, stage), trained(clients, stage, engine)
            assert here.weights == there.weights
            assert traffic(here).equals(traffic(there))


def test_lossless_runs_and_runs_without_a_channel_end_with_the_same_bits(clients, plain):
    assert trained(clients, fp.Lossless()).weights == plain.weights


@pytest.mark.parametrize(
    "stage",
    [fp.TopK(0.2, momentum=0.5), fp.CountSketch(1, 20, 5, momentum=0.5), fp.Prune(0.5, end=3)],
    ids=str,
)
def test_runs_that_are_stopped_and_resumed_end_with_the_same_bits(stage, clients, tmp_path):
    def stop(record):
        if record["round"] == 2:
            raise KeyboardInterrupt

    whole = trained(clients, stage, rounds=4)
    with pytest.raises(KeyboardInterrupt):
        trained(clients, stage, rounds=4, folder=tmp_path, on_round=stop)
    assert trained(clients, stage, rounds=4, folder=tmp_path, resume=True).weights == whole.weights


def test_stages_survive_being_written_down():
    assert {TRANSFORMS.build(TRANSFORMS.describe(stage)) == stage for stage in STAGES} == {True}


@pytest.mark.parametrize("stage", PACK, ids=str)
def test_what_has_to_be_undone_for_each_client_is_refused_under_masks_and_noise(stage):
    name = type(stage).__name__
    for behind in (fp.SecureSum(), fp.GaussianNoise(1.0)):
        with pytest.raises(ChannelError, match=f"cannot stand behind {name} in a channel"):
            Channel([fp.Clip(1.0), stage, behind], UNIFORM)
    with pytest.raises(ChannelError, match=f"Clip cannot stand behind {name}"):
        Channel([stage, fp.Clip(1.0)], UNIFORM)
    Channel([fp.Clip(1.0), stage], UNIFORM)


def test_the_masked_sum_of_pruned_models_is_the_clear_one(clients):
    stages = [fp.Clip(1.0), fp.Prune(0.5, start=1, end=2)]
    clear = trained(clients, stages, algorithm=UNIFORM)
    masked = trained(clients, [*stages, fp.SecureSum()], algorithm=UNIFORM)
    assert (masked.weights["coef"] == 0).sum() == 15
    assert masked.weights["coef"] == pytest.approx(clear.weights["coef"], abs=1e-4)


def test_download_rounding_stands_beside_masks(clients):
    stages = [fp.SendQuantized(), fp.Clip(1.0), fp.SecureSum()]
    assert trained(clients, stages, algorithm=UNIFORM).evaluation.metrics["accuracy"] > 0.93


def test_power_iterations_take_turns_through_a_whole_channel():
    model = random_vector(Layout([Entry("w", (8, 10)), Entry("b", (8,))]), np.random.default_rng(0))
    channel = Channel([fp.PowerSGD(1)], fp.FedAvg(), model.layout)
    change, states, sizes = model.copy(), None, []
    change["w"][:] = np.outer(np.arange(8), np.arange(10))
    for version in range(3):
        task = Task("train", version, {"model": model}, "delta")
        opened = channel.begin(task, ["lyon"], Seed.of(0), states)
        sums = Accumulator(task, 65536.0, 1, 1, expected=opened.expected)
        sent, _ = channel.encode(Update("lyon", version, "delta", averaged={"model": change}), opened, {}, {})
        sizes.append(sent.nbytes)
        sums.add(channel.receive(sent, opened))
        aggregate, states = channel.aggregate(sums, opened)
    np.testing.assert_allclose(aggregate.means["model"]["w"], change["w"], atol=1e-4)
    # A column of 8 and one of 10, by turns, beside 8 that are sent whole.
    assert sizes == [16 * 4, 18 * 4, 16 * 4]
