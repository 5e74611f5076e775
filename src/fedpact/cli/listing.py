"""`fedpact list` and `fedpact show`: what a job can be made of."""

import dataclasses
import inspect
import types
import typing
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedpact.cli.common import AsJson, Output, grid, one_of

if TYPE_CHECKING:
    from fedpact.core.registry import Registry


class Kind(StrEnum):
    """What can be listed."""

    algorithms = "algorithms"
    datasets = "datasets"
    sources = "sources"
    transforms = "transforms"
    models = "models"
    losses = "losses"
    augmentations = "augmentations"
    optimizers = "optimizers"
    steps = "steps"
    partitions = "partitions"
    stop_rules = "stop-rules"
    metrics = "metrics"


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting of a part: its name, type and default as they are written, and what it is."""

    name: str
    type: str
    default: str
    meaning: str


@dataclasses.dataclass(frozen=True)
class Part:
    """Something that a job can name: its kind, name, first sentence and settings."""

    kind: str
    name: str
    summary: str
    settings: tuple[Setting, ...] = ()


def list_parts(
    kind: Annotated[
        Kind,
        typer.Argument(
            parser=one_of(Kind), metavar="KIND", help=f"One of {', '.join(Kind)}.", show_default=False
        ),
    ],
    verbose: Annotated[bool, typer.Option("--verbose", help="With each one's settings.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what a job can be made of, a line each."""
    parts = [_part(kind, name) for name in _names(kind)]
    output = Output(as_json)
    output.result([dataclasses.asdict(part) for part in parts])
    if not verbose:
        output.show(grid(["name", "what it is"], [[part.name, part.summary] for part in parts], (0, 1)))
        return
    for part in parts:
        _show_part(output, part)


def show(
    name: Annotated[str, typer.Argument(help="Such as FedAvg, Standardize, heart.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Show what a part of a job is, and its settings with their defaults."""
    from fedpact.core.errors import ConfigError, suggest

    kinds = {each: kind for kind in reversed(Kind) for each in _names(kind)}
    found = {each.casefold(): each for each in kinds}.get(name.casefold())
    if found is None:
        raise ConfigError(
            f'there is nothing called "{name}".{suggest(name, kinds)} `fedpact list` and a kind says what there is.'
        )
    part = _part(kinds[found], found)
    output = Output(as_json)
    output.result(dataclasses.asdict(part))
    _show_part(output, part)


def _show_part(output: Output, part: Part) -> None:
    output.show(f"{part.name} ({part.kind})", part.summary)
    if part.settings:
        rows = [[each.name, each.default, each.type, each.meaning] for each in part.settings]
        output.show("", grid(["setting", "default", "type", "what it is"], rows, (0, 1, 2, 3)))
    output.show("")


def _names(kind: Kind) -> list[str]:
    from fedpact.data.datasets import DATASETS
    from fedpact.learn.metrics import LARGER_IS_BETTER

    if kind is Kind.datasets:
        return list(DATASETS)
    return list(LARGER_IS_BETTER if kind is Kind.metrics else _registry(kind))


def _part(kind: Kind, name: str) -> Part:
    if kind is Kind.datasets:
        return _dataset(name)
    return _metric(name) if kind is Kind.metrics else _registered(_registry(kind), name)


def _registry(kind: Kind) -> "Registry":
    from fedpact.algorithms import ALGORITHMS, PARTS
    from fedpact.channel import TRANSFORMS
    from fedpact.data import STEPS
    from fedpact.data.partitions import PARTITIONS
    from fedpact.data.row_sources import ROW_SOURCES
    from fedpact.engine.stop import STOP_RULES
    from fedpact.learn import AUGMENTATIONS, LOSSES, MODELS

    return {
        Kind.algorithms: ALGORITHMS,
        Kind.sources: ROW_SOURCES,
        Kind.transforms: TRANSFORMS,
        Kind.models: MODELS,
        Kind.losses: LOSSES,
        Kind.augmentations: AUGMENTATIONS,
        Kind.optimizers: PARTS,
        Kind.steps: STEPS,
        Kind.partitions: PARTITIONS,
        Kind.stop_rules: STOP_RULES,
    }[kind]


def _registered(registry: "Registry", name: str) -> Part:
    from fedpact.core.errors import DependencyError
    from fedpact.report.docstrings import first_sentence, settings

    try:
        cls = registry.load(name)
    except ImportError as error:
        return Part(registry.what, name, f"(needs {error.name}, which is not installed)")
    except DependencyError as error:
        return Part(registry.what, name, f"({error})")
    about, hints = settings(cls), _types(cls)
    fields = [field for field in dataclasses.fields(cls) if field.init]
    return Part(
        registry.what,
        name,
        first_sentence(cls),
        tuple(
            Setting(each.name, hints[each.name], _default(each), about.get(each.name, "")) for each in fields
        ),
    )


def _dataset(name: str) -> Part:
    from importlib import import_module

    from fedpact.data.datasets import DATASETS, describe
    from fedpact.engine.words import many, size
    from fedpact.report.docstrings import settings

    about = next(each for each in describe() if each.name == name)
    module, function = DATASETS[name].split(":")
    loader = getattr(import_module(module), function)
    meanings, hints = settings(loader), _types(loader)
    options = tuple(
        Setting(each.name, hints[each.name], _spelled(each.default), meanings.get(each.name, ""))
        for each in inspect.signature(loader).parameters.values()
    )
    fetched = f"; downloads {size(about.download_bytes)}" if about.download_bytes else ""
    summary = f"{many(about.clients, 'client')}, {many(about.rows, 'row')}: {about.task}{fetched}"
    return Part("data set", name, summary, options)


def _metric(name: str) -> Part:
    from fedpact.engine.words import METRICS
    from fedpact.learn.metrics import LARGER_IS_BETTER

    better = "higher is better" if LARGER_IS_BETTER[name] else "lower is better"
    return Part(
        "metric", name, f"{METRICS[name].meaning} ({'nearer to 0 is better' if name == 'bias' else better})"
    )


def _default(field: Any) -> str:
    if field.default is not dataclasses.MISSING:
        return _spelled(field.default)
    if field.default_factory is not dataclasses.MISSING:
        return _spelled(field.default_factory())
    return "(required)"


def _spelled(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return "(required)"
    if dataclasses.is_dataclass(value):
        return type(value).__name__
    return (
        {None: "none", True: "true", False: "false"}.get(value, str(value))
        if _is_plain(value)
        else str(value)
    )


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _types(thing: Any) -> dict[str, str]:
    """Return the type of each field of a class, or of each argument of a function, as it is read."""
    try:
        hints = typing.get_type_hints(thing)
    except NameError:
        # A type that is imported for type checkers alone.
        hints = inspect.get_annotations(thing)
    return {name: _type(hint) for name, hint in hints.items()}


def _type(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(f'"{option}"' for option in typing.get_args(hint))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_type(option) for option in typing.get_args(hint))
    if hint is type(None):
        return "none"
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
