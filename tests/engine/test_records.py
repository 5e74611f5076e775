"""Differential privacy of records in whole runs: what the statement says, and how good a private model still is."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedpact as fp
from fedpact.core.errors import DataError, PrivacyError
from fedpact.engine.population import InMemory
from fedpact.engine.privacy import Spent, default_delta
from fedpact.engine.records import record_protection, rows_of, worst_of
from fedpact.engine.result import Result
from fedpact.privacy.accounting import account
from fedpact.privacy.events import Everyone, Gaussian, Poisson, Release
from fedpact.privacy.ledger import Budget, Ledger
from fedpact.privacy.statement import Statement
from tests.engine.runs import two_classes

pytest.importorskip("dp_accounting")

DP = fp.RecordDP(norm=1.0, noise_multiplier=2.0)
# Of 20, 23, 26 and 29 rows.
CLIENTS = two_classes()


def algorithm(**settings: Any) -> fp.FedAvg:
    return fp.FedAvg(**{"lr": 0.1, "local_steps": 3, "batch_size": 5, "dp": DP, **settings})


def train(clients: Any = CLIENTS, **settings: Any) -> Result:
    model = settings.pop("model", fp.models.Logistic())
    chosen = settings.pop("algorithm", algorithm())
    return fp.train(model, clients, algorithm=chosen, **{"rounds": 4, "engine": "in_process", **settings})


def test_statement_is_of_the_client_whose_records_are_told_the_most_about() -> None:
    (protection,) = train().privacy.protections
    # Three steps in each of four rounds, with batches of 5 of the 20 rows that the smallest client has.
    release = Release(Gaussian(2.0), Poisson(5 / 20), 12)
    assert (protection.unit, protection.releases) == ("record", (release,))
    assert protection.guarantee.delta == default_delta(20 + 23 + 26 + 29)
    assert protection.guarantee.epsilon == account([release], protection.guarantee.delta).epsilon
    assert protection.against == "everybody, the server and the other clients with it"


def test_passes_over_the_rows_are_as_many_releases_as_they_have_steps() -> None:
    (protection,) = train(algorithm=algorithm(local_steps=None, local_epochs=2), rounds=3).privacy.protections
    # 20 rows are 4 batches of 5, twice in each of three rounds; 29 are 6 of which each row is in 5 of 29.
    release = Release(Gaussian(2.0), Poisson(5 / 20), 24)
    ours = account([release], protection.guarantee.delta).epsilon
    largest = account([Release(Gaussian(2.0), Poisson(5 / 29), 36)], protection.guarantee.delta).epsilon
    assert protection.guarantee.epsilon == max(ours, largest)


def test_statement_says_it_in_words_and_as_data() -> None:
    statement = train().privacy
    said = str(statement)
    assert (
        "-differential privacy for each record, against everybody, the server and the other clients" in said
    )
    assert "Released 12 times; in each release a unit takes part with probability 0.25" in said
    assert "How many records each client has is public" in said
    assert "training loss" not in said
    assert Statement.from_json(statement.to_json()) == statement


def test_only_the_rounds_count_in_which_a_client_was_asked() -> None:
    result = train(cohort=1, rounds=8)
    rounds = result.clients["rounds"] + result.clients["failures"]
    rows = result.clients["train_rows"]
    delta = default_delta(int(rows[rounds > 0].sum()))
    each = [
        account([Release(Gaussian(2.0), Poisson(5 / n), 3 * k)], delta).epsilon
        for n, k in zip(rows, rounds, strict=True)
        if k
    ]
    assert rounds.sum() == 8
    assert result.privacy.epsilon == max(each)


def test_rounds_count_in_which_a_client_was_asked_and_the_fewest_rows_it_had() -> None:
    # What it sends is refused at the door, where the server has seen it.
    small = fp.ClientData("small", two_classes(1, rows=6)[0].train)
    loud = fp.RecordDP(norm=1e6, noise_multiplier=2.0)
    with pytest.raises(fp.errors.FedpactError, match="small"):
        train([small], algorithm=algorithm(dp=loud), update_range=1.0)
    spent = Spent(Counter())
    spent.note_records({"small": 6, "a": 20})
    spent.note_records({"small": 7})
    assert spent.records == {"small": [2, 6], "a": [1, 20]}
    found = record_protection(algorithm(), spent.records, 1e-5)
    assert found is not None
    assert found.releases == (Release(Gaussian(2.0), Poisson(5 / 6), 6),)


def test_what_a_process_that_died_had_asked_counts() -> None:
    kept, later = (
        Spent(Counter(), records={"a": [1, 20]}),
        Spent(Counter(), records={"a": [2, 20], "b": [1, 5]}),
    )
    kept.catch_up(later)
    assert kept.records == {"a": [2, 20], "b": [1, 5]}
    assert Spent.of(kept.contents()) == kept


def test_rows_of_a_client_that_cannot_tell_them_are_missed_only_if_it_answered() -> None:
    class Torn(InMemory):
        def size(self, id: str) -> int:
            if id == "b":
                raise DataError("the file is gone")
            return super().size(id)

    population = Torn(CLIENTS)
    assert rows_of(population, ["a", "b"], {"b": "gone"}) == {"a": 20} == rows_of(population, ["a", "b"])
    with pytest.raises(DataError, match="the file is gone"):
        rows_of(population, ["a", "b"], {})


def test_resumed_run_states_what_an_uninterrupted_one_does(tmp_path: Path) -> None:
    train(folder=tmp_path, rounds=2)
    resumed = train(folder=tmp_path, rounds=4, resume=True)
    assert resumed.privacy == train().privacy


def test_of_very_many_clients_the_statement_is_an_upper_bound_and_takes_no_longer() -> None:
    asked = {str(i): [1 + i // 40, 100 + i] for i in range(4000)}
    start = time.perf_counter()
    found = record_protection(algorithm(local_steps=2), asked, 1e-6)
    assert found is not None
    assert time.perf_counter() - start < 60
    for rounds, n in list(asked.values())[::400]:
        own = account([Release(Gaussian(2.0), Poisson(5 / n), 2 * rounds)], 1e-6, accountant="rdp")
        assert account([*found.releases], 1e-6, accountant="rdp").epsilon >= own.epsilon * (1 - 1e-9)


def test_one_release_stands_for_all_clients_of_a_round() -> None:
    assert worst_of(algorithm(local_steps=None), [20, 23, 4]) == Release(Gaussian(2.0), Everyone(), 5)
    assert worst_of(fp.FedAvg(), [20]) is None


def test_clients_and_records_are_protected_side_by_side() -> None:
    result = train(
        algorithm=algorithm(weighting="uniform"), channel=[fp.Clip(1.0), fp.GaussianNoise(multiplier=3.0)]
    )
    client, record = result.privacy.protections
    assert (client.unit, record.unit) == ("client", "record")
    assert record.guarantee == train().privacy.protections[0].guarantee


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ("in_process", "one by one, in this process"),
        ("workers", "worker"),
        ("batched", "not batched: with dp every client draws batches of its own, of any size"),
        ("auto", "one by one"),
    ],
)
def test_every_engine_trains_privately_or_says_why_not(engine: str, said: str) -> None:
    result = train(engine=engine)
    assert said in result.engine
    assert result.privacy == train().privacy
    assert "train_loss" not in result.history
    again = train(engine=engine)
    assert not np.array_equal(result.weights["coef"], again.weights["coef"])


def test_worker_processes_draw_other_noise_than_one_another() -> None:
    # The same rows, all zero, in each of them: but for the noise all clients would send the same.
    rows = fp.Rows(np.zeros((8, 3)), np.array([0, 1] * 4))
    clients = [fp.ClientData(str(i), rows) for i in range(4)]
    updates = [
        train(clients[:k], engine="workers", workers=2, rounds=1).weights["coef"]
        for k in (2, 3, 4)
        for _ in range(2)
    ]
    assert len({each.tobytes() for each in updates}) == 6
    # Of three numbers each 0.1 · 2 · √3 / 5, over √clients in the mean.
    assert np.std(updates) > 0.01


def test_budget_for_records_is_charged_before_each_round(tmp_path: Path) -> None:
    generous = Ledger(tmp_path / "generous", Budget(100.0, 1e-5, unit="record"))
    train(ledger=generous)
    release = Release(Gaussian(2.0), Poisson(0.25), 3)
    assert [charge.releases for charge in generous.charges()] == [(release,)] * 4

    two_rounds = account([Release(Gaussian(2.0), Poisson(0.25), 6)], 1e-5).epsilon
    tight = Ledger(tmp_path / "tight", Budget(two_rounds * 1.01, 1e-5, unit="record"))
    seen: list[Any] = []
    with pytest.raises(PrivacyError, match="a record, add_or_remove"):
        train(ledger=tight, on_round=seen.append)
    assert len(seen) == 2


def test_algorithm_without_it_says_nothing_of_records() -> None:
    statement = train(algorithm=algorithm(dp=None)).privacy
    assert statement.protections == ()
    assert "each client's training loss" in statement.in_clear


def test_model_at_epsilon_8_is_nearly_as_good_as_one_without_privacy() -> None:
    pytest.importorskip("sklearn")
    clients, accuracy = fp.datasets.breast_cancer(), {}
    for dp in (None, fp.RecordDP(norm=1.0, noise_multiplier=1.65)):
        result = train(
            clients,
            preprocess=[fp.Standardize()],
            algorithm=fp.FedAvg(lr=0.3, local_steps=10, batch_size=16, dp=dp),
            rounds=10,
            evaluate_every=0,
        )
        accuracy[dp] = result.history["accuracy"].iloc[-1]
    assert 7.0 < result.privacy.epsilon < 9.0
    # Over runs the private accuracy has a mean of 0.977 and a deviation of 0.005; without privacy it is 0.979.
    assert accuracy[dp] > accuracy[None] - 0.06


def test_torch_module_is_trained_privately() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    result = train(model=module)
    assert result.privacy == train().privacy
    with pytest.raises(fp.errors.ModelError, match=r'"1" is a BatchNorm1d.*use torch\.nn\.GroupNorm instead'):
        train(
            model=torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
        )


def test_a_clients_records_are_those_that_no_step_leaves_out() -> None:
    x = np.random.default_rng(0).normal(size=(40, 1))
    labels = np.arange(40) % 2
    x[20:] = 900.0
    step = fp.Clean(ranges={"x0": (-100, 100)}, drop=True)
    dp = fp.RecordDP(norm=1.0, noise_multiplier=1.0)
    settings = {"algorithm": fp.FedAvg(lr=0.1, local_steps=2, batch_size=4, dp=dp), "rounds": 2}
    left, kept = (
        fp.train(
            fp.models.Logistic(),
            [fp.ClientData("a", fp.Rows(x[:n], labels[:n]))],
            preprocess=step,
            **settings,
        )
        for n in (40, 20)
    )
    # A batch of 4 is a fifth of 20 rows, and a tenth of 40.
    assert left.privacy.protections == kept.privacy.protections
    assert left.clients["train_rows"].tolist() == [20]
