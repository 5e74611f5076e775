"""Clients in one Arrow or Parquet file, or a folder of such files, told apart by a column."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import DataError
from fedpact.core.rows import Rows
from fedpact.data.populations.arrow import columns_of, open_batches
from fedpact.data.populations.names import Listed
from fedpact.data.populations.tabular import Asked, Block, Index, Tabular
from fedpact.data.tables import check_labels

if TYPE_CHECKING:
    import pyarrow as pa


class Parquet(Tabular):
    """A population in one table, read through a memory map: only the rows of the clients asked are touched.

    Any order of the rows will do; clients whose rows lie together are read fastest. An Arrow file (.arrow, .feather)
    without compression is mapped as it is. A compressed one, and Parquet, is decoded once into a temporary file
    (in `TMPDIR`), which goes with the process. What is kept in memory is a few bytes for each row.

    The features are a table. A single feature column of fixed-size lists or tensors is an array [n, ...] instead,
    and so may the labels be [n, positions].

    Args:
        path: the file (.parquet, .pq, .arrow, .feather, .ipc), or a folder of such files.
        client: the column that says whose row it is, of text or whole numbers; it is no feature.
        label: the column of the labels.
        columns: the feature columns to keep, in this order; all by default.
        test: the share of each client's rows that become its test rows, drawn as `fp.by_column` draws them, or the
            name of a column that marks test rows with true or 1.
        seed: picks the test rows.
        stratify: keep each class's share.
        classes: the classes of the labels, () where these are numbers to predict; by default all labels are
            looked through once.

    Raises:
        DataError: no such file or column, a row without a client or a label, or a client without training rows.
        ConfigError: a share outside [0, 1), or a column that is a feature and something else.
        DependencyError: pyarrow is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        client: str,
        label: str,
        *,
        columns: Sequence[str] | None = None,
        test: float | str = 0.0,
        seed: int = 0,
        stratify: bool = True,
        classes: Sequence[Any] | None = None,
    ) -> None:
        asked = Asked(client, label, columns, test, seed, stratify, classes)

        def wanted(names: Sequence[str]) -> list[str]:
            return [asked.client, *asked.needed(names)]

        self._batches = open_batches(Path(path), lambda file, schema: columns_of(file, schema, wanted))
        self._path = path
        self._features = asked.features(self._batches.schema.names)
        if not self._batches.parts:
            raise DataError(f"{path} has no rows.")
        self._check_columns(asked)
        index, self._starts, self._order = self._find_clients(asked)
        self._batches.maps.hand_back()
        self.reads = asked.reads(parquet=os.fspath(path))
        super().__init__(asked, index, path=path)

    def _block(self, places: Sequence[int]) -> Block:
        import pyarrow as pa

        if self._order is None or len(places) == 1:
            pieces = [piece for place in places for piece in self._pieces(place)]
            return self._as_block(pa.Table.from_batches(pieces))
        # Scattered rows of many clients are taken from each batch at once, and then put in the clients' order.
        rows = np.concatenate([self._order[self._span(place)] for place in places])
        self._batches.maps.read(len(rows) * self._batches.row_bytes, len(places))
        ascending = np.argsort(rows, kind="stable")
        table = pa.Table.from_batches(self._batches.at(rows[ascending]))
        return self._as_block(table.take(pa.array(np.argsort(ascending))))

    def _label_block(self, place: int) -> NDArray[Any]:
        import pyarrow as pa

        pieces = [piece.column(self._asked.label) for piece in self._pieces(place)]
        return _values(pa.chunked_array(pieces))

    def _all_labels(self) -> Iterable[NDArray[Any]]:
        import pyarrow.compute as pc

        labels = self._batches.column(self._asked.label)
        if _is_tensor(labels.type):
            return (_tensor(chunk) for chunk in labels.chunks)
        return (_values(pc.unique(labels)),)

    def _example(self) -> Rows:
        import pyarrow as pa

        names = self._asked.needed(self._batches.schema.names)
        return self._as_block(
            pa.table({name: _first_value(self._batches.column(name)) for name in names})
        ).rows

    def _pieces(self, place: int) -> Iterator[pa.RecordBatch]:
        span = self._span(place)
        self._batches.maps.read((span.stop - span.start) * self._batches.row_bytes)
        if self._order is not None:
            return self._batches.at(self._order[span])
        return self._batches.between(span.start, span.stop)

    def _span(self, place: int) -> slice:
        first = int(self._starts[place])
        return slice(first, first + int(self._index.rows[place]))

    def _as_block(self, table: pa.Table) -> Block:
        rows = Rows(self._examples(table), _values(table.column(self._asked.label)))
        mark = self._asked.mark
        return Block(rows, None if mark is None else _values(table.column(mark)) != 0)

    def _examples(self, table: pa.Table) -> Any:
        if _is_tensor(table.schema.field(self._features[0]).type):
            return _tensor(table.column(self._features[0]).combine_chunks())
        frame = table.select(self._features).to_pandas(ignore_metadata=True, use_threads=False)
        # Every client's column is of the type that it would have in the whole table.
        other = {name: dtype for name, dtype in self._gaps.items() if frame[name].dtype != dtype}
        return frame.astype(other) if other else frame

    def _check_columns(self, asked: Asked) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        fields = {name: self._batches.schema.field(name).type for name in self._batches.schema.names}
        tensors = [name for name in self._features if _is_tensor(fields[name])]
        if tensors and len(self._features) > 1:
            raise DataError(
                f'column "{tensors[0]}" of {self._path} holds arrays, which cannot stand beside other features; name '
                f'it alone: columns=["{tensors[0]}"].'
            )
        for name in tensors:
            if self._batches.column(name).null_count:
                raise DataError(f'column "{name}" of {self._path} has rows without an array; leave them out.')
        labels = self._batches.column(asked.label)
        missing = pc.is_null(labels, nan_is_null=not _is_tensor(labels.type))
        check_labels(str(self._path), missing.to_numpy(), f'column "{asked.label}"')
        if asked.mark:
            marks = self._batches.column(asked.mark)
            if marks.null_count or not (pa.types.is_boolean(marks.type) or pa.types.is_integer(marks.type)):
                raise DataError(
                    f'column "{asked.mark}" of {self._path} must mark test rows with true or 1 and all others with '
                    "false or 0."
                )
        with_gaps = [name for name in self._features if self._batches.column(name).null_count]
        self._gaps = {
            **{name: "float64" for name in with_gaps if pa.types.is_integer(fields[name])},
            **{name: "object" for name in with_gaps if pa.types.is_boolean(fields[name])},
        }

    def _find_clients(self, asked: Asked) -> tuple[Index, NDArray[np.int64], NDArray[np.integer[Any]] | None]:
        """Return whose rows there are, where each client's begin, and in which order (None: as they are)."""
        codes, found = self._codes(asked.client)
        names, order = Listed.of(found)
        if order is not None:
            codes = np.argsort(order).astype(codes.dtype)[codes]
        counts = np.bincount(codes, minlength=len(names))
        tests = None
        if asked.mark:
            marked = _values(self._batches.column(asked.mark)) != 0
            tests = np.bincount(codes[marked], minlength=len(names))
        index = Index(names, counts, tests)
        begins = np.concatenate([[0], np.flatnonzero(codes[1:] != codes[:-1]) + 1])
        if len(begins) == len(names):
            starts = np.empty(len(names), np.int64)
            starts[codes[begins]] = begins
            return index, starts, None
        rows = np.argsort(codes, kind="stable")
        small = len(rows) <= np.iinfo(np.uint32).max
        return index, np.cumsum(counts) - counts, rows.astype(np.uint32) if small else rows

    def _codes(self, client: str) -> tuple[NDArray[np.integer[Any]], list[str]]:
        """Return the number of each row's client, and the clients' names."""
        import pyarrow as pa

        column = self._batches.column(client)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        if not (is_text or pa.types.is_integer(column.type)):
            raise DataError(
                f'column "{client}" of {self._path} says whose row it is, and holds {column.type}; give text or '
                "whole numbers."
            )
        if column.null_count:
            row = column.is_null().index(True).as_py() + 1
            raise DataError(
                f'column "{client}" of {self._path} says whose row it is, and is missing in {column.null_count} '
                f"row(s), first in row {row}: fill them in or leave these rows out."
            )
        encoded = column.dictionary_encode()
        codes = np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks])
        return codes, encoded.chunk(0).dictionary.cast(pa.string()).to_pylist()


def _first_value(column: pa.ChunkedArray) -> pa.Array:
    for chunk in column.chunks:
        if chunk.null_count < len(chunk):
            return chunk.slice(chunk.is_valid().index(True).as_py(), 1)
    return column.chunk(0).slice(0, 1)


def _values(column: pa.ChunkedArray | pa.Array) -> NDArray[Any]:
    import pyarrow as pa

    if _is_tensor(column.type):
        return _tensor(column.combine_chunks())
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if any(is_text(column.type) for is_text in (pa.types.is_string, pa.types.is_large_string)):
        return np.array(column.to_pylist())
    return column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy()


def _is_tensor(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_fixed_size_list(kind) or isinstance(kind, pa.FixedShapeTensorType)


def _tensor(array: pa.Array) -> NDArray[Any]:
    """Return fixed-size lists [n, ...] without copying them; nested ones have an axis for each level."""
    import pyarrow as pa

    shape: list[int] = []
    if isinstance(array.type, pa.FixedShapeTensorType):
        shape, array = list(array.type.shape), array.storage
        return array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), *shape)
    rows = len(array)
    while pa.types.is_fixed_size_list(array.type):
        shape.append(array.type.list_size)
        array = array.flatten()
    return array.to_numpy(zero_copy_only=False).reshape(rows, *shape)
