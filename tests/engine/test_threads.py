"""How many threads compute: bits must not depend on it."""

import numpy as np
import pytest

import fedpact as fp
from fedpact.core.rows import ClientData, Rows
from fedpact.engine.threads import one_torch_thread

torch = pytest.importorskip("torch")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def trained(engine):
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 400, 64)).astype(np.float32)
    y = (x.sum(axis=2) > 0).astype(np.int64)
    clients = [ClientData(name, Rows(x[i], y[i])) for i, name in enumerate("ab")]
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(64, 300), torch.nn.ReLU(), torch.nn.Linear(300, 2))
    algorithm = fp.FedAvg(lr=0.1, local_epochs=1, batch_size=200)
    return fp.train(module, clients, algorithm=algorithm, rounds=2, engine=engine, progress=False).weights


def test_bits_are_those_of_workers_whatever_torch_was_told(two_threads):
    assert trained("in_process") == trained("workers")


def test_torch_has_its_threads_back_afterwards(two_threads):
    with one_torch_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
