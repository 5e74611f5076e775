"""Gaussian noise: it is there, it has the variance it says, and no channel promises what it cannot keep."""

import math
import tracemalloc

import numpy as np
import pytest

import fedpact as fp
from fedpact.algorithms import ALGORITHMS
from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.newton import Newton
from fedpact.channel.channel import Channel, RoundContext
from fedpact.channel.clip import Clip
from fedpact.channel.noise import GaussianNoise, secret_gaussian
from fedpact.core.accumulator import Accumulator
from fedpact.core.errors import ChannelError, ConfigError
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.vector import Entry, Layout, Vector
from tests.federation import SEED, Quadratics, quadratic

UNIFORM = FedAvg(weighting="uniform")
ELEMENTS = 200_000
LAYOUT = Layout(
    [Entry("w", (ELEMENTS // 2, 2)), Entry("b", (3,), "float64"), Entry("none", (0,), role="buffer")]
)


def through(channel, updates):
    """Return the aggregate of these updates, as it comes out of the channel."""
    context = channel.context(0)
    accumulator = Accumulator(Task("train"), 65536.0, len(updates), len(updates))
    for update in updates:
        accumulator.add(channel.encode(update, context))
    return channel.decode(accumulator.aggregate(), context)


def zeros(count, layout=LAYOUT):
    return [
        Update(f"{i}", 0, "delta", averaged={"model": Vector.zeros(layout)}, metrics={"loss": 1.0, "rows": 1})
        for i in range(count)
    ]


@pytest.mark.parametrize(("multiplier", "clip", "count"), [(1.0, 1.0, 1), (0.5, 4.0, 5), (3.0, 0.1, 2)])
def test_the_noise_on_the_mean_has_the_variance_it_says(multiplier, clip, count):
    channel = Channel([Clip(clip), GaussianNoise(multiplier)], UNIFORM)
    noise = through(channel, zeros(count)).means["model"]["w"].ravel().astype(np.float64)
    expected = multiplier * clip / count
    # Of 2e5 elements the variance is right to 0.32 % (one standard deviation), the mean to 1/447.
    assert np.var(noise) == pytest.approx(expected**2, rel=0.02)
    assert abs(np.mean(noise)) < 5 * expected / math.sqrt(ELEMENTS)
    stats = pytest.importorskip("scipy.stats")
    assert stats.kstest(noise / expected, "norm").pvalue > 1e-6


def test_every_averaged_vector_and_segment_gets_noise_of_its_own():
    channel = Channel([Clip(1.0), GaussianNoise(1.0)], UNIFORM)
    layout = Layout([Entry("a", (1000,)), Entry("b", (1000,), "float64")])
    sent = Update(
        "lyon", 0, "delta", averaged={"model": Vector.zeros(layout), "control": Vector.zeros(layout)}
    )
    means = through(channel, [sent]).means
    drawn = [flat.astype(np.float64) for name in ("model", "control") for flat in means[name].flats]
    assert all(abs(np.std(flat) - 1) < 0.15 for flat in drawn)
    correlations = np.corrcoef(drawn)[np.triu_indices(len(drawn), 1)]
    assert np.abs(correlations).max() < 0.2


def test_noise_is_added_to_the_mean_and_not_instead_of_it():
    channel = Channel([Clip(1000.0), GaussianNoise(1e-6)], UNIFORM)
    sent = Vector.from_arrays({"w": np.arange(4.0)})
    updates = [Update(id, 0, "delta", averaged={"model": sent}) for id in ("lyon", "nice")]
    found = through(channel, updates).means["model"]["w"]
    np.testing.assert_allclose(found, np.arange(4.0), atol=0.01)
    assert np.all(found != np.arange(4.0))


def test_noise_is_not_drawn_from_the_jobs_seed():
    channel = Channel([Clip(1.0), GaussianNoise(1.0)], UNIFORM)
    first, second = (through(channel, zeros(2)).means["model"] for _ in range(2))
    correlation = np.corrcoef(first["w"].ravel(), second["w"].ravel())[0, 1]
    assert abs(correlation) < 0.02
    assert len(np.intersect1d(first["b"], second["b"])) == 0


def test_what_one_client_changes_is_bounded_by_the_clip_that_scales_the_noise():
    # A client far beyond the bound moves the mean of four by clip/4, and no further.
    channel = Channel([Clip(2.0), GaussianNoise(1e-9)], UNIFORM)
    layout = Layout([Entry("w", (4,), "float64")])
    bold = Update("bold", 0, "delta", averaged={"model": Vector.from_arrays({"w": np.full(4, 1e4)}, layout)})
    found = through(channel, [*zeros(3, layout), bold]).means["model"].norm()
    assert found == pytest.approx(2.0 / 4, rel=1e-6)


def test_training_metrics_are_not_released_under_noise():
    channel = Channel([Clip(1.0), GaussianNoise(1.0)], UNIFORM)
    assert channel.encode(zeros(1)[0], channel.context(0)).metrics == {}
    assert through(channel, zeros(2)).metrics == {}


@pytest.mark.parametrize(
    ("stages", "algorithm", "sentence"),
    [
        ([GaussianNoise(1.0)], UNIFORM, r"needs one Clip before it.*\[Clip\(1\.0\), GaussianNoise"),
        ([GaussianNoise(1.0), Clip(1.0)], UNIFORM, "needs one Clip before it"),
        ([Clip(1.0), Clip(0.5), GaussianNoise(1.0)], UNIFORM, "needs one Clip before it"),
        ([Clip(1.0), GaussianNoise(1.0)], FedAvg(), 'equal weight.* set weighting="uniform" in FedAvg'),
        ([Clip(1.0), GaussianNoise(1.0)], Newton(), "Newton send sums of statistics"),
        ([GaussianNoise(1.0)], Newton(), "needs one Clip before it"),
    ],
)
def test_a_channel_that_cannot_keep_its_promise_is_refused(stages, algorithm, sentence):
    with pytest.raises(ChannelError, match=sentence):
        Channel(stages, algorithm)


BATCH_NORM = Layout(
    [Entry("w", (4, 4)), Entry("running_var", (4,), role="buffer"), Entry("steps", (), "int64", "buffer")]
)


def test_noise_on_buffers_is_refused_before_any_client_is_asked():
    stages = [Clip(1.0), GaussianNoise(1.0)]
    channel = Channel(stages, UNIFORM)
    sentence = '"running_var" is a buffer.* GroupNorm or LayerNorm, or set track_running_stats=False'
    with pytest.raises(ChannelError, match=sentence):
        channel.for_model(BATCH_NORM)
    with pytest.raises(ChannelError, match=sentence):
        Channel(stages, UNIFORM, BATCH_NORM)
    # LAYOUT has a buffer of no elements.
    assert channel.for_model(LAYOUT).context(0) == channel.context(0)


def test_noise_on_buffers_that_no_layout_announced_is_refused_at_the_client():
    channel = Channel([Clip(1.0), GaussianNoise(1.0)], UNIFORM)
    with pytest.raises(ChannelError, match='"running_var" is a buffer'):
        channel.encode(zeros(1, BATCH_NORM.wide)[0], channel.context(0))


def test_a_model_with_batch_norm_is_not_trained_under_noise_but_is_under_a_clip():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))
    rng = np.random.default_rng(0)
    clients = [
        fp.ClientData(id, fp.Rows(rng.normal(size=(40, 3)).astype(np.float32), np.arange(40) % 2))
        for id in ("lyon", "nice")
    ]
    settings = {
        "algorithm": fp.FedAvg(lr=0.1, local_steps=50, batch_size=10, weighting="uniform"),
        "rounds": 1,
    }
    with pytest.raises(ChannelError, match=r'"1\.running_mean" is a buffer'):
        fp.train(fp.models.Torch(module), clients, channel=[Clip(1.0), GaussianNoise(1.0)], **settings)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    after = fp.train(fp.models.Torch(module), clients, channel=Clip(0.5), **settings).model.state_dict()
    names = [name for name, _ in module.named_parameters()]
    moved = math.sqrt(sum(float((after[name] - before[name]).norm()) ** 2 for name in names))
    # Each client is clipped to 0.5; two that learn much the same move the mean by most of it.
    assert 0.05 < moved <= 0.5 * (1 + 1e-6)
    assert after["1.num_batches_tracked"] == 50


@pytest.mark.parametrize("stages", [[GaussianNoise(1.0)], [Clip(1.0), GaussianNoise(1.0)]])
def test_a_control_variate_that_its_client_keeps_gets_no_noise(stages):
    algorithm = ALGORITHMS.build({"name": "SCAFFOLD", "weighting": "uniform"})
    with pytest.raises(ChannelError, match="changes updates on their way, but the clients of SCAFFOLD go on"):
        Channel(stages, algorithm)


@pytest.mark.parametrize("name", ["FedAvg", "FedSGD", "FedProx", "FedAdam"])
def test_noise_goes_with_every_algorithm_that_averages_alike(name):
    channel = Channel(
        [Clip(1.0), GaussianNoise(1.0)], ALGORITHMS.build({"name": name, "weighting": "uniform"})
    )
    assert channel.context(0).sensitivity == 1.0


@pytest.mark.parametrize("multiplier", [0.0, -1.0, math.nan, math.inf])
def test_a_multiplier_that_is_no_positive_number_is_refused(multiplier):
    with pytest.raises(ConfigError, match=r"GaussianNoise: multiplier is .*; it must be a positive number"):
        GaussianNoise(multiplier)


def test_noise_takes_no_memory_of_the_models_size_but_the_noisy_model():
    layout = Layout([Entry("w", (2_000_000,))])
    stage, context = GaussianNoise(1.0), RoundContext(0, sensitivity=1.0)
    aggregate = Aggregate("delta", 2, 2.0, 2, means={"model": Vector.zeros(layout)})
    tracemalloc.start()
    stage.decode(aggregate, context)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.6 * layout.nbytes


def test_a_round_of_training_is_noised_by_as_much_as_it_says():
    # Lone clients whose step ends at their own optimum, 1: clipped to norm 0.5, then noised by 0.1 · 0.5 / 2.
    size = 50_000
    model, algorithm = Quadratics(np.zeros(size)), FedAvg(lr=1.0, local_steps=1, weighting="uniform")
    channel = Channel([Clip(0.5), GaussianNoise(0.1)], algorithm)
    task, updates = algorithm.task(algorithm.init(model, SEED)), []
    for id in ("lyon", "nice"):
        data = quadratic(id, 1.0, np.ones(size))
        update, _ = algorithm.client(model, task, data, {}, SEED.child(id))
        updates.append(update)
    change = through(channel, updates).means["model"]["w"]
    clipped = 0.5 / math.sqrt(size)
    assert np.mean(change) == pytest.approx(clipped, abs=5 * 0.025 / math.sqrt(size))
    assert np.std(change) == pytest.approx(0.025, rel=0.02)


@pytest.mark.parametrize("size", [0, 1, 2, 7])
def test_as_many_numbers_are_drawn_as_are_asked_for(size):
    assert secret_gaussian(size).shape == (size,)


def test_secret_numbers_are_standard_normal():
    stats = pytest.importorskip("scipy.stats")
    numbers = secret_gaussian(400_000)
    assert np.isfinite(numbers).all()
    assert stats.kstest(numbers, "norm").pvalue > 1e-6
    assert np.var(numbers) == pytest.approx(1, rel=0.015)
    # The two halves come from the same radii: they must be uncorrelated all the same.
    half = len(numbers) // 2
    assert abs(np.corrcoef(numbers[:half], numbers[half : 2 * half])[0, 1]) < 0.012
    assert abs(np.corrcoef(numbers[:half] ** 2, numbers[half : 2 * half] ** 2)[0, 1]) < 0.012
