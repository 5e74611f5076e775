"""What a torch model does with its process: it survives a fork, and keeps the memory that a step frees."""

import os
import platform
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest

from fedpact.core import Rows, Schema, Seed

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from fedpact.learn.torch import Torch, TorchModel  # noqa: E402

THREE = Schema("multiclass", (5,), (0, 1, 2))


class Noisy(nn.Linear):
    """Adds noise from torch's global generator, less of it in prediction, where it may be told to stay inside."""

    stays: ClassVar[bool] = False
    inside: ClassVar[threading.Event] = threading.Event()
    go_on: ClassVar[threading.Event] = threading.Event()

    def forward(self, x: Tensor) -> Tensor:
        if Noisy.stays and not self.training:
            self.inside.set()
            self.go_on.wait(60)
        return super().forward(x + torch.randn_like(x) * (1.0 if self.training else 0.5))


def rows() -> Rows:
    random = np.random.default_rng(0)
    return Rows(random.normal(size=(8, 5)).astype(np.float32), random.integers(0, 3, 8))


def gradient(model: TorchModel) -> bytes:
    session = model.session()
    session.load(model.initial(Seed.of(0)))
    session.bind(rows(), Seed.of(1))
    session.gradient(None)
    return session.gradients[0].numpy().tobytes()


def in_a_child(work: Callable[[], bytes], timeout_s: float = 60) -> bytes:
    """Return what a forked child makes of it; nothing if it fails or hangs."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, work())
        finally:
            os._exit(0)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], timeout_s)
    answer = os.read(reading, 1 << 16) if ready else b""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    return answer


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_model_computes_the_same_in_a_fork_while_a_thread_is_in_the_middle_of_a_prediction() -> None:
    # One thread each: OpenMP's own threads do not survive a fork.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    model = Torch(Noisy(5, 3)).build(THREE)
    expected = gradient(model)
    Noisy.stays = True
    busy = threading.Thread(target=model.predict, args=(model.initial(Seed.of(0)), rows().x))
    busy.start()
    try:
        assert Noisy.inside.wait(60)

        def work() -> bytes:
            Noisy.stays = False
            found = [gradient(model)]
            thread = threading.Thread(target=lambda: found.append(gradient(model)))
            thread.start()
            thread.join()
            return b"".join(found)

        assert in_a_child(work) == expected * 2
    finally:
        Noisy.stays = False
        Noisy.go_on.set()
        busy.join()
        torch.set_num_threads(before)
    assert gradient(model) == expected


FAULTS = """
import resource
import numpy as np
import torch
from fedpact.core import Rows, Schema, Seed
from fedpact.learn.torch import Torch

class Letters(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = torch.nn.Embedding(90, 8), torch.nn.Linear(256, 90)
        self.lstm = torch.nn.LSTM(8, 256, 2, batch_first=True)
    def forward(self, x):
        return self.out(self.lstm(self.embed(x))[0])

letters = np.random.default_rng(0).integers(0, 90, (4, 81))
model = Torch(Letters()).build(Schema("multiclass", (80,), tuple(range(90)), positions=(80,)))
session = model.session()
session.load(model.initial(Seed.of(0)))
session.bind(Rows(letters[:, :-1], letters[:, 1:]), Seed.of(1))
def pages(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        session.gradient(None)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / steps
pages(10)
print(pages(20))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have limits of their own")
def test_a_step_works_in_the_memory_of_the_step_before() -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, env=environment, check=True
    )
    # It would be a thousand pages a step and more if they were returned to the system in between.
    assert float(done.stdout) < 250
