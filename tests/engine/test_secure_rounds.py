"""Masked rounds in every engine: whatever is run twice, no client's two updates are seen under the same masks."""

import os
import signal
import time
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpact.algorithms.fedavg import FedAvg
from fedpact.channel.channel import Channel
from fedpact.channel.clip import Clip
from fedpact.channel.secure_sum import SecureSum
from fedpact.channel.split_trust import SplitTrust
from fedpact.core.model import Schema
from fedpact.core.rows import ClientData, Rows
from fedpact.engine import auto
from fedpact.engine.auto import Auto
from fedpact.engine.batched import Batched
from fedpact.engine.devices import Devices
from fedpact.engine.in_process import InProcess
from fedpact.engine.population import InMemory
from fedpact.engine.rounds import Outcome, hold_round
from fedpact.engine.work import Engine, Rules, Setting
from fedpact.engine.workers import Workers
from fedpact.learn.linear import Logistic
from tests.engine.runs import same_bits, two_classes
from tests.engine.worker_tasks import counted, once
from tests.federation import SEED

MODEL = Logistic().build(Schema("binary", (3,), (0, 1)))
SETTINGS = {"lr": 0.1, "local_steps": 2, "batch_size": 4, "weighting": "uniform"}


def with_one_of_many_rows(clients: list[ClientData]) -> list[ClientData]:
    *others, last = clients
    rows = Rows(np.tile(last.train.x, (2, 1)), np.tile(last.train.y, 2))
    return [*others, ClientData(last.id, rows)]


CLIENTS = with_one_of_many_rows(two_classes(24))
IDS = [client.id for client in CLIENTS]
ODD = IDS[-1]


@dataclass(frozen=True, kw_only=True)
class Trying(FedAvg):
    """FedAvg whose clients do something else first, each by its name, and may add a metric of their own."""

    first: Callable[[str], Any] = field(default=str, compare=False)
    odd: str = ""

    def client(self, model, task, data, kept, seed):
        self.first(data.id)
        update, keeps = super().client(model, task, data, kept, seed)
        if data.id == self.odd:
            update = replace(update, metrics={**update.metrics, "odd": 1.0})
        return update, keeps


@dataclass(frozen=True)
class Noted(SecureSum):
    """A secure sum whose clients write down what they mask with: a file for each mask, longer with each use."""

    folder: str = ""

    def encode_integers(self, update, context):
        if context.secret is not None:
            counted(Path(self.folder), f"{update.client}.{sha256(context.secret.to_bytes()).hexdigest()}")
        return super().encode_integers(update, context)


def uses(folder: Path) -> Mapping[str, list[int]]:
    """Return client → how often it used each of its masks."""
    found: dict[str, list[int]] = {id: [] for id in IDS}
    for file in folder.iterdir():
        found[file.name.rsplit(".", 1)[0]].append(file.stat().st_size)
    return found


def held(engine: Engine, *stages: Any, algorithm: Any = None, **trying: Any) -> Outcome:
    """Return a round of these stages in an engine."""
    algorithm = algorithm or Trying(**SETTINGS, **trying)
    setting = Setting(algorithm, MODEL, InMemory(CLIENTS), Channel(stages, algorithm), Rules(), SEED)
    try:
        return hold_round(engine, setting, algorithm.task(algorithm.init(MODEL, SEED)), {}, 0)
    finally:
        engine.close()


def mean(outcome: Outcome) -> np.ndarray:
    return np.concatenate(outcome.aggregate.means["model"].flats)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def on_two_devices(model: Any) -> list[Any]:
    made = [copy(model), copy(model)]
    for each in made:
        object.__setattr__(each, "device", "cpu")
    return made


ENGINES: dict[str, Callable[[], Engine]] = {
    "in process": InProcess,
    "within a time": lambda: InProcess(timeout_s=60),
    "batched": Batched,
    "workers": lambda: Workers(2),
    "batched in workers": lambda: Workers(2, inner=Batched()),
    "auto": lambda: Auto(5, processes=2),
    "devices": lambda: Devices(InProcess, on_two_devices),
}


@pytest.mark.parametrize("engine", ENGINES)
def test_the_masked_mean_is_that_of_the_clear_updates_and_masks_are_used_once(engine, tmp_path):
    # One that trains clients side by side rounds otherwise in the last bits.
    plain = FedAvg(**SETTINGS)
    clear = mean(held(InProcess(), Clip(1.0), algorithm=plain))
    masked = held(ENGINES[engine](), Clip(1.0), Noted(folder=str(tmp_path)), algorithm=plain)
    assert not masked.failures
    np.testing.assert_allclose(mean(masked), clear, rtol=0, atol=1e-6)
    assert uses(tmp_path) == dict.fromkeys(IDS, [1])


def test_auto_measures_on_clients_that_it_runs_once_and_leaves_the_rest_to_workers(monkeypatch, tmp_path):
    monkeypatch.setattr(auto, "_START_S", 0.0)
    engine, where = Auto(100, processes=2), tmp_path / "where"
    where.mkdir()

    def first(id: str) -> None:
        time.sleep(0.005)
        counted(where, str(os.getpid()))

    noted = tmp_path / "noted"
    noted.mkdir()
    masked = held(engine, Clip(1.0), Noted(folder=str(noted)), first=first)
    assert len(list(where.iterdir())) > 1
    assert not masked.failures
    assert same_bits(mean(masked), mean(held(InProcess(), Clip(1.0), SecureSum())))
    assert uses(noted) == dict.fromkeys(IDS, [1])


@pytest.mark.parametrize("mask", [SecureSum(), SplitTrust()], ids=["SecureSum", "SplitTrust"])
def test_clients_of_a_worker_that_dies_are_run_again_and_the_sum_is_right(mask, tmp_path):
    def last(id: str) -> None:
        # By then the worker has the masked updates of others in its sum.
        if id == IDS[-2] and once(tmp_path, id):
            die()

    masked = held(Workers(1), Clip(1.0), mask, first=last)
    assert (tmp_path / IDS[-2]).stat().st_size == 2
    assert not masked.failures
    assert same_bits(mean(masked), mean(held(InProcess(), Clip(1.0), mask)))


def test_a_client_whose_worker_always_dies_drops_out_of_the_sum():
    masked = held(Workers(2), Clip(1.0), SecureSum(), first=lambda id: id == IDS[3] and die())
    assert list(masked.failures) == [IDS[3]]
    assert masked.aggregate.count == len(IDS) - 1
    others = [client for client in CLIENTS if client.id != IDS[3]]
    algorithm = Trying(**SETTINGS)
    setting = Setting(algorithm, MODEL, InMemory(others), Channel((Clip(1.0),), algorithm), Rules(), SEED)
    task = algorithm.task(algorithm.init(MODEL, SEED))
    clear = hold_round(InProcess(), setting, task, {}, 0)
    np.testing.assert_allclose(mean(masked), mean(clear), rtol=0, atol=1e-6)


@pytest.mark.parametrize("engine", ["workers", "auto in workers", "devices"])
def test_where_the_order_of_answers_decides_the_round_is_held_anew_with_new_masks(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(auto, "_START_S", 0.0)
    made: Engine = {
        "workers": lambda: Workers(1),
        "auto in workers": lambda: Auto(100, processes=2),
        "devices": lambda: Devices(InProcess, on_two_devices),
    }[engine]()
    alone = held(InProcess(), Clip(1.0), SecureSum(), odd=ODD)
    # The client with the most rows, which is taken first there, sends another metric than all others.
    masked = held(
        made, Clip(1.0), Noted(folder=str(tmp_path)), odd=ODD, first=lambda id: time.sleep(0.005)
    )
    assert list(masked.failures) == list(alone.failures) == [ODD]
    assert masked.aggregate.count == len(IDS) - 1
    assert same_bits(mean(masked), mean(alone))
    assert uses(tmp_path) == dict.fromkeys(IDS, [1, 1])
