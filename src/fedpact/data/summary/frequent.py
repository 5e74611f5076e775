"""The categories that many rows have, found from sums alone: under a mask nobody learns which client has one.

Every value is hashed into one of 2^14 buckets, and clients send how many of their rows are in each. Of a bucket with
enough rows they then send the sum of the bytes of all these rows' values: where it holds one value, every byte of the
sum is the number of rows times a byte of it, so that it can be read; where it holds several, nothing can, and another
hash tells them apart. It is what a cell of an invertible Bloom lookup table does (Goodrich and Mitzenmacher,
"Invertible Bloom Lookup Tables", Allerton 2011, section 2), with a digest of the value in place of a sum of hashes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpact.core.algorithm import ClientState
from fedpact.core.errors import DataError, QuorumError
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.data.preprocess.columns import Value, as_categories, as_frame, in_order
from fedpact.data.preprocess.estimate import Columnwise, Estimating, ask, reply
from fedpact.data.wording import at_client

BUCKETS = 1 << 14
# A value of 60 characters fits, whatever they are.
_LONGEST_BYTES = 248
_CHECK_BYTES = 8
_WIDTH = _CHECK_BYTES + _LONGEST_BYTES
_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Frequent:
    """The frequent categories of a column.

    Args:
        counts: category → rows, the most frequent first.
        unnamed_at_most: no category that is not named has more rows than this, but for values of more than 248 bytes,
            which are never named.
    """

    counts: Mapping[Value, int]
    unnamed_at_most: int


@dataclass(frozen=True)
class FrequentCategories(Columnwise):
    """The categories of each column with at least so many rows over all clients, and how many rows have each.

    Only sums leave a client, and of a rarer category no more than how many rows its bucket has; unless it shares the
    bucket with a frequent one (of a hundred categories less than one does), which a server that does more than what
    is written here could take apart. In two rounds, and two more for each hash that is needed to tell values apart,
    of eight at most; it is told how many rows a category may have that is still not named then.

    Args:
        names: columns of text or numbers.
        minimum: rows.
    """

    minimum: int = 5

    hashes: ClassVar[int] = 8
    # As many sums of bytes as a column has in one round: half a megabyte.
    opened: ClassVar[int] = 256

    def task(self, state: Estimating) -> Task | None:
        """Ask how many rows each bucket has, then for the sums of bytes of those that have enough."""
        found = state.found or self._begun()
        if not self.names or found["hash"] == self.hashes or (found["buckets"] == [] and state.round):
            return None
        known = [[value for value, _ in pairs] for pairs in found["counts"]]
        return ask(state, hash=found["hash"], known=known, buckets=found["buckets"])

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return rows [columns, buckets], or the rows and sums of bytes [buckets asked of all columns, 1 + width]."""
        asked: Mapping[str, Any] = task.parameters
        tables = _values(data, self.names, asked["known"])
        if asked["buckets"] is None:
            rows = np.zeros((len(self.names), BUCKETS), np.int64)
            for column, (values, counts) in enumerate(tables):
                np.add.at(
                    rows[column], [_bucket(_bytes_of(value), asked["hash"]) for value in values], counts
                )
            return reply(task, data, {"rows": rows}), kept
        sums = []
        for (values, counts), wanted in zip(tables, asked["buckets"], strict=True):
            place = {bucket: i for i, bucket in enumerate(wanted)}
            opened = np.zeros((len(wanted), 1 + _WIDTH), np.int64)
            for value, count in zip(values, counts.tolist(), strict=True):
                spelt = _bytes_of(value)
                i = place.get(_bucket(spelt, asked["hash"]))
                if i is not None:
                    opened[i, 0] += count
                    opened[i, 1:] += count * _payload(spelt)
            sums.append(opened)
        return reply(task, data, {"sums": np.concatenate(sums)}), kept

    def server(self, model: Any, state: Estimating, aggregate: Aggregate) -> Estimating:
        """Choose the buckets to open, or read what is in them.

        Raises:
            QuorumError: other rows answered than in the round before.
        """
        found = state.found or self._begun()
        if found["buckets"] is None:
            return Estimating(state.round + 1, self._chosen(found, aggregate.sum("rows")))
        ends = np.cumsum([len(buckets) for buckets in found["buckets"]])
        parts = np.split(aggregate.sum("sums"), ends[:-1])
        counts, left = [], []
        for column, opened in enumerate(parts):
            if opened[:, 0].tolist() != found["rows"][column]:
                raise QuorumError(
                    "other rows answered than in the round before, so their categories cannot be found: a client "
                    "joined, left or failed meanwhile. Start again."
                )
            read = [_read(row, found["hash"]) for row in opened]
            named = [
                [value, n] for value, n in zip(read, found["rows"][column], strict=True) if value is not None
            ]
            closed = [n for value, n in zip(read, found["rows"][column], strict=True) if value is None]
            counts.append([*found["counts"][column], *named])
            left.append(max([found["left"][column], *closed]))
        # Where every bucket with enough rows was read, no category with enough rows is left.
        buckets: list[Any] | None = None if any(left) else []
        return Estimating(
            state.round + 1,
            {"hash": found["hash"] + 1, "counts": counts, "buckets": buckets, "rows": None, "left": left},
        )

    def fitted(self, state: Estimating) -> Mapping[str, Frequent]:
        """Return column → its frequent categories."""
        if state.found is None:
            return {}
        frequent = {}
        for name, pairs, left in zip(self.names, state.found["counts"], state.found["left"], strict=True):
            ordered = sorted(pairs, key=lambda pair: (-pair[1], isinstance(pair[0], str), pair[0]))
            counts = {value: n for value, n in ordered if n >= self.minimum}
            frequent[name] = Frequent(counts, max(left, self.minimum - 1))
        return frequent

    def _begun(self) -> dict[str, Any]:
        nothing: list[Any] = [[] for _ in self.names]
        return {"hash": 0, "counts": nothing, "buckets": None, "rows": None, "left": [0 for _ in self.names]}

    def _chosen(self, found: Mapping[str, Any], rows: NDArray[np.int64]) -> dict[str, Any]:
        """Return the state with the fullest buckets of each column to open; with none, where none has enough rows."""
        buckets, counts, left = [], [], []
        for each in rows:
            fullest = np.argsort(-each, kind="stable")[: self.opened + 1]
            enough = [int(bucket) for bucket in fullest if each[bucket] >= self.minimum]
            buckets.append(enough[: self.opened])
            counts.append([int(each[bucket]) for bucket in buckets[-1]])
            left.append(int(each[enough[self.opened]]) if len(enough) > self.opened else 0)
        if not any(buckets):
            buckets = []
        return {**found, "buckets": buckets, "rows": counts, "left": left}


@dataclass(frozen=True)
class AllCategories(FrequentCategories):
    """The categories of each column over all clients, all of them, found from sums alone.

    Args:
        names: columns of text or numbers, of some 4,000 categories at most.
    """

    minimum: int = 1

    opened: ClassVar[int] = 2048

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return what `FrequentCategories` returns.

        Raises:
            DataError: a value is too long to be found from sums.
        """
        with at_client(data.id):
            for name in self.names:
                _, values = as_categories(as_frame(data.train.x), name)
                if any(len(_bytes_of(value)) > _LONGEST_BYTES for value in values):
                    raise DataError(
                        f'column "{name}" has values of more than {_LONGEST_BYTES} bytes, which cannot be found under '
                        "a mask; declare its categories, or leave it out."
                    )
        return super().client(model, task, data, kept, seed)

    def found(self, state: Estimating) -> list[list[Value]]:
        """Return the categories of each column, in an order that no client decides.

        Raises:
            DataError: a column has more of them than can be found.
        """
        frequent = self.fitted(state)
        for name, each in frequent.items():
            if each.unnamed_at_most:
                raise DataError(
                    f'column "{name}" has more categories than can be found under a mask; declare them, or leave the '
                    "column out."
                )
        return [in_order(set(frequent[name].counts)) for name in self.names]


def _values(
    data: ClientData, names: Sequence[str], known: Sequence[Sequence[Value]]
) -> Iterator[tuple[list[Value], NDArray[np.int64]]]:
    """Yield the values of each column that are not known yet and not too long, and how many rows have each."""
    with at_client(data.id):
        frame = as_frame(data.train.x)
    for name, named in zip(names, known, strict=True):
        with at_client(data.id):
            codes, values = as_categories(frame, name)
        counts = np.bincount(codes[codes >= 0], minlength=len(values))
        left = set(values) - set(named)
        kept = [i for i, v in enumerate(values) if v in left and len(_bytes_of(v)) <= _LONGEST_BYTES]
        yield [values[i] for i in kept], counts[kept]


def _bytes_of(value: Value) -> bytes:
    kind = "s" if isinstance(value, str) else "f" if isinstance(value, float) else "i"
    return f"{kind}{value}".encode("utf-8", "surrogatepass")


def _value_of(spelt: bytes) -> Value:
    text = spelt[1:].decode("utf-8", "surrogatepass")
    return {"s": str, "f": float, "i": int}[chr(spelt[0])](text)


def _digest(spelt: bytes, hash: int) -> bytes:
    return hashlib.blake2b(spelt, digest_size=_DIGEST_BYTES, salt=hash.to_bytes(8, "big")).digest()


def _bucket(spelt: bytes, hash: int) -> int:
    return int.from_bytes(_digest(spelt, hash)[:4], "big") % BUCKETS


def _payload(spelt: bytes) -> NDArray[np.int64]:
    # A digest that has no part in the choice of the bucket.
    check = hashlib.blake2b(spelt, digest_size=_CHECK_BYTES).digest()
    return np.frombuffer((check + spelt).ljust(_WIDTH, b"\0"), np.uint8).astype(np.int64)


def _read(sums: NDArray[np.int64], hash: int) -> Value | None:
    """Return the one value of which these are the rows and the sums of bytes; None where there are several."""
    rows, sums = int(sums[0]), sums[1:]
    payload = sums // rows
    if np.any(payload * rows != sums) or payload.max() > 255:
        return None
    spelt = payload[_CHECK_BYTES:].astype(np.uint8).tobytes().rstrip(b"\0")
    if not np.array_equal(_payload(spelt), payload):
        return None
    try:
        return _value_of(spelt)
    except (UnicodeDecodeError, ValueError, KeyError, IndexError):
        return None
