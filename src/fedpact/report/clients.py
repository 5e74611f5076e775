"""What a table of a run's clients holds, on a page or in a terminal."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedpact.engine import words
from fedpact.engine.result import Result
from fedpact.learn.metrics import LARGER_IS_BETTER

if TYPE_CHECKING:
    import pandas as pd

_METRICS = ("accuracy", "auc", "log_loss", "rmse", "r2")
_COUNTS = {"train_rows": "training rows", "test_rows": "held out", "rounds": "rounds", "failures": "failures"}


@dataclass(frozen=True)
class ClientTable:
    """What each client did and how well it is served; of many, those served worst.

    Args:
        clients: the clients to show, as `Result.clients` has them.
        metrics: those of their metrics that are shown.
        note: how many are not shown; empty if all are.
    """

    clients: "pd.DataFrame"
    metrics: tuple[str, ...]
    note: str

    @classmethod
    def of(cls, result: Result, limit: int, many: int | None = None) -> "ClientTable":
        """Return the table of a run.

        Args:
            result: the run.
            limit: how many clients are shown of many.
            many: above how many some are left out; `limit` if None.
        """
        clients = result.clients
        shown = tuple(name for name in _METRICS if name in clients.columns and clients[name].notna().any())
        if len(clients) <= (limit if many is None else many):
            return cls(clients, shown, "")
        if shown:
            clients = clients.sort_values(shown[0], ascending=LARGER_IS_BETTER[shown[0]])
        which = "worst served" if shown else "first"
        note = f"The {limit} {which} of {len(clients):,} clients; clients.csv has all of them."
        return cls(clients.head(limit), shown, note)

    @property
    def head(self) -> list[str]:
        """The columns' names."""
        return ["client", *_COUNTS.values(), "time", "sent", *map(words.label, self.metrics)]

    def rows(self, score: Callable[[str, float], str] = words.score) -> Iterator[list[str]]:
        """Yield the cells of each client.

        Args:
            score: how a metric's value is written, from its name and the value.
        """
        for id, row in self.clients.iterrows():
            yield [
                str(id),
                *(words.number(row[name]) for name in _COUNTS),
                words.duration(row["seconds"]),
                words.size(row["upload_bytes"]),
                *(score(name, row[name]) for name in self.metrics),
            ]
