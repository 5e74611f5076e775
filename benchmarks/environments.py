"""The peers' environments: one for each, made on demand with the installation that works."""

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmarks.contestants import Contestant

_LIBRARIES = ("torch", "jax", "tensorflow", "numpy", "ray")


class UnavailableError(Exception):
    """A peer cannot be run here; the message says why, in a sentence."""


@dataclass(frozen=True)
class Recipe:
    """How a peer is installed.

    Args:
        packages: what pip is asked for.
        without_needs: what it is asked for after that, with none of what these packages require.
        only_python: the only version of Python that the peer runs on; None for any that Fedpact runs on.
    """

    packages: Sequence[str]
    without_needs: Sequence[str] = ()
    only_python: str | None = None


def recipes() -> Mapping[str, Recipe]:
    """Return how each peer is installed; those that run torch get the version that Fedpact runs with here."""
    torch = f"torch=={metadata.version('torch').partition('+')[0]}"
    return {
        "pfl": Recipe(["pfl[pytorch]==0.6.0", torch]),
        "flower": Recipe(["flwr[simulation]==1.41.0", torch]),
        "fedjax": Recipe(["fedjax==0.0.17"]),
        "nvflare": Recipe(["nvflare==2.9.0", "tensorboard", torch]),
        # TensorFlow Federated asks for a jaxlib that is gone, so its other needs come first, by name.
        "tff": Recipe(
            [
                "attrs~=23.1",
                "cachetools~=5.3",
                "dm-tree==0.1.8",
                "dp-accounting==0.4.3",
                "google-vizier==0.1.11",
                "googleapis-common-protos==1.61.0",
                "grpcio",
                "jax==0.4.18",
                "jaxlib==0.4.18",
                "ml-dtypes==0.2.*",
                "numpy~=1.25",
                "portpicker~=1.6",
                "scipy~=1.9.3",
                "tensorflow==2.14.*",
                "tensorflow-model-optimization==0.7.5",
                "tensorflow-privacy==0.9.0",
                "tqdm~=4.64",
            ],
            without_needs=["tensorflow-federated==0.87.0"],
            only_python="3.11",
        ),
    }


@dataclass(frozen=True)
class Environment:
    """An installed contestant.

    Args:
        python: the interpreter to run it with.
        versions: what is installed there: library → version.
    """

    python: Path
    versions: Mapping[str, str]


def environment(contestant: Contestant, folder: Path) -> Environment:
    """Return a contestant's environment: this one, or that of its peer, which is made if it is not there.

    Args:
        contestant: whose.
        folder: where the peers' environments are, by their names.

    Raises:
        UnavailableError: it cannot be made.
    """
    if contestant.package is None:
        return Environment(Path(sys.executable), _versions(Path(sys.executable), ("fedpact",)))
    place = folder / contestant.name
    python = place / "bin" / "python"
    if not (python.exists() and contestant.package in _versions(python, (contestant.package,))):
        _make(contestant, place)
    return Environment(python, _versions(python, (contestant.package,)))


def _make(contestant: Contestant, place: Path) -> None:
    recipe = recipes()[contestant.name]
    interpreter = _interpreter(contestant, recipe)
    log = place.with_name(f"{contestant.name}.log")
    print(f"{contestant.title}: installing into {place}, once; what pip says is in {log}", flush=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    commands: list[list[str]] = [[interpreter, "-m", "venv", "--clear", str(place)]]
    install = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    commands.append([*install, *recipe.packages])
    if recipe.without_needs:
        commands.append([*install, "--no-deps", *recipe.without_needs])
    with log.open("w", encoding="utf-8") as output:
        for command in commands:
            done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
            if done.returncode:
                raise UnavailableError(
                    f"{contestant.title} cannot be installed: {_last_error(log)} See {log}."
                )


def _interpreter(contestant: Contestant, recipe: Recipe) -> str:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if recipe.only_python in (None, here):
        return sys.executable
    found = shutil.which(f"python{recipe.only_python}")
    if found is None:
        raise UnavailableError(
            f"{contestant.title} runs on Python {recipe.only_python} alone, and there is no "
            f"python{recipe.only_python} here; install one."
        )
    return found


def _last_error(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line for line in lines if line.lower().startswith("error")]
    last = (errors or lines or ["pip failed"])[-1]
    return f"{re.sub('^error: ', '', last, flags=re.IGNORECASE).rstrip('.')}."


def _versions(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of these packages, and of the libraries that matter, in an environment."""
    names = [*packages, *_LIBRARIES]
    code = (
        "import sys\nfrom importlib import metadata\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(name, metadata.version(name))\n"
        "    except metadata.PackageNotFoundError: pass\n"
    )
    done = subprocess.run([str(python), "-c", code, *names], capture_output=True, text=True, check=False)
    return dict(line.split() for line in done.stdout.splitlines())
