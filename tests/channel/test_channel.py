"""The channel: its grid, the integers on it, what stages keep, and what is known to whom."""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fedpact as fp
from fedpact.channel.adaptive_clip import AdaptiveClip
from fedpact.channel.cast import Cast
from fedpact.channel.channel import Channel
from fedpact.channel.clip import Clip
from fedpact.channel.noise import GaussianNoise
from fedpact.channel.power_sgd import PowerSGD
from fedpact.channel.quantize import Quantize
from fedpact.channel.random_k import RandomK
from fedpact.channel.secure_sum import SecureSum
from fedpact.channel.transform import Kind, Transform
from fedpact.core.errors import ChannelError, UpdateError
from fedpact.core.messages import Task, Update
from fedpact.core.vector import Vector
from fedpact.engine.shared import received
from tests.channel.cohorts import EXAMPLES, UNIFORM, layout_of, through, update, vector, walk
from tests.engine.runs import last_state, outcome, same_bits, two_classes
from tests.federation import SEED

RNG = np.random.default_rng(0)
IDS = [f"{place}" for place in range(5)]
VALUES = {id: RNG.normal(size=40) * 0.05 for id in IDS}
UPDATES = [update(id, values) for id, values in VALUES.items()]


def opened(stages: Any, clients: int = 5, size: int = 40, algorithm: Any = UNIFORM) -> Any:
    task = Task("train", arrays={"model": Vector.zeros(layout_of(size))})
    return Channel(stages, algorithm).begin(task, [f"{i}" for i in range(clients)], SEED)


@pytest.mark.parametrize(
    "stages", [(), [Clip(1.0)], [Clip(1.0), RandomK(0.5)], [Cast("bf16")], [AdaptiveClip()]]
)
def test_a_sum_chooses_its_own_steps_where_no_stage_needs_integers(stages: Any) -> None:
    assert opened(stages).grid is None


@settings(max_examples=30)
@given(
    st.sampled_from([16, 20, 24, 32]),
    st.integers(3, 20),
    st.floats(1e-6, 1e6),
    st.floats(1.0, 50.0),
)
def test_a_masked_sum_fits_into_its_ring_on_the_finest_steps(
    bits: int, clients: int, clip: float, weight: float
) -> None:
    channel = Channel([Clip(clip), SecureSum(bits, max_weight=weight)], EXAMPLES)
    task = Task("train", arrays={"model": Vector.zeros(layout_of(2))})
    grid = channel.begin(task, [f"{i}" for i in range(clients)], SEED).grid
    assert grid is not None
    assert grid.largest * clients < 2 ** (bits - 1)
    assert math.log2(grid.step).is_integer()
    assert math.ceil(clip * weight / (grid.step / 2)) * clients >= 2 ** (bits - 1)


@settings(max_examples=30)
@given(st.sampled_from([20, 24, 32]), st.integers(3, 12), st.sampled_from([0.3, 1.0, 5.0]))
def test_a_masked_sum_has_room_for_its_noise(bits: int, clients: int, multiplier: float) -> None:
    noise = GaussianNoise(multiplier, where="distributed")
    round = opened([Clip(1.0), noise, SecureSum(bits)], clients)
    context = round.contexts[1]
    # Eight standard deviations of the shares of all clients.
    share = multiplier * noise.integer_bound(round.grid, 1.0, 40) / math.sqrt(noise.shares(context))
    assert round.grid.largest * clients + 8 * share * math.sqrt(clients) < 2 ** (bits - 1)


def test_what_does_not_fit_into_the_ring_is_said_before_any_client_trains() -> None:
    with pytest.raises(
        ChannelError, match=r"the sum of 5 clients .* 16 bits of SecureSum: set its bits higher"
    ):
        opened([Clip(1.0), Quantize(15), SecureSum(16)])


def test_noise_lies_on_steps_far_below_the_bound() -> None:
    for clip in (1e-9, 1.0, 3.0, 1e9):
        grid = opened([Clip(clip), GaussianNoise(1.0)]).grid
        assert clip / 2**30 <= grid.step <= clip / 2**29
        assert math.log2(grid.step).is_integer()


def test_a_mean_of_masked_updates_is_worked_out_by_hand() -> None:
    weights = {id: 1 + place for place, id in enumerate(IDS)}
    sent = [replace(each, weight=weights[each.client]) for each in UPDATES]
    walked = through([Clip(10.0), SecureSum(24, max_weight=8)], sent, EXAMPLES)
    # The largest sum is 5 · 8 · 10 = 400 < 2^9, and 24 bits hold ±2^23: steps of 2^-14.
    assert walked.step == 2.0**-14
    total = sum(np.rint(weights[id] * VALUES[id] * 2.0**14) for id in IDS)
    np.testing.assert_array_equal(walked.mean, total * (2.0**-14 / sum(weights.values())))
    assert walked.aggregate is not None
    assert walked.aggregate.weight == sum(weights.values())


def test_integers_of_clients_are_worked_out_by_hand() -> None:
    walked = through([Quantize(4, range=0.3, stochastic=False)], UPDATES)
    # 16 levels from −0.3 to 0.3 are 0.04 apart: odd multiples of 0.02.
    for id in IDS:
        integers = walked.sent[id].integers
        assert integers is not None
        assert integers.step == pytest.approx(0.02, rel=1e-12)
        np.testing.assert_array_equal(
            integers.arrays["model"], 2 * np.floor(VALUES[id] / 0.04).astype(int) + 1
        )
        assert walked.sent[id].averaged == {}


@pytest.mark.parametrize("stages", [[Clip(0.2)], [Clip(0.2), RandomK(0.5)], [Quantize(5, range=1.0)]])
def test_the_order_of_updates_changes_no_bit(stages: Any) -> None:
    forth, back = (through(stages, updates) for updates in (UPDATES, UPDATES[::-1]))
    np.testing.assert_array_equal(forth.mean, back.mean)


def test_a_packed_update_is_unpacked_before_it_is_summed() -> None:
    walked = through([Cast("fp16")], UPDATES)
    assert all(sent.packed and not sent.averaged for sent in walked.sent.values())
    expected = np.mean([VALUES[id].astype(np.float16).astype(np.float64) for id in IDS], axis=0)
    np.testing.assert_allclose(walked.mean, expected, rtol=1e-9, atol=1e-11)


@dataclass(frozen=True)
class Coarse(Transform):
    """Rounds to multiples of a spacing, and adds to the next round what that took away."""

    spacing: float = 1.0

    kind: ClassVar[Kind] = "compress"
    remembers: ClassVar[bool] = True

    def bound(self, before: float, state: Any) -> float:
        return math.inf

    def encode_remembering(self, update: Update, memory: Any, context: Any) -> Any:
        sent, rest = update.averaged["model"].copy(), update.averaged["model"].copy()
        for place, flat in enumerate(sent.flats):
            if memory:
                flat += memory["rest"].flats[place]
            rest.flats[place][:] = flat
            flat[:] = np.round(flat / self.spacing) * self.spacing
            rest.flats[place][:] -= flat
        return replace(update, averaged={**update.averaged, "model": sent}), {"rest": rest}


def test_what_a_client_half_keeps_comes_back_in_the_next_round() -> None:
    channel, kept, found = Channel([Clip(100.0), Coarse()], UNIFORM), {}, []
    for _ in range(4):
        walked = walk(channel, [update("lyon", [0.4]), update("nice", [0.3])], kept=kept)
        kept = walked.kept
        assert set(kept["lyon"]) == {"channel.1.rest"}
        found.append([float(walked.sent[id].averaged["model"]["w"][0]) for id in ("lyon", "nice")])
    # 0.4 adds up to 0.4, 0.8, 1.2, 1.6, and 0.3 to 0.3, 0.6, 0.9, 1.2: sent is what rounds to a change.
    assert found == [[0, 0], [1, 1], [0, 0], [1, 0]]


def test_stages_that_remember_do_not_read_each_others_memory() -> None:
    channel, kept = Channel([Coarse(), Coarse()], UNIFORM), {}
    for _ in range(2):
        kept = walk(channel, [update("lyon", [0.4])], kept=kept).kept
    # What the first one sends is whole, so that the second one has nothing to keep.
    assert kept["lyon"]["channel.0.rest"]["w"][0] == pytest.approx(-0.2)
    assert kept["lyon"]["channel.1.rest"]["w"][0] == 0.0


def test_what_an_algorithm_has_a_client_keep_stays_beside_it() -> None:
    channel = Channel([Coarse()], UNIFORM)
    round = opened([Coarse()], 1, 1)
    _, keeps = channel.encode(update("lyon", [0.4]), round, {}, {"control": vector([7.0])})
    assert set(keeps) == {"control", "channel.0.rest"}
    _, keeps = channel.encode(update("lyon", [0.4]), round, keeps, {"control": vector([8.0])})
    assert keeps["control"]["w"][0] == 8.0


def train(folder: Any, **changed: Any) -> fp.Result:
    return fp.train(
        fp.models.Logistic(),
        two_classes(4, rows=24, width=6),
        algorithm=fp.FedAvg(lr=0.3, local_epochs=1, batch_size=8),
        rounds=5,
        folder=folder,
        **changed,
    )


def stop(record: Any) -> None:
    if record["round"] == 3:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    "stages",
    [
        pytest.param([Coarse(1 / 64)], id="what clients keep"),
        pytest.param([AdaptiveClip(initial=0.02)], id="what the server keeps"),
        pytest.param([AdaptiveClip(initial=0.02), PowerSGD(1), Coarse(1 / 64)], id="both"),
        pytest.param([AdaptiveClip(initial=0.02), Quantize(6), SecureSum(max_weight=60)], id="masked"),
    ],
)
def test_a_run_that_is_resumed_ends_with_the_bits_of_an_uninterrupted_one(stages: Any, tmp_path: Any) -> None:
    whole = train(tmp_path / "whole", channel=stages)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", channel=stages, on_round=stop)
    resumed = train(tmp_path / "run", channel=stages, resume=True)
    assert same_bits(outcome(resumed), outcome(whole))
    assert same_bits(last_state(tmp_path / "run"), last_state(tmp_path / "whole"))
    assert resumed.privacy == whole.privacy


def test_a_low_rank_run_that_is_resumed_ends_with_the_bits_of_an_uninterrupted_one(tmp_path: Any) -> None:
    def run(folder: str, **changed: Any) -> fp.Result:
        random = np.random.default_rng(0)
        clients = [
            fp.ClientData(id, fp.Rows(random.normal(size=(30, 8)), np.arange(30) % 5))
            for id in ("a", "b", "c")
        ]
        return fp.train(
            fp.models.Softmax(),
            clients,
            algorithm=fp.FedAvg(lr=0.3, local_epochs=1, batch_size=8),
            channel=PowerSGD(1),
            rounds=6,
            folder=tmp_path / folder,
            **changed,
        )

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("run", on_round=stop)
    resumed = run("run", resume=True)
    assert same_bits(outcome(resumed), outcome(whole))
    kept = last_state(tmp_path / "run")
    assert same_bits(kept, last_state(tmp_path / "whole"))
    assert all("channel.0.error.model" in keeps for keeps in kept["kept"].values())


def test_what_the_server_opens_a_sum_with_never_leaves_its_process() -> None:
    round = opened([AdaptiveClip(), SecureSum(max_weight=5)])
    travelled = received(round)
    assert round.held is not None
    assert travelled.held is None
    assert travelled.states == ()
    assert travelled.grid == round.grid
    assert travelled.contexts[0].state == round.contexts[0].state == {"norm": 1.0}


def test_a_round_travels_while_some_of_its_clients_have_answered() -> None:
    channel = Channel([Clip(1.0), SecureSum()], UNIFORM)
    round = opened([Clip(1.0), SecureSum()])
    channel.encode(UPDATES[0], round, {}, {})
    assert set(received(round).secrets) == set(IDS[1:])


def test_every_stage_draws_from_a_stream_of_its_own_anew_in_every_round() -> None:
    first, second = opened([RandomK(0.5), RandomK(0.5)]).contexts
    assert first.seed != second.seed
    task = Task("train", arrays={"model": Vector.zeros(layout_of(40))})
    later = Channel([RandomK(0.5)], UNIFORM).begin(task, IDS, SEED.child("another round"))
    assert later.contexts[0].seed != first.seed


def test_a_sum_without_weight_has_no_mean() -> None:
    sent = [replace(each, weight=0) for each in UPDATES]
    with pytest.raises(UpdateError, match="no update with a positive weight arrived"):
        through([Clip(1.0), SecureSum(max_weight=5)], sent, EXAMPLES)


def test_what_the_server_sees_is_said() -> None:
    said = {
        "each client's update as it is": [],
        "each client's update as it is, behind Clip, Quantize": [Clip(1.0), Quantize(8)],
        "the sum of a cohort's updates, weights and metrics, and of no client its own": [
            Clip(1.0),
            SecureSum(),
        ],
        "each client's update with the client's own noise on it, behind Clip": [
            Clip(1.0),
            GaussianNoise(1.0, where="local"),
        ],
    }
    assert {clause: Channel(stages, UNIFORM).seen() for clause, stages in said.items()} == {
        c: c for c in said
    }
