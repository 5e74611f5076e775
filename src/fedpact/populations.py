"""Populations of many clients, of which a run loads only those that it asks.

`arrays`, `parquet`, `sqlite`, `folder` and `function` make one; `fp.train` takes it as its clients.
"""

from typing import Any

from fedpact.data.populations import POPULATIONS


def __getattr__(name: str) -> Any:
    if name in POPULATIONS:
        return POPULATIONS[name]
    from fedpact.core.errors import suggest

    raise AttributeError(
        f'there is no population "{name}".{suggest(name, POPULATIONS)} Known: {", ".join(POPULATIONS)}.'
    )


def __dir__() -> list[str]:
    return sorted(POPULATIONS)
