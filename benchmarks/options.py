"""How the benchmarks read what is asked of them on the command line."""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any


def several(
    what: str, known: Iterable[str], aliases: Mapping[str, str] | None = None
) -> Callable[[str], list[str]]:
    """Return what reads names with commas between them; "all" is all of the known ones.

    Args:
        what: what they are names of, in the singular.
        known: those that there are.
        aliases: other name → name.
    """
    names = {name.lower(): name for name in known}
    others = {**names, **(aliases or {})}

    def read(text: str) -> list[str]:
        asked = [word.strip() for word in text.split(",")]
        if asked == ["all"]:
            return list(names.values())
        for name in asked:
            if name.lower() not in others:
                raise argparse.ArgumentTypeError(
                    f'there is no {what} "{name}"; known: {", ".join(names.values())}, or all'
                )
        return [others[name.lower()] for name in asked]

    return read


def listed(text: str) -> list[str]:
    """Read words with commas between them."""
    return [word.strip() for word in text.split(",")]


def figures(text: str) -> tuple[Path, Any]:
    """Read the path of a file of figures, and what it holds."""
    path = Path(text)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise argparse.ArgumentTypeError(f'"{path}" cannot be read: {error.strerror}') from None
    except ValueError as error:
        raise argparse.ArgumentTypeError(f'"{path}" holds no figures: {error}') from None
    if not isinstance(content, dict) or "benchmark" not in content:
        raise argparse.ArgumentTypeError(f'"{path}" was not written by a benchmark')
    return path, content
