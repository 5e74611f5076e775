"""PowerSGD: exact for matrices of its rank, nearer each round for others, and errors are made up for."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpact.algorithms.newton import Newton
from fedpact.channel.power_sgd import PowerSGD
from fedpact.core.errors import ChannelError, ConfigError, UpdateError
from fedpact.core.vector import Entry, Layout, Vector
from tests.channel.rounds import begin, flat, mean, norm, random_vector, update

LAYOUT = Layout(
    [
        Entry("conv", (8, 3, 5)),
        Entry("wide", (6, 40), "float64"),
        Entry("small", (3, 3)),
        Entry("bias", (40,)),
        Entry("var", (10, 10), role="buffer"),
    ]
)
MATRIX = Layout([Entry("w", (12, 30), "float64")])


def matrix(array):
    return {"model": Vector.from_arrays({"w": array}, MATRIX)}


def rounds(stage, vectors_of, number, kept=None, state=None):
    """What the server makes of each round of clients' vectors, and the states that went down."""
    found, states, kept = [], [], kept or {}
    for t in range(number):
        clients = vectors_of(t)
        context = begin(stage, clients[0], state=state, number=t)
        sent = []
        for i, vectors in enumerate(clients):
            each, kept[i] = stage.encode_remembering(update(str(i), **vectors), kept.get(i, {}), context)
            for name, v in each.averaged.items():
                assert v.layout == stage.layout_behind(vectors[name].layout, context.state)
            sent.append(each)
        aggregate = mean(sent)
        states.append(context.state)
        state = stage.after(aggregate, context)
        found.append(stage.decode(aggregate, context).means)
    return found, states


def test_matrices_are_sent_in_halves_by_turns_and_the_rest_whole():
    stage = PowerSGD(2)
    shapes = [
        [e.shape for e in stage.layout_behind(LAYOUT, {"left": left}).entries] for left in (False, True)
    ]
    # 8 × 15 and 6 × 40; of 3 × 3 rank 2 saves nothing.
    assert shapes[0] == [(8, 2), (3, 3), (40,), (6, 2), (10, 10)]
    assert shapes[1] == [(15, 2), (3, 3), (40,), (40, 2), (10, 10)]
    assert stage.layout_behind(LAYOUT) == stage.layout_behind(LAYOUT, {})


def test_a_mean_of_the_rank_is_exact_from_the_second_round_on():
    rng = np.random.default_rng(0)
    # Each client's matrix is of full rank; their mean is of rank 2.
    common = rng.normal(size=(12, 2)) @ rng.normal(size=(2, 30))
    own = rng.normal(size=(12, 30))
    clients = [matrix(common + own), matrix(common - own)]
    found, _ = rounds(PowerSGD(2, error_feedback=False), lambda t: clients, 5)
    errors = [np.linalg.norm(each["model"]["w"] - common) / np.linalg.norm(common) for each in found]
    assert errors[0] > 0.1
    assert max(errors[1:]) < 1e-12


def test_a_matrix_of_higher_rank_is_approximated_as_well_as_its_rank_allows():
    rng = np.random.default_rng(1)
    u, _, v = np.linalg.svd(rng.normal(size=(12, 30)), full_matrices=False)
    values = 0.5 ** np.arange(12)
    m = (u * values) @ v
    found, _ = rounds(PowerSGD(3, error_feedback=False), lambda t: [matrix(m)], 30)
    # The best of rank 3 (Eckart and Young).
    best = math.sqrt(np.sum(values[3:] ** 2))
    assert np.linalg.norm(found[-1]["model"]["w"] - m) == pytest.approx(best, rel=1e-6)


def test_bases_are_orthonormal_and_the_first_is_drawn_from_the_seed():
    rng = np.random.default_rng(2)
    vectors = {"model": random_vector(LAYOUT, rng), "control": random_vector(LAYOUT, rng)}
    stage = PowerSGD(2)
    _, states = rounds(stage, lambda t: [vectors], 4)
    assert [state.get("left", False) for state in states] == [False, True, False, True]
    for state in states[1:]:
        for bases in state["bases"].values():
            assert sorted(bases) == ["conv", "wide"]
            for basis in bases.values():
                np.testing.assert_allclose(basis.T @ basis, np.eye(2), atol=1e-14)
    one, two = (
        stage.encode_remembering(update(**vectors), {}, begin(stage, vectors, seed=seed))[0]
        for seed in (0, 1)
    )
    assert not np.array_equal(one.averaged["model"]["conv"], two.averaged["model"]["conv"])


@pytest.mark.parametrize("left", [False, True])
def test_sums_of_what_is_sent_are_what_is_sent_of_the_sum(left):
    rng = np.random.default_rng(3)
    stage = PowerSGD(2, error_feedback=False)
    first = [{"model": random_vector(LAYOUT, rng)} for _ in range(3)]
    _, states = rounds(stage, lambda t: first, 2)
    context = begin(stage, first[0], state=states[left])
    sent = [stage.encode_remembering(update(str(i), i + 1, **v), {}, context)[0] for i, v in enumerate(first)]
    together = mean([update(str(i), i + 1, **v) for i, v in enumerate(first)])
    of_mean = stage.encode_remembering(update(**together.means), {}, context)[0]
    np.testing.assert_allclose(flat(mean(sent).means["model"]), flat(of_mean.averaged["model"]), atol=1e-6)


def test_what_did_not_get_through_is_kept_and_nothing_else():
    vectors = {"model": random_vector(LAYOUT, np.random.default_rng(4))}
    before = vectors["model"].copy()
    stage = PowerSGD(2)
    context = begin(stage, vectors)
    sent, kept = stage.encode_remembering(update(**vectors), {}, context)
    decoded = stage.decode(mean([sent]), context).means["model"]
    assert vectors["model"] == before
    error = kept["error.model"]
    assert [entry.name for entry in error.layout.entries] == ["conv", "wide"]
    for name in ("conv", "wide"):
        np.testing.assert_allclose(decoded[name] + error[name], before[name], atol=1e-6)
    for name in ("small", "bias", "var"):
        np.testing.assert_array_equal(decoded[name], before[name])
    assert PowerSGD(2, error_feedback=False).encode_remembering(update(**vectors), {}, context)[1] == {}


def descent(stage, number):
    """Steps down ½‖W − A‖² over two clients, with gradients to which an error of rank 1 is added by turns."""
    rng = np.random.default_rng(5)
    target = rng.normal(size=(12, 30))
    error = 20 * np.outer(*(a / np.linalg.norm(a) for a in (rng.normal(size=12), rng.normal(size=30))))
    w, kept, state = np.zeros((12, 30)), {}, None
    for t in range(number):
        gradients = [matrix(w - target + sign * (-1) ** (t // 2) * error) for sign in (1.0, 0.5)]
        context = begin(stage, gradients[0], state=state, number=t)
        sent = []
        for i, g in enumerate(gradients):
            each, kept[i] = stage.encode_remembering(update(str(i), **g), kept.get(i, {}), context)
            sent.append(each)
        aggregate = mean(sent)
        state = stage.after(aggregate, context)
        w = w - 0.1 * stage.decode(aggregate, context).means["model"]["w"]
    # Along the error itself nobody can tell.
    return np.linalg.norm(w - target - error * np.sum((w - target) * error) / 400) / np.linalg.norm(target)


def test_error_feedback_converges_where_the_plain_projection_does_not():
    plain, fed_back = (descent(PowerSGD(1, error_feedback=on), 600) for on in (False, True))
    assert fed_back < 0.1
    assert plain > 5 * fed_back


@given(hnp.arrays(np.float64, (12, 30), elements=st.floats(-1e6, 1e6)), st.integers(1, 3))
def test_without_error_feedback_nothing_gets_larger(m, rank):
    stage = PowerSGD(rank, error_feedback=False)
    vectors = matrix(m)
    before, state = norm(update(**vectors)), None
    for t in range(2):
        context = begin(stage, vectors, state=state, number=t)
        sent, _ = stage.encode_remembering(update(**vectors), {}, context)
        assert norm(sent) <= stage.bound(before, {}) * (1 + 1e-12)
        state = stage.after(mean([sent]), context)
    assert PowerSGD(rank).bound(1.0, {}) == math.inf


def test_a_round_of_zeros_leaves_bases_to_go_on_from():
    clients = [matrix(np.zeros((12, 30)))], [matrix(np.ones((12, 30)))]
    found, _ = rounds(PowerSGD(1, error_feedback=False), lambda t: clients[t > 1], 5)
    np.testing.assert_array_equal(found[1]["model"]["w"], 0)
    for each in found[3:]:
        np.testing.assert_allclose(each["model"]["w"], 1, rtol=1e-12)


def test_statistics_models_and_wrong_settings_are_refused():
    with pytest.raises(ChannelError, match="take PowerSGD out"):
        PowerSGD().check([], Newton(), None)
    vectors = matrix(np.ones((12, 30)))
    with pytest.raises(ChannelError, match="PowerSGD keeps only part"):
        PowerSGD().encode_remembering(update(kind="model", **vectors), {}, begin(PowerSGD(), vectors))
    for settings in ({"rank": 0}, {"rank": 1.5}, {"error_feedback": 1}):
        with pytest.raises(ConfigError, match="PowerSGD: "):
            PowerSGD(**settings)


def test_what_is_no_number_is_refused_by_name_and_not_kept():
    vectors = matrix(np.ones((12, 30)))
    vectors["model"]["w"][2, 3] = math.nan
    with pytest.raises(UpdateError, match=r'client "lyon": w\[2, 3\] is nan; lower the learning rate'):
        PowerSGD().encode_remembering(update(**vectors), {}, begin(PowerSGD(), vectors))
