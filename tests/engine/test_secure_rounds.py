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
from fedpact.channel.binding import binding
from fedpact.channel.channel import Channel
from fedpact.channel.clip import Clip
from fedpact.channel.secure_sum import SecureSum
from fedpact.channel.split_trust import SplitTrust
from fedpact.channel.transform import RoundContext
from fedpact.core.errors import ChannelError
from fedpact.core.grid import Grid
from fedpact.core.model import Schema
from fedpact.core.rows import ClientData, Rows
from fedpact.core.vector import Vector
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
    assert uses(tmp_path) == {id: [1] for id in IDS}


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
    assert uses(noted) == {id: [1] for id in IDS}


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
def test_where_the_order_of_answers_decides_the_round_is_held_anew_with_new_masks(
    engine, tmp_path, monkeypatch
):
    monkeypatch.setattr(auto, "_START_S", 0.0)
    made: Engine = {
        "workers": lambda: Workers(1),
        "auto in workers": lambda: Auto(100, processes=2),
        "devices": lambda: Devices(InProcess, on_two_devices),
    }[engine]()
    alone = held(InProcess(), Clip(1.0), SecureSum(), odd=ODD)
    # The client with the most rows, which is taken first there, sends another metric than all others.
    masked = held(made, Clip(1.0), Noted(folder=str(tmp_path)), odd=ODD, first=lambda id: time.sleep(0.005))
    assert list(masked.failures) == list(alone.failures) == [ODD]
    assert masked.aggregate.count == len(IDS) - 1
    assert same_bits(mean(masked), mean(alone))
    assert uses(tmp_path) == {id: [1, 1] for id in IDS}


@dataclass(frozen=True, kw_only=True)
class Sending(FedAvg):
    """FedAvg whose clients change what they send."""

    change: Callable[[Any], Any] = field(default=lambda update: update, compare=False)

    def client(self, model, task, data, kept, seed):
        update, keeps = super().client(model, task, data, kept, seed)
        return self.change(update), keeps


@pytest.mark.parametrize(
    "more", [{"summed": {"rows": np.array([3])}}, {"answer": {"rows": 3}}], ids=["summed", "answer"]
)
@pytest.mark.parametrize("mask", [SecureSum(), SplitTrust()], ids=["SecureSum", "SplitTrust"])
def test_what_would_be_sent_in_clear_beside_a_masked_update_ends_the_round(more, mask):
    algorithm = Sending(**SETTINGS, change=lambda update: replace(update, **more))
    with pytest.raises(ChannelError, match="sent in clear beside them"):
        held(InProcess(), Clip(1.0), mask, algorithm=algorithm)


@pytest.mark.parametrize("mask", [SecureSum(), SplitTrust()], ids=["SecureSum", "SplitTrust"])
def test_the_order_of_a_clients_vectors_does_not_matter_to_its_masks(mask):
    def two(update):
        model = update.averaged["model"]
        both = [("model", model), ("other", Vector.zeros(model.layout))]
        return replace(update, averaged=dict(both if update.client == ODD else both[::-1]))

    algorithm = Sending(**SETTINGS, change=two)
    clear = held(InProcess(), Clip(1.0), algorithm=algorithm)
    masked = held(InProcess(), Clip(1.0), mask, algorithm=algorithm)
    np.testing.assert_allclose(mean(masked), mean(clear), rtol=0, atol=1e-6)
    assert not np.concatenate(masked.aggregate.means["other"].flats).any()


def test_no_number_of_a_client_is_left_beside_its_masked_update():
    algorithm = FedAvg(**{**SETTINGS, "weighting": "examples"})
    channel = Channel((Clip(1.0), SecureSum(max_weight=1000)), algorithm)
    task = algorithm.task(algorithm.init(MODEL, SEED))
    opened = channel.begin(task, IDS, SEED)
    updates = []
    for client in CLIENTS:
        update, _ = algorithm.client(MODEL, task, client, {}, SEED)
        assert update.weight == len(client.train)
        assert update.metrics
        updates.append(channel.encode(update, opened, {}, {})[0])
    assert {(u.weight, len(u.metrics), len(u.averaged), len(u.summed), u.answer) for u in updates} == {
        (0, 0, 0, 0, None)
    }
    assert len({u.nbytes for u in updates}) == 1
    assert not opened.secrets


def test_a_sparse_graph_keeps_to_the_smallest_cohort_that_is_asked_for():
    # Of 300 clients a tenth may drop out, unless fewer are wanted to.
    assert SecureSum(graph="sparse").least(300) == 270
    assert SecureSum(graph="sparse", minimum_cohort=290).least(300) == 290
    assert SecureSum(graph="sparse", minimum_cohort=290).dropouts(300) == 10


@pytest.mark.parametrize(
    "change",
    [
        lambda task, context: (replace(task, parameters={"local_steps": 0}), context),
        lambda task, context: (replace(task, version=1), context),
        lambda task, context: (replace(task, arrays={"model": Vector.zeros(MODEL.layout.wide)}), context),
        lambda task, context: (task, replace(context, state={"norm": 0.5})),
        lambda task, context: (task, replace(context, state={"norms": np.array([1.0, 3.0])})),
        lambda task, context: (task, replace(context, seed=SEED.child("other"))),
        lambda task, context: (task, replace(context, grid=Grid(0.25, 1.0))),
        lambda task, context: (task, replace(context, sensitivity=2.0)),
    ],
    ids=["parameters", "version", "model", "number", "array", "seed", "grid", "sensitivity"],
)
def test_masks_are_bound_to_all_that_a_client_is_told(change):
    algorithm = FedAvg(**SETTINGS)
    model = Vector(MODEL.layout, np.ones_like(MODEL.initial(SEED).buffer))
    task = replace(algorithm.task(algorithm.init(MODEL, SEED)), arrays={"model": model})
    context = RoundContext(
        0, 1.0, 24, grid=Grid(0.5, 1.0), state={"norm": 1.0, "norms": np.array([1.0, 2.0])}
    )
    other_task, other = change(task, context)
    assert binding(task, [context]) == binding(task, [replace(context, scratch={"a": 1}, secret=b"mine")])
    assert binding(task, [context]) != binding(other_task, [other])
