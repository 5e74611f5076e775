"""Rows: what a client holds."""

import numpy as np
import pandas as pd
import pytest

from fedpact.core.rows import ClientData, Rows


@pytest.mark.parametrize("x", [np.zeros((2, 3)), pd.DataFrame({"a": [1, 2]})], ids=["array", "table"])
def test_rows_and_clients_can_be_compared_without_an_error(x):
    rows, others = Rows(x, np.array([0, 1])), Rows(x.copy(), np.array([0, 1]))
    assert rows == rows
    assert rows != others
    assert ClientData("lyon", rows) == ClientData("lyon", rows)
    assert ClientData("lyon", rows) != ClientData("lyon", others)
    assert len({rows, rows, others}) == 2


def test_rows_are_taken_in_the_order_asked():
    rows = Rows(pd.DataFrame({"a": [1, 2, 3]}), np.array([4, 5, 6])).take(np.array([2, 0]))
    assert rows.x["a"].tolist() == [3, 1]
    assert rows.x.index.tolist() == [0, 1]
    assert rows.y.tolist() == [6, 4]
