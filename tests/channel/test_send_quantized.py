"""A shorter download: rounded as its levels say, counted as it is sent, and the server's model stays its own."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpact.algorithms.fedavg import FedAvg, FedAvgState
from fedpact.algorithms.newton import Newton
from fedpact.channel.channel import Channel
from fedpact.channel.clip import Clip
from fedpact.channel.noise import GaussianNoise
from fedpact.channel.secure_sum import SecureSum
from fedpact.channel.send_quantized import SendQuantized
from fedpact.channel.top_k import TopK
from fedpact.channel.transform import RoundContext
from fedpact.core.accumulator import Accumulator
from fedpact.core.errors import ChannelError, ConfigError
from fedpact.core.messages import Task, Update
from fedpact.core.seeds import Seed
from fedpact.core.vector import Entry, Layout, Vector

LAYOUT = Layout(
    [
        Entry("a", (30, 7)),
        Entry("half", (11,), "bfloat16"),
        Entry("double", (5,), "float64"),
        Entry("var", (2,), role="buffer"),
        Entry("steps", (), "int64", "buffer"),
    ]
)


def down(stage, **arrays):
    vectors = {n: a if isinstance(a, Vector) else Vector.from_arrays({"x": a}) for n, a in arrays.items()}
    return stage.send(Task("train", arrays=vectors), RoundContext(0))


@given(
    hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-1e6, 1e6, width=32)),
    st.integers(2, 8),
    st.integers(1, 70),
)
def test_values_are_the_nearest_levels_of_their_block(x, bits, block):
    sent = down(SendQuantized(bits, block), model=x).arrays["model"]["x"]
    a_bit_for_each = 8 * math.ceil(x.size / 8)
    some = x[x != 0] if a_bit_for_each < bits * np.count_nonzero(x == 0) else x
    found = sent if some is x else sent[x != 0]
    steps = 2 ** (bits - 1) - 1
    for start in range(0, some.size, block):
        part = slice(start, start + block)
        most = float(np.abs(some[part]).max())
        assert np.abs(found[part] - some[part]).max() <= most / steps / 2 * (1 + 1e-5)
        if most > 1e-30:
            units = found[part] / most * steps
            np.testing.assert_allclose(units, np.rint(units), atol=1e-4)
    assert not sent[x == 0].any()


def test_what_is_sent_is_counted_and_buffers_are_sent_whole():
    rng = np.random.default_rng(0)
    arrays = {e.name: rng.integers(1, 9, e.shape) for e in LAYOUT.entries}
    vector = Vector.from_arrays(
        {n: a.astype(float) if n != "half" else a.astype(np.uint16) for n, a in arrays.items()}, LAYOUT
    )
    task = down(SendQuantized(8, 100), model=vector, control=vector)
    # 226 parameters of a byte, three scales, two float32 and an int64, for each of two arrays.
    assert task.nbytes == task.sent_bytes == 2 * (226 + 3 * 4 + 2 * 4 + 8)
    sent = task.arrays["model"]
    assert sent.layout == LAYOUT
    for name in ("var", "steps"):
        np.testing.assert_array_equal(sent[name], vector[name])
    packed = SendQuantized(8, 100).pack(vector)
    assert packed.nbytes == len(b"".join(array.tobytes() for array in packed.arrays.values()))


def test_of_a_sparse_model_only_what_is_not_zero_is_sent():
    x = np.zeros(800, np.float32)
    x[::10] = np.arange(1, 81)
    task = down(SendQuantized(), model=x)
    assert task.nbytes == 100 + 80 + 4
    assert np.count_nonzero(task.arrays["model"]["x"]) == 80
    assert down(SendQuantized(), model=np.zeros(800, np.float32)).nbytes == 100


def test_a_second_rounding_changes_nothing():
    x = np.random.default_rng(0).normal(size=1000)
    once = down(SendQuantized(5, 64), model=x).arrays["model"]
    twice = down(SendQuantized(5, 64), model=once).arrays["model"]
    np.testing.assert_allclose(twice["x"], once["x"], rtol=1e-6)


def test_clients_train_from_the_rounded_model_and_the_server_adds_to_its_own():
    model = Vector.from_arrays({"w": np.float32([1.0, 0.26, -0.24])})
    channel = Channel([SendQuantized(2)], FedAvg(), model.layout)
    task = Task("train", arrays={"model": model}, kind="delta")
    opened = channel.begin(task, ["lyon"], Seed.of(0))
    sent = channel.send(task, opened)
    # Of 2 bits −1, 0 and 1.
    assert sent.arrays["model"]["w"].tolist() == [1, 0, 0]
    sums = Accumulator(sent, 65536.0, 1, 1, expected=opened.expected)
    change = Vector.from_arrays({"w": np.float32([0.5, 0.5, 0.5])}, model.layout)
    update = Update("lyon", 0, "delta", averaged={"model": change})
    sums.add(channel.receive(channel.encode(update, opened, {}, {})[0], opened))
    aggregate, _ = channel.aggregate(sums, opened)
    after = FedAvg().server(None, FedAvgState(0, model, {}), aggregate).model
    assert after == model.plus(change)


def test_it_stands_anywhere_and_once():
    algorithm = FedAvg(weighting="uniform")
    for place in range(4):
        stages = [Clip(1.0), GaussianNoise(1.0, "distributed"), SecureSum()]
        stages.insert(place, SendQuantized())
        assert Channel(stages, algorithm).mask is not None
    Channel([SendQuantized(), TopK(0.1)], FedAvg())
    Channel([TopK(0.1), SendQuantized()], FedAvg())
    with pytest.raises(ChannelError, match="SendQuantized cannot stand behind SendQuantized"):
        Channel([SendQuantized(), SendQuantized(4)], FedAvg())
    with pytest.raises(ChannelError, match="take SendQuantized out"):
        Channel([SendQuantized()], Newton())
    for settings in ({"bits": 1}, {"bits": 9}, {"block": 0}):
        with pytest.raises(ConfigError, match="SendQuantized: "):
            SendQuantized(**settings)
