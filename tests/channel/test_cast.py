"""Shorter floats: two bytes a parameter, rounded to the nearest as torch rounds them, and refused by name."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpact.algorithms.newton import Newton
from fedpact.algorithms.scaffold import SCAFFOLD
from fedpact.channel.cast import Cast
from fedpact.core.errors import ChannelError, ConfigError, UpdateError
from fedpact.core.packed import Packed
from tests.channel.rounds import MIXED, begin, random_vector, update, vector

torch = pytest.importorskip("torch")
TORCH = {"bf16": torch.bfloat16, "fp16": torch.float16}


def received(stage, vectors):
    context = begin(stage, vectors)
    return stage.receive(stage.encode(update(**vectors), context), context).averaged


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@given(hnp.arrays(np.float32, 20, elements=st.floats(-60000, 60000, width=32)))
def test_what_arrives_is_what_torch_rounds_to(dtype, x):
    wanted = torch.from_numpy(x.copy()).to(TORCH[dtype]).float().numpy()
    np.testing.assert_array_equal(received(Cast(dtype), {"model": vector(x)})["model"]["x"], wanted)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_parameters_are_sent_in_two_bytes_and_buffers_as_they_are(dtype):
    rng = np.random.default_rng(0)
    vectors = {"model": random_vector(MIXED, rng), "control": random_vector(MIXED, rng)}
    before = {name: v.copy() for name, v in vectors.items()}
    stage = Cast(dtype)
    sent = stage.encode(update(**vectors), begin(stage, vectors))
    assert sent.averaged == {}
    # 23 parameters, two float32 and one float64 of the buffers, in two vectors.
    assert sent.nbytes == 2 * (23 * 2 + 2 * 4 + 8)
    arrived = received(stage, vectors)
    for name, each in arrived.items():
        assert each.layout == MIXED
        for buffer in ("var", "steps"):
            np.testing.assert_array_equal(each[buffer], before[name][buffer])
        for parameter in ("a", "b"):
            np.testing.assert_allclose(each[parameter], before[name][parameter], rtol=2.0**-8)
    assert vectors == before


def test_what_answers_no_array_of_the_task_is_left_as_it_is():
    vectors, count = {"model": vector([1.0])}, vector([0.123456789])
    stage = Cast()
    context = begin(stage, vectors)
    sent = stage.encode(update(**vectors, clip_count=count), context)
    assert dict(sent.averaged) == {"clip_count": count}
    assert stage.receive(sent, context).averaged["clip_count"] is count


@pytest.mark.parametrize(
    ("dtype", "value"), [("fp16", 65520.0), ("fp16", -1e9), ("bf16", 3.4e38), ("bf16", -1e300)]
)
def test_a_number_beyond_the_range_is_refused_by_name(dtype, value):
    model = random_vector(MIXED, np.random.default_rng(0))
    name, place = ("b", 1) if abs(value) > 1e39 else ("a", (1, 2))
    model[name][place] = value
    at = str(list(np.atleast_1d(place).tolist()))[1:-1]
    with pytest.raises(UpdateError, match=rf'client "lyon": {name}\[{at}\] is .*, which {dtype} cannot hold'):
        Cast(dtype).encode(update(model=model), begin(Cast(dtype), {"model": model}))


def test_the_largest_numbers_that_are_held_pass():
    assert received(Cast("fp16"), {"model": vector([65519.0])})["model"]["x"] == 65504
    assert np.isfinite(received(Cast("bf16"), {"model": vector([3.39e38])})["model"]["x"])


def test_what_is_no_number_arrives_as_such_for_the_sum_to_refuse():
    x = np.array([np.nan, np.inf, -np.inf], np.float32)
    for dtype in TORCH:
        np.testing.assert_array_equal(received(Cast(dtype), {"model": vector(x)})["model"]["x"], x)


def test_what_no_client_half_makes_is_refused():
    stage, vectors = Cast(), {"model": random_vector(MIXED, np.random.default_rng(0))}
    context = begin(stage, vectors)
    sent = stage.encode(update(**vectors), context)
    good = sent.packed["model"]

    def altered(**changes):
        return replace(sent, packed={"model": replace(good, **changes)})

    wrong = [
        replace(sent, packed={"other": good}),
        altered(layout=vector([1.0]).layout),
        altered(arrays={"0": good.arrays["0"]}),
        altered(arrays={**good.arrays, "0": good.arrays["0"][:-1]}),
        altered(arrays={**good.arrays, "0": good.arrays["0"].astype(np.float32)}),
        altered(arrays={**good.arrays, "2": good.arrays["2"].astype(np.float64)}),
    ]
    for each in wrong:
        with pytest.raises(UpdateError, match='client "lyon"'):
            stage.receive(each, context)
    with pytest.raises(UpdateError, match='"model" came as uint16'):
        Cast("fp16").receive(sent, context)
    assert isinstance(good, Packed)


def test_algorithms_and_settings_that_it_does_not_go_with_are_refused():
    for algorithm in (Newton(), SCAFFOLD()):
        with pytest.raises(ChannelError, match="take Cast out"):
            Cast().check([], algorithm, None)
    with pytest.raises(
        ConfigError, match='dtype is "bf61"; it must be "bf16" or "fp16". Did you mean "bf16"'
    ):
        Cast("bf61")
