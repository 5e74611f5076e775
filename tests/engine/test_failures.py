"""Whoever is not in a result is named there, whatever it failed at."""

from collections.abc import Sequence
from typing import Any

import pytest

import fedpact as fp
from fedpact.engine import evaluation

CLIENTS = fp.datasets.breast_cancer()
HARBOUR = "Harbour Screening Clinic"


class Unreachable:
    """The four hospitals, one of which cannot be reached the first times that it is asked."""

    def __init__(self, times: int) -> None:
        self._population = fp.InMemory(CLIENTS)
        self._times = times

    def ids(self, round: int) -> Sequence[str]:
        return self._population.ids(round)

    def size(self, id: str) -> int:
        return self._population.size(id)

    def load(self, id: str) -> fp.ClientData:
        if id == HARBOUR and self._times > 0:
            self._times -= 1
            raise ConnectionError("no route to host")
        return self._population.load(id)


def test_a_client_that_was_not_there_for_the_preparation_is_named_at_round_0() -> None:
    result = fp.train(fp.models.Logistic(), Unreachable(2), preprocess=[fp.Standardize()], rounds=1)
    assert result.failures.to_dict("records") == [
        {"round": 0, "client": HARBOUR, "reason": "ConnectionError: no route to host"}
    ]


def test_a_client_that_fails_while_it_evaluates_is_named() -> None:
    class Forgetful(Unreachable):
        asked = 0

        def load(self, id: str) -> fp.ClientData:
            self.asked += id == HARBOUR
            # Three times for the preparation (labels, columns, deviations), then to train, then to evaluate.
            return super().load(id) if self.asked == 5 else self._population.load(id)

    result = fp.train(fp.models.Logistic(), Forgetful(1), preprocess=[fp.Standardize()], rounds=1)
    assert result.failures.to_dict("records") == [
        {"round": 1, "client": HARBOUR, "reason": "evaluation: ConnectionError: no route to host"}
    ]
    assert result.evaluation is not None
    assert HARBOUR not in result.evaluation.clients


class Half(Unreachable):
    """The four hospitals, of which the first two alone can be reached to evaluate."""

    judging = False

    def load(self, id: str) -> fp.ClientData:
        if self.judging and id in CLIENTS.ids[2:]:
            raise ConnectionError("no route to host")
        return self._population.load(id)


@pytest.mark.parametrize(("quorum", "judged"), [(0.5, True), (0.75, False), (1, True), (3, False)])
def test_a_round_that_too_few_could_judge_has_no_metrics_and_stops_nothing(
    quorum: int | float, judged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = Half(0)
    real = evaluation.hold_round

    def judging(*args: Any) -> Any:
        clients.judging = True
        try:
            return real(*args)
        finally:
            clients.judging = False

    monkeypatch.setattr(evaluation, "hold_round", judging)
    result = fp.train(
        fp.models.Logistic(),
        clients,
        preprocess=[fp.Standardize()],
        rounds=2,
        quorum=quorum,
        stop=fp.Target("accuracy", 0.0),
    )
    assert len(result.history) == (1 if judged else 2)
    assert ("accuracy" in result.history) == judged
    assert set(result.failures["client"]) == set(CLIENTS.ids[2:])


def test_a_client_whose_size_cannot_be_told_is_a_failure_of_its_own() -> None:
    class Sizeless(Unreachable):
        def size(self, id: str) -> int:
            if id == HARBOUR:
                raise OSError("registry is down")
            return super().size(id)

    result = fp.train(fp.models.Logistic(), Sizeless(0), preprocess=[fp.Standardize()], rounds=1)
    assert result.history["clients"].tolist() == [3]
    assert "OSError: registry is down" in set(result.failures["reason"])
