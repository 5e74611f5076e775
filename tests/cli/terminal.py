"""What the tests of the command line share: a job file, the command as a process, and as a call."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from fedpact.cli import app

JOB = """
name = "tumours"
rounds = 3

[data]
name = "breast_cancer"

[model]
name = "Logistic"

[algorithm]
name = "FedAvg"
lr = 0.1

[[preprocess]]
name = "Standardize"
"""


def job_file(folder: Path, text: str = JOB) -> Path:
    path = folder / "job.toml"
    path.write_text(text, encoding="utf-8")
    return path


def call(*words: str | Path) -> Any:
    """Run a command in this process; its exit code, standard output and standard error are apart."""
    return CliRunner().invoke(app, [str(word) for word in words])


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", **more}


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "fedpact", *map(str, words)]


def said(text: str) -> str:
    """Return what stands in a message, without the frame and the line breaks of a terminal."""
    return " ".join(text.replace("│", " ").split())


def process(*words: str | Path, cwd: Path | None = None, **more: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in a process of its own."""
    return subprocess.run(
        command(*words), cwd=cwd, env=environment(**more), capture_output=True, text=True, check=False
    )
