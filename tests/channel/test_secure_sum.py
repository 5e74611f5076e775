"""Secure sums in a channel: the sum of the clients, bit for bit, and nothing else of any of them."""

import re
from typing import Any

import numpy as np
import pytest

import fedpact as fp
from fedpact.algorithms.fedavg import FedAvg
from fedpact.channel.channel import Channel
from fedpact.channel.clip import Clip
from fedpact.channel.mask import NUMBERS
from fedpact.channel.quantize import Quantize
from fedpact.channel.secure_sum import SecureSum
from fedpact.core.errors import ChannelError, ConfigError, SecureError
from fedpact.engine.auto import Auto
from fedpact.engine.batched import Batched
from fedpact.engine.in_process import InProcess
from fedpact.engine.population import InMemory
from fedpact.engine.rounds import Outcome, hold_round
from fedpact.engine.shared import received
from fedpact.engine.work import Rules, Setting
from fedpact.engine.workers import Workers
from tests.channel.cohorts import EXAMPLES, UNIFORM, through, update
from tests.engine.runs import outcome, two_classes
from tests.federation import SEED, Quadratics, quadratic

ENGINES = {
    "in process": InProcess,
    "batched": Batched,
    "workers": lambda: Workers(2),
    "auto": lambda: Auto(rounds=3, processes=2),
}
RNG = np.random.default_rng(0)
IDS = [f"{place}" for place in range(7)]
UPDATES = [
    update(id, RNG.normal(size=50) * 0.1, weight=1 + place, loss=float(RNG.normal()), rows=3.0 + place)
    for place, id in enumerate(IDS)
]


def run(engine: Any, stages: Any, clients: int = 6, **settings: Any) -> fp.Result:
    made = ENGINES[engine]()
    try:
        return fp.train(
            fp.models.Logistic(),
            two_classes(clients),
            algorithm=settings.pop("algorithm", None) or FedAvg(lr=0.3, local_epochs=1, batch_size=8),
            channel=stages,
            rounds=2,
            engine=made,
            **settings,
        )
    finally:
        made.close()


def released(result: fp.Result) -> dict[str, Any]:
    """All that a run gave but its bytes and how long it took."""
    found = outcome(result)
    measured = [name for name in found["history"] if "." in name or "bytes" in name]
    found["history"] = found["history"].drop(columns=measured)
    found["clients"] = found["clients"].drop(columns="upload_bytes")
    return found


@pytest.mark.parametrize("weighting", ["examples", "uniform"])
@pytest.mark.parametrize("engine", ENGINES)
def test_the_masked_sum_is_the_clear_sum_on_the_same_grid_bit_for_bit(engine: str, weighting: Any) -> None:
    algorithm = FedAvg(lr=0.3, local_epochs=1, batch_size=8, weighting=weighting)
    most = None if weighting == "uniform" else 50
    levels = [Clip(0.5), Quantize(10)]
    clear = run(engine, levels, algorithm=algorithm)
    masked = run(engine, [*levels, SecureSum(max_weight=most)], algorithm=algorithm)
    assert masked.weights == clear.weights
    # Metrics are summed under the mask in steps of 2^-24, and no client's own leave it.
    a, b = released(masked)["history"], released(clear)["history"]
    assert set(b) - set(a) == {name for name in b if name.endswith(("_mean", "_worst"))}
    np.testing.assert_allclose(a, b[a.columns], atol=1e-6)
    assert masked.failures.equals(clear.failures)


def test_no_clients_own_metrics_leave_the_mask_and_those_of_all_rows_are_the_same() -> None:
    clear = run("in process", [Clip(0.5), Quantize(10)])
    masked = run("in process", [Clip(0.5), Quantize(10), SecureSum(max_weight=50)])
    assert clear.evaluation is not None
    assert masked.evaluation is not None
    assert masked.evaluation.clients == {}
    assert masked.evaluation.rows == {}
    assert masked.evaluation.total_rows == clear.evaluation.total_rows > 0
    assert masked.clients["test_rows"].isna().all()
    for name, counts in clear.evaluation.sums.items():
        np.testing.assert_allclose(masked.evaluation.sums[name], counts, rtol=0, atol=6 * 2.0**-25)


@pytest.mark.parametrize("bits", [16, 20, 24, 32])
def test_every_ring_gives_the_sum_of_the_integers(bits: int) -> None:
    walked = through([Clip(10.0), SecureSum(bits, max_weight=8)], UPDATES, EXAMPLES)
    total = sum(np.rint(u.weight * u.averaged["model"]["w"] / walked.step) for u in UPDATES)
    np.testing.assert_array_equal(walked.mean, total * (walked.step / sum(u.weight for u in UPDATES)))
    for sent in walked.sent.values():
        assert sent.integers is not None
        assert all(array.max() < 2**bits for array in sent.integers.arrays.values())


def test_weights_and_metrics_come_out_of_the_mask_as_they_are_in_clear() -> None:
    masked = through([Clip(10.0), SecureSum(max_weight=8)], UPDATES, EXAMPLES).aggregate
    clear = through([Clip(10.0)], UPDATES, EXAMPLES).aggregate
    assert masked is not None
    assert clear is not None
    assert masked.weight == clear.weight == sum(u.weight for u in UPDATES)
    assert masked.count == clear.count == 7
    assert masked.metrics["rows"] == clear.metrics["rows"]
    # Each is rounded to a multiple of 2^-24 before it is summed.
    assert masked.metrics["loss"] == pytest.approx(clear.metrics["loss"], abs=7 * 2.0**-25)


@pytest.mark.parametrize("bits", [16, 20, 24, 32])
@pytest.mark.parametrize("value", [-3e7, -1.0, -(2.0**-24), 0.0, 2.0**-24, 123.25, 2.0**40])
def test_numbers_of_any_size_are_summed_exactly_under_the_mask(bits: int, value: float) -> None:
    sent = [update(id, [0.1], loss=value) for id in IDS]
    found = through([Clip(1.0), SecureSum(bits)], sent).aggregate
    assert found is not None
    assert found.metrics["loss"] == 7 * value


@pytest.mark.parametrize("value", [np.nan, np.inf, 2.0**60])
def test_a_metric_that_cannot_be_summed_leaves_its_client_out(value: float) -> None:
    sent = [update(id, [0.1], loss=value if id == "3" else 1.0) for id in IDS]
    walked = through([Clip(1.0), SecureSum()], sent)
    assert list(walked.intake.failures) == ["3"]
    assert 'client "3": loss is' in walked.intake.failures["3"]
    assert walked.aggregate is not None
    assert walked.aggregate.metrics["loss"] == 6


def test_a_client_heavier_than_the_most_declared_is_left_out() -> None:
    walked = through([Clip(10.0), SecureSum(max_weight=6)], UPDATES, EXAMPLES)
    assert list(walked.intake.failures) == ["6"]
    assert "weight 7; the most declared is 6" in walked.intake.failures["6"]
    assert walked.aggregate is not None
    assert walked.aggregate.weight == 21


def test_nothing_of_an_update_is_in_clear() -> None:
    walked = through([Clip(10.0), SecureSum(max_weight=8)], UPDATES, EXAMPLES)
    for sent in walked.sent.values():
        assert (sent.averaged, sent.summed, sent.metrics, sent.packed, sent.answer) == ({}, {}, {}, {}, None)
        # The weight travels under the mask as well.
        assert sent.weight == 0


def test_what_leaves_a_client_is_uniform() -> None:
    # Zeros, so that whatever is there comes from the masks. Bytes of 3 · 65,536 numbers of 32 bits in 256 bins:
    # Σ (n − e)²/e is χ² with 255 degrees of freedom, below 377 but once in 10^6.
    walked = through([Clip(1.0), SecureSum()], [update(id, np.zeros(65_536)) for id in "abc"])
    for sent in walked.sent.values():
        assert sent.integers is not None
        assert set(sent.integers.arrays) == {"model", NUMBERS}
        bytes = sent.integers.arrays["model"].astype("<u4").view(np.uint8)
        counts = np.bincount(bytes, minlength=256)
        assert np.sum((counts - 1024) ** 2) / 1024 < 377
    np.testing.assert_array_equal(walked.mean, np.zeros(65_536))


@pytest.mark.parametrize("bits", [16, 20, 24])
def test_numbers_of_few_bits_are_uniform_in_their_ring(bits: int) -> None:
    walked = through([Clip(1.0), SecureSum(bits)], [update(id, np.full(32_768, 0.005)) for id in "abc"])
    for sent in walked.sent.values():
        assert sent.integers is not None
        ring = sent.integers.arrays["model"].astype(np.int64)
        for part in (ring >> (bits - 8), ring & 255):
            counts = np.bincount(part, minlength=256)
            # χ² with 255 degrees of freedom, as above.
            assert np.sum((counts - 128) ** 2) / 128 < 377


def test_the_same_update_leaves_a_client_under_another_mask_every_round() -> None:
    channel = Channel([Clip(1.0), SecureSum()], UNIFORM)
    first, second = (
        through(channel.stages, [update(id, np.full(20_000, 0.005)) for id in "abc"]).sent["a"]
        for _ in range(2)
    )
    assert first.integers is not None
    assert second.integers is not None
    a, b = (each.integers.arrays["model"].astype(np.float64) for each in (first, second))
    # Of 20,000 independent pairs the correlation is 0 ± 0.007.
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.035


def test_what_is_sent_are_the_bits_and_what_the_protocol_needs() -> None:
    updates = [update(id, np.zeros(10_000)) for id in IDS]
    for bits in (16, 20, 32):
        walked = through([Clip(1.0), SecureSum(bits)], updates)
        # Beside the vector there is the weight, in a handful of numbers.
        for size in walked.intake.upload_bytes.values():
            assert 0 <= size - 10_000 * bits / 8 < 100
        channel = Channel([Clip(1.0), SecureSum(bits)], UNIFORM)
        down, up = channel.traffic(walked.opened, walked.intake.upload_bytes)
        assert set(down) == set(up) == set(IDS)
        assert all(up[id] > walked.intake.upload_bytes[id] for id in IDS)


DROPPED = re.compile(r"dropped out before it sent its masked update")


def cohort(stage: SecureSum, clients: int = 12, round: int = 0, quorum: float = 1) -> Outcome:
    algorithm = FedAvg(lr=0.3, local_steps=1, weighting="uniform")
    model = Quadratics(np.zeros(3))
    channel = Channel([Clip(1.0), Quantize(8, range=1.0, stochastic=False), stage], algorithm)
    population = InMemory([quadratic(f"{i:02}", 1.0, RNG.normal(size=3)) for i in range(clients)])
    setting = Setting(algorithm, model, population, channel, Rules(quorum=quorum), SEED)
    task = algorithm.task(algorithm.init(model, SEED))
    return hold_round(InProcess(), setting, task, {}, round)


def test_dropouts_are_sampled_and_the_sum_is_of_those_that_are_left() -> None:
    counts = []
    for round in range(8):
        outcome = cohort(SecureSum(dropout=0.1), round=round)
        gone = [id for id, why in outcome.failures.items() if DROPPED.search(why)]
        assert len(gone) == len(outcome.failures) == 12 - outcome.aggregate.count
        counts.append(len(gone))
        assert outcome.aggregate.weight == outcome.aggregate.count
    # Of 96 clients a tenth drops out, three in five of these before they send: 5.8 ± 2.3.
    assert 0 < sum(counts) < 18
    assert len(set(counts)) > 1
    again = cohort(SecureSum(dropout=0.1), round=3)
    assert 12 - again.aggregate.count == counts[3]


def test_the_sum_of_those_that_are_left_is_theirs_alone() -> None:
    updates = [update(id, RNG.normal(size=20) * 0.1) for id in IDS]
    whole = through([Clip(5.0), SecureSum()], updates)
    some = through([Clip(5.0), SecureSum()], updates[:5], asked=IDS)
    assert whole.step == some.step
    total = sum(np.rint(u.averaged["model"]["w"] / some.step) for u in updates[:5])
    np.testing.assert_array_equal(some.mean, total * (some.step / 5))


def test_too_few_that_are_left_end_the_round_with_a_sentence() -> None:
    updates = [update(id, [0.1]) for id in IDS]
    # Of 7 clients ⌊14 / 3⌋ + 1 = 5 must stay to the end.
    assert SecureSum().least(7) == 5
    with pytest.raises(SecureError, match=r"\d") as caught:
        through([Clip(1.0), SecureSum()], updates[:4], asked=IDS)
    assert str(caught.value).endswith(".")
    assert "5" in str(caught.value)


def test_a_run_ends_with_a_sentence_where_too_few_are_left() -> None:
    with pytest.raises(SecureError) as caught:
        run("in process", [Clip(1.0), SecureSum(dropout=0.95, max_weight=50)])
    assert str(caught.value).endswith(".")


def test_fewer_clients_than_the_smallest_cohort_are_never_summed() -> None:
    with pytest.raises(
        SecureError, match=r"smallest cohort of 3 is not possible with 2 clients.*set minimum_cohort"
    ):
        through([Clip(1.0), SecureSum()], UPDATES[:2], UNIFORM)


def test_on_a_sparse_graph_the_sum_is_the_same() -> None:
    updates = [update(f"{i:03}", RNG.normal(size=10) * 0.1) for i in range(120)]
    stage = SecureSum(corrupt=0.02, drop=0.02)
    assert stage.parameters(120).neighbours is not None
    walked = through([Clip(5.0), stage], updates)
    total = sum(np.rint(u.averaged["model"]["w"] / walked.step) for u in updates)
    np.testing.assert_array_equal(walked.mean, total * (walked.step / 120))


def test_a_client_of_the_cohort_that_was_never_asked_has_no_masks() -> None:
    sent = [update(id, [0.1]) for id in (*IDS[:4], "stranger")]
    walked = through([Clip(1.0), SecureSum()], sent, asked=IDS[:4])
    assert list(walked.intake.failures) == ["stranger"]
    assert DROPPED.search(walked.intake.failures["stranger"])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"bits": 17}, "17"),
        ({"minimum_cohort": 0}, "minimum_cohort"),
        ({"minimum_cohort": True}, "minimum_cohort"),
        ({"graph": "ring"}, "ring"),
        ({"dropout": 1.0}, "dropout"),
        ({"corrupt": -0.1}, "corrupt"),
        ({"max_weight": 0}, "max_weight"),
        ({"max_weight": float("nan")}, "max_weight"),
    ],
)
def test_settings_out_of_their_range_are_refused(settings: Any, sentence: str) -> None:
    with pytest.raises((ConfigError, SecureError), match=sentence):
        SecureSum(**settings)


def test_algorithms_that_build_on_what_they_sent_or_send_statistics_are_refused() -> None:
    for algorithm in (fp.SCAFFOLD(lr=0.1), fp.Newton()):
        with pytest.raises(ChannelError, match=type(algorithm).__name__):
            Channel([Clip(1.0), SecureSum()], algorithm)


def test_the_keys_of_clients_stay_where_they_were_made() -> None:
    stage = SecureSum()
    through([Clip(1.0), stage], UPDATES, UNIFORM, close=False)
    assert "_roster" in vars(stage)
    assert "_roster" not in vars(received(stage))
    assert received(stage) == stage
