"""A torch model on several devices: how they are named, and what threads that compute on each of them share."""

import json
import threading
from typing import Any

import numpy as np
import pytest

from fedpact.core import Rows, Schema, Seed
from fedpact.core.errors import ConfigError

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from fedpact.learn.torch import Torch  # noqa: E402
from fedpact.learn.torch_running import Generators, devices_of  # noqa: E402
from fedpact.learn.torch_stacked_ways import plain_attention  # noqa: E402

torch.manual_seed(0)

THREE = Schema("multiclass", (5,), ("a", "b", "c"))
TEXT = Schema("multiclass", (4,), tuple(range(3)), (), (4,))
CPU = torch.device("cpu")

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
several_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs several CUDA devices")


class Mean(nn.Module):
    """Squared differences, shared out by a number that has to be where the outputs are."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("share", torch.tensor(0.5))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        chosen: Tensor = outputs[torch.arange(len(targets)), targets]
        return (self.share * (chosen - 1) ** 2).mean()


def gradients(model: Any, rows: Rows) -> Any:
    session = model.session()
    session.load(model.initial(Seed.of(0)))
    session.bind(rows, Seed.of(1))
    session.gradient(None)
    return [gradient.clone() for gradient in session.gradients]


@pytest.mark.parametrize(
    ("device", "said"),
    [
        (["cpu", "cpu"], 'several devices are CUDA devices; "cpu" is none of them'),
        ([], "device is .*; it must be a name"),
        (3, "device is 3; it must be a name"),
        (["cuda:0", 1], "it must be a name"),
        ("gpu", 'device is "gpu"; it must be'),
    ],
)
def test_what_are_no_devices_is_refused(device: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Torch(nn.Linear(5, 3), device=device).build(THREE)


@no_gpu
@pytest.mark.parametrize("device", ["cuda:*", ["cuda:0", "cuda:1"]])
def test_devices_that_are_not_there_are_refused(device: Any) -> None:
    with pytest.raises(ConfigError, match="torch finds 0 CUDA devices"):
        _ = Torch(nn.Linear(5, 3), device=device).devices


@a_gpu
def test_every_cuda_device_is_named_by_a_star() -> None:
    assert devices_of("cuda:*") == tuple(torch.device("cuda", i) for i in range(torch.cuda.device_count()))
    with pytest.raises(ConfigError, match="names a device twice"):
        devices_of(["cuda:0", "cuda:0"])


def test_a_job_holds_the_devices_as_they_were_named() -> None:
    described = [
        Torch("torch.nn:Linear", device=device).describe()["device"] for device in ("cuda:*", ("a", "b"))
    ]
    assert json.loads(json.dumps(described)) == ["cuda:*", ["a", "b"]]


@pytest.mark.parametrize(("schema", "loss"), [(THREE, None), (THREE, Mean()), (TEXT, Mean())])
def test_a_model_on_another_device_computes_the_same_in_memory_of_its_own(schema: Schema, loss: Any) -> None:
    random = np.random.default_rng(0)
    wide = schema is TEXT
    module = nn.Sequential(nn.Embedding(5, 3)) if wide else nn.Linear(5, 3)
    x = random.integers(0, 5, (6, 4)) if wide else random.normal(size=(6, 5)).astype(np.float32)
    rows = Rows(x, random.integers(0, 3, (6, 4) if wide else 6))
    model = Torch(module, loss).build(schema)
    other = model.on("cpu")
    for a, b in zip(gradients(model, rows), gradients(other, rows), strict=True):
        assert torch.equal(a, b)
    assert other.session() is not model.session()
    assert other.loss is not model.loss or loss is None


def test_what_was_found_out_of_side_by_side_training_is_known_on_every_device() -> None:
    runs = []

    class Noting(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            runs.append(len(x))
            return super().forward(x)

    model = Torch(Noting(5, 3)).build(THREE)
    other = model.on("cpu")
    assert model.unstackable() is None
    tried = len(runs)
    assert other.unstackable() is None
    assert len(runs) == tried
    assert other.stacked() is not model.stacked()


def test_one_thread_at_a_time_draws_from_a_devices_generator() -> None:
    order = []
    inside, done = threading.Event(), threading.Event()

    def draw() -> None:
        inside.wait(30)
        with Generators(CPU, Seed.of(1)):
            order.append("second")
        done.set()

    threading.Thread(target=draw, daemon=True).start()
    with Generators(CPU, Seed.of(0)):
        inside.set()
        # It cannot come in before this one goes out.
        assert not done.wait(0.05)
        order.append("first")
    assert done.wait(30)
    assert order == ["first", "second"]


def test_whether_the_processors_generator_is_needed_is_found_out() -> None:
    class Noise(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + torch.randn(x.shape).to(x.device))

    assert Torch(Noise(5, 3)).build(THREE).traits.draws_on_cpu
    assert not Torch(nn.Linear(5, 3)).build(THREE).traits.draws_on_cpu


@a_gpu
def test_a_module_that_draws_on_a_gpu_leaves_the_processors_generator_to_others() -> None:
    model = Torch(nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.5)), device="cuda").build(THREE)
    assert model.traits.draws_in_training
    assert not model.traits.draws_on_cpu
    before = torch.get_rng_state()
    gradients(model, Rows(np.ones((4, 5), np.float32), np.zeros(4, np.int64)))
    assert torch.equal(torch.get_rng_state(), before)


def test_attention_keeps_its_plain_kernel_until_the_last_thread_is_out() -> None:
    flash = torch.backends.cuda.flash_sdp_enabled
    assert flash()
    with plain_attention:
        with plain_attention:
            assert not flash()
        assert not flash()
    assert flash()


@several_gpus
def test_what_a_module_makes_on_cuda_is_where_it_is() -> None:
    class Making(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.zeros(3, device="cuda")

    model = Torch(Making(5, 3), device="cuda:0").build(THREE)
    rows = Rows(np.ones((4, 5), np.float32), np.zeros(4, np.int64))
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(gradients(model.on("cuda:1"), rows)))
    thread.start()
    thread.join()
    assert {gradient.device for gradient in found} == {torch.device("cuda:1")}
