"""A job as TOML, to be read, kept and run again."""

import json
import re
from collections.abc import Mapping
from typing import Any

from fedpact.algorithms import ALGORITHMS
from fedpact.channel import TRANSFORMS
from fedpact.core.job import Job
from fedpact.core.registry import Registry
from fedpact.data import STEPS
from fedpact.engine.stop import STOP_RULES
from fedpact.learn import MODELS

_PARTS = {
    "model": MODELS,
    "algorithm": ALGORITHMS,
    "preprocess": STEPS,
    "channel": TRANSFORMS,
    "stop": STOP_RULES,
}
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def job_toml(job: Job) -> str:
    """Return the job as TOML that `Job.from_toml` reads back to the same digest.

    Settings of the job that have their default are left out, and so are those of its parts that have None for one.
    None, which TOML has no word for, is else "none".
    """
    settings = job.model_dump(mode="json", exclude_defaults=True)
    for key, registry in _PARTS.items():
        listed = settings.get(key, [])
        for part in listed if isinstance(listed, list) else [listed]:
            _leave_out_none(registry, part)
    top = {key: value for key, value in settings.items() if not _is_section(value)}
    blocks = [_lines(top)]
    for key, value in settings.items():
        if isinstance(value, dict):
            blocks.append([f"[{_key(key)}]", *_lines(value)])
        elif _is_section(value):
            blocks += [[f"[[{_key(key)}]]", *_lines(each)] for each in value]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _leave_out_none(registry: Registry, part: dict[str, Any]) -> None:
    name = part.get("name", "")
    for setting in [setting for setting, value in part.items() if value is None]:
        # As "none" it would be a text where texts are allowed too.
        if registry.may_be_left_out(name, setting, None):
            del part[setting]


def _is_section(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _lines(table: Mapping[str, Any]) -> list[str]:
    return [f"{_key(key)} = {_value(value)}" for key, value in table.items()]


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _text(key)


def _value(value: Any) -> str:
    if value is None:
        return '"none"'
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_key(key)} = {_value(each)}" for key, each in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(each) for each in value)}]"
    # Numbers and truth values are written alike in JSON and TOML.
    return json.dumps(value)


def _text(text: str) -> str:
    # JSON escapes all that a basic string of TOML must, but for one control character.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
