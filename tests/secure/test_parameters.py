"""Parameters that would not keep a vector secret are refused, with a sentence."""

import pytest

from fedpact.core.errors import SecureError
from fedpact.secure.parameters import Parameters


@pytest.mark.parametrize(("clients", "threshold"), [(5, 4), (6, 5), (10, 7), (100, 67)])
def test_threshold_on_the_complete_graph_is_more_than_two_thirds(clients, threshold):
    made = Parameters.complete(clients)
    assert (made.threshold, made.neighbours, made.holders) == (threshold, None, clients)
    with pytest.raises(SecureError, match=rf"not in \[{threshold}, {clients}\]"):
        Parameters(clients, threshold - 1)


def test_sparse_parameters_are_accepted_by_clients():
    made = Parameters.sparse(300, corrupt=0.05, drop=0.1)
    assert made.neighbours is not None
    assert made.neighbours < 100
    assert 2 * made.threshold > made.holders == made.neighbours + 1
    assert made.minimum_cohort == 270


def test_sparse_parameters_of_few_clients_are_those_of_the_complete_graph():
    assert Parameters.sparse(12, corrupt=0.2, drop=0.2, minimum_cohort=5) == Parameters.complete(12)


def test_as_many_dropouts_as_are_declared_must_be_possible():
    assert Parameters.complete(10, dropouts=3).threshold == 7
    with pytest.raises(SecureError, match="so 4 cannot drop out; at most 3 can"):
        Parameters.complete(10, dropouts=4)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"clients": 5, "threshold": 4, "minimum_cohort": 1}, "a sum of one hides nothing"),
        ({"clients": 1, "threshold": 1, "minimum_cohort": 1}, "a sum of one hides nothing"),
        ({"clients": 4, "threshold": 3}, "smallest cohort of 5"),
        ({"clients": 5, "threshold": 6}, "threshold of 6"),
        ({"clients": 5, "threshold": 4, "bits": 18}, "not 18"),
        ({"clients": 20, "threshold": 4, "neighbours": 4}, None),
        ({"clients": 20, "threshold": 3, "neighbours": 4}, "the sum of a part of the cohort"),
        ({"clients": 20, "threshold": 6, "neighbours": 4}, "threshold of 6"),
        ({"clients": 20, "threshold": 3, "neighbours": 5}, "their number is even"),
        ({"clients": 20, "threshold": 14, "neighbours": 20}, "below 19"),
        ({"clients": 20, "threshold": 1, "neighbours": 0}, "0 neighbours"),
    ],
)
def test_parameters_that_are_not_safe_are_refused(arguments, match):
    if match is None:
        assert Parameters(**arguments).holders == 5
        return
    with pytest.raises(SecureError, match=match):
        Parameters(**arguments)
