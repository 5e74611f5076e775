"""A Job: a whole run as data. Its canonical JSON has a SHA-256, and that digest is what an owner approves."""

import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fedpact.core.errors import ConfigError, suggest
from fedpact.core.passwords import refuse_passwords
from fedpact.core.registry import Spec

# What `data` says about where rows are and how they are dealt out.
_POPULATIONS = {"parquet", "sqlite", "folder"}
_WHEREABOUTS = {
    "clients",
    "table",
    "by",
    "names",
    "test",
    "seed",
    "stratify",
    "partition",
    "alpha",
    "schemas",
}
_WHEREABOUTS |= _POPULATIONS | {"client", "query"}


class Job(BaseModel):
    """What is computed, by which algorithm, for how long, and where its clients are found.

    Parts are specifications: a name and settings, as `Registry.build` reads them.

    Args:
        name: what to call it.
        seed: the root of every reproducible random choice.
        data: a registered data set and its options, or {"clients": {id: file}, "label": column, ...}; None
            when the clients are given in Python.
        model: the model.
        algorithm: the algorithm.
        table_schema: the columns that all clients' tables have to have, their kinds, units, ranges and categories, as
            `TableSchema.to_json` writes them down; or the path of a TOML file, read when the job is completed.
        preprocess: the steps that prepare the rows, fitted over all clients.
        channel: the stages between a client's update and the sum.
        rounds: the number of rounds, at most.
        cohort: how many clients take part in a round: a number, a share in (0, 1], or None for all.
        sampling: whether that is exactly so many drawn anew ("fixed"), each client by a coin of its own ("poisson"), or
            exactly so many in turn ("cyclic").
        quorum: how many of them must answer: a number, or a share in (0, 1] of the cohort.
        timeout_s: how long one client may take, in seconds; None for no limit.
        update_range: the declared range of every averaged value: |value| ≤ update_range.
        stop: rules that end the run before its last round.
        evaluate_every: evaluate on held-out rows every so many rounds; 0 for after the last only.
        evaluate_cohort: how many of the clients that hold rows aside are asked then: a number, a share, or None for
            all.
        initial: a model file to start from; None for weights drawn from the seed.
        initial_sha256: the SHA-256 of that file, in hex; filled in when the job is completed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "job"
    seed: int = 0
    data: Spec | None = None
    model: Spec
    algorithm: Spec
    table_schema: tuple[Spec, ...] | str | None = None
    preprocess: tuple[Spec, ...] = ()
    channel: tuple[Spec, ...] = ()
    rounds: int = Field(default=10, ge=1)
    cohort: int | float | None = None
    sampling: Literal["fixed", "poisson", "cyclic"] = "fixed"
    quorum: int | float = 1
    timeout_s: float | None = Field(default=None, gt=0)
    update_range: float = Field(default=65536.0, ge=2.0**-64, le=2.0**64)
    stop: tuple[Spec, ...] = ()
    evaluate_every: int = Field(default=1, ge=0)
    evaluate_cohort: int | float | None = None
    initial: str | None = None
    initial_sha256: str | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _json(cls, value: Any) -> Any:
        return _plain(value)

    @field_validator("model", "algorithm", "data", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("data")
    @classmethod
    def _without_passwords(cls, value: Spec | None) -> Spec | None:
        refuse_passwords(value, "the job's data")
        return value

    @field_validator("preprocess", "channel", "stop", mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        items = value if isinstance(value, list | tuple) else [value]
        return [{"name": item} if isinstance(item, str) else item for item in items]

    @field_validator("cohort", "quorum", "evaluate_cohort", mode="before")
    @classmethod
    def _number_or_share(cls, value: Any) -> Any:
        value = _plain(value)
        number = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        share = isinstance(value, float) and 0 < value <= 1
        if not (number or share or value is None):
            raise ValueError("must be a whole number of clients, or a share in (0, 1]")
        return value

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Job":
        """Return the job with these settings.

        Raises:
            ConfigError: a setting is unknown, missing or of the wrong type; all of them are named.
        """
        try:
            return cls.model_validate(dict(settings))
        except ValidationError as error:
            raise ConfigError("\n".join(_sentence(problem) for problem in error.errors())) from None

    @classmethod
    def from_toml(cls, path: str | Path, overrides: Mapping[str, Any] | None = None) -> "Job":
        """Read a job from a TOML file; overrides are {"algorithm.lr": 0.1}-style replacements.

        Raises:
            ConfigError: the file is missing, is not TOML, or does not describe a job.
        """
        try:
            settings = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f'there is no job file "{path}".') from None
        except OSError as error:
            raise ConfigError(f'the job file "{path}" cannot be read: {error.strerror}.') from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f'"{path}" is not valid TOML: {error}.') from None
        for key, value in (overrides or {}).items():
            _assign(settings, key, value)
        return cls.of(settings)

    def canonical(self) -> str:
        """Return the job as canonical JSON: sorted keys, no spaces, UTF-8.

        It says what is computed and not where the rows are, since a job is approved once and every client has
        rows of its own: of `data` there is what says what is read (see `reading`), and of the model file its
        content, not its place.
        """
        return canonical_json(self._said(set()))

    @property
    def reading(self) -> Spec:
        """What `data` says about what is read: the label, columns, a data set and its variant."""
        data = self.data or {}
        in_files = isinstance(data.get("clients"), Mapping) or "table" in data
        left_out = _WHEREABOUTS | ({"name"} if in_files else set())
        # No classes at all is a declaration too: the labels are numbers to predict.
        kept = {
            key: value
            for key, value in data.items()
            if key not in left_out and (value not in (None, []) or (key, value) == ("classes", []))
        }
        return {**kept, "text": sorted(kept["text"])} if "text" in kept else kept

    @property
    def names_rows(self) -> bool:
        """Whether `data` says where rows are, so that the job can be run without being given clients."""
        data = self.data or {}
        return "table" in data or "clients" in data or "seed" in data or not _POPULATIONS.isdisjoint(data)

    def _said(self, left_out: set[str]) -> dict[str, Any]:
        settings = self.model_dump(mode="json", exclude={"data", "initial", *left_out})
        # A setting that was added later says nothing at its default: jobs that were approved before keep their digest.
        for name in ("evaluate_cohort", "sampling", "table_schema"):
            if getattr(self, name) == Job.model_fields[name].default:
                settings.pop(name, None)
        return {**settings, "data": self.reading}

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, in hex."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    @property
    def identity(self) -> str:
        """SHA-256 of the whole job, in hex, also of where its rows are: two runs with one identity are one run."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()

    @property
    def lineage(self) -> str:
        """SHA-256 of all that decides a round, in hex: the job without its name, length and stop rules.

        A checkpoint may be continued by any job of the same lineage, so that a run can be made longer.
        """
        settings = self._said({"name", "rounds", "stop", "evaluate_every", "evaluate_cohort"})
        return hashlib.sha256(canonical_json(settings).encode()).hexdigest()


def canonical_json(data: Any) -> str:
    """Return plain data as JSON with sorted keys and no spaces; NaN and infinities are refused."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _sentence(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f'a job has no setting "{place}".{suggest(place, Job.model_fields)}'
    if problem["type"] == "missing":
        return f'the job has no "{place}"; add it.'
    message = problem["msg"].removeprefix("Value error, ")
    return f'job setting "{place}" is {problem["input"]!r}: {message}.'


def _assign(settings: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        inner = settings.get(part, {})
        if not isinstance(inner, str | Mapping):
            raise ConfigError(
                f'"{key}" cannot be set: "{part}" is {inner!r}, which has no settings of its own.'
            )
        settings[part] = inner = {"name": inner} if isinstance(inner, str) else dict(inner)
        settings = inner
    settings[last] = value


def _plain(value: Any) -> Any:
    """Return what JSON can hold, with numpy's numbers as Python's; NaN would silently become null there."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("the names of settings must be text")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("numbers must be finite")
    if not isinstance(value, str | int | float | None):
        raise ValueError(f"a {type(value).__name__} cannot be part of a job")
    return value
