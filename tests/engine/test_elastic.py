"""Claims about clients that come and go, fail for some rounds, take too long, or send what cannot be used."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedpact as fp
from fedpact.core.errors import ConfigError, DataError, QuorumError
from tests.engine.runs import as_tables, last_state, outcome, same_bits, two_classes

LOCAL: dict[str, Any] = {"lr": 0.3, "local_epochs": 2, "batch_size": 4}
# One step along the gradient of all rows, which draws nothing from the seed.
STEP = fp.FedAvg(lr=0.3, local_steps=1, batch_size=None)


class Clients(fp.InMemory):
    """Clients of which some are away: they cannot be reached, or answer slowly."""

    def __init__(self, clients: list[fp.ClientData]) -> None:
        super().__init__(clients)
        self.away: set[str] = set()
        self.slow: dict[str, float] = {}

    def load(self, id: str) -> fp.ClientData:
        time.sleep(self.slow.get(id, 0))
        if id in self.away:
            raise ConnectionError("no route to the site")
        return super().load(id)


def train(clients: Any, **changed: Any) -> fp.Result:
    return fp.train(
        fp.models.Logistic(), clients, **{"algorithm": fp.FedAvg(**LOCAL), "rounds": 6, **changed}
    )


def after(**actions: Callable[[], Any]) -> Callable[[Any], None]:
    """Return what calls `round3` after the third round."""
    return lambda record: actions.get(f"round{record['round']}", lambda: None)()


def test_clients_join_and_leave_between_rounds() -> None:
    clients = two_classes(5)
    population = Clients(clients[:3])

    def swap() -> None:
        population.leave("a")
        population.join(clients[3])
        population.join(clients[4])

    result = train(population, on_round=after(round2=swap, round4=lambda: population.leave("e")))
    assert result.history["clients"].tolist() == [3, 3, 4, 4, 3, 3]
    assert result.clients["rounds"].to_dict() == {"a": 2, "b": 6, "c": 6, "d": 4, "e": 2}
    assert result.clients["train_rows"].isna().to_dict() == {
        "a": True, "b": False, "c": False, "d": False, "e": True,
    }  # fmt: skip
    assert len(result.failures) == 0


def test_rounds_after_a_client_joined_are_those_of_a_run_that_has_it_from_there(tmp_path: Path) -> None:
    clients = two_classes(4)
    population = Clients(clients[:3])
    result = train(population, algorithm=STEP, on_round=after(round2=lambda: population.join(clients[3])))
    train(clients[:3], algorithm=STEP, rounds=2).save(tmp_path)
    then = train(clients, algorithm=STEP, rounds=4, initial=tmp_path / "model.safetensors")
    assert result.weights == then.weights


def test_client_that_comes_back_has_its_control_variate_still(tmp_path: Path) -> None:
    clients = two_classes()
    scaffold = fp.SCAFFOLD(lr=0.3, local_steps=3)
    train(clients, algorithm=scaffold, rounds=2, folder=tmp_path / "two")
    population = Clients(clients)
    actions = after(round2=lambda: population.leave("b"))
    train(population, algorithm=scaffold, rounds=4, folder=tmp_path / "four", on_round=actions)
    before, away = (last_state(tmp_path / name)["kept"]["b"] for name in ("two", "four"))
    assert same_bits(away, before)
    population.join(clients[1])
    back = train(population, algorithm=scaffold, rounds=5, folder=tmp_path / "four", resume=True)
    assert back.history["clients"].tolist() == [4, 4, 3, 3, 4]
    assert not same_bits(last_state(tmp_path / "four")["kept"]["b"], before)


@pytest.mark.parametrize(
    "algorithm",
    [fp.FedAvg(**LOCAL), fp.SCAFFOLD(**LOCAL), fp.Cyclic(**LOCAL)],
    ids=["FedAvg", "SCAFFOLD", "Cyclic"],
)
@pytest.mark.parametrize("stopped_after", [2, 3, 5])
def test_run_whose_clients_change_is_resumed_with_the_clients_of_that_moment(
    algorithm: Any, stopped_after: int, tmp_path: Path
) -> None:
    clients = two_classes(5)

    def run(folder: str, population: Clients, stop: int | None = None) -> fp.Result:
        def on_round(record: Any) -> None:
            if record["round"] == 2:
                population.leave("a")
            if record["round"] == 3:
                population.join(clients[4])
            if record["round"] == stop:
                raise KeyboardInterrupt

        return train(
            population,
            algorithm=algorithm,
            on_round=on_round,
            folder=tmp_path / folder,
            resume=True,
            rounds=7,
        )

    whole = run("whole", Clients(clients[:4]))
    population = Clients(clients[:4])
    with pytest.raises(KeyboardInterrupt):
        run("stopped", population, stopped_after)
    resumed = run("stopped", population)
    assert same_bits(outcome(resumed), outcome(whole))
    assert same_bits(last_state(tmp_path / "stopped"), last_state(tmp_path / "whole"))


def test_client_that_fails_is_recorded_with_its_reason_and_the_rounds_go_on() -> None:
    population = Clients(two_classes())
    actions = after(round1=lambda: population.away.add("b"), round3=population.away.clear)
    result = train(population, on_round=actions)
    assert result.history["clients"].tolist() == [4, 3, 3, 4, 4, 4]
    assert result.history["failed"].tolist() == [0, 1, 1, 0, 0, 0]
    assert result.failures.to_dict(orient="records") == [
        {"round": number, "client": "b", "reason": "ConnectionError: no route to the site"}
        for number in (2, 3)
    ]
    assert result.clients["failures"].to_dict() == {"a": 0, "b": 2, "c": 0, "d": 0}
    assert result.clients["rounds"].to_dict() == {"a": 6, "b": 4, "c": 6, "d": 6}


def test_round_without_a_client_that_fails_is_a_round_without_that_client() -> None:
    population = Clients(two_classes())
    population.away.add("b")
    result = train(population)
    assert result.weights == train([c for c in two_classes() if c.id != "b"]).weights


def test_client_that_is_away_at_the_start_takes_part_once_it_is_back() -> None:
    population = Clients(two_classes())
    population.away.add("d")
    result = train(population, on_round=after(round2=population.away.clear), preprocess=fp.Standardize())
    assert result.history["clients"].tolist() == [3, 3, 4, 4, 4, 4]


def test_client_that_fails_is_left_out_of_the_evaluation() -> None:
    population = Clients(two_classes())
    result = train(population, on_round=after(round5=lambda: population.away.add("c")))
    assert result.evaluation is not None
    assert set(result.evaluation.rows) == {"a", "b", "d"}
    assert result.evaluation.failures == {"c": "ConnectionError: no route to the site"}
    assert result.clients["test_rows"].to_dict() == {"a": 5, "b": 5, "c": 0, "d": 5}


@pytest.mark.parametrize(("quorum", "needed"), [(3, 3), (0.75, 3), (0.6, 3)])
def test_round_below_the_quorum_ends_the_run_with_every_reason(quorum: Any, needed: int) -> None:
    population = Clients(two_classes())
    actions = after(
        round1=lambda: population.away.add("b"), round2=lambda: population.away.update(["a", "b"])
    )
    with pytest.raises(
        QuorumError,
        match=rf"round 3: 2 of 4 clients answered, {needed} are needed\. "
        "a: ConnectionError: no route to the site; b: ConnectionError: no route to the site",
    ):
        train(population, quorum=quorum, on_round=actions)


@pytest.mark.parametrize(
    "settings",
    [
        {"algorithm": fp.FedAvg(**LOCAL)},
        {"algorithm": fp.SCAFFOLD(**LOCAL)},
        {"algorithm": fp.FedAdam(**LOCAL), "keep": fp.Keep(every=2)},
        {"algorithm": fp.Newton()},
    ],
    ids=["FedAvg", "SCAFFOLD", "FedAdam saved every other round", "Newton"],
)
def test_run_that_lost_its_quorum_is_resumed_when_the_clients_are_back(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    whole = train(two_classes(), quorum=4, folder=tmp_path / "whole", **settings)
    population = Clients(two_classes())
    actions = after(round3=lambda: population.away.add("c"))
    with pytest.raises(QuorumError, match="round 4: 3 of 4 clients answered, 4 are needed"):
        train(population, quorum=4, folder=tmp_path / "lost", on_round=actions, **settings)
    population.away.clear()
    resumed = train(population, quorum=4, folder=tmp_path / "lost", resume=True, **settings)
    assert same_bits(outcome(resumed), outcome(whole))


def test_run_that_never_had_a_quorum_leaves_the_folder_free(tmp_path: Path) -> None:
    population = Clients(two_classes())
    population.away.update("ab")
    with pytest.raises(QuorumError, match="2 of 4 clients answered, 3 are needed"):
        train(population, quorum=3, folder=tmp_path)
    population.away.clear()
    assert len(train(population, quorum=3, folder=tmp_path).history) == 6


def test_federation_that_everybody_leaves_ends_with_a_quorum_error() -> None:
    for algorithm in (fp.FedAvg(**LOCAL), fp.Cyclic(**LOCAL)):
        population = Clients(two_classes(2))

        def everybody_leaves(population: Clients = population) -> None:
            population.leave("a")
            population.leave("b")

        with pytest.raises(QuorumError, match="0 of 0 clients answered"):
            train(population, algorithm=algorithm, on_round=after(round2=everybody_leaves), evaluate_every=0)


def test_client_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    population = Clients(two_classes())
    actions = after(round1=lambda: population.slow.update(b=2.0), round2=population.slow.clear)
    result = train(population, timeout_s=0.5, on_round=actions, rounds=3)
    assert result.failures.to_dict(orient="records") == [
        {"round": 2, "client": "b", "reason": "no answer within 0.5 s"}
    ]
    assert result.history["clients"].tolist() == [4, 3, 4]


def test_time_limit_for_clients_that_keep_it_changes_no_bit() -> None:
    limited, free = train(two_classes(), timeout_s=60.0), train(two_classes())
    assert same_bits(outcome(limited), outcome(free))


def test_interrupt_within_a_client_with_a_time_limit_stops_the_run() -> None:
    class Interrupting(Clients):
        def load(self, id: str) -> fp.ClientData:
            if self.away:
                raise KeyboardInterrupt
            return super().load(id)

    population = Interrupting(two_classes())
    with pytest.raises(KeyboardInterrupt):
        train(population, timeout_s=60.0, on_round=after(round2=lambda: population.away.add("a")))


def test_fewer_clients_than_the_cohort_are_all_asked_once_some_have_left() -> None:
    population = Clients(two_classes())

    def leave() -> None:
        population.leave("a")
        population.leave("b")

    result = train(population, cohort=3, on_round=after(round2=leave), rounds=4)
    assert result.history["clients"].tolist() == [3, 3, 2, 2]


def joining(newcomer: fp.ClientData, clients: list[fp.ClientData], **settings: Any) -> fp.Result:
    population = Clients(clients)
    return train(population, on_round=after(round1=lambda: population.join(newcomer)), rounds=3, **settings)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda rows: fp.Rows(rows.x, np.where(np.arange(len(rows)) == 3, 2, rows.y)),
            'client "z", training rows: the label in row 4 is of no class that the model knows (0, 1).',
        ),
        (
            lambda rows: fp.Rows(rows.x, np.array(["well", "ill"])[rows.y]),
            'client "z", training rows: the label in row 1 is of no class that the model knows (0, 1).',
        ),
        (
            lambda rows: fp.Rows(np.where(np.arange(len(rows))[:, None] == 3, np.nan, rows.x), rows.y),
            'client "z", training rows: a value is missing, infinite or too large for float64 in 1 row(s), first '
            "in row 4; leave these rows out, or preprocess with Impute.",
        ),
        (
            lambda rows: fp.Rows(rows.x, np.where(np.arange(len(rows)) == 3, np.nan, rows.y)),
            'client "z", training rows: the label is missing or infinite in 1 row(s), first in row 4; leave these '
            "rows out.",
        ),
        (
            lambda rows: fp.Rows(rows.x[:, :2], rows.y),
            'client "z", training rows: the examples have shape [2]; the model is made for [3].',
        ),
        (lambda rows: fp.Rows(rows.x), 'client "z", training rows: there are no labels.'),
    ],
    ids=["unseen class", "other labels", "missing value", "missing label", "other shape", "no labels"],
)
def test_client_that_joins_with_rows_that_do_not_fit_is_recorded_and_left_out(
    change: Callable[[fp.Rows], fp.Rows], said: str
) -> None:
    # Its first rows are of class 0.
    rows = two_classes()[0].train
    rows = rows.take(np.argsort(rows.y, kind="stable"))
    result = joining(fp.ClientData("z", change(rows)), two_classes())
    assert result.failures.to_dict(orient="records") == [
        {"round": number, "client": "z", "reason": said} for number in (2, 3)
    ]
    assert result.weights == train(two_classes(), rounds=3).weights


def test_client_that_joins_without_a_column_is_told_which() -> None:
    clients = as_tables(two_classes())
    rows = clients[0].train
    result = joining(fp.ClientData("z", fp.Rows(rows.x.drop(columns="q"), rows.y)), clients)
    assert (
        result.failures["reason"].tolist()
        == ['client "z", training rows: there is no column "q". Columns: p, r.'] * 2
    )


@pytest.mark.parametrize("unknown", ["ignore", "error"])
def test_client_that_joins_with_a_new_category_is_taken_or_told_as_the_step_says(unknown: Any) -> None:
    clients = [
        fp.ClientData(c.id, fp.Rows(c.train.x.assign(colour=np.array(["red", "blue"])[c.train.y]), c.train.y))
        for c in as_tables(two_classes())
    ]
    newcomer = fp.ClientData("z", fp.Rows(clients[0].train.x.assign(colour="green"), clients[0].train.y))
    result = joining(newcomer, clients, preprocess=fp.OneHot(unknown=unknown))
    assert result.history["clients"].tolist() == ([4, 5, 5] if unknown == "ignore" else [4, 4, 4])
    for reason in result.failures["reason"]:
        assert reason.startswith('client "z", training rows: column "colour"')
        assert "row" in reason


def test_client_whose_training_diverges_is_left_out_and_the_weight_named() -> None:
    clients = two_classes()
    rows = clients[1].train
    huge = fp.ClientData("b", fp.Rows(rows.x * 1e150, rows.y), clients[1].test)
    result = train([clients[0], huge, *clients[2:]], algorithm=STEP, rounds=2)
    assert result.failures["client"].tolist() == ["b", "b"]
    assert result.failures["reason"][0].startswith('client "b": coef[0] is ')
    assert "outside the declared range of ±65536" in result.failures["reason"][0]
    assert result.weights == train([clients[0], *clients[2:]], algorithm=STEP, rounds=2).weights


def test_client_that_joins_twice_and_one_that_leaves_twice_are_refused() -> None:
    population = fp.InMemory(two_classes())
    with pytest.raises(ConfigError, match='two clients are called "a"'):
        population.join(two_classes()[0])
    population.leave("a")
    with pytest.raises(ConfigError, match='there is no client "a"'):
        population.leave("a")


def test_client_that_joins_without_rows_is_refused() -> None:
    with pytest.raises(DataError, match='client "z" has no training rows; leave it out'):
        fp.InMemory(two_classes()).join(fp.ClientData("z", fp.Rows(np.zeros((0, 3)), np.zeros(0))))


def test_client_whose_rows_change_trains_on_the_new_ones() -> None:
    clients = two_classes()
    population = Clients(clients)

    def grow() -> None:
        population.leave("a")
        population.join(fp.ClientData("a", clients[1].train, clients[1].test))

    result = train(population, algorithm=STEP, rounds=2, on_round=after(round1=grow))
    assert result.clients.loc["a", "train_rows"] == len(clients[1].train)
    assert result.weights != train(clients, algorithm=STEP, rounds=2).weights
