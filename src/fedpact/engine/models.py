"""From what a user calls a model to a model's specification, and between specifications and plain data."""

import copy
import sys
from pathlib import Path
from typing import Any

from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.one_shot import OneShot
from fedpact.core.errors import ModelError
from fedpact.core.registry import Spec
from fedpact.core.vector import Vector
from fedpact.learn import MODELS
from fedpact.learn.naive_bayes import GaussianNB, MultinomialNB
from fedpact.store.modelfile import read_weights


def model_of(model: Any) -> Any:
    """Return the specification of a model: one of `fp.models`, a torch.nn.Module, or a scikit-learn estimator.

    Raises:
        ModelError: it is none of these.
        ConfigError: it is a specification as plain data, with a wrong name or setting.
    """
    if isinstance(model, type):
        raise ModelError(f"{model.__name__} is a class; give an instance of it: {model.__name__}(...).")
    if hasattr(model, "build"):
        return model
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(model, torch.nn.Module):
        from fedpact.learn.torch import Torch

        return Torch(model)
    if hasattr(model, "get_params") and hasattr(model, "fit"):
        from fedpact.learn.sklearn import from_estimator

        return from_estimator(model)
    if isinstance(model, str | dict):
        return build_model({"name": model} if isinstance(model, str) else model)
    raise ModelError(
        f"{type(model).__name__} is no model: give one of fp.models ({', '.join(MODELS)}), a torch.nn.Module, "
        "or a linear scikit-learn estimator."
    )


def describe_model(spec: Any) -> Spec:
    """Return a model's specification as plain data; what is code, such as a module, appears as its digest."""
    described: Spec = spec.describe() if hasattr(spec, "describe") else MODELS.describe(spec)
    return described


def build_model(spec: Spec) -> Any:
    """Return the model specification that plain data describe.

    Raises:
        ConfigError: a name or a setting is wrong.
        ModelError: it is a torch module that was given in Python, whose code is not written down.
    """
    if spec.get("name") == "Torch" and "architecture" in spec:
        raise ModelError(
            f"the model is a torch module ({spec['architecture']}) whose code is not written down; give a module "
            "of the same architecture: model=module."
        )
    return MODELS.build(spec)


def rebuild_model(spec: Spec, model: Any = None) -> Any:
    """Return the specification of the model in a file.

    A torch module that is given without a specification is run as the file says: with its precision, and with
    its loss, which decides how outputs become predictions.

    Args:
        spec: the specification that the file holds.
        model: what `model_of` takes, where the file does not hold the model's code.

    Raises:
        ConfigError: a name or a setting is wrong.
        ModelError: the model is none, or is needed and not given.
    """
    if model is None:
        return build_model(spec)
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(model, torch.nn.Module) or spec["name"] != "Torch":
        return model_of(model)
    from fedpact.learn.torch import Torch
    from fedpact.learn.torch_losses import LOSSES

    loss = spec["loss"]
    if isinstance(loss, str) and loss not in LOSSES:
        loss = None
    # Float16 is for GPUs, and here is none that is known of.
    precision: Any = "full" if spec["precision"] == "fp16" else spec["precision"]
    return Torch(model, loss, precision=precision)


def default_algorithm(spec: Any) -> Any:
    """Return the algorithm that a model is trained with if none is named."""
    return OneShot() if isinstance(spec, GaussianNB | MultinomialNB) else FedAvg()


def starting_from(model: Any, weights: Vector) -> Any:
    """Return the model with other weights to start from."""
    started = copy.copy(model)
    started.initial = lambda seed: weights.copy()
    return started


def read_model_weights(path: str | Path, model: Any) -> Vector:
    """Return the weights in a file for a model; the file may not have other values for its frozen parameters.

    Raises:
        ModelError: the file is missing or damaged, or does not fit the model.
        DependencyError: it is a torch file, and torch is not installed.
    """
    return read_weights(path, model.layout, getattr(model, "frozen", None))
