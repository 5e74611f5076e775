"""Sums of products are exact, whatever the order and the partition of the rows."""

from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpact.core import ClientData, Rows, Seed
from fedpact.core.errors import DataError, QuorumError
from fedpact.data.preprocess import products
from fedpact.data.preprocess.gram import Covariances, Gram
from tests.data.test_preprocess import fit
from tests.data.test_preprocess_errors import hold_round, message

UNIT = 1 << products.UNIT_BITS
# Whole multiples of the grid that values are rounded to, so that fractions give the sum itself.
ON_THE_GRID = st.integers(-(2**52), 2**52).flatmap(
    lambda whole: st.sampled_from([whole * 2.0**-60, whole * 2.0**-40, whole * 2.0**-37])
)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(ON_THE_GRID, ON_THE_GRID, ON_THE_GRID), min_size=1, max_size=20), st.integers(0, 20)
)
def test_products_of_any_numbers_of_the_grid_add_up_exactly(rows: list[Any], cut: int) -> None:
    values = np.array(rows)
    added = products.gram(values[:cut]) + products.gram(values[cut:])
    found = products.units_in(added).tolist()
    expected = [
        sum(Fraction(row[i]) * Fraction(row[j]) for row in rows)
        for i, j in zip(*np.triu_indices(3), strict=True)
    ]
    assert [Fraction(units, UNIT) for units in found] == expected


def test_products_of_two_tables_are_those_of_their_columns_side_by_side() -> None:
    values = np.random.default_rng(0).normal(size=(5000, 5))
    both = products.units_in(products.products(values[:, :2], values[:, 2:]))
    square = np.zeros((5, 5), object)
    square[np.triu_indices(5)] = products.units_in(products.gram(values))
    assert both.tolist() == square[:2, 2:].tolist()


def test_many_blocks_of_rows_add_up_to_the_same_as_all_rows_in_reverse() -> None:
    values = np.random.default_rng(1).normal(size=(9000, 3)) * [1, 1000, 1e-9]
    found, reversed_found = products.gram(values), products.gram(values[::-1])
    assert products.units_in(found).tolist() == products.units_in(reversed_found).tolist()
    np.testing.assert_allclose(
        (products.units_in(found) / UNIT).astype(float), (values.T @ values)[np.triu_indices(3)], rtol=1e-9
    )


def test_projection_of_a_row_is_the_same_bits_alone_and_among_others() -> None:
    draw = np.random.default_rng(2)
    values, directions = draw.normal(size=(50, 30)), np.linalg.qr(draw.normal(size=(30, 4)))[0]
    together = products.projected(values, directions)
    alone = np.concatenate([products.projected(row[None], directions) for row in values])
    assert together.tobytes() == alone.tobytes()
    np.testing.assert_allclose(together, values @ directions, atol=1e-14)


def covariances(*tables: pd.DataFrame) -> Covariances:
    clients = [ClientData(f"client {i}", Rows(table)) for i, table in enumerate(tables)]
    found = fit(Gram(tuple(tables[0].columns)), clients)["covariances"]
    assert isinstance(found, Covariances)
    return found


def test_covariances_are_numpys_where_columns_lie_far_from_zero_and_differ_in_size() -> None:
    draw = np.random.default_rng(3)
    base = draw.normal(size=(60, 3))
    table = pd.DataFrame({"a": base[:, 0], "b": 1e6 + base[:, 0] + base[:, 1], "c": 1e200 * base[:, 2]})
    found = covariances(table[:10], table[10:])
    exact = [[Fraction(value) for value in table[name]] for name in table]
    for i in range(3):
        for j in range(3):
            # E xy − E x·E y in fractions.
            x, y = exact[i], exact[j]
            moment = sum(a * b for a, b in zip(x, y, strict=True)) / 60 - sum(x) * sum(y) / 3600
            size = Fraction(2) ** (found.exponents[i] + found.exponents[j])
            assert found.matrix[i, j] == pytest.approx(float(moment / size), abs=1e-14)


def test_missing_value_names_client_and_column() -> None:
    table = pd.DataFrame({"a": [1.0, np.nan]})
    said = message(DataError, covariances, table.fillna(0.0), table)
    assert 'client "client 1": column "a" has 1 missing value(s), and Gram cannot use them' in said


def test_client_that_leaves_between_the_rounds_is_noticed() -> None:
    algorithm = Gram(("a",))
    clients = [ClientData(id, Rows(pd.DataFrame({"a": [1.0, 2.0]}))) for id in "xy"]

    state = hold_round(algorithm, algorithm.init(None, Seed.of(0)), clients)
    assert "other rows answered" in message(QuorumError, hold_round, algorithm, state, clients[:1])
