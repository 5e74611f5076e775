"""A finished run, read from its folder for a report: all but the code of its model."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fedpact.core.errors import ConfigError, ModelError
from fedpact.core.model import Schema
from fedpact.core.vector import Layout
from fedpact.engine.folder import RunFolder
from fedpact.engine.result import Result
from fedpact.engine.words import many
from fedpact.store.checkpoint import Checkpoints
from fedpact.store.tensors import TensorFile, TensorFileError


def load_run(folder: str | Path) -> Result:
    """Return the result in a run's folder; it cannot predict, so neither torch nor the model's code is needed.

    Raises:
        ConfigError: there is no run, or it has not finished.
        ModelError: the result cannot be read.
    """
    check_finished(folder)
    return Result.load(folder, model=_Codeless(_layout(Path(folder) / "model.safetensors")))


def check_finished(folder: str | Path) -> None:
    """Refuse a folder without a finished run.

    Raises:
        ConfigError: there is no such folder, no run in it, or one that has not finished.
    """
    folder = Path(folder)
    if not folder.exists():
        raise ConfigError(f'there is no run folder "{folder}".')
    if not folder.is_dir():
        raise ConfigError(f'"{folder}" is a file; name the folder of a run, such as runs/heart-1a2b3c4d.')
    if (folder / "result.json").exists():
        return
    if not (folder / "job.json").exists():
        raise ConfigError(f'"{folder}" is no run folder: it has neither a job.json nor a result.json.')
    run = RunFolder(folder)
    done = (Checkpoints(run.checkpoints).rounds() or [0])[-1]
    raise ConfigError(
        f'the run in "{folder}" has not finished: {done} of {many(run.read_job().rounds, "round")} '
        f"{'is' if done == 1 else 'are'} done. Resume it with the job that it was started with: "
        f'fedpact run JOB.toml --resume --folder "{folder}".'
    )


def _layout(path: Path) -> Layout:
    try:
        with TensorFile(path) as file:
            return Layout(tuple(file.entries.values()))
    except TensorFileError as error:
        raise ModelError(f'model file "{path}" {error}') from None


@dataclass(frozen=True)
class _Codeless:
    """A specification that needs no code: the model it builds has a layout, and nothing to compute with."""

    layout: Layout

    def build(self, schema: Schema) -> Any:
        return SimpleNamespace(schema=schema, layout=self.layout)
