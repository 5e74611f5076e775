"""Back ends for many clients: each a file and a class that finds one client's rows without reading the others'.

What they have in common, and what they may know besides, is in `fedpact.engine.population`.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any


class _BackEnds(Mapping[str, Any]):
    """Name → class, imported when it is asked for."""

    _homes: Mapping[str, str] = {
        "arrays": "fedpact.data.populations.arrays:Arrays",
        "parquet": "fedpact.data.populations.parquet:Parquet",
        "sqlite": "fedpact.data.populations.sqlite:SQLite",
        "folder": "fedpact.data.populations.folder:Folder",
        "function": "fedpact.data.populations.function:Function",
    }

    def __getitem__(self, name: str) -> Any:
        module, _, attribute = self._homes[name].partition(":")
        return getattr(import_module(module), attribute)

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)


POPULATIONS: Mapping[str, Any] = _BackEnds()
