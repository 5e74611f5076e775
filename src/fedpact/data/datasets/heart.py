"""Heart disease: four real hospitals that coded the same examinations, with gaps of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DependencyError, suggest
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.data.datasets.about import About
from fedpact.data.datasets.download import RemoteFile, fetch
from fedpact.data.federation import Federation
from fedpact.data.split import hold_out

if TYPE_CHECKING:
    import pandas as pd

ABOUT = About(
    name="heart",
    clients=4,
    rows=740,
    task="classification, 2 classes, from 13 features",
    source=(
        "Heart Disease, A. Janosi (Budapest), W. Steinbrunn (Zurich), M. Pfisterer (Basel) and R. Detrano "
        "(Long Beach and Cleveland), 1989, UCI Machine Learning Repository, doi 10.24432/C52P4X"
    ),
    terms="CC BY 4.0",
    download_bytes=39_570,
)

Variant = Literal["flamby", "full"]

_FOLDER = "heart_disease_4centres"
_ARCHIVE = "https://archive.ics.uci.edu/ml/machine-learning-databases/heart-disease/"


def _published(name: str, sha256: str, size_bytes: int) -> RemoteFile:
    return RemoteFile(name, sha256, size_bytes, (_ARCHIVE + name,))


_CENTRES = {
    "Cleveland": _published(
        "processed.cleveland.data", "a74b7efa387bc9d108d7d0115d831fe9b414b29ae7124f331b622b4efa0427c8", 18_461
    ),
    "Hungary": _published(
        "processed.hungarian.data", "d1ad108f785768cd3d7e82dc522e6f5a61eea93cccfb3a46ee8076f73fc3d796", 10_263
    ),
    "Switzerland": _published(
        "processed.switzerland.data",
        "834a405ccf5b66ab4056bb77794adc8df0b7125186454c0a1d002d33c6c3b314",
        4_109,
    ),
    "Long Beach": _published(
        "processed.va.data", "e7c93d8d0d2acdadfa4c5e8de768e2191e7f618b952e29623f1f0d5949ff6b8f", 6_737
    ),
}

_COLUMNS = ["age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak"]
_OFTEN_MISSING = ["slope", "ca", "thal"]
_CODES = {
    "cp": {1: "typical angina", 2: "atypical angina", 3: "non-anginal pain", 4: "asymptomatic"},
    "restecg": {0: "normal", 1: "ST-T abnormality", 2: "left ventricular hypertrophy"},
    "slope": {1: "upsloping", 2: "flat", 3: "downsloping"},
    "thal": {3: "normal", 6: "fixed defect", 7: "reversible defect"},
}


def heart(variant: Variant = "flamby", *, seed: int = 0, test: float | None = None) -> Federation:
    """Load the heart-disease data of Cleveland, Hungary, Switzerland and Long Beach.

    Variant "flamby" is Fed-Heart-Disease of FLamby (du Terrail et al., NeurIPS 2022 Datasets and
    Benchmarks), row for row: without slope, ca and thal, each missing in more than half of the rows outside
    Cleveland; without the rows that miss another value; cp and restecg one-hot with the first level
    dropped: 13 features, float64. Its split is fixed: train/test 199/104, 172/89, 30/16, 85/45. FLamby then
    normalises each centre by its own train rows; here that is left to the preprocessing of the job.

    Variant "full" is all 303, 294, 123 and 200 rows with the 13 features as recorded: cp, restecg, slope
    and thal as text, the others as numbers, "?" as missing. Note chol, which is 0 (not measured) in every
    row of Switzerland and in a quarter of Long Beach.

    Features: age (years), sex (1 male), cp (chest pain), trestbps (resting blood pressure, mm Hg), chol
    (serum cholesterol, mg/dl), fbs (1: fasting blood sugar > 120 mg/dl), restecg (resting ECG), thalach
    (highest heart rate), exang (1: angina by exercise), oldpeak (ST depression by exercise), slope (of the
    ST segment), ca (vessels coloured by fluoroscopy, 0-3), thal (thallium scan). Label: 1 where a major
    vessel is narrowed by more than half, else 0.

    Source: the creators named in the federation's `source`, UCI Machine Learning Repository. The four files
    are read from heart_disease_4centres in the folder that FEDPACT_DATA names, or in the cache, to which
    they are downloaded (39 kB) if need be. Terms: CC BY 4.0.

    Args:
        variant: "flamby" or "full".
        seed: picks the test rows of "full"; the split of "flamby" is the published one for every seed.
        test: the share of each centre's rows that become test rows in "full", 0.25 by default; 0 for none.

    Raises:
        ConfigError: another variant, or `test` with "flamby".
        DataError: the files are not here and cannot be downloaded, or are altered.
        DependencyError: "flamby" without scikit-learn, which drew its split.
    """
    if variant not in get_args(Variant):
        raise ConfigError(
            f'heart has variants "flamby" and "full", not "{variant}".{suggest(variant, get_args(Variant))}'
        )
    if variant == "full":
        share = 0.25 if test is None else test
        tables = {id: _full(_recorded(file)) for id, file in _CENTRES.items()}
        clients = [hold_out(id, rows, share, Seed.of(seed)) for id, rows in tables.items()]
        note = "Four real centres, all rows, missing values left in."
    else:
        if test is not None:
            raise ConfigError(
                'The split of variant "flamby" is fixed: leave test out, or take variant="full".'
            )
        clients = [_flamby(id, _recorded(file)) for id, file in _CENTRES.items()]
        note = "Four real centres, the rows and the split of FLamby's Fed-Heart-Disease."
    return Federation(
        tuple(clients),
        name=ABOUT.name,
        source=ABOUT.source,
        terms=ABOUT.terms,
        note=note,
        label="1 a major vessel narrowed by more than half, 0 none",
        reads={"name": ABOUT.name, "variant": variant},
    )


def _recorded(file: RemoteFile) -> pd.DataFrame:
    import pandas as pd

    table = pd.read_csv(
        fetch(_FOLDER, file),
        header=None,
        names=[*_COLUMNS, *_OFTEN_MISSING, "num"],
        na_values="?",
        dtype=float,
    )
    return table.assign(num=(table["num"] > 0).astype(np.int64))


def _full(table: pd.DataFrame) -> Rows:
    named = table.assign(**{column: table[column].map(names) for column, names in _CODES.items()})
    return Rows(named.drop(columns="num"), named["num"].to_numpy(copy=True))


def _flamby(id: str, table: pd.DataFrame) -> ClientData:
    table = table.drop(columns=_OFTEN_MISSING).dropna().reset_index(drop=True)
    features = table.drop(columns=["cp", "restecg", "num"])
    for column in ("cp", "restecg"):
        for level in list(_CODES[column])[1:]:
            features[f"{column}_{level}"] = (table[column] == level).astype(float)
    rows = Rows(features, table["num"].to_numpy(copy=True))
    train, test = _flamby_split(table["num"].to_numpy())
    return ClientData(id, rows.take(train), rows.take(test))


def _flamby_split(labels: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    try:
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise DependencyError(
            'The split of heart variant "flamby" is drawn by scikit-learn: install scikit-learn, or take '
            'variant="full".'
        ) from error
    # FLamby stratifies only where each class has more than two rows: not Switzerland, with one healthy row.
    stratified = np.bincount(labels, minlength=2).min() > 2
    train, test = train_test_split(
        np.arange(len(labels)),
        test_size=1.0 - 0.66,
        train_size=0.66,
        random_state=43,
        shuffle=True,
        stratify=labels if stratified else None,
    )
    return np.sort(train), np.sort(test)
