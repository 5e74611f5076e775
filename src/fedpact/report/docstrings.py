"""What a class or function says about itself: its first sentence, and what its docstring says of each setting."""

import inspect
import re
from typing import Any

_ARGUMENT = re.compile(r"^    (\w+): (.*)$")


def first_sentence(thing: Any) -> str:
    """Return the first sentence of the docstring of a class or function, on one line."""
    paragraph = " ".join((thing.__doc__ or "").strip().split("\n\n")[0].split())
    end = re.search(r"\.(?= [A-Z])|\.$", paragraph)
    return paragraph[: end.end()] if end else paragraph


def settings(thing: Any) -> dict[str, str]:
    """Return what the "Args:" of a class and its bases, or of a function, say: name → text.

    What a class says itself goes before what its bases say.
    """
    documented = reversed(thing.__mro__[:-1]) if isinstance(thing, type) else [thing]
    found: dict[str, str] = {}
    for each in documented:
        found |= _arguments(inspect.cleandoc(each.__doc__ or ""))
    return found


def _arguments(docstring: str) -> dict[str, str]:
    found: dict[str, str] = {}
    name, inside = "", False
    for line in docstring.splitlines():
        if not line.startswith(" "):
            inside = line == "Args:" or (inside and not line)
        elif inside and (match := _ARGUMENT.match(line)):
            name, found[match[1]] = match[1], match[2]
        elif inside and name:
            found[name] += " " + line.strip()
    return found
