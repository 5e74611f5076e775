"""Passwords in URLs: a job is kept and travels, so it names the environment variable that holds one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_plus

from fedpact.core.errors import ConfigError

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""How a setting names an environment variable: ${NAME}."""

_BEFORE_HOST = re.compile(r"://[^:/]*:([^@]*)@")
_IN_QUERY = re.compile(r"(?:password|passwd|pwd|passphrase|secret|token)\s*=\s*([^&;]*)", re.IGNORECASE)


def holds_password(url: str) -> bool:
    """Return whether a URL holds a password itself.

    >>> holds_password("postgresql://ward:tulip@db.lyon.example/stays")
    True
    >>> holds_password("postgresql://ward:${WARD_PASSWORD}@db.lyon.example/stays")
    False
    """
    if "://" not in url:
        return False
    settings = unquote_plus(url.partition("?")[2])
    found = _BEFORE_HOST.findall(url) + _IN_QUERY.findall(settings)
    return any(password and not VARIABLE.fullmatch(password) for password in found)


def refuse_passwords(settings: Any, where: str) -> None:
    """Refuse plain data with a URL in it that holds a password.

    Args:
        settings: text, or mappings and lists of it.
        where: what it is, for the message.

    Raises:
        ConfigError: there is one; where it is is said, and it is not.
    """
    if isinstance(settings, str) and holds_password(settings):
        raise ConfigError(
            f"{where} holds a password, and a job is kept with every run and goes to others: write ${{NAME}} in its "
            "place, and set the environment variable NAME where the rows are read."
        )
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            refuse_passwords(value, f"{where}.{key}")
    elif isinstance(settings, list | tuple):
        for value in settings:
            refuse_passwords(value, where)
