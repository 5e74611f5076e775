"""Rows that are nobody's: a public set that the server and all clients hold, named in a job by its SHA-256."""

import copy
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.algorithms import PARTS
from fedpact.core.errors import ConfigError


@dataclass(frozen=True)
class PublicSet:
    """Unlabelled public rows, from a file or given in Python.

    Args:
        file: a table (.csv, .tsv, .parquet) or an array (.npy), relative to the working directory; None for rows that
            are given in Python (see `of`).
        sha256: of the file or the rows, in hex; None to take that of the file as it is now.

    Raises:
        ConfigError: there is no such file.
    """

    file: str | None = None
    sha256: str | None = None
    _held: Any = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.file is not None and self.sha256 is None:
            object.__setattr__(self, "sha256", self._digest_of_file())

    @classmethod
    def of(cls, rows: Any) -> "PublicSet":
        """Return the public set that is meant by rows [n, ...], a table, the path of a file, or a specification.

        Raises:
            ConfigError: rows are an array of Python objects, or there is no such file.
        """
        if isinstance(rows, PublicSet):
            return rows
        if isinstance(rows, str | Path):
            return cls(str(rows))
        if isinstance(rows, Mapping):
            made: PublicSet = PARTS.build({"name": f"{cls.__module__}:{cls.__name__}", **rows})
            return made
        table = hasattr(rows, "iloc")
        rows = rows if table else np.ascontiguousarray(rows)
        if not table and rows.dtype.hasobject:
            # Their bytes are addresses, which no other process has.
            raise ConfigError(
                "the public rows are an array of Python objects, which has no SHA-256; give an array of numbers, or a "
                "pandas table."
            )
        content = rows.to_csv(index=False).encode() if table else rows.data
        named = hashlib.sha256(b"" if table else f"{rows.dtype.str} {rows.shape}".encode())
        named.update(content)
        return cls(sha256=named.hexdigest())._holding(rows)

    def prepared(self, examples: Callable[[Any], NDArray[Any]]) -> "PublicSet":
        """Return this set with its rows as a model reads them.

        Args:
            examples: makes them of raw rows, or of the path of a file of raw rows.

        Raises:
            ConfigError: the file is not there or is another one, or the rows were given in another process.
        """
        if self._held is None and self.file is not None and self._digest_of_file() != self.sha256:
            raise ConfigError(
                f'the public set "{self.file}" is not the one that the job was written for: its SHA-256 is '
                f"{self._digest_of_file()}, the job says {self.sha256}."
            )
        raw = self._held if self._held is not None or self.file is None else Path(self.file)
        return self._holding(examples(self.examples if raw is None else raw))

    @property
    def examples(self) -> Any:
        """The rows [n, ...], prepared where that has been done.

        Raises:
            ConfigError: they were given in another process, or their file has not been read.
        """
        if self._held is None:
            raise ConfigError(
                f"the rows of the public set (SHA-256 {self.sha256}) are not here, for a job does not hold them; give "
                "them again, such as FedDF(public=rows)."
            )
        return self._held

    def _holding(self, rows: Any) -> "PublicSet":
        held = copy.copy(self)
        object.__setattr__(held, "_held", rows)
        return held

    def _digest_of_file(self) -> str:
        try:
            with open(str(self.file), "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ConfigError(
                f'the public set "{self.file}" cannot be read: {error.strerror}; give the path of a table or array.'
            ) from None
