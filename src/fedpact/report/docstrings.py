"""What a class says about itself: its first sentence, and what its docstring says of each setting."""

import inspect
import re

_ARGUMENT = re.compile(r"^    (\w+): (.*)$")


def first_sentence(cls: type) -> str:
    """Return the first paragraph of a docstring, on one line, up to the end of its first sentence."""
    paragraph = " ".join((cls.__doc__ or "").strip().split("\n\n")[0].split())
    end = re.search(r"\.(?= [A-Z])|\.$", paragraph)
    return paragraph[: end.end()] if end else paragraph


def settings(cls: type) -> dict[str, str]:
    """Return what the "Args:" of a class and of its bases say: name → text; a class's own text comes first."""
    found: dict[str, str] = {}
    for each in reversed(cls.__mro__):
        if each is not object and each.__doc__:
            found |= _arguments(inspect.cleandoc(each.__doc__))
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
