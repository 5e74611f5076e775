"""Engines by name, and the one that chooses: whoever runs the clients, the job's result is the same."""

import json
from multiprocessing import active_children

import numpy as np
import pytest

import fedpact as fp
from fedpact.core.errors import ConfigError
from fedpact.core.rows import ClientData, Rows
from fedpact.engine import auto
from fedpact.engine.auto import Auto
from fedpact.engine.engines import engine_of
from fedpact.engine.in_process import InProcess
from tests.engine.runs import outcome, same_bits, two_classes

ALGORITHM = fp.FedAvg(lr=0.1, local_epochs=2, batch_size=4)


def many(count=40, rows=12):
    """Return more clients than are few enough to be trained one by one in any case."""
    random = np.random.default_rng(3)
    x = random.normal(size=(count, rows, 5))
    y = (x.sum(axis=2) > 0).astype(np.int64)
    return [
        ClientData(f"{i:02}", Rows(x[i, :-2], y[i, :-2]), Rows(x[i, -2:], y[i, -2:])) for i in range(count)
    ]


def train(clients=None, **settings):
    settings = {"algorithm": ALGORITHM, "rounds": 3, "progress": False, **settings}
    return fp.train(fp.models.Logistic(), two_classes() if clients is None else clients, **settings)


@pytest.fixture
def eager(monkeypatch):
    """Let `Auto` start workers for any gain, however small."""
    monkeypatch.setattr(auto, "_START_S", -np.inf)
    monkeypatch.setattr(auto, "_LEAST_ROUND_S", 0.0)
    monkeypatch.setattr(auto, "_DOUBTS", 1000)


@pytest.mark.parametrize(
    "algorithm", [ALGORITHM, fp.SCAFFOLD(lr=0.1, local_steps=5)], ids=["FedAvg", "SCAFFOLD"]
)
def test_workers_give_the_bits_of_one_process(algorithm):
    alone = train(algorithm=algorithm, engine="in_process")
    for workers in (1, 2, 3):
        assert same_bits(
            outcome(alone), outcome(train(algorithm=algorithm, engine="workers", workers=workers))
        )


@pytest.mark.parametrize("workers", [None, 2])
def test_batched_training_is_that_of_one_by_one_up_to_rounding(workers):
    clients = many()
    alone = train(clients, engine="in_process")
    batched = train(clients, engine="batched", workers=workers)
    assert batched.engine.startswith("batched")
    np.testing.assert_allclose(batched.weights.flats[0], alone.weights.flats[0], rtol=1e-9)
    np.testing.assert_allclose(batched.history["train_loss"], alone.history["train_loss"], rtol=1e-9)
    assert list(batched.clients.index) == list(alone.clients.index)


def test_few_clients_are_trained_one_by_one_and_the_reason_is_told():
    result = train()
    assert same_bits(outcome(result), outcome(train(engine="in_process")))
    assert result.engine.startswith("one by one, in this process: ")
    assert "the cohort is 4 clients, so not batched" in result.engine


def test_the_choice_is_told_with_what_was_measured():
    described = train(many()).engine
    assert "ms a client one by one" in described
    assert "ms a client batched" in described


def test_workers_chosen_on_the_way_give_the_bits_of_one_process(eager):
    result = train(rounds=4, workers=2)
    assert result.engine.startswith("one by one, in 2 worker processes: ")
    assert same_bits(outcome(result), outcome(train(rounds=4, engine="in_process")))


def test_a_limit_of_time_keeps_clients_apart():
    result = train(many(), timeout_s=30.0)
    assert "every client has a limit of time, so not batched" in result.engine
    assert same_bits(outcome(result), outcome(train(many(), timeout_s=30.0, engine="in_process")))


@pytest.mark.parametrize("arithmetic", ["one by one", "batched"])
def test_a_resumed_run_goes_on_in_the_way_it_began(tmp_path, arithmetic, monkeypatch):
    # Whatever would be measured: each way is made to look a thousand times slower in turn.
    monkeypatch.setattr(auto, "_WORTHWHILE", 1e-9 if arithmetic == "batched" else 1e9)
    whole = train(many(), rounds=6)
    train(many(), rounds=3, folder=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "engine.json").read_text())["arithmetic"] == arithmetic
    monkeypatch.setattr(auto, "_WORTHWHILE", 1e9 if arithmetic == "batched" else 1e-9)
    resumed = train(many(), rounds=6, folder=tmp_path / "run", resume=True)
    assert resumed.engine.startswith(arithmetic)
    assert resumed.weights == whole.weights


def test_an_engine_may_be_given_ready_made():
    assert same_bits(outcome(train(engine=InProcess())), outcome(train(engine="in_process")))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"engine": "worker"}, 'there is no engine "worker".* Did you mean "workers"?'),
        ({"engine": "in_process", "workers": 2}, "workers=2 would have no effect"),
        ({"engine": "batched", "timeout_s": 1.0}, "none can be given up alone"),
        ({"workers": 0}, "workers is 0; it must be a whole number of processes, 1 or more"),
        ({"engine": InProcess(), "workers": 2}, r"set them in InProcess\(...\)"),
    ],
)
def test_what_cannot_be_is_refused_before_any_client_is_asked(settings, said):
    with pytest.raises(ConfigError, match=said):
        train(**settings)


def test_engines_leave_no_process_behind():
    train(engine="workers", workers=2)
    assert active_children() == []


def test_auto_before_its_first_round_says_how_it_would_train():
    assert Auto(rounds=1).describe() == "one by one, in this process"
    assert isinstance(engine_of("auto", None, None, 5), Auto)
