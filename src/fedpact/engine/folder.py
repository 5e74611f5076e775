"""A run's folder: what was asked for, how the rows were prepared, checkpoints, and the result."""

import json
from pathlib import Path

from fedpact.core.errors import CheckpointError, ConfigError
from fedpact.core.job import Job
from fedpact.engine.preparation import Preparation
from fedpact.store.files import write_atomically


class RunFolder:
    """One folder holds one run.

    `job.json`, `preparation.json`, `checkpoints/`; and when the run has ended `model.safetensors`,
    `result.json`, `history.csv` and `clients.csv`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self._job = path / "job.json"
        self._preparation = path / "preparation.json"

    @classmethod
    def open(cls, path: str | Path, job: Job, resume: bool) -> "RunFolder":
        """Return the folder for a run of this job, made if it is not there.

        Raises:
            ConfigError: there is a run in it already, and it is not to be resumed.
            CheckpointError: there is a run of another job in it.
        """
        folder = cls(Path(path))
        if folder._job.exists():
            before = folder.read_job()
            if not resume:
                raise ConfigError(
                    f'"{path}" holds a run already: resume it (resume=True, --resume) or choose another folder.'
                )
            if before.lineage != job.lineage:
                raise CheckpointError(
                    f'"{path}" holds a run of another job: its {_difference(before, job)} differs. Choose another '
                    "folder, or resume it with the job it was started with."
                )
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
        write_atomically(
            folder._job, json.dumps(job.model_dump(mode="json"), indent=2, ensure_ascii=False).encode()
        )
        return folder

    def read_job(self) -> Job:
        """Return the job of this folder.

        Raises:
            CheckpointError: there is none, or it cannot be read.
        """
        try:
            return Job.of(json.loads(self._job.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise CheckpointError(f'"{self.path}" is no run folder: it has no job.json.') from None
        except (ValueError, ConfigError) as error:
            raise CheckpointError(f'"{self._job}" cannot be read: {error}') from None

    def read_preparation(self) -> Preparation | None:
        """Return how the rows were prepared, or None if that was not decided yet."""
        if not self._preparation.exists():
            return None
        try:
            return Preparation.from_json(json.loads(self._preparation.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f'"{self._preparation}" cannot be read: {error!r}') from None

    def write_preparation(self, preparation: Preparation) -> None:
        """Keep how the rows are prepared: a resumed run must not fit it anew, since clients may have changed."""
        write_atomically(self._preparation, json.dumps(preparation.to_json(), ensure_ascii=False).encode())


def _difference(before: Job, now: Job) -> str:
    a, b = before.model_dump(mode="json"), now.model_dump(mode="json")
    names = [
        name for name in a if a[name] != b[name] and name not in ("name", "rounds", "stop", "evaluate_every")
    ]
    return ", ".join(f'"{name}"' for name in names)
