"""A model with its weights and with what prepares raw rows for it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.algorithms import ALGORITHMS
from fedpact.core.errors import CheckpointError, ConfigError, DataError, ModelError, QuorumError
from fedpact.core.job import Job
from fedpact.core.registry import Spec
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.core.vector import Vector
from fedpact.data.tables import read_table
from fedpact.engine.evaluation import Evaluation, evaluate_clients, judging
from fedpact.engine.folder import RunFolder
from fedpact.engine.in_process import InProcess
from fedpact.engine.models import describe_model, read_model_weights, rebuild_model
from fedpact.engine.population import Population, Prepared, as_population
from fedpact.engine.preparation import Preparation
from fedpact.store.checkpoint import Checkpoints, is_checkpoint
from fedpact.store.modelfile import read_metadata, save_model

# What a run folder calls its model.
MODEL_FILE = "model.safetensors"


@dataclass(frozen=True)
class Fitted:
    """A trained model with the preparation of its rows: all that predicting needs.

    Args:
        model: the model.
        weights: its weights.
        preparation: from raw rows to what it reads.
        spec: the model's specification, as a job names it.
    """

    model: Any
    weights: Vector
    preparation: Preparation
    spec: Spec

    def export(self) -> Any:
        """Return the model in its own library, or its arrays by name where it has none."""
        if hasattr(self.model, "export"):
            return self.model.export(self.weights)
        return dict(self.weights.items())

    def predict(self, rows: Any) -> NDArray[Any]:
        """Return labels [n, *positions], or numbers for a regression, for raw rows.

        Args:
            rows: a table with the columns that the model was trained on, in any order; an array [n, ...]; or
                the path of a CSV or Parquet file.

        Raises:
            DataError: a column is missing, or a value cannot be prepared.
        """
        return self.preparation.answers(self._scores(rows))

    def predict_proba(self, rows: Any) -> NDArray[np.floating[Any]]:
        """Return class probabilities [n, *positions, classes] for raw rows.

        Raises:
            ModelError: the model predicts numbers.
            DataError: a column is missing, or a value cannot be prepared.
        """
        scores = self._scores(rows)
        if self.preparation.labels.kind == "regression":
            raise ModelError("a regression has no class probabilities; use predict.")
        binary = self.preparation.labels.kind == "binary"
        return np.stack([1 - scores, scores], axis=-1) if binary else scores

    def evaluate(self, clients: Population | Iterable[ClientData]) -> Evaluation:
        """Return how good the model is on the held-out rows of clients with raw rows.

        Raises:
            DataError: no client holds rows aside.
            QuorumError: every client that does has failed.
        """
        prepared = Prepared(as_population(clients), self._prepared)
        evaluation = evaluate_clients(InProcess(), judging(self.model, prepared, Seed.of(0)), self.weights, 0)
        if evaluation is None:
            raise DataError("no client holds test rows aside, so there is nothing to evaluate on.")
        if not evaluation.clients:
            reasons = "; ".join(f"{id}: {why}" for id, why in evaluation.failures.items())
            raise QuorumError(f"no client could evaluate the model. {reasons}", evaluation.failures)
        return evaluation

    def save(self, path: str | Path, job: Job | None = None) -> None:
        """Write one model file: weights, preparation and the model's specification.

        Args:
            path: where to.
            job: the job that trained it, whose digest goes into the file.

        Raises:
            FedpactError: the file cannot be written.
        """
        parts = {"model": self.weights}
        frozen = getattr(self.model, "frozen", None)
        if frozen is not None and frozen.layout.entries:
            parts["frozen"] = frozen
        metadata = {
            "model": self.spec,
            # Who was not there, and what was trained on, is the run's affair, not the model's.
            "preparation": self.preparation.for_others.to_json(),
            "job": None if job is None else job.digest,
        }
        save_model(path, parts, metadata)

    @classmethod
    def load(cls, path: str | Path, model: Any = None) -> "Fitted":
        """Read a model file, or the model of a checkpoint.

        Args:
            path: the file; the folder of a finished run; or a checkpoint in the folder of its run, finished or
                not.
            model: the module of the same architecture, where the model was a torch module given in Python.

        Raises:
            ModelError: the file holds no model, or the model given does not fit.
            CheckpointError: a checkpoint is damaged, in no run's folder, or does not fit the model given.
        """
        path = Path(path) / MODEL_FILE if Path(path).is_dir() else Path(path)
        if is_checkpoint(path):
            return cls._of_checkpoint(path, model)
        metadata = read_metadata(path)
        try:
            preparation, spec = Preparation.from_json(metadata["preparation"]), metadata["model"]
            built = rebuild_model(spec, model).build(preparation.schema)
        except (KeyError, TypeError, ValueError, ConfigError, ModelError) as error:
            raise ModelError(f'the model in "{path}" cannot be built: {error}') from error
        return cls(built, read_model_weights(path, built), preparation, spec)

    @classmethod
    def _of_checkpoint(cls, path: Path, model: Any) -> "Fitted":
        folder = RunFolder(path.absolute().parent.parent)
        if not folder.begun:
            raise CheckpointError(
                f'"{path}" is a checkpoint, and "{folder.path}" is no run folder: it has no job.json. Read it where '
                f"its run saved it, in RUN/checkpoints/{path.name}."
            )
        job, preparation = folder.read_job(), folder.read_preparation()
        try:
            spec = rebuild_model(job.model, model)
            built = spec.build(preparation.schema)
            fresh = ALGORITHMS.build(job.algorithm or {}).init(built, Seed.of(job.seed))
        except (KeyError, TypeError, ValueError, ConfigError, ModelError) as error:
            raise ModelError(f'the model in "{path}" cannot be built: {error}') from error
        # A checkpoint does not hold what is never trained.
        if describe_model(spec).get("frozen") != job.model.get("frozen"):
            raise ModelError(
                f'the module given has other frozen parameters than the run of "{path}"; give one that has the '
                "values it was started with."
            )
        content = Checkpoints(path.parent).load(path, like={"state": fresh}, job=job.lineage)
        return cls(built, content["state"].model, preparation, job.model)

    def _scores(self, rows: Any) -> NDArray[Any]:
        whose = "the rows to predict"
        table = read_table(whose, Path(rows)) if isinstance(rows, str | Path) else rows
        try:
            x = self.preparation.examples(table, self.model.input_dtype)
        except DataError as error:
            raise DataError(f"{whose}: {error}") from error
        return np.asarray(self.model.predict(self.weights, x))

    def _prepared(self, data: ClientData) -> ClientData:
        return self.preparation.for_others.client(data, self.model.input_dtype)
