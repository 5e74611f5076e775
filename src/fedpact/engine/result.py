"""What a run gave: the model, its history, what each client did, and how to use and keep all of it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, ModelError
from fedpact.core.job import Job
from fedpact.core.rows import ClientData
from fedpact.core.vector import Vector
from fedpact.engine.evaluation import Evaluation
from fedpact.engine.fitted import MODEL_FILE, Fitted
from fedpact.engine.population import Population, is_among
from fedpact.engine.runner import Progress
from fedpact.privacy.statement import Statement
from fedpact.store.files import cannot, write_atomically
from fedpact.store.modelfile import read_metadata

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# Of more clients than this, those that had no part in the run are not listed.
_LISTED = 10_000
_RESULT, _HISTORY, _CLIENTS = "result.json", "history.csv", "clients.csv"


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
        privacy: what the run kept secret from whom.
        notes: client → what is to be known of its rows: where classes are weighed or resampled, which of them it lacks.
    """

    job: Job
    fitted: Fitted
    history: "pd.DataFrame"
    clients: "pd.DataFrame"
    failures: "pd.DataFrame"
    evaluation: Evaluation | None
    stopped: str
    engine: str
    privacy: Statement
    notes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        job: Job,
        fitted: Fitted,
        progress: Progress,
        evaluation: Evaluation | None,
        population: Population,
        stopped: str,
        engine: str,
        privacy: Statement,
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
                "test_rows": _test_rows(evaluation, id),
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
            privacy,
            fitted.preparation.notes,
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
        self.fitted.save(folder / MODEL_FILE, self.job)
        for name, table in ((_HISTORY, self.history), (_CLIENTS, self.clients)):
            write_atomically(folder / name, table.to_csv().encode())
        summary = {
            "job": self.job.model_dump(mode="json"),
            "digest": self.job.digest,
            "stopped": self.stopped,
            "engine": self.engine,
            "privacy": self.privacy.to_json(),
            "failures": self.failures.to_dict(orient="records"),
            "notes": dict(self.notes),
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
            if read_metadata(folder / MODEL_FILE)["job"] != summary["digest"]:
                raise ModelError(f'the model in "{folder}" is not that of the result beside it.')
            return cls(
                Job.of(summary["job"]),
                Fitted.load(folder / MODEL_FILE, model),
                history.set_index("round"),
                clients.set_index("client"),
                pd.DataFrame(summary["failures"], columns=["round", "client", "reason"]),
                None if evaluation is None else Evaluation.from_json(evaluation),
                summary["stopped"],
                summary["engine"],
                Statement.from_json(summary["privacy"]),
                summary.get("notes", {}),
            )
        except FileNotFoundError as error:
            raise ModelError(f'"{folder}" holds no finished run: "{error.filename}" is missing.') from None
        except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
            raise ModelError(f'the result in "{folder}" cannot be read: {error}.') from None


def _test_rows(evaluation: Evaluation | None, id: str) -> int | None:
    """Return how many rows a client holds aside; None where a mask hides it."""
    if evaluation is None:
        return 0
    return evaluation.rows.get(id, 0) if evaluation.rows or not evaluation.total_rows else None


def _size(population: Population, id: str) -> int | None:
    """Return a client's number of training rows; None where it cannot be told at the moment."""
    try:
        return population.size(id)
    except Exception:
        return None


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
