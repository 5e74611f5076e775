"""The accuracies that FLamby published: one row for each seed and centre, in its repository, under the MIT licence."""

from functools import cache

import pandas as pd

from fedpact.data.datasets.download import RemoteFile, fetch

_FOLDER = (
    "https://raw.githubusercontent.com/owkin/FLamby/edacf54d5211520583b0133d55ac39b6fda8324b/"
    "flamby/results/results_benchmark_fed_heart_disease/"
)
_FILES = {
    "heart_seed42.csv": (5856, "7b0b243cad9a1e2180f0c8a8538c10579dc4767e154885a7b4afdb746af0336d"),
    "heart_seed43.csv": (5864, "9e4104ea72bc4ebb83654c0e6dffc63ebd074c3a5ee8b28495ee0cb7c4ef9510"),
    "heart_seed44.csv": (5876, "79059cdc1cbf729579ca0702ab0b1758f11eee3425b2140ef29885e2e7599292"),
    "heart_seed45.csv": (5869, "4a49e8475b21e49199b3076df3e808e159cf4ae4d55f6e6768bf4ef7ea11f3aa"),
    "heart_seed46.csv": (5880, "d5a5de26d0bf44fb80e50866395e4c4d9886d788bfd73a8dcfcd9e731cf06662"),
}
_CENTRES = {
    "client_test_0": "Cleveland",
    "client_test_1": "Hungary",
    "client_test_2": "Switzerland",
    "client_test_3": "Long Beach",
}
_METHODS = {"SCAFFOLD": "Scaffold100", "Pooled": "Pooled Training"}


def published(method: str) -> pd.DataFrame:
    """Return the published accuracies of a method: one row for each seed, one column for each centre.

    Args:
        method: "Pooled", or one of the seven algorithms by the name that it has here.
    """
    rows = _all()
    chosen = rows[rows["Method"] == _METHODS.get(method, f"{method}100")]
    return chosen.pivot(index="seed", columns="Test", values="Metric")[list(_CENTRES.values())]


@cache
def _all() -> pd.DataFrame:
    tables = []
    for name, (size_bytes, sha256) in _FILES.items():
        file = RemoteFile(name, sha256, size_bytes, (_FOLDER + name,))
        tables.append(pd.read_csv(fetch("flamby_reference_results", file)))
    rows = pd.concat(tables, ignore_index=True)
    return rows.assign(Test=rows["Test"].map(_CENTRES)).dropna(subset="Test")
