"""Noise: it is there, has the variance it says, lies on the grid, and no channel promises what it cannot keep."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import fedpact as fp
from fedpact.algorithms import ALGORITHMS
from fedpact.algorithms.cyclic import Cyclic
from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.newton import Newton
from fedpact.channel.channel import Channel
from fedpact.channel.clip import Clip
from fedpact.channel.noise import GaussianNoise, LaplaceNoise, Noise, SkellamNoise
from fedpact.channel.quantize import Quantize
from fedpact.channel.random_k import RandomK
from fedpact.channel.secure_sum import SecureSum
from fedpact.core.errors import ChannelError, ConfigError
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.vector import Entry, Layout, Vector
from fedpact.engine.in_process import InProcess
from fedpact.engine.population import InMemory
from fedpact.engine.rounds import hold_round
from fedpact.engine.work import Rules, Setting
from tests.channel.cohorts import UNIFORM, Walked, layout_of, through, update, walk
from tests.federation import SEED, Quadratics, quadratic

MILLION = 1_000_000
# Of a million numbers the variance is right to √(2 / 10^6) = 0.14 % (one standard deviation): five of these.
TOLERANCE = 0.0071
IDS = ["a", "b", "c", "d"]


def zeros(clients: int = 4, size: int = MILLION) -> list[Update]:
    return [update(id, np.zeros(size), loss=1.0) for id in IDS[:clients]]


def check_variance(noise: Any, std: float) -> None:
    """Fail where numbers are no noise of this standard deviation around 0."""
    assert np.var(noise) == pytest.approx(std**2, rel=TOLERANCE * math.sqrt(MILLION / noise.size))
    assert abs(np.mean(noise)) < 5 * std / math.sqrt(noise.size)


STAGES: dict[str, Callable[..., list[Any]]] = {
    "central": lambda noise: [Clip(0.5), noise(0.8, where="central")],
    "distributed": lambda noise: [Clip(0.5), noise(0.8, where="distributed"), SecureSum()],
    "local": lambda noise: [Clip(0.5), noise(0.8, where="local")],
}


def expected(where: str, walked: Walked, size: int, clients: int) -> float:
    """The standard deviation of the mean, worked out from the settings above."""
    # What a client can change is the clip norm and half a step in every number.
    bound = 0.5 + walked.step * math.sqrt(size) / 2
    # Complete graph: of 4 clients ⌊8 / 3⌋ + 1 = 3 hold all of the noise, and of 2 nobody may drop out.
    parts = {"central": 1.0, "distributed": clients / 3, "local": clients}[where]
    return 0.8 * bound * math.sqrt(parts) / clients


@pytest.mark.parametrize("noise", [GaussianNoise, SkellamNoise])
@pytest.mark.parametrize("where", STAGES)
def test_the_noise_on_the_mean_has_the_variance_it_says(where: str, noise: Any) -> None:
    walked = through(STAGES[where](noise), zeros())
    check_variance(walked.mean, expected(where, walked, MILLION, 4))


def test_laplace_noise_has_the_variance_it_says() -> None:
    for where, clients in (("central", 1), ("local", 4)):
        walked = through([Clip(0.5, p=1), LaplaceNoise(2.0, where=where)], zeros(size=200_000))
        scale = 2.0 * (0.5 + walked.step * 200_000 / 2)
        # Of a Laplace distribution the variance is 2 b², and of 2e5 numbers right to √(5 / 2e5) = 0.5 %.
        assert np.var(walked.mean) == pytest.approx(2 * scale**2 * clients / 16, rel=0.025)


@pytest.mark.parametrize("clip", [1e-15, 1e-6, 1.0, 1e6])
def test_the_noise_keeps_to_the_bound_however_small_or_large_it_is(clip: float) -> None:
    walked = through([Clip(clip), GaussianNoise(1.0)], zeros(2, 100_000))
    check_variance(walked.mean, clip / 2)


def test_the_noise_keeps_to_the_bound_however_many_clients_are_asked() -> None:
    asked = [f"{i}" for i in range(300_000)]
    walked = through([Clip(1.0), GaussianNoise(1.0)], [update("0", np.zeros(100_000))], asked=asked)
    check_variance(walked.mean * len(asked), 1.0)


def test_the_noise_is_normal() -> None:
    stats = pytest.importorskip("scipy.stats")
    walked = through([Clip(1.0), GaussianNoise(1.0)], zeros(1, 200_000))
    assert stats.kstest(walked.mean, "norm").pvalue > 1e-6


def test_every_averaged_vector_gets_noise_of_its_own() -> None:
    layout = layout_of(2000)
    sent = Update(
        "lyon", 0, "delta", averaged={"model": Vector.zeros(layout), "control": Vector.zeros(layout)}
    )
    means = through([Clip(1.0), GaussianNoise(1.0)], [sent]).aggregate.means
    drawn = [means[name]["w"] for name in ("model", "control")]
    assert all(abs(np.std(each) - 1) < 0.1 for each in drawn)
    # Of 2,000 independent pairs the correlation is 0 ± 0.022.
    assert abs(np.corrcoef(drawn)[0, 1]) < 0.12


@pytest.mark.parametrize("where", STAGES)
def test_noise_is_added_to_the_mean_and_not_instead_of_it(where: str) -> None:
    walked = through(STAGES[where](GaussianNoise), [update(id, np.full(100, 0.05)) for id in IDS])
    std = expected(where, walked, 100, 4)
    assert abs(np.mean(walked.mean) - 0.05) < 5 * std / 10
    assert np.all(walked.mean != 0.05)


@pytest.mark.parametrize("where", STAGES)
def test_two_runs_with_one_seed_have_different_noise(where: str) -> None:
    a, b = (through(STAGES[where](GaussianNoise), zeros(size=20_000), seed=SEED).mean for _ in range(2))
    # Of 20,000 independent pairs the correlation is 0 ± 0.007.
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.035


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("where", STAGES)
def test_every_released_number_is_a_whole_number_of_steps(where: str, value: float, dtype: str) -> None:
    # Floating-point noise fails this: of 0 + noise a quarter of the numbers are no multiples of the last place of 1,
    # and of 1 + noise none, so that a single number tells the two apart.
    sent = [Vector.from_arrays({"w": np.full(50_000, value, dtype)}) for _ in IDS]
    stages = [Clip(1e6), *STAGES[where](GaussianNoise)[1:]]
    walked = through(stages, [update(id, each) for id, each in zip(IDS, sent, strict=True)])
    quarters = walked.mean / (walked.step / 4)
    steps = np.rint(quarters)
    if math.log2(walked.step).is_integer():
        np.testing.assert_array_equal(quarters, steps)
    # Of other steps a product is rounded, to the same number for everybody who has that whole number of steps.
    np.testing.assert_array_equal(walked.mean, (steps * (walked.step / 4)).astype(dtype))
    assert len(np.unique(steps)) > 40_000


def test_of_three_clients_every_released_number_is_a_third_of_a_multiple() -> None:
    walked = through([Clip(1.0), GaussianNoise(1.0)], zeros(3, 10_000))
    steps = np.rint(walked.mean * 3 / walked.step)
    np.testing.assert_array_equal(walked.mean, steps * (walked.step / 3))


# The checks that a mutant must not pass.


def check_noise_ignores_who_answers(channel: Channel) -> None:
    """Fail where noise or mean depend on how many of those asked have answered."""
    size, value = 200_000, 0.001
    found = []
    for answered in (4, 2, 1):
        sent = [update(id, np.full(size, value)) for id in IDS[:answered]]
        walked = walk(channel, sent, asked=IDS, cohort=4)
        check_variance(walked.mean - value * answered / 4, 1.0 / 4)
        assert walked.aggregate is not None
        found.append(walked.aggregate.weight)
    assert found == [4, 4, 4]


class ByThoseWhoAnswered(Channel):
    """Divides by the clients that answered: the wrong denominator."""

    def aggregate(self, sums: Any, round: Any) -> Any:
        aggregate, states = super().aggregate(sums, round)
        factor = round.contexts[-1].cohort / sums.count
        means = {name: Vector(mean.layout, mean.buffer.copy()) for name, mean in aggregate.means.items()}
        for mean in means.values():
            for flat in mean.flats:
                flat *= factor
        return replace(aggregate, means=means), states


def test_noise_and_mean_do_not_depend_on_who_answers() -> None:
    stages = [Clip(1.0), GaussianNoise(1.0)]
    check_noise_ignores_who_answers(Channel(stages, UNIFORM))
    with pytest.raises(AssertionError):
        check_noise_ignores_who_answers(ByThoseWhoAnswered(stages, UNIFORM))


@dataclass(frozen=True)
class HalfNoise(GaussianNoise):
    """Adds half of what it says."""

    def sampler(self, context: Any, dimension: int, shares: int) -> Any:
        return super().sampler(context, dimension, 4 * shares)


def test_half_of_the_noise_is_found_out() -> None:
    honest, half = (through([Clip(1.0), noise(1.0)], zeros(1)) for noise in (GaussianNoise, HalfNoise))
    check_variance(honest.mean, 1.0)
    with pytest.raises(AssertionError):
        check_variance(half.mean, 1.0)


@pytest.mark.parametrize("noise", [GaussianNoise, SkellamNoise])
@pytest.mark.parametrize("colluding", [0, 2])
def test_distributed_noise_is_enough_for_every_number_of_survivors(noise: Any, colluding: int) -> None:
    ids = [f"{i}" for i in range(9)]
    stages = [Clip(1.0), noise(1.0, where="distributed", colluding=colluding), SecureSum()]
    # On the complete graph of 9 clients 7 must stay to the end; of their shares some may be known.
    least, size = 7, 100_000
    assert SecureSum().least(9) == least
    for survivors in range(least, 10):
        sent = [update(id, np.zeros(size)) for id in ids[:survivors]]
        walked = through(stages, sent, asked=ids)
        total = walked.mean * 9 - 0.0
        # What nobody knows is the noise of the survivors but for those that tell theirs.
        check_variance(total, math.sqrt(survivors / (least - colluding)))
        assert np.var(total) * (survivors - colluding) / survivors >= 1 - 0.023


def test_rounding_at_random_is_drawn_again_until_the_norm_is_within_the_bound() -> None:
    stages: list[Any] = [Clip(1.0), Quantize(6, range=0.25), GaussianNoise(1.0)]
    rng, size = np.random.default_rng(0), 500
    for place in range(60):
        values = rng.normal(size=size)
        values /= np.linalg.norm(values)
        walked = through(stages, [update(f"{place}", values)])
        integers = walked.intake.sums.integers().arrays["model"]
        bound = stages[2].integer_bound(walked.opened.grid, 1.0, size)
        assert np.linalg.norm(integers) <= bound
        # The bound is nearer than what rounding could do at worst: a level in every number.
        assert bound < 1.0 / walked.step + 2 * math.sqrt(size)


def test_a_round_measures_its_noise_and_what_rounding_adds_to_the_bound() -> None:
    channel = Channel([Clip(2.0), Quantize(4, range=0.5), GaussianNoise(3.0)], UNIFORM)
    walked = walk(channel, [update(id, np.zeros(100)) for id in IDS])
    measured = channel.measured(walked.intake.notes, 4, walked.opened)
    bound = GaussianNoise(3.0).integer_bound(walked.opened.grid, 2.0, 100) * walked.step
    assert measured["noise.std"] == pytest.approx(3.0 * bound)
    assert measured["noise.rounding_inflation"] == pytest.approx(bound / 2.0)
    assert bound > 2.0


def test_training_metrics_are_not_released_under_noise() -> None:
    for stages in STAGES.values():
        walked = through(stages(GaussianNoise), zeros(size=3))
        assert all(sent.metrics == {} for sent in walked.sent.values())
        assert walked.aggregate is not None
        assert walked.aggregate.metrics == {}


@pytest.mark.parametrize(
    ("stages", "algorithm", "sentence"),
    [
        (
            [GaussianNoise(1.0)],
            UNIFORM,
            r"needs a bound .* put a Clip before it, as in \[Clip\(1\.0\), Gauss",
        ),
        ([GaussianNoise(1.0), Clip(1.0)], UNIFORM, "needs a bound|put Clip before GaussianNoise"),
        ([Clip(1.0), GaussianNoise(1.0)], FedAvg(), 'equal weight.* set weighting="uniform" in FedAvg'),
        ([Clip(1.0), GaussianNoise(1.0)], Newton(), "Newton send sums of statistics"),
        ([Clip(1.0), SkellamNoise(1.0)], UNIFORM, r'put SecureSum\(\) behind it, or set where="local"'),
        ([Clip(1.0), GaussianNoise(1.0), GaussianNoise(2.0)], UNIFORM, "two noises"),
        ([Clip(1.0), LaplaceNoise(1.0)], UNIFORM, r"put Clip\(\.\.\., p=1\) before it, or use GaussianNoise"),
        (
            [Clip(1.0, p=1), Clip(0.1), LaplaceNoise(1.0)],
            UNIFORM,
            r"leave Clip\(\.\.\., p=1\) alone before it",
        ),
        ([Clip(1.0, p=1), Quantize(8), LaplaceNoise(1.0)], UNIFORM, "Quantize keeps no bound of the L1 norm"),
        ([Clip(1.0, p=1), RandomK(0.5), LaplaceNoise(1.0)], UNIFORM, "RandomK keeps no bound of the L1 norm"),
    ],
)
def test_a_channel_that_cannot_keep_its_promise_is_refused(
    stages: Any, algorithm: Any, sentence: str
) -> None:
    with pytest.raises(ChannelError, match=sentence):
        Channel(stages, algorithm)


BATCH_NORM = Layout(
    [Entry("w", (4, 4)), Entry("running_var", (4,), role="buffer"), Entry("steps", (), "int64", "buffer")]
)


def test_noise_on_buffers_is_refused_before_any_client_is_asked() -> None:
    stages = [Clip(1.0), GaussianNoise(1.0)]
    channel = Channel(stages, UNIFORM)
    sentence = r'buffers such as "running_var".* Write Clip\(\.\.\., over="all"\), or use .* GroupNorm'
    with pytest.raises(ChannelError, match=sentence):
        channel.for_model(BATCH_NORM)
    with pytest.raises(ChannelError, match=sentence):
        Channel(stages, UNIFORM, BATCH_NORM)
    # Where no layout was announced, the task tells it.
    with pytest.raises(ChannelError, match=sentence):
        channel.begin(Task("train", arrays={"model": Vector.zeros(BATCH_NORM)}), ["lyon"], SEED)
    without = Layout([Entry("w", (4, 4)), Entry("none", (0,), role="buffer")])
    assert channel.for_model(without).stages == channel.stages


def test_buffers_are_covered_by_a_clip_over_all_alone() -> None:
    Channel([Clip(1.0, over="all"), GaussianNoise(1.0)], UNIFORM, BATCH_NORM)
    # The bound would be 0.1, and nothing keeps buffers to it.
    with pytest.raises(ChannelError, match="running_var"):
        Channel([Clip(1.0, over="all"), Clip(0.1), GaussianNoise(1.0)], UNIFORM, BATCH_NORM)


def test_a_model_with_batch_norm_is_not_trained_under_noise_but_is_under_a_clip() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))
    rng = np.random.default_rng(0)
    clients = [
        fp.ClientData(id, fp.Rows(rng.normal(size=(40, 3)).astype(np.float32), np.arange(40) % 2))
        for id in ("lyon", "nice")
    ]
    settings: dict[str, Any] = {
        "algorithm": fp.FedAvg(lr=0.1, local_steps=50, batch_size=10, weighting="uniform"),
        "rounds": 1,
    }
    with pytest.raises(ChannelError, match=r'"1\.running_mean"'):
        fp.train(fp.models.Torch(module), clients, channel=[Clip(1.0), GaussianNoise(1.0)], **settings)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    after = fp.train(fp.models.Torch(module), clients, channel=Clip(0.5), **settings).model.state_dict()
    names = [name for name, _ in module.named_parameters()]
    moved = math.sqrt(sum(float((after[name] - before[name]).norm()) ** 2 for name in names))
    # Each client is clipped to 0.5; two that learn much the same move the mean by most of it.
    assert 0.05 < moved <= 0.5 * (1 + 1e-6)
    assert after["1.num_batches_tracked"] == 50


@pytest.mark.parametrize("stages", [[GaussianNoise(1.0)], [Clip(1.0), GaussianNoise(1.0)]])
def test_a_control_variate_that_its_client_keeps_gets_no_noise(stages: Any) -> None:
    algorithm = ALGORITHMS.build({"name": "SCAFFOLD", "weighting": "uniform"})
    with pytest.raises(ChannelError, match="changes updates on their way, but the clients of SCAFFOLD go on"):
        Channel(stages, algorithm)


@pytest.mark.parametrize("name", ["FedAvg", "FedSGD", "FedProx", "FedAdam"])
def test_noise_goes_with_every_algorithm_that_averages_alike(name: str) -> None:
    algorithm = ALGORITHMS.build({"name": name, "weighting": "uniform"})
    walked = through([Clip(1.0), GaussianNoise(1.0)], zeros(2, 3), algorithm)
    assert walked.opened.contexts[1].sensitivity == 1.0


@pytest.mark.parametrize("kind", [GaussianNoise, SkellamNoise, LaplaceNoise])
@pytest.mark.parametrize("multiplier", [0.0, -1.0, math.nan, math.inf])
def test_a_multiplier_that_is_no_positive_number_is_refused(kind: type[Noise], multiplier: float) -> None:
    with pytest.raises(
        ConfigError, match=rf"{kind.__name__}: multiplier is .*; it must be a positive number"
    ):
        kind(multiplier)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("kind", "settings", "sentence"),
    [
        (GaussianNoise, {"where": "centre"}, 'centre.* "central"'),
        (LaplaceNoise, {"where": "distributed"}, "distributed"),
        (GaussianNoise, {"colluding": -1}, "colluding is -1"),
        (SkellamNoise, {"colluding": True}, "colluding is True"),
    ],
)
def test_settings_out_of_their_range_are_refused(kind: Any, settings: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        kind(1.0, **settings)


def test_a_mean_under_noise_is_over_those_whom_the_algorithm_asks() -> None:
    # One client a round, in its turn: what it changed is the mean, and not a fourth of it.
    model, algorithm = Quadratics([0.0]), Cyclic(lr=1.0, local_steps=1, weighting="uniform")
    channel = Channel([Clip(5.0), GaussianNoise(1e-6)], algorithm)
    population = InMemory([quadratic(id, 1.0, [2.0]) for id in IDS])
    setting = Setting(algorithm, model, population, channel, Rules(), SEED)
    task = algorithm.task(algorithm.init(model, SEED))
    aggregate = hold_round(InProcess(), setting, task, {}, 0).aggregate
    assert aggregate.means["model"]["w"][0] == pytest.approx(2.0, abs=1e-4)


def test_a_round_of_training_is_noised_by_as_much_as_it_says() -> None:
    # Lone clients whose step ends at their own optimum, 1: clipped to norm 0.5, then noised by 0.1 · 0.5 / 2.
    size = 50_000
    model, algorithm = Quadratics(np.zeros(size)), FedAvg(lr=1.0, local_steps=1, weighting="uniform")
    channel = Channel([Clip(0.5), GaussianNoise(0.1)], algorithm)
    population = InMemory([quadratic(id, 1.0, np.ones(size)) for id in ("lyon", "nice")])
    setting = Setting(algorithm, model, population, channel, Rules(), SEED)
    task = algorithm.task(algorithm.init(model, SEED))
    aggregate: Aggregate = hold_round(InProcess(), setting, task, {}, 0).aggregate
    change = aggregate.means["model"]["w"]
    assert np.mean(change) == pytest.approx(0.5 / math.sqrt(size), abs=5 * 0.025 / math.sqrt(size))
    assert np.std(change) == pytest.approx(0.025, rel=0.02)
