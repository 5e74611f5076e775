"""Default of credit card clients: three banks, three ways to prepare their rows, one logistic regression.

The rows and their owners are those of UniFed's scenario default_credit_horizontal (Liu et al., "UniFed: All-In-One
Federated Learning Platform to Unify Open-Source Frameworks", 2022): FATE's files, in which every column is scaled, so
that codes are no longer told from amounts. Their ids are those of the rows as UCI recorded them, which are read here.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

import fedpact as fp
from fedpact.data.datasets.download import RemoteFile, fetch, find

BANKS = ("guest", "host_1", "host_2")
L2 = 1e-4

_LABEL = "default.payment.next.month"
_TRAITS = ("SEX", "EDUCATION", "MARRIAGE")
_REPAYMENT = ("PAY_0", "PAY_2", "PAY_3", "PAY_4", "PAY_5", "PAY_6")

_FOLDER = "https://raw.githubusercontent.com/FederatedAI/FATE/5a06d9e4c4cd7ab97a5c8357828adbffaca87785/examples/data/"


def _published(name: str, size_bytes: int, sha256: str) -> RemoteFile:
    return RemoteFile(name, sha256, size_bytes, (_FOLDER + name,))


_RECORDED = _published(
    "UCI_Credit_Card.csv", 2_862_995, "a0f0ab49d6326671d6cd83be5c88dcf18007025fe9a53ecd699119c871176ca1"
)
_SHARES = {
    "guest": _published(
        "default_credit_homo_guest.csv",
        2_080_218,
        "735c771ebebb8e68fcb9e0152c6c70172167ccd88974797dce1eb62ae797217f",
    ),
    "host_1": _published(
        "default_credit_homo_host_1.csv",
        2_083_614,
        "0d9319d6571c97d6ca2e772ae7316cc5271dc3758728fde0c029fb66f0241db1",
    ),
    "host_2": _published(
        "default_credit_homo_host_2.csv",
        2_083_717,
        "398c4e3c022888595a1b1e1787ab7e6c914754a7fe9df52741c699a87181b840",
    ),
    "test": _published(
        "default_credit_homo_test.csv",
        1_560_027,
        "d3ef1fbf9bec4b61b51636cd6ad0d4ca63e845fd067094d16958453f95469e22",
    ),
}


@dataclass(frozen=True)
class Encoding:
    """What becomes of the columns that hold codes.

    Args:
        one_hot: those that become a column for each code but the first.
        ordinal: those that become the code's place among all codes.
    """

    one_hot: tuple[str, ...] = ()
    ordinal: tuple[str, ...] = ()

    def steps(self) -> list[Any]:
        """Return the steps that the banks fit together."""
        encoders = [
            *([fp.OneHot(self.one_hot, drop_first=True)] if self.one_hot else []),
            *([fp.Ordinal(self.ordinal, unknown=-1)] if self.ordinal else []),
        ]
        return [*encoders, fp.Standardize()]

    def by_scikit_learn(self, column: str) -> Any:
        """Return what scikit-learn prepares one column with."""
        if column in self.one_hot:
            return OneHotEncoder(drop="first", handle_unknown="ignore", sparse_output=False)
        if column in self.ordinal:
            return OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
        return "passthrough"


ENCODINGS = {
    "codes as numbers": Encoding(),
    "traits one-hot, repayment ordinal": Encoding(_TRAITS, _REPAYMENT),
    "traits and repayment one-hot": Encoding((*_TRAITS, *_REPAYMENT)),
}


@cache
def share(name: str) -> pd.DataFrame:
    """Return a file of the scenario as FATE scaled it, by id: of a bank, or "test"."""
    return _read("fate_unifed", _SHARES[name]).set_index("id")


@cache
def rows(name: str) -> fp.Rows:
    """Return the recorded rows of a bank, or of "test"."""
    recorded = _read("default_credit_raw", _RECORDED).set_index("ID").loc[share(name).index]
    table = recorded.reset_index(drop=True)
    return fp.Rows(table.drop(columns=_LABEL), table[_LABEL].to_numpy(copy=True))


def banks(names: tuple[str, ...] = BANKS) -> fp.Federation:
    """Return banks as clients, without test rows: the scenario's are in a file of their own."""
    return fp.Federation(tuple(fp.ClientData(name, rows(name)) for name in names))


def train(clients: Any, encoding: Encoding) -> fp.Result:
    """Fit the preparation and the regression over clients, to convergence."""
    return fp.train(
        fp.models.Logistic(l2=L2),
        clients,
        preprocess=encoding.steps(),
        algorithm=fp.Newton(),
        rounds=25,
        evaluate_every=0,
    )


def pooled(names: tuple[str, ...], encoding: Encoding) -> Any:
    """Return scikit-learn's pipeline with the same penalty, fitted on the rows of these banks in one table."""
    together = banks(names).pooled().train
    columns = list(together.x.columns)
    encoder = ColumnTransformer([(name, encoding.by_scikit_learn(name), [name]) for name in columns])
    regression = LogisticRegression(
        C=1 / (len(together) * L2), solver="newton-cholesky", tol=1e-12, max_iter=200
    )
    return make_pipeline(encoder, StandardScaler(), regression).fit(together.x, together.y)


def greatest_difference(result: fp.Result, pipeline: Any) -> float:
    """Return by how much a coefficient or the intercept differs at most between Fedpact and scikit-learn."""
    found = np.append(result.weights["coef"], result.weights["intercept"])
    regression = pipeline[-1]
    return float(np.abs(found - np.append(regression.coef_, regression.intercept_)).max())


def auc(model: Any) -> float:
    """Return the area under the curve of either model on the scenario's test rows."""
    test = rows("test")
    return float(roc_auc_score(test.y, model.predict_proba(test.x)[:, 1]))


def _read(dataset: str, file: RemoteFile) -> pd.DataFrame:
    # A user's folder may keep them compressed, as text of this kind shrinks to a third.
    path: Path = find(dataset, f"{file.name}.gz") or fetch(dataset, file)
    return pd.read_csv(path)
