"""Encrypted sums: exact, of ciphertexts that nobody but the key holder reads, in bytes that are counted."""

import pickle
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fedpact as fp
from fedpact.channel.channel import Channel
from fedpact.channel.clip import Clip
from fedpact.channel.encrypted import Encrypted, KeyHolder, Sent
from fedpact.channel.noise import GaussianNoise
from fedpact.channel.quantize import Quantize
from fedpact.core.errors import (
    ChannelError,
    ClientError,
    ConfigError,
    DependencyError,
    SecureError,
    UpdateError,
)
from fedpact.core.vector import Entry, Layout
from fedpact.secure.ckks import CKKSKeys
from tests.channel.sums import Round, flat, random_changes
from tests.engine.runs import two_classes

pytest.importorskip("tenseal")

NAMES = [f"client {i}" for i in range(6)]
# Keys take longer to make than anything else here; the stage makes them once.
BY_CLIENTS = fp.HomomorphicSum(max_weight=10_000)
BY_SERVER = fp.HomomorphicSum(max_weight=10_000, weights="server")


@settings(max_examples=15)
@given(
    st.sets(st.sampled_from(NAMES), min_size=3),
    st.lists(st.integers(1, 10_000), min_size=6, max_size=6),
    st.sampled_from([BY_CLIENTS, BY_SERVER]),
    st.integers(0, 100),
)
def test_the_sum_is_that_of_the_integers_in_clear_for_whoever_stays(stay, weights, mask, seed):
    round = Round(mask, dict(zip(NAMES, weights, strict=True)))
    changes = random_changes(sorted(stay), seed)
    assert np.array_equal(flat(round.mean(changes)), round.exact(changes))


@pytest.mark.parametrize("mask", [BY_CLIENTS, BY_SERVER])
def test_the_weighted_mean_is_right_to_a_hundred_thousandth(mask):
    weights = dict(zip(NAMES, [1, 17, 300, 4000, 9999, 10_000], strict=True))
    changes = random_changes(NAMES)
    numbers = np.array([np.concatenate([a.ravel() for a in change.values()]) for change in changes.values()])
    mean = np.average(numbers, axis=0, weights=list(weights.values()))
    error = np.abs(flat(Round(mask, weights).mean(changes)) - mean).max()
    assert error <= 1e-5 * np.abs(mean).max()


def test_a_vector_of_many_ciphertexts_comes_back_in_its_order():
    layout = Layout([Entry("w", (9000,), "float64"), Entry("b", (1000,))])
    round = Round(BY_CLIENTS, dict.fromkeys(NAMES, 3), layout=layout)
    changes = random_changes(NAMES, layout=layout, size=0.01)
    found = round.mean(changes).means["model"]
    expected = np.mean([change["w"] for change in changes.values()], axis=0)
    np.testing.assert_allclose(found["w"], expected, atol=1e-6)


def test_sums_of_values_rounded_at_random_are_exact_too():
    mask = fp.HomomorphicSum(bits=24)
    weights = dict.fromkeys(NAMES, 1)
    round = Round(mask, weights, "uniform", [Quantize(bits=8, range=1.0)])
    levels = flat(round.mean(random_changes(NAMES))) * 6 * 255
    # Each of six clients adds an odd number of half steps.
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-6)
    assert (np.rint(levels).astype(int) % 2 == 0).all()


@pytest.mark.parametrize("mask", [BY_CLIENTS, BY_SERVER])
def test_weights_and_metrics_are_summed_under_the_encryption(mask):
    round = Round(mask, dict(zip(NAMES, range(1, 7), strict=True)))
    update = round.sent(NAMES[3], random_changes(NAMES)[NAMES[3]], {"loss": 0.25, "rows": 40})
    assert (update.averaged, update.metrics) == ({}, {})
    assert update.weight == (4 if mask.weighs else 0)
    round = Round(mask, round.weights)
    aggregate = round.mean(random_changes(NAMES), {"loss": 0.25, "rows": 40})
    assert aggregate.weight == 21
    assert aggregate.metrics == {"loss": 1.5, "rows": 240}


def test_two_encryptions_of_one_update_have_nothing_in_common():
    change = random_changes(NAMES)[NAMES[0]]
    rounds = [Round(BY_CLIENTS, dict.fromkeys(NAMES, 1)) for _ in range(2)]
    first, second = (round.sent(NAMES[0], change).integers.arrays["vectors"].data for round in rounds)
    # Behind the headers.
    a, b = (np.frombuffer(data[1000:200_000], np.uint8) for data in (first, second))
    assert np.mean(a == b) == pytest.approx(1 / 256, abs=0.002)


def test_the_bytes_of_an_update_are_those_of_its_ciphertexts():
    round = Round(BY_SERVER, dict.fromkeys(NAMES, 1))
    update = round.sent(NAMES[0], random_changes(NAMES)[NAMES[0]], {"loss": 1.0})
    assert update.nbytes == sum(len(sent.data) for sent in update.integers.arrays.values())
    assert len(update.integers.arrays) == 2
    assert set(update.integers.arrays) == {"vectors", ""}


def test_a_client_gets_the_key_once():
    mask = fp.HomomorphicSum()
    told = []
    for number, ids in enumerate([NAMES[:4], NAMES[1:5]]):
        round = Round(mask, dict.fromkeys(ids, 1), "uniform", number=number)
        told.append(round.channel.traffic(round.round, {})[0])
    assert list(told[0]) == NAMES[:4]
    assert list(told[1]) == [NAMES[4]]
    assert set(told[0].values()) == {len(mask._holder.public)}


def test_what_a_server_or_a_worker_gets_holds_no_secret_key():
    round = Round(BY_CLIENTS, dict.fromkeys(NAMES, 1))
    secret = BY_CLIENTS._holder._keys.to_bytes()[-100_000:-99_000]
    for thing in (
        BY_CLIENTS,
        round.round,
        round.received(round.sent(NAMES[0], random_changes(NAMES)[NAMES[0]])),
    ):
        assert secret not in pickle.dumps(thing)
    with pytest.raises(SecureError, match="neither pickled nor copied"):
        pickle.dumps(BY_CLIENTS._holder)
    assert "not shown" in repr(BY_CLIENTS._holder)


def test_partial_sums_travel_between_processes_of_a_simulation():
    round = Round(BY_CLIENTS, dict.fromkeys(NAMES, 2))
    changes = random_changes(NAMES)
    halves = round.sums(), round.sums()
    for place, (client, change) in enumerate(changes.items()):
        halves[place % 2].add(round.received(round.sent(client, change)))
    total = round.sums()
    for half in halves:
        total.merge(pickle.loads(pickle.dumps(half)))  # noqa: S301
    assert np.array_equal(flat(round.opened(total)), round.exact(changes))


def test_too_few_clients_are_neither_asked_nor_opened():
    with pytest.raises(
        SecureError, match="2 clients are asked, and the key holder decrypts sums of 3 or more"
    ):
        Round(BY_CLIENTS, dict.fromkeys(NAMES[:2], 1))
    with pytest.raises(SecureError, match="2 clients sent their updates"):
        Round(BY_CLIENTS, dict.fromkeys(NAMES, 1)).mean(random_changes(NAMES[:2]))


def test_a_sum_of_something_else_than_integers_is_refused():
    holder = KeyHolder(minimum_cohort=1)
    sent = Sent.of(holder.public, np.array([3, -1]), 8.0).read()
    assert holder.decrypt(sent.to_bytes(), 2, 8.0, ["lyon"]).tolist() == [3, -1]
    with pytest.raises(SecureError, match="does not decrypt to integers"):
        holder.decrypt(sent.times(0.5, 1.0).to_bytes(), 2, 8.0, ["lyon"])


def test_an_update_under_another_key_is_its_clients_failure():
    round = Round(BY_CLIENTS, dict.fromkeys(NAMES, 1))
    sums, changes = round.sums(), random_changes(NAMES)
    sums.add(round.received(round.sent(NAMES[0], changes[NAMES[0]])))
    update = round.received(round.sent(NAMES[1], changes[NAMES[1]]))
    public = CKKSKeys.generate(BY_CLIENTS._holder._keys.parameters).public()
    size = len(update.integers.arrays["vectors"])
    update.integers.arrays["vectors"] = Sent.of(public, np.zeros(size, np.int64), 1.0).read()
    with pytest.raises(UpdateError, match="all clients must encrypt under the key of this job"):
        sums.add(update)


def test_a_damaged_update_is_refused_at_the_door():
    round = Round(BY_CLIENTS, dict.fromkeys(NAMES, 1))
    update = round.sent(NAMES[0], random_changes(NAMES)[NAMES[0]])
    sent = update.integers.arrays["vectors"]
    update.integers.arrays["vectors"] = Sent(sent.public, sent.data[:-100], sent.size)
    with pytest.raises(UpdateError):
        round.received(update)


def test_the_server_multiplies_by_whole_weights_alone():
    round = Round(BY_SERVER, dict.fromkeys(NAMES, 1.5))
    with pytest.raises(UpdateError, match=r'"client 0" gave its update the weight 1\.5.*weights="client"'):
        round.mean(random_changes(NAMES))


def test_a_client_that_drops_out_sends_nothing():
    mask = fp.HomomorphicSum(dropout=0.5)
    round = Round(mask, dict.fromkeys(NAMES, 1), "uniform")
    gone = [client for client in NAMES if client not in round.round.secrets]
    assert 0 < len(gone) < len(NAMES)
    with pytest.raises(ClientError, match="dropped out"):
        round.sent(gone[0], random_changes(NAMES)[gone[0]])


UNIFORM = fp.FedAvg(lr=0.1, local_steps=1, weighting="uniform")


@pytest.mark.parametrize(
    ("stages", "sentence"),
    [
        ([fp.HomomorphicSum()], "it must know how large a value can be"),
        (
            [Clip(1.0), GaussianNoise(1.0, where="distributed"), BY_SERVER],
            "would multiply the noise of GaussianNoise",
        ),
    ],
)
def test_a_channel_that_cannot_keep_its_promise_is_refused(stages, sentence):
    with pytest.raises(ChannelError, match=sentence):
        Channel(stages, UNIFORM)


def test_so_many_clients_that_a_sum_could_be_decrypted_wrongly_are_refused():
    with pytest.raises(ChannelError, match="lower the bits of HomomorphicSum"):
        Round(fp.HomomorphicSum(bits=44), dict.fromkeys(map(str, range(100)), 1), "uniform")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"weights": "server"}, "the most that one may have: set max_weight=10000"),
        ({"weights": "both"}, "client.* or .*server"),
        ({"bits": 50}, "bits is 50; it must be between 16 and 44"),
        ({"dropout": 1.0}, "dropout is 1"),
        ({"max_weight": 0.0}, "max_weight"),
    ],
)
def test_settings_out_of_their_range_are_refused(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        fp.HomomorphicSum(**settings)


def test_without_tenseal_it_is_refused_before_any_client_is_asked(monkeypatch):
    monkeypatch.setitem(sys.modules, "tenseal", None)
    with pytest.raises(DependencyError, match=r"pip install .fedpact\[he\]"):
        Channel([Clip(1.0), fp.HomomorphicSum()], UNIFORM)


def test_a_run_gives_the_same_bits_in_worker_processes_and_says_who_holds_the_key():
    results = [
        fp.train(
            fp.models.Logistic(),
            two_classes(),
            algorithm=fp.FedAvg(lr=0.1, local_steps=3),
            channel=[fp.Clip(1.0), fp.HomomorphicSum(max_weight=100)],
            rounds=2,
            engine=engine,
        )
        for engine in (fp.InProcess(), fp.Workers(2))
    ]
    assert results[0].weights == results[1].weights
    assert [len(result.failures) for result in results] == [0, 0]
    said = str(results[0].privacy)
    assert "each client's update encrypted" in said
    assert "holds the key: with the server it could read each update" in said
    assert results[0].privacy == type(results[0].privacy).from_json(results[0].privacy.to_json())


def test_distributed_noise_is_added_before_the_encryption():
    result = fp.train(
        fp.models.Linear(),
        two_classes(width=50),
        algorithm=fp.FedAvg(lr=1e-9, local_steps=1, weighting="uniform"),
        channel=[
            fp.Clip(1.0),
            fp.GaussianNoise(4.0, where="distributed"),
            fp.HomomorphicSum(minimum_cohort=4),
        ],
        rounds=1,
    )
    # Four clients' shares: the mean has a standard deviation of 4 · 1 / 4.
    (weights,) = result.weights.flats
    assert 0.5 < np.std(weights) < 2
    assert result.privacy.protections[0].against.startswith("everybody, the server")


def test_an_encrypted_total_is_of_one_size_however_many_are_in_it():
    holder = KeyHolder(1)
    one = Sent.of(holder.public, np.arange(5000), 8192.0).read()
    total = one
    for _ in range(5):
        total = total + one
    assert isinstance(total, Encrypted)
    assert len(total) == 5000
    assert len(total.to_bytes()) == pytest.approx(len(one.to_bytes()), rel=0.01)
