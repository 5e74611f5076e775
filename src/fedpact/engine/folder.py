"""A run's folder: what was asked for, how the rows were prepared, checkpoints, and the result."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from fedpact.core.errors import CheckpointError, ConfigError, ModelError
from fedpact.core.job import Job
from fedpact.engine.auto import Arithmetic
from fedpact.engine.preparation import Preparation
from fedpact.engine.privacy import Spent
from fedpact.engine.runner import Progress
from fedpact.store.files import cannot, locked, remove_leftovers, write_atomically
from fedpact.store.records import Records


class RunFolder:
    """One folder holds one run.

    `job.json`, `preparation.json`, `engine.json`, `checkpoints/`, `history.jsonl` and `failures.jsonl` with a record a
    line, `states` where clients keep something, `spent.json` where noise is added; and when the run has ended
    `model.safetensors`, `result.json`, `history.csv` and `clients.csv`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self._job = path / "job.json"
        self._preparation = path / "preparation.json"
        self._engine = path / "engine.json"
        self._spent = path / "spent.json"
        self.states = path / "states"
        self._history = Records(path / "history.jsonl")
        self._failures = Records(path / "failures.jsonl")

    @classmethod
    @contextmanager
    def held(cls, path: str | Path | None, job: Job, resume: bool) -> "Iterator[RunFolder | None]":
        """Hold the folder for a run of this job against other processes; nothing is written yet.

        Args:
            path: where; made if it is not there. None for a run that is not kept.
            job: the job.
            resume: whether to go on with the run that is there.

        Raises:
            FedpactError: the folder cannot be made.
            ConfigError: there is a run in it already, and it is not to be resumed; or a result without a run;
                or another process is at work in it.
            CheckpointError: there is a run of another job in it.
        """
        if path is None:
            yield None
            return
        folder = cls(Path(path))
        try:
            folder.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot("write", folder.checkpoints, error) from error
        with locked(folder.path):
            folder._check(job, resume)
            remove_leftovers(folder.path)
            yield folder

    def _check(self, job: Job, resume: bool) -> None:
        if self.begun:
            before = self.read_job()
            if not resume:
                raise ConfigError(
                    f'"{self.path}" holds a run already: resume it (resume=True, --resume) or choose another folder.'
                )
            if differences := list(_differences("", *_what_must_be_alike(before, job))):
                raise CheckpointError(
                    f'"{self.path}" holds a run of another job: {"; ".join(differences)}. Choose another folder, or '
                    "resume it with the job it was started with."
                )
        elif (self.path / "result.json").exists():
            raise ConfigError(f'"{self.path}" holds a result already: choose another folder.')

    def continued(self, job: Job) -> Job:
        """Return the job with what a run that has begun knows better.

        That is what is read, where it is known to one of the two alone (a list of clients does not say), and
        the digest of a model file that is gone and no longer needed.
        """
        if not self.begun:
            return job
        before = self.read_job()
        known: dict[str, Any] = {} if before.reading and job.reading else {"data": before.data}
        if job.initial and job.initial_sha256 is None:
            known["initial_sha256"] = before.initial_sha256
        return job.model_copy(update=known)

    @property
    def begun(self) -> bool:
        """Whether there is a run in it; one that ended before its first checkpoint has left none."""
        return self._job.exists()

    def begin(self, job: Job, preparation: Preparation, arithmetic: Arithmetic | None = None) -> None:
        """Write down the job and, for a run that starts, how its rows are prepared and its clients trained.

        That is kept because a resumed run must not fit it anew: clients may have changed; and because clients that
        are trained in another way differ in their last bits.

        Raises:
            FedpactError: the folder cannot be written to.
        """
        if not self.begun:
            plain = json.dumps(preparation.to_json(), ensure_ascii=False)
            write_atomically(self._preparation, plain.encode())
            write_atomically(self._engine, json.dumps({"arithmetic": arithmetic}).encode())
        elif self.read_job() == job:
            return
        # Last, since it says that there is a run.
        plain = json.dumps(job.model_dump(mode="json"), indent=2, ensure_ascii=False)
        write_atomically(self._job, plain.encode())

    def noted(self, progress: Progress) -> dict[str, Any]:
        """Return what a checkpoint holds, with how far the records go; those that are new are appended first.

        Raises:
            FedpactError: a file cannot be written.
        """
        self._history.append(progress.history[len(self._history) :])
        self._failures.append(progress.failures[len(self._failures) :])
        positions = {"history": self._history.position(), "failures": self._failures.position()}
        return {**progress.contents(), **positions}

    def write_spent(self, spent: Spent) -> None:
        """Write down what was released so far and is about to be: no checkpoint may follow, and it counts all the same.

        Raises:
            FedpactError: the file cannot be written.
        """
        write_atomically(self._spent, json.dumps(spent.contents()).encode())

    def _read_spent(self) -> Spent:
        try:
            return Spent.of(json.loads(self._spent.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return Spent(Counter())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f'"{self._spent}" cannot be read: {error}') from None

    def go_back(self, progress: Progress, contents: Mapping[str, Any]) -> None:
        """Bring progress to where it was when a checkpoint with these contents was saved.

        Raises:
            CheckpointError: the records or states that it refers to are damaged or gone.
        """
        progress.state = contents["state"]
        progress.kept.restore(contents["kept"])
        progress.clients.restore(contents["clients"])
        if "channel" in contents:
            progress.channel = tuple(contents["channel"])
        progress.spent = Spent.of(contents.get("spent"))
        progress.spent.catch_up(self._read_spent())
        for records, name in ((self._history, "history"), (self._failures, "failures")):
            records.cut(contents[name])
        progress.history.clear()
        for record in self._history.read():
            progress.history.append(record)
        progress.failures = [dict(record) for record in self._failures.read()]

    def read_job(self) -> Job:
        """Return the job of this folder.

        Raises:
            CheckpointError: there is none, or it cannot be read.
        """
        try:
            return Job.of(json.loads(self._job.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise CheckpointError(f'"{self.path}" is no run folder: it has no job.json.') from None
        except (OSError, ValueError, TypeError, ConfigError) as error:
            raise CheckpointError(f'"{self._job}" cannot be read: {error}') from None

    def read_arithmetic(self) -> Arithmetic | None:
        """Return the way in which the engine of the run in this folder chose to train; None if it had no choice.

        Raises:
            CheckpointError: it cannot be read.
        """
        try:
            arithmetic = json.loads(self._engine.read_text(encoding="utf-8"))["arithmetic"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f'"{self._engine}" cannot be read: {error}') from None
        if arithmetic not in (None, *get_args(Arithmetic)):
            raise CheckpointError(f'"{self._engine}" names no way of training: {arithmetic!r}.')
        return arithmetic

    def read_preparation(self) -> Preparation:
        """Return how the rows of the run in this folder are prepared.

        Raises:
            CheckpointError: it cannot be read.
        """
        try:
            return Preparation.from_json(json.loads(self._preparation.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, ModelError) as error:
            raise CheckpointError(f'"{self._preparation}" cannot be read: {error}') from None


def _what_must_be_alike(before: Job, now: Job) -> tuple[dict[str, Any], dict[str, Any]]:
    may_change = {"name", "rounds", "stop", "evaluate_every", "evaluate_cohort", "initial"}
    if now.initial and now.initial_sha256 is None:
        may_change.add("initial_sha256")
    a, b = (job.model_dump(mode="json", exclude=may_change) for job in (before, now))
    if not (before.names_rows and now.names_rows):
        # Clients given in Python are in no place that could be compared.
        a["data"], b["data"] = (before.reading, now.reading) if before.reading and now.reading else ({}, {})
    return a, b


def _differences(name: str, before: Any, now: Any) -> Iterator[str]:
    """Yield a phrase for each setting that differs, such as 'algorithm.lr was 0.1 and is 0.2 now'."""
    if isinstance(before, dict) and isinstance(now, dict) and before.get("name") == now.get("name"):
        for key in {**before, **now}:
            yield from _differences(f"{name}.{key}" if name else key, before.get(key), now.get(key))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for i, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from _differences(f"{name}[{i}]", old, new)
    elif before != now:
        yield f"{name} was {_in_brief(before)} and is {_in_brief(now)} now"


def _in_brief(setting: Any) -> str:
    """Return a setting as JSON, parts by their names alone."""
    if isinstance(setting, dict) and "name" in setting:
        return str(setting["name"])
    if isinstance(setting, list):
        return f"[{', '.join(map(_in_brief, setting))}]"
    return json.dumps(setting, ensure_ascii=False)
