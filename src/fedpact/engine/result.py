"""What a run gave: the model, its history, what each client did, and how to use and keep all of it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from fedpact.engine.population import Population, Prepared, as_population, is_among
from fedpact.engine.preparation import Preparation
from fedpact.engine.runner import Progress
from fedpact.store.checkpoint import Checkpoints, is_checkpoint
from fedpact.store.files import cannot, write_atomically
from fedpact.store.modelfile import read_metadata, save_model

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# Of more clients than this, those that had no part in the run are not listed.
_LISTED = 10_000
_MODEL, _RESULT, _HISTORY, _CLIENTS = "model.safetensors", "result.json", "history.csv", "clients.csv"


@dataclass(frozen=True)
class Result:
    """The outcome of a run.

    Args:
        job: what was asked for.
        fitted: the model and its weights.
        history: one row for each round: training loss, metrics on held-out rows, clients, failures, bytes
            and seconds.
        clients: one row for each client: rows, rounds, failures, seconds, bytes, and its own metrics; where there are
            more than 10,000 clients, for those alone that were asked.
        failures: one row for each failure: round, client and reason.
        evaluation: of the final model on held-out rows; None if no client holds any aside.
        stopped: why the run ended.
        engine: who ran the clients, and why that engine was chosen.
    """

    job: Job
    fitted: "Fitted"
    history: "pd.DataFrame"
    clients: "pd.DataFrame"
    failures: "pd.DataFrame"
    evaluation: Evaluation | None
    stopped: str
    engine: str

    @classmethod
    def of(
        cls,
        job: Job,
        fitted: "Fitted",
        progress: Progress,
        evaluation: Evaluation | None,
        population: Population,
        stopped: str,
        engine: str,
    ) -> "Result":
        """Return the result of a run that has made this progress."""
        import pandas as pd

        history = [dict(record) for record in progress.history]
        if evaluation is not None and history:
            history[-1].update(evaluation.record())
        present = population.ids(len(history))
        listed = {id for id, _ in progress.clients.items()} | set(evaluation.rows if evaluation else ())
        if len(present) <= _LISTED:
            listed.update(present)
        clients = {
            id: {
                "train_rows": _size(population, id) if is_among(present, id) else None,
                "test_rows": evaluation.rows.get(id, 0) if evaluation else 0,
                **progress.clients.get(id),
                **(evaluation.clients.get(id, {}) if evaluation else {}),
            }
            for id in sorted(listed)
        }
        return cls(
            job,
            fitted,
            pd.DataFrame(history).set_index("round"),
            pd.DataFrame.from_dict(clients, orient="index").rename_axis("client"),
            pd.DataFrame(progress.failures, columns=["round", "client", "reason"]),
            evaluation,
            stopped,
            engine,
        )

    @property
    def model(self) -> Any:
        """The trained model in its own library: a torch module, a scikit-learn estimator, or named arrays."""
        return self.fitted.export()

    @property
    def weights(self) -> Vector:
        """The trained weights."""
        return self.fitted.weights

    @property
    def seconds(self) -> float:
        """How long the rounds took together."""
        return float(self.history["seconds"].sum())

    @property
    def download_bytes(self) -> int:
        """Bytes of arrays sent to clients, over all rounds."""
        return int(self.history["download_bytes"].sum())

    @property
    def upload_bytes(self) -> int:
        """Bytes of arrays sent by clients, over all rounds."""
        return int(self.history["upload_bytes"].sum())

    def predict(self, rows: Any) -> NDArray[Any]:
        """Return labels (or numbers, for a regression) for raw rows; see `Fitted.predict`."""
        return self.fitted.predict(rows)

    def predict_proba(self, rows: Any) -> NDArray[np.floating[Any]]:
        """Return class probabilities [n, *positions, classes] for raw rows; see `Fitted.predict_proba`."""
        return self.fitted.predict_proba(rows)

    def evaluate(self, clients: Population | Iterable[ClientData]) -> Evaluation:
        """Return how good the model is on clients' held-out rows; see `Fitted.evaluate`."""
        return self.fitted.evaluate(clients)

    def plot(self, metric: str | None = None) -> "Figure":
        """Return a figure of the training loss and of a metric over rounds: all rows, mean and worst client.

        Args:
            metric: one of the history's; None for the first of accuracy, rmse.

        Raises:
            DependencyError: matplotlib is not installed.
            ConfigError: there is no such metric.
        """
        from fedpact.engine.picture import draw_history

        return draw_history(self.history, metric)

    def save(self, folder: str | Path) -> None:
        """Write model, tables and summary into a folder; each file whole or not at all.

        Raises:
            FedpactError: a file cannot be written.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot("write", folder, error) from error
        # It says that a result is whole, so it goes before the first part of another is written.
        (folder / _RESULT).unlink(missing_ok=True)
        self.fitted.save(folder / _MODEL, self.job)
        for name, table in ((_HISTORY, self.history), (_CLIENTS, self.clients)):
            write_atomically(folder / name, table.to_csv().encode())
        summary = {
            "job": self.job.model_dump(mode="json"),
            "digest": self.job.digest,
            "stopped": self.stopped,
            "engine": self.engine,
            "failures": self.failures.to_dict(orient="records"),
            "evaluation": None if self.evaluation is None else self.evaluation.to_json(),
        }
        write_atomically(folder / _RESULT, json.dumps(summary, ensure_ascii=False).encode())

    @classmethod
    def load(cls, folder: str | Path, model: Any = None) -> "Result":
        """Read what `save` wrote.

        Args:
            folder: the run's folder.
            model: the module of the same architecture, where the model was a torch module given in Python.

        Raises:
            ModelError: the folder holds no result, or the model does not fit.
        """
        import pandas as pd

        folder = Path(folder)
        try:
            summary = json.loads((folder / _RESULT).read_text(encoding="utf-8"))
            history, clients = (_read_csv(folder / name) for name in (_HISTORY, _CLIENTS))
            evaluation = summary["evaluation"]
            if read_metadata(folder / _MODEL)["job"] != summary["digest"]:
                raise ModelError(f'the model in "{folder}" is not that of the result beside it.')
            return cls(
                Job.of(summary["job"]),
                Fitted.load(folder / _MODEL, model),
                history.set_index("round"),
                clients.set_index("client"),
                pd.DataFrame(summary["failures"], columns=["round", "client", "reason"]),
                None if evaluation is None else Evaluation.from_json(evaluation),
                summary["stopped"],
                summary["engine"],
            )
        except FileNotFoundError as error:
            raise ModelError(f'"{folder}" holds no finished run: "{error.filename}" is missing.') from None
        except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
            raise ModelError(f'the result in "{folder}" cannot be read: {error}.') from None


def _size(population: Population, id: str) -> int | None:
    """Return a client's number of training rows; None where it cannot be told at the moment."""
    try:
        return population.size(id)
    except Exception:
        return None


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
            # Who was not there is the run's affair, not the model's.
            "preparation": replace(self.preparation, failures={}).to_json(),
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
        path = Path(path) / _MODEL if Path(path).is_dir() else Path(path)
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
        return self.preparation.client(data, self.model.input_dtype)


def _read_csv(path: Path) -> "pd.DataFrame":
    """Read a table as it was written: every bit of a number, and the name of a client that is called "NA"."""
    import pandas as pd

    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return table.apply(lambda column: column if column.name == "client" else _numbers(column))


def _numbers(texts: Iterable[str]) -> "pd.Series[Any]":
    import pandas as pd

    # Parsed by Python, since what pandas parses may be off in the last bit.
    try:
        return pd.Series([int(text) for text in texts], dtype=np.int64)
    except ValueError:
        return pd.Series([float(text or "nan") for text in texts], dtype=np.float64)


def evaluate(model: Result | Fitted | str | Path, clients: Population | Iterable[ClientData]) -> Evaluation:
    """Return how good a trained model is on clients' held-out rows.

    Args:
        model: a result, a fitted model, or the path of a model file, of a checkpoint or of a run's folder.
        clients: clients with raw rows.

    Raises:
        DataError: no client holds rows aside, or their rows do not fit the model.
    """
    return (Fitted.load(model) if isinstance(model, str | Path) else model).evaluate(clients)
