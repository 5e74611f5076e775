import math
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from sklearn.preprocessing import PowerTransformer

import fedpact as fp
from fedpact.core import Accumulator, ClientData, Rows, Seed
from fedpact.core.errors import DataError, QuorumError
from fedpact.data.preprocess.power import FittedYeoJohnson
from fedpact.data.preprocess.power_fit import PowerFit
from fedpact.data.preprocess.yeo_johnson import Power, transformed, with_derivative
from tests.data.test_preprocess import fit_steps, spread
from tests.data.test_preprocess_errors import hold_round, message

# A year to the power −31 has more than 100 zeros before its first digit.
DIGITS = 250
DRAW = np.random.default_rng(11)
COLUMNS: dict[str, NDArray[np.float64]] = {
    "normal": DRAW.normal(size=80),
    "lognormal": DRAW.lognormal(0, 2, 80),
    "negative": -DRAW.gamma(2, 3, 80),
    "negative and 0": DRAW.choice([0.0, -1.0, -5.0], 80),
    "heavy tails": DRAW.standard_t(2, 80) * 100,
    "ages": DRAW.integers(20, 90, 80).astype(float),
    "two values": DRAW.choice([0.0, 1.0], 80),
    "tiny": DRAW.normal(3e-9, 1e-10, 80),
    "counts": DRAW.poisson(3, 80).astype(float),
}


def fitted(*parts: NDArray[np.float64], standardize: bool = True) -> FittedYeoJohnson:
    tables = [pd.DataFrame({"x": part}) for part in parts]
    (step,) = fit_steps([fp.YeoJohnson(standardize)], *tables).steps
    assert isinstance(step, FittedYeoJohnson)
    return step


def likelihood(x: NDArray[np.float64], lam: float) -> Decimal:
    """The log-likelihood, in decimals, from Yeo and Johnson's formulas as they are printed."""
    with localcontext(prec=DIGITS):
        power = Decimal(lam)
        logs, powers = [], []
        for value in map(Decimal, x.tolist()):
            grown, t = 1 + abs(value), power if value >= 0 else 2 - power
            sign = 1 if value >= 0 else -1
            logs.append(sign * grown.ln())
            powers.append(sign * ((t * grown.ln()).exp() - 1) / t if t else sign * grown.ln())
        n = len(powers)
        mean = sum(powers) / n
        variance = sum((each - mean) ** 2 for each in powers) / n
        return -n * variance.ln() / 2 + (power - 1) * sum(logs)


@pytest.mark.parametrize("name", COLUMNS)
def test_lambda_is_scipys_on_the_pooled_rows(name: str) -> None:
    # SciPy compares likelihoods, which leaves the seventh digit of lambda to rounding; one lambda here is 0.
    x = COLUMNS[name]
    expected = pytest.approx(stats.yeojohnson_normmax(x), rel=1e-6, abs=1e-6)
    assert fitted(*np.array_split(x, 5)).lambdas["x"] == expected


@pytest.mark.parametrize("name", COLUMNS)
def test_no_lambda_beside_it_is_more_likely(name: str) -> None:
    x = COLUMNS[name]
    lam = fitted(x).lambdas["x"]
    # The scale on which likelihoods change: that of 1/log(1 + |x|).
    step = 1e-8 * max(abs(lam), 1 / np.log1p(np.abs(x)).max())
    best = likelihood(x, lam)
    assert best > likelihood(x, lam - step)
    assert best > likelihood(x, lam + step)


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("name", COLUMNS)
def test_powers_are_scikit_learns_at_the_same_lambda(name: str, standardize: bool) -> None:
    x = COLUMNS[name]
    step = fitted(*np.array_split(x, 3), standardize=standardize)
    other = PowerTransformer(standardize=standardize).fit(x[:, None])
    # scikit-learn compares likelihoods, which are equal to the last bit within 1e-8 or so of the most likely lambda.
    other.lambdas_ = np.array([step.lambdas["x"]])
    if standardize:
        other._scaler.fit(stats.yeojohnson(x, step.lambdas["x"])[:, None])
    made = step.transform(pd.DataFrame({"x": x}))["x"].to_numpy()
    np.testing.assert_allclose(made, other.transform(x[:, None])[:, 0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", COLUMNS)
def test_prepared_column_is_scikit_learns_but_for_the_precision_of_its_lambda(name: str) -> None:
    x = COLUMNS[name]
    made = fitted(*np.array_split(x, 3)).transform(pd.DataFrame({"x": x}))["x"]
    np.testing.assert_allclose(made, PowerTransformer().fit_transform(x[:, None].copy())[:, 0], atol=1e-6)


def test_years_keep_their_differences() -> None:
    # Their powers are 1/λ to the last digit: scikit-learn finds a lambda among rounding errors, and makes
    # one or two values of the column.
    years = 1960 + np.floor(DRAW.exponential(8, 60))
    step = fitted(years[:20], years[20:])
    made = step.transform(pd.DataFrame({"x": years}))["x"].to_numpy()
    assert len(np.unique(made)) == len(np.unique(years))
    assert (made.mean(), made.std()) == (pytest.approx(0, abs=1e-12), pytest.approx(1))
    lam = step.lambdas["x"]
    assert likelihood(years, lam) > likelihood(years, lam + 0.1)
    assert likelihood(years, lam) > likelihood(
        years, float(PowerTransformer().fit(years[:, None]).lambdas_[0])
    )


def test_lambda_stays_within_scipys_bounds() -> None:
    # −336.2 = (log(2^−1022) + log(2^52)) / 2: see scipy.stats.yeojohnson_normmax.
    years = np.array([2000.0, 2000.0, 2000.0, 2000.0, 2000.5, 2030.0])
    bound = (math.log(2.0**-1022) + math.log(2.0**52)) / 2 / math.log1p(20 * 2030)
    assert fitted(years).lambdas["x"] == bound


# Decimals of 250 digits cannot tell powers of the smallest floats apart.
LAMBDAS = st.floats(-30, 30).map(lambda lam: round(lam, 9))


@settings(max_examples=30, deadline=None)
@given(LAMBDAS, st.sampled_from([0.0, 3.0, 1999.0, -3.0, -1999.0]))
def test_pivoted_powers_are_the_same_but_for_shift_and_scale(lam: float, pivot: float) -> None:
    x = np.array([-2100.0, -1990.0, -5.0, -0.1, 0.0, 0.2, 7.0, 2010.0])
    x = x[np.sign(x) * pivot >= 0] if abs(pivot) > 3 else x[np.abs(x) < 10]
    with localcontext(prec=DIGITS):
        exact = [_power(Decimal(value), Decimal(lam)) for value in x.tolist()]
        zero = _power(Decimal(pivot), Decimal(lam))
        t = Decimal(lam) if pivot >= 0 else 2 - Decimal(lam)
        scale = (1 + abs(Decimal(pivot))) ** t
        expected = [float((each - zero) / scale) for each in exact]
    np.testing.assert_allclose(transformed(x, Power(lam, pivot)), expected, rtol=1e-12, atol=1e-12)


def _power(value: Decimal, lam: Decimal) -> Decimal:
    sign, t = (1, lam) if value >= 0 else (-1, 2 - lam)
    log = (1 + abs(value)).ln()
    return sign * ((t * log).exp() - 1) / t if t else sign * log


@settings(max_examples=30, deadline=None)
@given(st.one_of(LAMBDAS.filter(lambda lam: abs(lam) < 5), st.sampled_from([0.0, 2.0, 1e-9, 2 - 1e-9])))
def test_derivative_is_the_limit_of_differences(lam: float) -> None:
    x = np.array([-50.0, -1.0, -1e-6, 0.0, 1e-6, 0.3, 40.0])
    _, derivative = with_derivative(x, Power(lam))
    with localcontext(prec=DIGITS):
        step = Decimal(10) ** -25
        exact = [
            float((_power(value, Decimal(lam) + step) - _power(value, Decimal(lam) - step)) / (2 * step))
            for value in map(Decimal, x.tolist())
        ]
    np.testing.assert_allclose(derivative, exact, rtol=1e-12, atol=0)


def test_powers_of_the_smallest_lambda_are_logarithms() -> None:
    assert transformed(np.array([0.2, 7.0]), Power(5e-324)).tolist() == np.log1p([0.2, 7.0]).tolist()


def test_constant_column_keeps_its_values() -> None:
    table = pd.DataFrame({"x": [0.1, 0.1]})
    assert fit_steps([fp.YeoJohnson(standardize=False)], table).matrix(table).tolist() == [[0.1], [0.1]]
    assert fit_steps([fp.YeoJohnson()], table).matrix(table).tolist() == [[0.0], [0.0]]


def test_value_of_the_other_sign_is_prepared_in_order() -> None:
    step = fitted(np.array([3.0, 5.0, 4.0, 9.0]))
    made = step.transform(pd.DataFrame({"x": [-100.0, -1.0, 0.0, 1.0, 3.0, 50.0]}))["x"].to_numpy()
    assert (np.diff(made) > 0).all()
    y = stats.yeojohnson(np.array([3.0, 5.0, 4.0, 9.0]), step.lambdas["x"])
    expected = (stats.yeojohnson(np.array([-100.0]), step.lambdas["x"])[0] - y.mean()) / y.std()
    assert made[0] == pytest.approx(expected, rel=1e-9)


def test_column_of_both_signs_too_large_for_any_power_is_named() -> None:
    said = message(DataError, fitted, np.array([-1e200, 1e200, 3.0]))
    assert 'column "x" holds values too large for a power transformation' in said


@pytest.mark.parametrize("x", [[0.0, 1e308, 1.7e308], [5e-324, 0.0], [1e16, 1e16 + 2, 1e16 + 6]])
def test_extreme_columns_have_finite_powers(x: list[float]) -> None:
    values = np.array(x)
    assert np.isfinite(fitted(values).transform(pd.DataFrame({"x": values})).to_numpy()).all()


def rounds_of(x: NDArray[np.float64]) -> int:
    estimate: Any = PowerFit(("x",))
    data = ClientData("a", Rows(pd.DataFrame({"x": x})))
    state = estimate.init(None, Seed.of(0))
    while (task := estimate.task(state)) is not None:
        total = Accumulator(task, 65536, 1, 1)
        total.add(estimate.client(None, task, data, {}, Seed.of(0))[0])
        state = estimate.server(None, state, total.aggregate())
    return int(state.round)


@pytest.mark.parametrize("name", COLUMNS)
def test_lambda_takes_few_rounds(name: str) -> None:
    # Eight for the ends, one for the powers' moments, the rest for lambda.
    assert rounds_of(COLUMNS[name]) <= 15


def test_client_that_leaves_while_lambda_is_sought_is_noticed() -> None:
    estimate = PowerFit(("x",))
    clients = [ClientData(name, Rows(pd.DataFrame({"x": [1.0, 2.0, 4.0]}))) for name in "ab"]

    state = estimate.init(None, Seed.of(0))
    for _ in range(8):
        state = hold_round(estimate, state, clients)
    assert "other rows answered" in message(QuorumError, hold_round, estimate, state, clients[:1])


def test_columns_are_fitted_apart() -> None:
    table = pd.DataFrame(COLUMNS)
    together = fit_steps([fp.YeoJohnson()], *spread(table, np.arange(80) % 3))
    for name, x in COLUMNS.items():
        (step,) = together.steps
        assert isinstance(step, FittedYeoJohnson)
        assert step.lambdas[name] == fitted(x).lambdas["x"]
