"""The engine on a Ray cluster of two nodes: the bits of one process, whatever is lost on the way."""

import _thread
import os
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

import fedpact as fp
from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.scaffold import SCAFFOLD
from fedpact.channel.channel import Channel
from fedpact.core.errors import ClientError, ConfigError, DataError, DependencyError, QuorumError
from fedpact.core.rows import ClientData
from fedpact.engine.in_process import InProcess
from fedpact.engine.population import InMemory, Prepared
from fedpact.engine.ray import Ray
from fedpact.engine.ray_actor import Actor, Order, Portion, without_rows
from fedpact.engine.work import Engine, Rules, Setting, Work
from tests.engine.ray_cluster import (
    Deadly,
    Disagreeing,
    HeldUp,
    Locked,
    Made,
    Noting,
    Raising,
    Reporting,
    TwoPartError,
    doubled,
    two_nodes,
    wait_for,
)
from tests.engine.ray_rounds import CLIENTS, IDS, RULES, Federation, run
from tests.engine.runs import outcome, same_bits
from tests.federation import SEED, Quadratics, quadratic


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with two_nodes() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def engine(cluster: Any) -> Iterator[Ray]:
    """An engine with an actor on each node. Closed, it gives their CPUs back until it is asked again."""
    engine = Ray()
    yield engine
    engine.close()


@pytest.mark.parametrize("algorithm", [FedAvg(lr=0.1), SCAFFOLD(lr=0.1)], ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("rules", [Rules(), Rules(cohort=4)], ids=["all", "cohort"])
def test_two_nodes_give_the_bits_of_one_process(engine: Ray, algorithm: Any, rules: Rules) -> None:
    ours, theirs = (run(e, algorithm, rounds=4, rules=rules) for e in (engine, InProcess()))
    assert same_bits(ours, theirs)


def test_both_nodes_run_clients_and_each_client_stays_where_it_was(engine: Ray, tmp_path: Path) -> None:
    algorithm = Reporting(folder=str(tmp_path))
    run(engine, algorithm, rounds=3)
    places = {id: algorithm.runs(id) for id in IDS}
    assert len({node for runs in places.values() for node, _ in runs}) == 2
    assert all(len(runs) == 3 and len(set(runs)) == 1 for runs in places.values())
    assert engine.describe() == "one by one, in 2 Ray actors on 2 nodes"


def test_a_whole_training_run_is_the_same(engine: Ray) -> None:
    def trained(engine: Any) -> fp.Result:
        return fp.train(
            fp.models.Logistic(),
            fp.datasets.breast_cancer(),
            preprocess=[fp.Standardize()],
            algorithm=fp.SCAFFOLD(lr=0.1),
            rounds=2,
            engine=engine,
        )

    ours, theirs = trained(engine), trained("in_process")
    assert same_bits(outcome(ours), outcome(theirs))
    assert ours.engine == "one by one, in 2 Ray actors on 2 nodes"


def test_a_clients_error_is_its_own(engine: Ray) -> None:
    outcome = Federation(engine, Raising(who="c", kind=ValueError, words=("a bug",))).hold()
    assert outcome.failures == {"c": "ValueError: a bug"}
    assert outcome.aggregate.count == 5


@pytest.mark.parametrize(
    ("kind", "fatal"), [(ConfigError, ()), (DataError, (DataError,)), (KeyboardInterrupt, ())]
)
def test_an_error_that_ends_the_round_comes_back_as_it_was(
    engine: Ray, kind: type[BaseException], fatal: Any
) -> None:
    with pytest.raises(kind, match="a mistake") as caught:
        run(engine, Raising(who="c", kind=kind, words=("a mistake",)), rules=Rules(fatal=fatal))
    # With the place where it was raised.
    assert "ray_cluster.py" in "".join(caught.value.__notes__)


def test_an_error_that_cannot_travel_is_a_failure_with_its_words(engine: Ray) -> None:
    outcome = Federation(engine, Raising(who="c", kind=TwoPartError, words=("no ", "file"))).hold()
    assert outcome.failures == {"c": "TwoPartError: no file"}


def test_what_clients_answer_that_cannot_travel_is_an_error_that_says_so(engine: Ray) -> None:
    with pytest.raises(ConfigError, match=r"what they answer cannot travel: .*lock"):
        Federation(engine, Locked()).hold()


def test_a_task_that_a_node_cannot_read_is_an_error_and_the_next_run_is_as_if_it_had_not_been(
    engine: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    population, own = InMemory(CLIENTS), at_the_driver_alone(FedAvg, monkeypatch)
    with pytest.raises(
        ConfigError, match=r"the task cannot be read .*: No module named 'at_the_driver'\. Every node"
    ):
        run(engine, own(), population)
    assert same_bits(run(engine, FedAvg(), population), run(InProcess(), FedAvg()))


def at_the_driver_alone(base: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a class like another, of a module that no other process finds."""
    module: Any = types.ModuleType("at_the_driver")
    module.Own = type("Own", (base,), {"__module__": module.__name__})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.Own


def test_a_population_that_cannot_travel_is_an_error_that_says_so(engine: Ray) -> None:
    population = Made()
    population.lock = threading.Lock()  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"the population cannot be sent to a cluster: .*lock"):
        Federation(engine, FedAvg(), population).hold()


def test_clients_that_disagree_are_refused_as_in_one_process(engine: Ray) -> None:
    ours, theirs = (run(e, Disagreeing(), rounds=1, rules=Rules(quorum=2)) for e in (engine, InProcess()))
    assert same_bits(ours, theirs)
    # The first client decides: "a" sent vowels, and so did "e".
    assert [id for id, _ in ours[2][0][3]] == ["b", "c", "d", "f"]


def test_a_population_that_is_not_in_memory_travels_as_it_is(engine: Ray) -> None:
    ours, theirs = (run(e, FedAvg(lr=0.1), Made()) for e in (engine, InProcess()))
    assert same_bits(ours, theirs)
    assert ours[2][0][3] == [("b", "no file")]


def test_clients_join_leave_and_come_back_with_other_rows(engine: Ray) -> None:
    def changing(engine: Engine) -> Any:
        population = InMemory(CLIENTS[:4])
        federation = Federation(engine, SCAFFOLD(lr=0.1), Prepared(population, doubled))
        federation.hold()
        population.join(CLIENTS[4])
        population.leave("a")
        federation.hold()
        population.join(ClientData("a", CLIENTS[5].train))
        federation.hold()
        return federation.state, federation.kept

    assert same_bits(changing(engine), changing(InProcess()))


def in_an_actor(work: Work, portion: Portion, *clients: Any) -> Any:
    """Return what an actor answers that is in this process."""
    setting = work.setting
    parts = {"task": Order.of(work), "model": setting.model, "population": without_rows(setting.population)}
    sent = {what: ray.put(part) for what, part in parts.items()}
    actor = Actor(InProcess())
    return actor.ask(sent, portion, *clients), lambda portion: actor.ask(sent, portion)


def test_what_an_actor_returns_is_one_sum_whatever_the_number_of_its_clients(cluster: Any) -> None:
    def returned(count: int) -> int:
        model, algorithm = Quadratics(np.zeros(50_000)), FedAvg()
        clients = [quadratic(f"{place:03}", 1.0, np.ones(50_000)) for place in range(count)]
        setting = Setting(algorithm, model, InMemory(clients), Channel((), algorithm), RULES, SEED)
        task, ids = algorithm.task(algorithm.init(model, SEED)), [client.id for client in clients]
        opened = setting.channel.begin(task, ids, SEED)
        work = Work(setting, task, {}, opened, SEED, dict.fromkeys(ids, 1), count)
        answer, _ = in_an_actor(work, Portion(ids), clients)
        assert answer.sums.count == count
        return len(ray.cloudpickle.dumps(answer))

    few, many = returned(2), returned(40)
    # 8 bytes an element of the model; and of each client its name and how long it took.
    assert 400_000 < few < 402_000
    assert many - few < 38 * 64


def test_an_actor_holds_its_own_clients_and_lets_go_of_those_that_were_lent(cluster: Any) -> None:
    work = Federation(InProcess(), FedAvg()).work()
    first, again = in_an_actor(work, Portion(IDS), CLIENTS[:5], CLIENTS[5:])
    assert not first.failures
    second = again(Portion(IDS, gone=["a"]))
    assert second.failures == {"a": "KeyError: 'a'", "f": "KeyError: 'f'"}


def test_a_process_that_dies_in_a_round_changes_no_bit(engine: Ray, tmp_path: Path) -> None:
    algorithm = Deadly(folder=str(tmp_path), lr=0.1, deaths={"b": 1})
    assert same_bits(run(engine, algorithm), run(InProcess(), FedAvg(lr=0.1)))
    assert len(algorithm.runs("b")) == 1 + 2


def test_a_client_that_ends_three_processes_is_named_and_the_others_are_in_the_sum(
    engine: Ray, tmp_path: Path
) -> None:
    federation = Federation(engine, Deadly(folder=str(tmp_path), deaths={"c": 99}), rules=Rules(quorum=1.0))
    with pytest.raises(
        QuorumError, match=r'5 of 6 .* client "c": the process that ran it died 3 times'
    ) as caught:
        federation.hold()
    assert isinstance(caught.value.__cause__, ClientError)
    assert list(caught.value.failures) == ["c"]


def test_ctrl_c_ends_a_round_and_the_next_one_is_as_if_nothing_had_been(engine: Ray, tmp_path: Path) -> None:
    algorithm = HeldUp(folder=str(tmp_path), node="")

    def interrupt() -> None:
        wait_for(lambda: any(algorithm.runs(id) for id in IDS))
        _thread.interrupt_main()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run(engine, algorithm)
    thread.join()
    assert same_bits(run(engine, FedAvg()), run(InProcess(), FedAvg()))


def test_nodes_may_come_between_rounds_and_go_within_one_without_changing_a_bit(
    cluster: Any, engine: Ray, tmp_path: Path
) -> None:
    third = cluster.add_node(num_cpus=1)
    algorithm = HeldUp(folder=str(tmp_path), lr=0.1, node=third.node_id)

    def there() -> list[str]:
        return [id for id in IDS if any(node == third.node_id for node, _ in algorithm.runs(id))]

    def lose_it() -> None:
        wait_for(there)
        cluster.remove_node(third)
        (tmp_path / "go").touch()

    federation, alone = Federation(engine, algorithm), Federation(InProcess(), FedAvg(lr=0.1))
    thread = threading.Thread(target=lose_it, daemon=True)
    thread.start()
    said = set()
    while thread.is_alive():
        # Rounds may be over before the actor on the third node has started.
        federation.hold()
        said.add(engine.describe())
    assert there()
    assert "one by one, in 3 Ray actors on 3 nodes" in said
    for _ in range(federation.round):
        alone.hold()
    assert federation.state.model == alone.state.model


def test_closing_gives_the_cpus_back_and_leaves_a_cluster_that_is_not_its_own(engine: Ray) -> None:
    run(engine, FedAvg(), rounds=1)
    engine.close()
    assert wait_for(lambda: ray.available_resources().get("CPU", 0) == 2)
    assert ray.is_initialized()


def test_actors_go_where_the_resources_are_that_they_reserve(
    cluster: Any, engine: Ray, tmp_path: Path
) -> None:
    engine.close()
    algorithm = Reporting(folder=str(tmp_path))
    halves = Ray(cpus=0.5, gpus=0.5, resources={"second": 0.5})
    try:
        run(halves, algorithm, rounds=1)
    finally:
        halves.close()
    places = [algorithm.runs(id)[0] for id in IDS]
    second = next(iter(cluster.worker_nodes)).node_id
    assert {node for node, _ in places} == {second}
    assert len({process for _, process in places}) == 2
    # Both have the same GPU, each a half of it.
    assert {gpu for id in IDS for gpu in algorithm.gpus(id)} == {"0"}


def test_each_actor_is_asked_once_a_round(cluster: Any, engine: Ray, tmp_path: Path) -> None:
    engine.close()
    noting = Ray(inner=Noting(tmp_path))
    try:
        run(noting, FedAvg(), rounds=3)
    finally:
        noting.close()
    assert noting.describe() == "one by one, in 2 Ray actors on 2 nodes"
    assert len((tmp_path / "asked").read_text().splitlines()) == 3 * 2


def test_a_cluster_without_room_for_an_actor_is_an_error_that_says_what_there_is(cluster: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"an actor of 3 CPU within 0.5 s; the cluster has 2 CPU, 1 GPU, 1 first"
    ):
        run(Ray(cpus=3, wait_s=0.5), FedAvg())


def test_an_actor_that_a_node_cannot_start_is_an_error_that_says_why(
    engine: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.close()
    own = at_the_driver_alone(InProcess, monkeypatch)
    with pytest.raises(
        ConfigError, match=r"cannot start .*: No module named 'at_the_driver'\. Every node needs"
    ):
        run(Ray(1, inner=own()), FedAvg())


@pytest.mark.slow
def test_a_script_without_a_cluster_starts_one_and_stops_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        """
import fedpact as fp
from fedpact.engine.ray import Ray

class Own(fp.FedAvg):
    "What the script itself defines goes along."

def weights(engine):
    steps, algorithm = [fp.Standardize()], Own(lr=0.1)
    clients = fp.datasets.breast_cancer()
    return fp.train(
        fp.models.Logistic(), clients, preprocess=steps, algorithm=algorithm, rounds=2, engine=engine
    ).weights

engine = Ray(2, address="local")
print(weights(engine) == weights("in_process"))
engine.close()

import ray
print(ray.is_initialized())
"""
    )
    # What this process finds, wherever the script is.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, script], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.stdout.split(), done.returncode) == (["True", "False"], 0), done.stderr
    # Not a word of Ray's.
    assert not done.stderr


def test_an_address_where_nobody_listens_is_refused_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(ConfigError, match=f'no Ray cluster at "{address}": .*refused'):
        run(Ray(address=address), FedAvg())


def test_without_ray_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DependencyError, match=r'pip install "fedpact\[ray\]"'):
        run(Ray(), FedAvg())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"actors": 0}, "actors is 0; it must be a whole number, 1 or more"),
        ({"cpus": -1}, "cpus is -1; it must be a number, 0 or more"),
        ({"gpus": 1.5}, "cannot reserve 1.5 GPU"),
        ({"cpus": 0}, "reserves nothing"),
        ({"inner": InProcess(), "timeout_s": 3.0}, r"timeout_s has no effect .* InProcess\(\.\.\.\)"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Ray(**settings)
