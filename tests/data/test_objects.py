"""What a column of Python objects holds, against a look at each of them."""

import datetime
import numbers
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpact.data.objects import are_numbers, is_text

missing = st.sampled_from([None, np.nan, pd.NA])
real = st.sampled_from(
    [1, 10**30, 0.5, True, np.True_, np.int64(3), np.float32(2), Decimal("1.5"), Fraction(1, 3)]
)
text = st.sampled_from(["", "a", "1", np.str_("b")])
other = st.sampled_from([1j, b"a", (1,), datetime.date(2020, 1, 1), pd.Timestamp("2020-01-01")])


def columns(*values):
    return st.lists(st.one_of(*values), max_size=6).map(lambda each: pd.Series(each, dtype=object))


@given(st.one_of(columns(text), columns(missing, text), columns(missing, real, text, other)))
def test_text_is_what_is_an_instance_of_str(values):
    assert is_text(values).tolist() == [isinstance(value, str) for value in values]


@given(st.one_of(columns(real), columns(missing, real), columns(missing, real, text, other)))
def test_numbers_are_what_is_real_or_missing(values):
    present = values[values.notna()]
    expected = all(isinstance(value, numbers.Real | np.bool_ | Decimal) for value in present)
    assert are_numbers(values) == expected


@pytest.mark.parametrize("dtype", ["str", "string"])
def test_text_of_any_dtype_is_text(dtype):
    assert is_text(pd.Series(["a", None], dtype=dtype)).tolist() == [True, False]
