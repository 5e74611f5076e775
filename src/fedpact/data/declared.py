"""Rows as a schema declares them: in its units and of its kinds, without what only names a row or a group of rows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from fedpact.core.rows import ClientData, Rows
from fedpact.data.chunked import ChunkedRows
from fedpact.data.preprocess.columns import as_frame, column
from fedpact.data.table_schema import TableSchema
from fedpact.data.wording import at_client


def as_declared(schema: TableSchema, schemas: Mapping[str, TableSchema], data: ClientData) -> ClientData:
    """Return a client whose tables have the features of a schema, in its order and units; arrays stay as they are.

    What the schema calls categories are categories, though they be written as numbers. Columns of ids and groups are
    no features.

    Args:
        schema: what a job declares.
        schemas: client → what it knows of its own table, such as units; of others columns are in the schema's.
        data: the client.

    Raises:
        ConfigError: nothing says how a unit becomes the one declared.
        DataError: a column is missing, or one to be converted holds no numbers.
    """
    own = schemas.get(data.id)
    if own is not None:
        data = schema.converted(data, own)
    with at_client(data.id, "training"):
        train = _declared(schema, data.train)
    if data.test is None:
        return ClientData(data.id, train)
    with at_client(data.id, "test"):
        return ClientData(data.id, train, _declared(schema, data.test))


def _declared(schema: TableSchema, rows: Rows) -> Rows:
    import pandas as pd

    if isinstance(rows, ChunkedRows):
        return rows.then(partial(_declared, schema))
    if not hasattr(rows.x, "columns") and np.ndim(rows.x) != 2:
        return rows
    frame = as_frame(rows.x)
    features = schema.of_kind("numeric", "category", "ordinal", "date", "text")
    listed = schema.of_kind("category", "ordinal")
    columns = {name: column(frame, name) for name in features}
    columns |= {name: columns[name].astype("category") for name in listed}
    return Rows(pd.DataFrame(columns, index=frame.index, copy=False), rows.y)
