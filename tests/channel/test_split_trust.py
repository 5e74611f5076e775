"""Sums over two servers: exact for whoever stays, and uniform numbers to each server alone."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedpact as fp
from fedpact.channel.channel import Channel
from fedpact.core.errors import ChannelError, ClientError, ConfigError, SecureError
from fedpact.core.vector import Entry, Layout
from tests.channel.sums import Round, flat, random_changes
from tests.engine.runs import two_classes
from tests.secure.parties import uniform

NAMES = [f"client {i}" for i in range(6)]


@given(
    st.sets(st.sampled_from(NAMES), min_size=3),
    st.lists(st.integers(1, 50), min_size=6, max_size=6),
    st.sampled_from([16, 20, 24, 32]),
    st.integers(0, 100),
)
def test_the_sum_is_that_of_the_integers_in_clear_for_whoever_stays(stay, weights, bits, seed):
    mask = fp.SplitTrust(bits=bits, max_weight=50)
    round = Round(mask, dict(zip(NAMES, weights, strict=True)))
    changes = random_changes(sorted(stay), seed)
    assert np.array_equal(flat(round.mean(changes)), round.exact(changes))


def test_it_gives_the_same_bits_as_the_masks_of_secure_sum():
    means = []
    for mask in (fp.SplitTrust(max_weight=50), fp.SecureSum(max_weight=50)):
        round = Round(mask, dict(zip(NAMES, range(1, 7), strict=True)))
        means.append(flat(round.mean(random_changes(NAMES), {"loss": 0.5})))
    assert np.array_equal(*means)


def test_weights_and_metrics_are_summed_under_the_masks():
    round = Round(fp.SplitTrust(max_weight=50), dict(zip(NAMES, range(1, 7), strict=True)))
    update = round.sent(NAMES[3], random_changes(NAMES)[NAMES[3]], {"loss": 0.25, "rows": 40})
    assert (update.averaged, update.metrics, update.weight) == ({}, {}, 0)
    aggregate = Round(fp.SplitTrust(max_weight=50), round.weights).mean(
        random_changes(NAMES), {"loss": 0.25, "rows": 40}
    )
    assert aggregate.weight == 21
    assert aggregate.metrics == {"loss": 1.5, "rows": 240}


@pytest.mark.parametrize("bits", [20, 32])
def test_what_the_first_server_has_of_an_update_is_uniform(bits):
    layout = Layout([Entry("w", (200_000,), "float64")])
    round = Round(fp.SplitTrust(bits=bits), dict.fromkeys(NAMES, 1), "uniform", layout=layout)
    update = round.sent(NAMES[0], {"w": np.zeros(200_000)})
    numbers = update.integers.arrays["masked"].astype(np.uint32)
    assert numbers.max() < 2**bits
    # The lower bytes of every number; those above are not full.
    assert uniform(numbers.astype("<u4").view(np.uint8).reshape(-1, 4)[:, : bits // 8].tobytes())


def test_an_update_is_its_numbers_and_three_hundred_bytes():
    layout = Layout([Entry("w", (10_000,), "float64")])
    round = Round(fp.SplitTrust(bits=20), dict.fromkeys(NAMES, 1), "uniform", layout=layout)
    update = round.sent(NAMES[0], {"w": np.zeros(10_000)})
    assert 25_000 < update.nbytes < 25_000 + 350


def test_partial_sums_travel_between_processes_of_a_simulation():
    round = Round(fp.SplitTrust(max_weight=2), dict.fromkeys(NAMES, 2))
    changes = random_changes(NAMES)
    halves = round.sums(), round.sums()
    for place, (client, change) in enumerate(changes.items()):
        halves[place % 2].add(round.received(round.sent(client, change)))
    total = round.sums()
    for half in halves:
        total.merge(pickle.loads(pickle.dumps(half)))  # noqa: S301
    assert np.array_equal(flat(round.opened(total)), round.exact(changes))


def test_no_key_travels_with_the_stage():
    mask = fp.SplitTrust()
    round = Round(mask, dict.fromkeys(NAMES, 1), "uniform")
    sender = round.round.secrets[NAMES[0]]
    assert sender.private not in pickle.dumps(mask)
    assert mask._pair.private not in pickle.dumps(round.round)
    assert sender.private.hex() not in repr(sender)
    assert repr(sender.private) not in repr(sender)


def test_a_sum_is_opened_once():
    round = Round(fp.SplitTrust(), dict.fromkeys(NAMES, 1), "uniform")
    sums, changes = round.sums(), random_changes(NAMES)
    for client, change in changes.items():
        sums.add(round.received(round.sent(client, change)))
    round.opened(sums)
    # The masks of two sets of clients would tell the difference of their sums.
    with pytest.raises(SecureError, match="answers once for each"):
        round.opened(sums)


def test_too_few_clients_are_neither_asked_nor_opened():
    with pytest.raises(SecureError, match="2 clients are asked, and server B opens sums of 3 or more"):
        Round(fp.SplitTrust(), dict.fromkeys(NAMES[:2], 1), "uniform")
    with pytest.raises(SecureError, match="3 are needed"):
        Round(fp.SplitTrust(), dict.fromkeys(NAMES, 1), "uniform").mean(random_changes(NAMES[:2]))


def test_a_client_that_drops_out_sends_nothing():
    round = Round(fp.SplitTrust(dropout=0.5), dict.fromkeys(NAMES, 1), "uniform")
    gone = [client for client in NAMES if client not in round.round.secrets]
    assert 0 < len(gone) < len(NAMES)
    with pytest.raises(ClientError, match="dropped out"):
        round.sent(gone[0], random_changes(NAMES)[gone[0]])


def test_a_run_with_dropouts_goes_on_and_says_who_is_trusted():
    runs = []
    for engine in (fp.InProcess(), fp.Workers(2)):
        result = fp.train(
            fp.models.Logistic(),
            two_classes(8),
            algorithm=fp.FedAvg(lr=0.1, local_steps=3),
            channel=[fp.Clip(1.0), fp.SplitTrust(max_weight=100, dropout=0.2)],
            rounds=4,
            engine=engine,
        )
        runs.append(result)
    assert runs[0].weights == runs[1].weights
    assert "dropped out" in runs[0].failures.to_string()
    said = str(runs[0].privacy)
    assert "The two servers together could read each update; either of them alone could not." in said
    assert runs[0].privacy.dropouts == 5


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({"bits": 12}, SecureError, "16, 20, 24, 32 bits"),
        ({"dropout": -0.1}, ConfigError, "dropout"),
        ({"minimum_cohort": 0}, ConfigError, "minimum_cohort"),
    ],
)
def test_settings_out_of_their_range_are_refused(settings, error, sentence):
    with pytest.raises(error, match=sentence):
        fp.SplitTrust(**settings)


def test_it_must_know_how_large_a_value_and_a_weight_can_be():
    with pytest.raises(ChannelError, match=r"put Clip\(1\.0\)"):
        Channel([fp.SplitTrust(max_weight=5)], fp.FedAvg(lr=0.1, local_steps=1))
    with pytest.raises(ChannelError, match=r"write SplitTrust\(max_weight=10000\)"):
        Round(fp.SplitTrust(), dict.fromkeys(NAMES, 1))
