"""Checkpoints: a run's whole state in one file a round, complete at any moment and guarded by a SHA-256."""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fedpact.core.errors import CheckpointError, ConfigError
from fedpact.store.files import Chunk, cannot, remove_leftovers, write_atomically
from fedpact.store.tensors import TensorFile, TensorFileError, encode, written_by
from fedpact.store.tree import pack, unpack

_FORMAT = 2
_NAME = re.compile(r"round-(\d{8,})\.safetensors")
# The digest covers the whole file, with zeros where the digest itself stands.
_NO_DIGEST = "0" * 64
_DIGEST = re.compile(rb'"sha256":"([0-9a-f]{64})"')


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says about itself.

    Args:
        round: the number of rounds done.
        job: the lineage digest of its job.
        score: how good the model was; larger is better; None if it was not evaluated.
        scored_by: what the score measures, such as the name of a metric.
        written_by: the version of Fedpact that wrote it.
    """

    round: int
    job: str
    score: float | None
    scored_by: str | None
    written_by: str


class Checkpoints:
    """The checkpoints of one run, in a folder of their own: `round-00000012.safetensors`.

    Kept are the last ones, the best one, and every so many rounds one. What killed processes have left half
    written is removed first.

    Args:
        folder: where they are; made when the first one is saved.
        keep_last: how many of the last to keep, at least 1.
        keep_best: keep the one with the largest score too; of equals the first. Compared are the scores that
            measure the same as the newest one does.
        keep_every: keep every round that is a multiple of this too; None for no such rule.

    Raises:
        ConfigError: keep_last or keep_every is less than 1.
    """

    def __init__(
        self, folder: str | Path, keep_last: int = 2, *, keep_best: bool = True, keep_every: int | None = None
    ) -> None:
        for name, value in (("keep_last", keep_last), ("keep_every", keep_every)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1.")
        self.folder = Path(folder)
        self.keep_last = keep_last
        self.keep_best = keep_best
        self.keep_every = keep_every
        remove_leftovers(self.folder)

    def rounds(self) -> list[int]:
        """Return the rounds that have a checkpoint, in order."""
        try:
            names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        except OSError as error:
            raise cannot("read", self.folder, error) from error
        return sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)

    def latest(self) -> Path | None:
        """Return the checkpoint of the latest round, or None."""
        rounds = self.rounds()
        return self.path(rounds[-1]) if rounds else None

    def path(self, round: int) -> Path:
        """Return where a round's checkpoint is, or would be."""
        return self.folder / f"round-{round:08d}.safetensors"

    def save(
        self,
        round: int,
        content: Mapping[str, Any],
        *,
        job: str,
        score: float | None = None,
        scored_by: str | None = None,
    ) -> Path:
        """Write a checkpoint, then delete those that need not be kept; return where it is.

        When this returns, it is on the disk. Whatever kills the process before that, the checkpoints that
        were there still are.

        Args:
            round: the number of rounds done.
            content: what to save, as `fedpact.store.tree.pack` takes it.
            job: the lineage digest of the job.
            score: how good the model is; larger is better.
            scored_by: what the score measures, such as the name of a metric.

        Raises:
            CheckpointError: the content holds what cannot be saved, or the folder holds checkpoints of
                another job or of later rounds.
            FedpactError: the file cannot be written.
        """
        self._check_folder(round, job)
        score = float(score) if score is not None and math.isfinite(score) else None
        path = self.path(round)
        info = CheckpointInfo(round, job, score, scored_by, written_by())
        chunks = _encode(info, content)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot("write", path, error) from error
        write_atomically(path, chunks)
        self.tidy()
        return path

    def tidy(self) -> None:
        """Delete what need not be kept; a process killed right behind a save has left one too many."""
        self._delete(set(self.rounds()) - self._kept())

    def load(
        self, path: str | Path | None = None, *, like: Any = None, job: str | None = None
    ) -> dict[str, Any]:
        """Return what was saved in the latest checkpoint, or in the one at `path`.

        Args:
            path: the checkpoint; None for the latest in the folder.
            like: a freshly built content, or part of it, as `fedpact.store.tree.unpack` takes it.
            job: the lineage digest of the job that goes on from here; None to take any.

        Raises:
            CheckpointError: there is none; it is truncated, corrupt, no checkpoint, of a newer format or of
                another job; or it does not fit `like`. For a damaged one the newest intact one is named.
        """
        if path is None and (path := self.latest()) is None:
            raise CheckpointError(f'there is no checkpoint in "{self.folder}".')
        path = Path(path)
        try:
            return _load(path, like, job)
        except _DamagedError as damage:
            intact = self._newest_intact(besides=path)
            hint = f" {intact.name} is intact: to go on from it, move the later ones away." if intact else ""
            raise CheckpointError(f"{damage}{hint}") from None

    def _check_folder(self, round: int, job: str) -> None:
        rounds = self.rounds()
        for known in rounds:
            info = _known_info(self.path(known))
            if info is not None and info.job != job:
                raise CheckpointError(
                    f'"{self.folder}" holds checkpoints of another job: {info.job[:12]}, not {job[:12]}. '
                    "Choose another folder."
                )
        if rounds and rounds[-1] > round:
            raise CheckpointError(
                f'"{self.folder}" holds round {rounds[-1]} already, so round {round} is not saved there. '
                "Resume from the latest round, remove the later ones, or choose another folder."
            )

    def _kept(self) -> set[int]:
        rounds = self.rounds()
        kept = set(rounds[-self.keep_last :])
        if self.keep_every is not None:
            kept.update(round for round in rounds if round % self.keep_every == 0)
        if self.keep_best:
            infos = [info for info in map(_known_info, map(self.path, rounds)) if info]
            scored = [(info.score, info) for info in infos if info.score is not None]
            alike = [(score, info) for score, info in scored if info.scored_by == scored[-1][1].scored_by]
            kept.update([max(alike, key=lambda pair: pair[0])[1].round] if alike else [])
        return kept

    def _delete(self, rounds: Iterable[int]) -> None:
        for round in rounds:
            try:
                self.path(round).unlink(missing_ok=True)
            except OSError as error:
                raise cannot("delete", self.path(round), error) from error

    def _newest_intact(self, besides: Path) -> Path | None:
        paths = map(self.path, reversed(self.rounds()))
        return next(
            (path for path in paths if path.absolute() != besides.absolute() and _is_intact(path)), None
        )


def read_info(path: str | Path) -> CheckpointInfo:
    """Return what a checkpoint says about itself, without reading its arrays.

    Raises:
        CheckpointError: it is missing, truncated, no checkpoint, or of a newer format. A changed byte is not
            looked for: `Checkpoints.load` does that.
    """
    with _open(Path(path)) as file:
        return _info(file, Path(path))


def is_checkpoint(path: str | Path) -> bool:
    """Return whether a file says that it is a checkpoint, intact or not."""
    try:
        with TensorFile(path) as file:
            return "checkpoint" in file.metadata
    except TensorFileError:
        return False


class _DamagedError(CheckpointError):
    """A checkpoint that was whole once; another one may still be."""


def _encode(info: CheckpointInfo, content: Mapping[str, Any]) -> list[Chunk]:
    tree, arrays = pack(content)
    about = {"format": _FORMAT, **vars(info)}
    texts = {
        "sha256": _NO_DIGEST,
        "checkpoint": json.dumps(about, allow_nan=False),
        "content": json.dumps(tree, allow_nan=False, separators=(",", ":")),
    }
    start, *views = encode({name: (array.dtype.name, array) for name, array in arrays.items()}, texts)
    digest = _digest([start, *views])
    return [bytes(start).replace(_field(_NO_DIGEST), _field(digest)), *views]


def _load(path: Path, like: Any, job: str | None) -> dict[str, Any]:
    with _open(path) as file:
        info = _info(file, path)
        _check_digest(file, path)
        if job is not None and info.job != job:
            raise CheckpointError(
                f'"{path}" is a checkpoint of another job: {info.job[:12]}, not {job[:12]}. '
                "Resume it with its own job, or choose another folder."
            )
        try:
            content: dict[str, Any] = unpack(json.loads(file.metadata["content"]), file, like)
        except TensorFileError as error:
            raise _DamagedError(f'checkpoint "{path}" {error}') from None
        except CheckpointError as error:
            raise CheckpointError(f'checkpoint "{path}" does not fit this job: {error}') from None
        return content


def _open(path: Path) -> TensorFile:
    try:
        return TensorFile(path)
    except TensorFileError as error:
        raise _DamagedError(f'checkpoint "{path}" {error}') from None


def _info(file: TensorFile, path: Path) -> CheckpointInfo:
    if "checkpoint" not in file.metadata:
        raise _DamagedError(f'"{path}" is no checkpoint of Fedpact, or no longer.')
    try:
        about = json.loads(file.metadata["checkpoint"])
        if about.pop("format") > _FORMAT:
            raise CheckpointError(
                f'checkpoint "{path}" was written by Fedpact {about["written_by"]} in a newer format; '
                "upgrade Fedpact to read it."
            )
        return CheckpointInfo(**about)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise _DamagedError(f'checkpoint "{path}" is corrupt: its description cannot be read.') from None


# For more checkpoints than a folder holds: with fewer places, each save would read all of them anew.
@lru_cache(maxsize=1 << 17)
def _info_of(path: Path, _stamp: tuple[int, int, int]) -> CheckpointInfo | None:
    try:
        return read_info(path)
    except CheckpointError:
        return None


def _known_info(path: Path) -> CheckpointInfo | None:
    """Return what a checkpoint says about itself, or None; read once as long as the file does not change."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return _info_of(path, (stat.st_mtime_ns, stat.st_size, stat.st_ino))


def _check_digest(file: TensorFile, path: Path) -> None:
    written = _DIGEST.findall(file.start)
    start = _DIGEST.sub(_field(_NO_DIGEST), file.start)
    try:
        intact = written == [_digest([start, *file.payload()]).encode()]
    except TensorFileError as error:
        raise _DamagedError(f'checkpoint "{path}" {error}') from None
    if not intact:
        raise _DamagedError(
            f'checkpoint "{path}" is corrupt: its content does not have the SHA-256 it was written with.'
        )


def _is_intact(path: Path) -> bool:
    try:
        with _open(path) as file:
            _info(file, path)
            _check_digest(file, path)
    except CheckpointError:
        return False
    return True


def _digest(chunks: Iterable[Chunk]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _field(digest: str) -> bytes:
    return f'"sha256":"{digest}"'.encode()
