"""The ledger: what was spent of one population's privacy budget, over all runs, in an append-only file.

A line is a JSON object that names the line before it by its SHA-256 and ends with its own, so that what was changed or
taken out is found. A release is charged before it is made: `charge` returns when the charge is on the disk. A process
that dies in between has spent what it never released, and none has released what it never paid for.

A last line without its line break is of a process that died while it wrote: its `charge` did not return, so that
nothing was released for it, and it is cut off when the next one is charged. Any other damage is refused, with the
line's number. What the chain cannot show is that whole lines are missing at the end: keep `head` elsewhere, and give it
to `verify`.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedpact.core.errors import ConfigError, FedpactError, PrivacyError
from fedpact.core.settings import check_choice, check_numbers
from fedpact.privacy.accounting import Guarantee, account, cheap_first
from fedpact.privacy.events import RELATIONS, Relation, Release

_FORMAT = "fedpact privacy ledger 1"
UNITS = ("client", "record", "owner")


@dataclass(frozen=True)
class Budget:
    """The most that a population may spend, over everything that is ever released about it.

    Args:
        epsilon: ε > 0.
        delta: δ, above 0 and below 1.
        relation: "add_or_remove" or "replace_one".
        unit: what is protected: "client", "record" or "owner".
        population: whose budget it is; a name.

    Raises:
        ConfigError: a setting is out of its range.
    """

    epsilon: float
    delta: float
    relation: Relation = "add_or_remove"
    unit: str = "client"
    population: str = ""

    def __post_init__(self) -> None:
        check_numbers(self, "epsilon", positive=True)
        check_numbers(self, "delta", positive=True, below=1.0)
        check_choice(self, "relation", RELATIONS)
        check_choice(self, "unit", UNITS)


@dataclass(frozen=True)
class Charge:
    """A line of the ledger: what was charged, when, and for what.

    Args:
        line: its number; the ledger's first line, which holds the budget, is 1.
        time: when it was charged, ISO 8601 in UTC.
        purpose: what for, in the caller's words.
        releases: the events.
        sha256: of the line, and through it of all before it.
    """

    line: int
    time: str
    purpose: str
    releases: tuple[Release, ...]
    sha256: str


class Ledger:
    """A population's ledger. Any number of processes on this machine may charge it at once.

    Args:
        path: the file; made when something is first charged.
        budget: the budget; it may be left out where the file is there, and must be the file's if it is given.

    Raises:
        ConfigError: neither the file nor a budget is there.
        PrivacyError: the file is damaged, or of another budget.
        FedpactError: the file cannot be read.
    """

    def __init__(self, path: str | Path, budget: Budget | None = None) -> None:
        self.path = Path(path)
        contents = self._read()
        if contents.budget is None and budget is None:
            raise ConfigError(f'there is no ledger at "{self.path}" yet: give the budget that it is to have.')
        if budget is not None and contents.budget not in (None, budget):
            raise PrivacyError(
                f'the ledger "{self.path}" is of another budget, {contents.budget}; a budget that is spent from cannot '
                "be changed. Leave the budget out, or give that one."
            )
        self.budget: Budget = contents.budget or budget  # type: ignore[assignment]

    def charge(self, releases: Iterable[Release], purpose: str = "") -> Guarantee:
        """Charge what is about to be released, and return what all charges together have then spent.

        When this has returned, the charge is on the disk, and the release may be made. A release that is made again,
        after a crash, has other noise and is to be charged again.

        Args:
            releases: what is about to be released.
            purpose: what for, such as a run's name and round.

        Returns:
            The guarantee of everything in the ledger at the budget's δ; an upper bound where that already shows that
            it is within the budget.

        Raises:
            PrivacyError: it would exceed the budget, and nothing was charged; or the ledger is damaged.
            ConfigError: no accountant covers the releases.
            FedpactError: the file cannot be written.
        """
        releases = tuple(releases)
        if not releases:
            raise ConfigError("nothing is charged: give the releases that are about to be made.")
        with self._locked() as descriptor:
            contents = self._parse(_all(descriptor))
            if contents.budget not in (None, self.budget):
                raise PrivacyError(
                    f'the ledger "{self.path}" was begun with another budget, {contents.budget}.'
                )
            spent = self._within([*contents.releases(), *releases])
            lines = (
                b"" if contents.budget else self._line({"format": _FORMAT, "budget": asdict(self.budget)}, "")
            )
            head = contents.head or _sha256_in(lines)
            lines += self._line(
                {
                    "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                    "purpose": purpose,
                    "releases": [release.to_json() for release in releases],
                },
                head,
            )
            self._append(descriptor, contents.nbytes, lines)
        return spent

    def spent(self) -> Guarantee:
        """Return what all charges together have spent, at the budget's δ, by the tightest accountant.

        Raises:
            PrivacyError: the ledger is damaged.
        """
        return account(self._read().releases(), self.budget.delta, self.budget.relation)

    def charges(self) -> tuple[Charge, ...]:
        """Return the charges, the first one first.

        Raises:
            PrivacyError: the ledger is damaged.
        """
        return tuple(self._read().charges)

    @property
    def head(self) -> str:
        """The SHA-256 of the last charge, and through it of the whole ledger; "" of an empty one.

        Raises:
            PrivacyError: the ledger is damaged.
        """
        return self._read().head

    def verify(self, head: str = "") -> int:
        """Check the chain, and return how many charges it has.

        Args:
            head: a head of before; it must still be in the chain.

        Raises:
            PrivacyError: a line is damaged, missing or in another place, or the head is not in the chain any more.
        """
        contents = self._read()
        if head and head not in contents.heads:
            raise PrivacyError(
                f'the ledger "{self.path}" does not hold the charge {head[:12]}… any more: lines are missing at its '
                "end. Restore it from a copy."
            )
        return len(contents.charges)

    def _within(self, releases: list[Release]) -> Guarantee:
        budget = self.budget
        for accountant in cheap_first(releases, budget.delta, budget.relation):
            spent = account(releases, budget.delta, budget.relation, accountant)
            if spent.epsilon <= budget.epsilon:
                return spent
        whose = f' of "{budget.population}"' if budget.population else ""
        raise PrivacyError(
            f"the budget{whose} is epsilon {budget.epsilon:g} at delta {budget.delta:g}, and with this release "
            f"{spent.epsilon:.4g} would be spent (a {budget.unit}, {budget.relation}); nothing was charged. Release "
            "less or with more noise: `fedpact privacy` says how much."
        )

    def _read(self) -> "_Contents":
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            data = b""
        except OSError as error:
            raise self._cannot("read", error) from error
        return self._parse(data)

    def _parse(self, data: bytes) -> "_Contents":
        contents = _Contents()
        for number, line in enumerate(data.split(b"\n")[:-1], 1):
            try:
                contents.add(number, line)
            except (ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
                raise PrivacyError(
                    f'line {number} of the ledger "{self.path}" is damaged ({error}): what was spent is not known, and '
                    "nothing more is released. Restore the ledger from a copy."
                ) from None
        return contents

    def _line(self, record: dict[str, Any], previous: str) -> bytes:
        body = {"previous": previous, **record}
        return _canonical({**body, "sha256": _sha256(body)}) + b"\n"

    @contextmanager
    def _locked(self) -> Iterator[int]:
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._cannot("open", error) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:
                raise self._cannot("lock", error) from error
            yield descriptor
            # A child that was forked meanwhile has the descriptor too, and would keep the lock.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)

    def _append(self, descriptor: int, end: int, lines: bytes) -> None:
        try:
            os.ftruncate(descriptor, end)
            os.lseek(descriptor, end, os.SEEK_SET)
            view = memoryview(lines)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
            if end == 0:
                _sync_folder(self.path.parent)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(descriptor, end)
            raise self._cannot("write", error) from error

    def _cannot(self, do: str, error: OSError) -> FedpactError:
        return FedpactError(
            f'cannot {do} the ledger "{self.path}": {error.strerror or error}. Nothing was charged, and nothing may be '
            "released."
        )


class _Contents:
    """What a ledger's whole lines say."""

    def __init__(self) -> None:
        self.budget: Budget | None = None
        self.charges: list[Charge] = []
        self.heads: list[str] = []
        self.nbytes = 0

    @property
    def head(self) -> str:
        return self.heads[-1] if self.heads else ""

    def releases(self) -> list[Release]:
        return [release for charge in self.charges for release in charge.releases]

    def add(self, number: int, line: bytes) -> None:
        record = json.loads(line)
        sha256 = record.pop("sha256")
        if sha256 != _sha256(record):
            raise ValueError("its SHA-256 is not the one that it names")
        if record.pop("previous") != self.head:
            raise ValueError("it does not follow the line before it")
        if number == 1:
            if record["format"] != _FORMAT:
                raise ValueError(f"its format is {record['format']!r}")
            self.budget = Budget(**record["budget"])
        else:
            releases = tuple(map(Release.from_json, record["releases"]))
            self.charges.append(Charge(number, record["time"], record["purpose"], releases, sha256))
        self.heads.append(sha256)
        self.nbytes += len(line) + 1


def _canonical(record: dict[str, Any]) -> bytes:
    return json.dumps(
        record, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    ).encode()


def _sha256(record: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(record)).hexdigest()


def _sha256_in(line: bytes) -> str:
    return str(json.loads(line)["sha256"])


def _all(descriptor: int) -> bytes:
    chunks = []
    while chunk := os.read(descriptor, 1 << 20):
        chunks.append(chunk)
    return b"".join(chunks)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
