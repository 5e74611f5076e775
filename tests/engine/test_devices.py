"""Several devices, each with a replica of the model and a thread: here the replicas are all on the processor."""

import re
import threading
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest

import fedpact as fp
from fedpact.channel.channel import Channel
from fedpact.core.errors import ClientError, ConfigError
from fedpact.core.model import Schema
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.engine import auto
from fedpact.engine.auto import Auto
from fedpact.engine.batched import Batched
from fedpact.engine.devices import Devices
from fedpact.engine.engines import engine_of
from fedpact.engine.in_process import InProcess
from fedpact.engine.population import InMemory
from fedpact.engine.rounds import Outcome, hold_round
from fedpact.engine.work import Rules, Setting
from tests.engine.runs import outcome, same_bits

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

torch.manual_seed(0)

TWO = ("cuda:0", "cuda:1")
ALGORITHM = fp.FedAvg(lr=0.1, local_epochs=2, batch_size=4)
several_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs several CUDA devices")
a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def clients(count: int = 9, rows: int = 6) -> list[ClientData]:
    """Return clients of different sizes with two test rows each."""
    random = np.random.default_rng(1)
    made = []
    for place in range(count):
        n = rows + place % 4 + 2
        x = random.normal(size=(n, 5)).astype(np.float32)
        y = (x.sum(axis=1) > 0).astype(np.int64)
        made.append(ClientData(f"{place:02}", Rows(x[2:], y[2:]), Rows(x[:2], y[:2])))
    return made


def replicas(count: int) -> Any:
    return lambda model: [model.on("cpu") for _ in range(count)]


def devices(count: int, inner: Any = InProcess) -> Devices:
    return Devices(inner, replicas(count))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(1, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x.unsqueeze(2)).unsqueeze(1)
        return self.out(nn.functional.scaled_dot_product_attention(x, x, x).mean((1, 2)))


class Noisy(nn.Module):
    """Draws from the global generator."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x + 0.1 * torch.randn_like(x) if self.training else x)


MODULES = {
    "layers": mlp,
    "dropout": lambda: nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2)),
    "batch norm": lambda: nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)),
    "noise": Noisy,
}


def train(engine: Any, module: Any = None, members: Any = None, **settings: Any) -> Any:
    settings = {"algorithm": ALGORITHM, "rounds": 2, "progress": False, **settings}
    model = fp.models.Torch(mlp(), init="seed") if module is None else module
    try:
        return fp.train(model, members or clients(), engine=engine, **settings)
    finally:
        if not isinstance(engine, str):
            engine.close()


@pytest.mark.parametrize("case", MODULES)
def test_any_number_of_devices_gives_the_bits_of_one_process(case: str) -> None:
    module = MODULES[case]()
    alone = train(InProcess(), module)
    for count in (1, 3):
        assert same_bits(outcome(alone), outcome(train(devices(count), module)))


def test_devices_keep_what_clients_keep() -> None:
    algorithm = fp.SCAFFOLD(lr=0.1, local_steps=4, batch_size=4)
    alone = train(InProcess(), algorithm=algorithm, cohort=5)
    assert same_bits(outcome(alone), outcome(train(devices(3), algorithm=algorithm, cohort=5)))


@pytest.mark.parametrize("module", [mlp, Attending, MODULES["dropout"]])
def test_batched_on_devices_is_one_by_one_up_to_rounding(module: Any) -> None:
    built = module()
    alone = train(InProcess(), built, clients(40))
    together = train(devices(2, Batched), built, clients(40))
    assert together.engine == "batched, on 2 devices (cpu, cpu)"
    np.testing.assert_allclose(together.weights.flats[0], alone.weights.flats[0], rtol=1e-4, atol=1e-6)
    assert list(together.clients.index) == list(alone.clients.index)


def test_batched_on_devices_gives_the_same_bits_from_run_to_run() -> None:
    one, two = (train(devices(2, Batched), members=clients(40)) for _ in range(2))
    assert same_bits(outcome(one), outcome(two))


def test_the_devices_are_named() -> None:
    assert train(devices(2)).engine == "one by one, on 2 devices (cpu, cpu)"


def test_what_cannot_be_batched_is_said() -> None:
    said = train(devices(2, Batched), MODULES["batch norm"]()).engine
    assert said.startswith("one by one, on 2 devices (cpu, cpu), not batched: the module has a buffer")


@dataclass(frozen=True)
class Telling(fp.FedAvg):
    """FedAvg that calls a function with the model and the client's name before it trains."""

    tell: Any = None

    def client(self, model: Any, task: Any, data: Any, kept: Any, seed: Any) -> Any:
        self.tell(model, data.id)
        return super().client(model, task, data, kept, seed)


def told(tell: Any) -> Telling:
    return Telling(lr=0.1, local_epochs=2, batch_size=4, tell=tell)


def hold(algorithm: Any, engine: Any, members: Any = None) -> Outcome:
    """Return what a round gives; the engine is not closed."""
    model = fp.models.Torch(nn.Linear(5, 2), init="seed").build(Schema("binary", (5,), (0, 1)))
    population = InMemory(members or clients())
    setting = Setting(algorithm, model, population, Channel((), algorithm), Rules(), Seed.of(0))
    task = algorithm.task(algorithm.init(model, Seed.of(0)))
    return hold_round(engine, setting, task, {}, 0)


def hold_and_close(algorithm: Any, engine: Any, members: Any = None) -> Outcome:
    try:
        return hold(algorithm, engine, members)
    finally:
        engine.close()


def test_every_device_has_a_thread_and_a_replica_of_its_own() -> None:
    seen: dict[Any, int] = {}
    # None goes on before the other has begun, so that neither can run all of them.
    both = threading.Barrier(2, timeout=30)

    def tell(model: Any, id: str) -> None:
        if len(seen) < 2:
            seen[model] = threading.get_ident()
            both.wait()

    hold_and_close(told(tell), devices(2))
    assert len(seen) == len(set(seen.values())) == 2


def test_a_population_is_never_asked_by_two_threads_at_once() -> None:
    inside: list[str] = []
    met: list[str] = []

    class Private(InMemory):
        def load(self, id: str) -> ClientData:
            inside.append(id)
            threading.Event().wait(0.002)
            met.extend(other for other in inside if other != id)
            inside.remove(id)
            return super().load(id)

    result = train(devices(3), members=Private(clients()), rounds=1)
    assert len(result.clients) == 9
    assert not met


class Small:
    """Devices of which some have no memory for some clients.

    Args:
        lacking: device → the clients that it has no memory for.
    """

    def __init__(self, lacking: dict[int, set[str]]) -> None:
        self.lacking = lacking
        self.runs: Counter[tuple[int, str]] = Counter()
        self.models: list[Any] = []

    def engine(self, count: int) -> Devices:
        def made(model: Any) -> Any:
            self.models = [model.on("cpu") for _ in range(count)]
            return self.models

        return Devices(InProcess, made)

    def tell(self, model: Any, id: str) -> None:
        device = next((place for place, each in enumerate(self.models) if each is model), -1)
        self.runs[device, id] += 1
        if id in self.lacking.get(device, ()):
            raise torch.OutOfMemoryError("CUDA out of memory.")


def test_what_one_device_has_no_memory_for_another_runs_to_the_same_bits() -> None:
    everyone = {client.id for client in clients()}
    expected = hold_and_close(told(lambda *_: None), InProcess())
    small = Small({0: everyone})
    engine = small.engine(2)
    given = hold_and_close(told(small.tell), engine)
    assert same_bits(expected.aggregate.means, given.aggregate.means)
    assert not given.failures
    assert {id for device, id in small.runs if device == 1} == everyone


def test_who_has_no_memory_for_a_client_is_not_asked_again() -> None:
    small = Small({0: {"03"}, 1: {"03"}})
    given = hold_and_close(told(small.tell), small.engine(3))
    assert not given.failures
    assert small.runs[2, "03"] == 1
    assert max(small.runs.values()) == 1


def test_a_client_that_no_device_has_memory_for_is_a_failure_that_says_what_to_do() -> None:
    small = Small({place: {"05"} for place in range(3)})
    engine = small.engine(3)
    given = hold(told(small.tell), engine)
    assert set(given.failures) == {"05"}
    assert 'client "05": no device has the memory that it takes.' in given.failures["05"]
    assert [small.runs[place, "05"] for place in range(3)] == [1, 1, 1]
    assert re.search(
        r"^one by one, on 3 devices \(cpu, cpu, cpu\); cpu, cpu and cpu ran out of memory, and what 3 clients had",
        engine.describe(),
    )
    engine.close()


def test_memory_that_runs_out_within_a_module_is_known_by_its_cause() -> None:
    class Greedy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if (x > 1e6).any():
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(x)

    members = clients()
    members[2].train.x[0, 0] = 1e7
    result = train(devices(2), Greedy(5, 2), members, rounds=1)
    assert "no device has the memory that it takes" in result.failures.reason.iloc[0]


@dataclass(frozen=True)
class Wide(fp.FedAvg):
    """FedAvg of which no device has memory for more than eight clients at once."""

    def clients(self, model: Any, task: Any, data: Any, kept: Any, seeds: Any) -> Any:
        if len(data) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().clients(model, task, data, kept, seeds)


def test_what_is_too_much_for_a_device_at_once_is_done_in_smaller_groups() -> None:
    engine = devices(2, Batched)
    given = hold(Wide(lr=0.1, local_epochs=2, batch_size=4), engine, clients(40))
    assert given.aggregate.count == 40
    assert re.match(
        r"batched, on 2 devices \(cpu, cpu\), \d at once at most: \d+ clients at once failed "
        r"\(OutOfMemoryError: CUDA out of memory.\)",
        engine.describe(),
    )
    engine.close()


def crowded(*places: int) -> Devices:
    """Return devices some of which have no memory for a model."""

    class Full:
        device = "cuda:7"

        def session(self) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    return Devices(InProcess, lambda model: [Full() if i in places else model.on("cpu") for i in range(3)])


def test_a_device_without_memory_for_the_model_has_no_clients() -> None:
    result = train(crowded(1))
    assert result.engine == "one by one, on 2 devices (cpu, cpu); cuda:7 had no memory for the model"
    assert same_bits(outcome(train(InProcess())), outcome(result))


def test_without_memory_for_the_model_anywhere_nothing_is_run() -> None:
    with pytest.raises(
        ConfigError, match="no memory for the model on cuda:7, cuda:7 and cuda:7: end what else"
    ):
        train(crowded(0, 1, 2))


def test_an_error_of_a_client_stays_the_clients_and_the_first_one_is_told() -> None:
    runs: Counter[str] = Counter()

    def tell(_: Any, id: str) -> None:
        runs[id] += 1
        if id in ("02", "07"):
            raise ClientError(f"{id} will not")

    given = hold_and_close(told(tell), devices(3))
    assert given.failures == {"02": "02 will not", "07": "07 will not"}
    assert list(given.failures) == ["02", "07"]
    assert runs["02"] == 1


def test_a_mistake_in_the_job_ends_the_round_on_every_device() -> None:
    runs: Counter[str] = Counter()

    def tell(_: Any, id: str) -> None:
        runs[id] += 1
        raise ConfigError("no such thing")

    with pytest.raises(ConfigError, match="no such thing"):
        hold_and_close(told(tell), devices(2), clients(40))
    assert len(runs) <= 2


def test_threads_end_when_the_engine_is_closed() -> None:
    before = threading.active_count()
    train(devices(3))
    assert threading.active_count() == before


def test_auto_times_one_device_and_then_uses_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for worthwhile, way in ((1e9, "one by one"), (1e-9, "batched")):
        monkeypatch.setattr(auto, "_WORTHWHILE", worthwhile)
        engine = Auto(2, spread=(devices(2), devices(2, Batched)))
        result = train(engine, members=clients(40))
        assert result.engine.startswith(f"{way}, on 2 devices (cpu, cpu): ")
        alone = train(InProcess(), members=clients(40))
        # In either case the first clients were trained in both ways.
        np.testing.assert_allclose(result.weights.flats[0], alone.weights.flats[0], rtol=1e-4, atol=1e-6)


def test_devices_respect_a_limit_of_time() -> None:
    held = threading.Event()

    def tell(_: Any, id: str) -> None:
        if id == "04":
            held.wait(30)

    given = hold_and_close(told(tell), devices(2, partial(InProcess, 0.5)))
    held.set()
    assert given.failures == {"04": "no answer within 0.5 s"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("workers", None), 'engine="workers" computes on one device, and the model names cuda:0 and cuda:1'),
        (("ray", None), r"with engine=fp.Ray\(gpus=1\) each actor has a GPU of its own"),
        (("auto", 2), "2 devices has a thread of this process, so workers=2 would have no effect"),
        ((InProcess(), None), "InProcess computes on one device"),
    ],
)
def test_what_cannot_use_several_devices_is_refused(settings: Any, said: str) -> None:
    engine, workers = settings
    with pytest.raises(ConfigError, match=said):
        engine_of(engine, workers, None, 1, devices=TWO)


@pytest.mark.parametrize("name", ["in_process", "batched", "auto"])
def test_other_engines_take_several_devices(name: str) -> None:
    engine = engine_of(name, None, None, 1, devices=TWO)
    assert "on several devices" in engine.describe()


@several_gpus
@pytest.mark.parametrize("engine", ["in_process", "batched"])
def test_several_gpus_give_what_one_gives(engine: str) -> None:
    one = train(engine, fp.models.Torch(mlp(), device="cuda:0", init="seed"))
    all_of_them = train(engine, fp.models.Torch(mlp(), device="cuda:*", init="seed"))
    assert f"on {torch.cuda.device_count()} devices (cuda:0, cuda:1" in all_of_them.engine
    np.testing.assert_allclose(
        all_of_them.weights.flats[0], one.weights.flats[0], rtol=0 if engine == "in_process" else 1e-4
    )


@a_gpu
def test_two_replicas_on_one_gpu_give_what_one_gives() -> None:
    module = fp.models.Torch(mlp(), device="cuda", init="seed")
    alone = train("in_process", module)
    two = train(Devices(InProcess, lambda model: [model.on(model.device) for _ in range(2)]), module)
    assert same_bits(outcome(alone), outcome(two))
