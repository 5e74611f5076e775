"""Secure sums among simulated clients: the real protocol, with what it took."""

import pickle

import numpy as np
import pytest

from fedpact.core.errors import SecureError
from fedpact.secure.parameters import Parameters
from fedpact.secure.ring import packed_bytes
from fedpact.secure.server import PHASES
from fedpact.secure.simulation import SecureRound, SimulatedRoster
from tests.secure.parties import clear_sum, names, vectors

SIZE = 11


def masked_sum(round_, inputs, uploaded):
    total = np.zeros(SIZE, np.uint32)
    for name in uploaded:
        ring = inputs[name].copy()
        pickle.loads(pickle.dumps(round_.masker(name))).apply(ring)  # noqa: S301
        total += ring
    return total


def opened(absent, inputs):
    round_ = SecureRound.agree(SimulatedRoster(), names(7), b"", Parameters.complete(7), absent)
    return round_.unmask(masked_sum(round_, inputs, round_.uploaders), round_.uploaders)


@pytest.mark.parametrize("bits", [16, 20, 24, 32])
def test_sum_is_that_of_the_clear_vectors_over_rounds_and_dropouts(bits):
    roster, inputs = SimulatedRoster(), vectors(10, SIZE, bits)
    parameters = Parameters.complete(10, bits=bits, dropouts=3)
    for absent in (
        {},
        {names(10)[3]: "upload"},
        dict(zip(names(10), ("keys", "upload", "unmask"), strict=False)),
    ):
        round_ = SecureRound.agree(roster, names(10), b"model", parameters, absent)
        total = masked_sum(round_, inputs, round_.uploaders)
        assert np.array_equal(
            round_.unmask(total, round_.uploaders), clear_sum(inputs, round_.uploaders, bits)
        )
        assert set(round_.report.survivors) == set(round_.uploaders)


@pytest.mark.parametrize("phase", PHASES)
def test_a_client_drops_out_where_it_is_said_to(phase):
    absent = {names(7)[2]: phase, names(7)[5]: phase}
    round_ = SecureRound.agree(SimulatedRoster(), names(7), b"", Parameters.complete(7), absent)
    in_the_sum = 7 if phase in ("consistency", "unmask") else 5
    assert len(round_.uploaders) == in_the_sum
    inputs = vectors(7, SIZE, 32)
    total = masked_sum(round_, inputs, round_.uploaders)
    assert np.array_equal(round_.unmask(total, round_.uploaders), clear_sum(inputs, round_.uploaders, 32))


def test_a_client_that_fails_after_it_was_given_masks_drops_out():
    round_ = SecureRound.agree(SimulatedRoster(), names(7), b"", Parameters.complete(7))
    inputs = vectors(7, SIZE, 32)
    total = masked_sum(round_, inputs, names(7))
    failed = names(7)[1]
    ring = inputs[failed].copy()
    with pytest.raises(SecureError, match="has no masks to give"):
        round_.masker(failed)
    again = SecureRound.agree(SimulatedRoster(), names(7), b"", Parameters.complete(7))
    again.masker(failed).apply(ring)
    stay = [name for name in names(7) if name != failed]
    total = masked_sum(again, inputs, stay)
    assert np.array_equal(again.unmask(total, stay), clear_sum(inputs, stay, 32))


@pytest.mark.parametrize("phase", PHASES)
def test_below_the_threshold_the_round_is_given_up(phase):
    absent = dict.fromkeys(names(7)[:3], phase)
    with pytest.raises(SecureError, match="needed; the round is given up"):
        opened(absent, vectors(7, SIZE, 32))


def test_a_sum_with_a_vector_too_many_is_noise():
    round_ = SecureRound.agree(SimulatedRoster(), names(7), b"", Parameters.complete(7))
    inputs = vectors(7, SIZE, 32)
    total = masked_sum(round_, inputs, names(7))
    wrong = round_.unmask(total, names(7)[:-1])
    assert not (wrong == clear_sum(inputs, names(7)[:-1], 32)).any()


def test_sparse_round_reports_its_graph():
    parameters = Parameters(40, 11, 16, minimum_cohort=30, bits=24)
    absent = {names(40)[0]: "upload", names(40)[1]: "keys"}
    round_ = SecureRound.agree(SimulatedRoster(), names(40), b"", parameters, absent)
    inputs = vectors(40, SIZE, 24)
    total = masked_sum(round_, inputs, round_.uploaders)
    assert np.array_equal(round_.unmask(total, round_.uploaders), clear_sum(inputs, round_.uploaders, 24))
    report = round_.report
    assert (report.cohort, report.neighbours, report.threshold, len(report.survivors)) == (40, 16, 11, 38)


def test_sum_of_a_hundred_on_the_graph_that_their_fractions_need_is_exact():
    parameters = Parameters.sparse(100, corrupt=0.05, drop=0.1)
    assert parameters.neighbours == 36
    draw = np.random.default_rng(5)
    gone = draw.choice(names(100), 10, replace=False)
    absent = {str(name): PHASES[int(draw.integers(5))] for name in gone}
    round_ = SecureRound.agree(SimulatedRoster(), names(100), b"", parameters, absent)
    inputs = vectors(100, SIZE, 32)
    total = masked_sum(round_, inputs, round_.uploaders)
    assert np.array_equal(round_.unmask(total, round_.uploaders), clear_sum(inputs, round_.uploaders, 32))


def test_report_counts_every_message():
    round_ = SecureRound.agree(SimulatedRoster(), names(7), b"", Parameters.complete(7))
    before = dict(round_.report.upload_bytes)
    # Keys: 9 for each part and the kind's 4, name, 32 + 32 + 64. Shares: 9 each, the kind's 13, 32, six boxes of 80.
    keys = 9 * 5 + 4 + 10 + 32 + 32 + 64
    shares = 9 * 3 + 13 + 32 + 6 * 80
    assert set(before.values()) == {keys + shares}
    inputs = vectors(7, SIZE, 32)
    round_.unmask(masked_sum(round_, inputs, names(7)), names(7))
    # The vector; a signature and the kind's 11; seven shares and the kind's 13.
    after = packed_bytes(SIZE, 32) + (9 * 2 + 11 + 64) + (9 * 2 + 13 + 7 * 32)
    assert set(round_.report.upload_bytes.values()) == {keys + shares + after}
    assert set(round_.report.seconds) == {"keys", "shares", "masks", "consistency", "unmask"}
    assert all(seconds >= 0 for seconds in round_.report.seconds.values())
    assert len(set(round_.report.download_bytes.values())) == 1


def test_who_has_no_mask_cannot_have_uploaded():
    round_ = SecureRound.agree(
        SimulatedRoster(), names(7), b"", Parameters.complete(7), {names(7)[0]: "keys"}
    )
    with pytest.raises(SecureError, match=f'"{names(7)[0]}" has no masks'):
        round_.masker(names(7)[0])
    for uploaded in ([names(7)[0]], [names(7)[1]]):
        with pytest.raises(SecureError, match="has not been given its masks"):
            round_.unmask(np.zeros(SIZE, np.uint32), uploaded)


@pytest.mark.parametrize(
    ("absent", "match"),
    [({"client 00": "keys"}, "Did you mean"), ({"client 000": "uplaod"}, 'Did you mean "upload"')],
)
def test_dropouts_that_cannot_be_are_refused(absent, match):
    with pytest.raises(SecureError, match=match):
        SecureRound.agree(SimulatedRoster(), names(7), b"", Parameters.complete(7), absent)


def test_a_cohort_of_another_size_than_its_parameters_is_refused():
    with pytest.raises(SecureError, match="6 clients are invited with parameters for 7"):
        SecureRound.agree(SimulatedRoster(), names(6), b"", Parameters.complete(7))


def test_clients_keep_their_identity_and_forgotten_ones_are_enrolled_again():
    roster = SimulatedRoster(remembered=5)
    first = roster.members(names(5), 3)
    assert roster.members(names(5), 3)[names(5)[0]] is first[names(5)[0]]
    roster.members(names(10)[5:], 3)
    assert roster.members(names(5), 3)[names(5)[0]] is not first[names(5)[0]]


def test_two_rounds_with_the_same_inputs_have_different_masks():
    roster = SimulatedRoster()
    seen = set()
    for _ in range(3):
        round_ = SecureRound.agree(roster, names(5), b"", Parameters.complete(5))
        ring = np.zeros(4, np.uint32)
        round_.masker(names(5)[0]).apply(ring)
        seen.add(ring.tobytes())
    assert len(seen) == 3
