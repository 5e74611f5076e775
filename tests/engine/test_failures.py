"""Whoever is not in a result is named there, whatever it failed at."""

from collections.abc import Sequence

import fedpact as fp

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
