"""What of clients' tables does not go together: who, which column, what differs, and how to mend it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fedpact.core.errors import suggest

_SHOWN = 20


class Conflict(NamedTuple):
    """One thing about one column of one client.

    Args:
        client: the client's name.
        column: the column's.
        differs: what differs, in words.
        mend: what to do about it, in words; "" where `differs` says it.
    """

    client: str
    column: str
    differs: str
    mend: str = ""


def in_a_table(title: str, conflicts: Sequence[Conflict], advice: str) -> str:
    """Return conflicts as a table in plain text, the first twenty of them, with words before and behind it."""
    mends = any(conflict.mend for conflict in conflicts)
    head = Conflict("client", "column", "what differs", "suggested mend" if mends else "")
    shown = [head, *conflicts[:_SHOWN]]
    widths = [max(len(row[i]) for row in shown) for i in range(3)]
    lines = []
    for row in shown:
        cells = [f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)]
        lines.append("  " + "  ".join([*cells, row.mend]).rstrip())
    more = len(conflicts) - _SHOWN
    return "\n".join([f"{title}:", *lines, *([f"  and {more} more"] if more > 0 else []), advice])


def lacking(name: str, columns: Mapping[str, Mapping[str, Any]]) -> list[Conflict]:
    """Name the clients that lack a column, or those that have it where these are not the most.

    Args:
        name: the column.
        columns: client → its columns.
    """
    having = [client for client in columns if name in columns[client]]
    without = [client for client in columns if client not in having]
    if len(having) > len(without):
        usual = columns[having[0]].keys()
        return [
            Conflict(client, name, "is missing." + suggest(name, columns[client].keys() - usual))
            for client in without
        ]
    usual = columns[without[0]].keys()
    return [
        Conflict(client, name, "is missing at others." + suggest(name, usual - columns[client].keys()))
        for client in having
    ]
