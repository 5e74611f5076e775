"""Federated preprocessing: tables prepared by what all clients' training rows say, alike at every client.

`Impute`, `Standardize` and `OneHot` say what to do, `FitPipeline` is the algorithm that fits them, and the
`Pipeline` that comes of it belongs to the model.
"""

from fedpact.data.preprocess.columns import Columns, as_frame
from fedpact.data.preprocess.encode import OneHot
from fedpact.data.preprocess.fit import FitPipeline
from fedpact.data.preprocess.impute import Impute
from fedpact.data.preprocess.pipeline import Pipeline
from fedpact.data.preprocess.scale import Standardize
from fedpact.data.preprocess.schema import FitSchema
from fedpact.data.preprocess.steps import FittedStep, Step

__all__ = [
    "Columns",
    "FitPipeline",
    "FitSchema",
    "FittedStep",
    "Impute",
    "OneHot",
    "Pipeline",
    "Standardize",
    "Step",
    "as_frame",
]
