"""Fedpact: federated learning with the data owner's signature on it.

>>> import fedpact as fp
>>> clients = fp.datasets.breast_cancer()
>>> result = fp.train(
...     fp.models.Logistic(), clients, preprocess=[fp.Standardize()], algorithm=fp.FedAvg(lr=0.1), rounds=3
... )
>>> result.evaluation.metrics["accuracy"] > 0.9
True
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# Everything is imported when it is first asked for, so that `import fedpact` costs nothing.
_HOMES = {
    "fedpact.engine.train": ("train", "run"),
    "fedpact.engine.result": ("Result", "Fitted", "evaluate"),
    "fedpact.engine.runner": ("Keep",),
    "fedpact.engine.population": ("InMemory", "Population"),
    "fedpact.engine.evaluation": ("Evaluation",),
    "fedpact.engine.stop": ("Target", "NoImprovement", "TimeLimit"),
    "fedpact.core.job": ("Job",),
    "fedpact.core.rows": ("ClientData", "Rows"),
    "fedpact.core.errors": ("FedpactError",),
    "fedpact.data.read": ("client", "clients", "by_column"),
    "fedpact.data.federation": ("Federation",),
    "fedpact.data.preprocess.impute": ("Impute",),
    "fedpact.data.preprocess.scale": ("Standardize",),
    "fedpact.data.preprocess.encode": ("OneHot",),
    "fedpact.channel.clip": ("Clip",),
    "fedpact.channel.noise": ("GaussianNoise",),
    "fedpact.algorithms.fedavg": ("FedAvg",),
    "fedpact.algorithms.fedsgd": ("FedSGD",),
    "fedpact.algorithms.fedopt": ("FedAvgM", "FedAdam", "FedYogi", "FedAdagrad"),
    "fedpact.algorithms.fedprox": ("FedProx",),
    "fedpact.algorithms.scaffold": ("SCAFFOLD",),
    "fedpact.algorithms.cyclic": ("Cyclic",),
    "fedpact.algorithms.newton": ("Newton",),
    "fedpact.algorithms.one_shot": ("OneShot",),
    "fedpact.algorithms.optimizers": ("SGD", "EMAMomentum", "Adam", "AdamW", "Adagrad", "Yogi", "RMSprop"),
    "fedpact.algorithms.schedules": (
        "Constant",
        "StepDecay",
        "ExponentialDecay",
        "CosineDecay",
        "PolynomialDecay",
        "InverseDecay",
        "Warmup",
    ),
}
_MODULES = {
    "datasets": "fedpact.data.datasets",
    "models": "fedpact.models",
    "partition": "fedpact.data.partition",
    "metrics": "fedpact.learn.metrics",
    "errors": "fedpact.core.errors",
}
_PLACES = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_MODULES, *_PLACES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    from fedpact.core.errors import suggest

    raise AttributeError(f'fedpact has no "{name}".{suggest(name, __all__)}')


def __dir__() -> list[str]:
    return sorted(__all__)
