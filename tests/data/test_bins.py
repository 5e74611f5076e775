from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import KBinsDiscretizer

from fedpact.core.errors import ConfigError
from fedpact.data.preprocess.bins import Bin
from tests.data.test_preprocess import fit_steps, spread
from tests.data.test_preprocess_errors import message


def measured() -> pd.DataFrame:
    draw = np.random.default_rng(2)
    return pd.DataFrame(
        {
            "age": draw.integers(20, 90, 50),
            "time": 1.6e9 + draw.uniform(-1, 1, 50),
            "many": draw.poisson(0.4, 50),
        }
    ).astype(float)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize("encode", ["onehot", "ordinal"])
@pytest.mark.parametrize("n_bins", [2, 7])
@pytest.mark.filterwarnings("ignore:Bins whose width")
def test_bins_are_scikit_learns_on_the_pooled_rows(strategy: Any, encode: Any, n_bins: int) -> None:
    table = measured()
    pipeline = fit_steps([Bin(None, n_bins, strategy, encode)], *spread(table, np.arange(50) % 6))
    expected = KBinsDiscretizer(
        n_bins,
        encode="onehot-dense" if encode == "onehot" else encode,
        strategy=strategy,
        quantile_method="linear",
        subsample=None,
    ).fit(table.to_numpy())
    rows = pd.concat([table, table - 40, table + 40])
    assert pipeline.matrix(rows).tolist() == expected.transform(rows.to_numpy()).tolist()


def test_constant_column_is_one_bin() -> None:
    pipeline = fit_steps([Bin()], pd.DataFrame({"x": [0.1, 0.1]}), pd.DataFrame({"x": [0.1]}))
    assert pipeline.feature_names_out == ("x:bin0",)
    assert pipeline.matrix(pd.DataFrame({"x": [0.1, -5.0]})).tolist() == [[1], [1]]


@pytest.mark.parametrize("encode", ["onehot", "ordinal"])
def test_missing_values_stay_missing_in_every_column(encode: Any) -> None:
    pipeline = fit_steps([Bin(None, 2, encode=encode)], pd.DataFrame({"x": [1.0, np.nan, 2.0, 3.0]}))
    made = pipeline.transform(pd.DataFrame({"x": [np.nan, 1.0]}))
    assert made.iloc[0].isna().all()
    assert made.iloc[1].notna().all()


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"n_bins": 1}, "2 or more"), ({"strategy": "kmeans"}, "uniform"), ({"encode": "one"}, "onehot")],
)
def test_bins_that_cannot_be_are_refused(settings: dict[str, Any], said: str) -> None:
    assert said in message(ConfigError, Bin, **settings)
