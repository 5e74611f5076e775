"""What an algorithm that distils is given besides its settings: clients' models, and public rows prepared as theirs."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedpact.algorithms import ALGORITHMS
from fedpact.core.errors import DataError
from fedpact.core.registry import Spec
from fedpact.data.tables import read_table
from fedpact.engine.models import describe_model, model_of
from fedpact.engine.preparation import Preparation


@runtime_checkable
class ManyModels(Protocol):
    """An algorithm whose clients may have models of their own: a frozen dataclass with them as a field."""

    models: Mapping[str, Any]


@runtime_checkable
class Distilling(Protocol):
    """An algorithm that distils on public rows."""

    def prepared(self, examples: Callable[[Any], NDArray[Any]]) -> Any:
        """Return this algorithm with its public rows as a model reads them.

        Args:
            examples: makes them of raw rows, or of the path of a file of raw rows.
        """
        ...


def with_models(algorithm: Any) -> Any:
    """Return an algorithm with its clients' models, if it has any, as specifications.

    Raises:
        ModelError: one is none.
        ConfigError: one is a specification as plain data, with a wrong name or setting.
    """
    if not isinstance(algorithm, ManyModels) or not algorithm.models:
        return algorithm
    models = {name: model_of(model) for name, model in algorithm.models.items()}
    return replace(algorithm, models=models)  # type: ignore[type-var]


def describe_algorithm(algorithm: Any) -> Spec:
    """Return the specification of an algorithm, with its clients' models as plain data."""
    if not isinstance(algorithm, ManyModels) or not algorithm.models:
        return ALGORITHMS.describe(algorithm)
    described = ALGORITHMS.describe(replace(algorithm, models={}))  # type: ignore[type-var]
    return {**described, "models": {name: describe_model(spec) for name, spec in algorithm.models.items()}}


def with_public_rows(algorithm: Any, preparation: Preparation, model: Any) -> Any:
    """Return an algorithm with its public rows, if it has any, as the model reads rows.

    Args:
        algorithm: the algorithm.
        preparation: of clients' rows.
        model: the job's.

    Raises:
        ConfigError: the public rows are not here.
        DataError: they do not fit.
    """
    if not isinstance(algorithm, Distilling):
        return algorithm
    whose = "the public set"

    def examples(rows: Any) -> NDArray[Any]:
        try:
            if isinstance(rows, Path):
                rows = _array(rows) if rows.suffix == ".npy" else read_table(whose, rows)
            return preparation.examples(rows, model.input_dtype)
        except DataError as error:
            raise DataError(f"{whose}: {error}") from error

    return algorithm.prepared(examples)


def _array(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise DataError(f"{path} holds no array of numbers: {error}") from error
    return array
