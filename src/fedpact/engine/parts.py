"""The objects that a job is made of, from specifications or as they are, and back."""

from dataclasses import dataclass
from typing import Any

from fedpact.algorithms import ALGORITHMS
from fedpact.channel import TRANSFORMS
from fedpact.channel.transform import Transform
from fedpact.core.algorithm import Algorithm
from fedpact.core.errors import ConfigError
from fedpact.core.model import Kind
from fedpact.core.registry import Registry
from fedpact.data import STEPS
from fedpact.data.preprocess.steps import Step
from fedpact.engine.distilling import ManyModels, describe_algorithm, with_models
from fedpact.engine.models import (
    default_algorithm,
    describe_model,
    model_of,
)
from fedpact.engine.runner import Keep
from fedpact.engine.stop import STOP_RULES, StopRule
from fedpact.learn.class_weight import counts_classes
from fedpact.learn.metrics import check_name


@dataclass(frozen=True)
class Parts:
    """The objects that a job is made of."""

    model: Any
    algorithm: Any
    steps: tuple[Any, ...]
    stages: tuple[Any, ...]
    rules: tuple[Any, ...]

    @classmethod
    def of(cls, model: Any, algorithm: Any, preprocess: Any, channel: Any, stop: Any) -> "Parts":
        """Build those that are given as specifications, and take the others as they are.

        Args:
            model: what `model_of` takes.
            algorithm: the algorithm; None for the model's own.
            preprocess: one step or several.
            channel: one stage or several.
            stop: one rule or several.

        Raises:
            ConfigError: a name or a setting is wrong.
            ModelError: the model is none.
        """
        spec = model_of(model)
        return cls(
            spec,
            default_algorithm(spec)
            if algorithm is None
            else with_models(_built(ALGORITHMS, Algorithm, algorithm)),
            _all_built(STEPS, Step, preprocess),
            _all_built(TRANSFORMS, Transform, channel),
            _all_built(STOP_RULES, StopRule, stop),
        )

    def specs(self) -> dict[str, Any]:
        """Return the settings of a job that these are, all written out."""
        return {
            "model": describe_model(self.model),
            "algorithm": describe_algorithm(self.algorithm),
            "preprocess": [STEPS.describe(step) for step in self.steps],
            "channel": [TRANSFORMS.describe(stage) for stage in self.stages],
            "stop": [STOP_RULES.describe(rule) for rule in self.rules],
        }

    @property
    def counts_classes(self) -> bool:
        """Whether a model, the job's or a client's own, needs the number of training rows of each class."""
        own = self.algorithm.models.values() if isinstance(self.algorithm, ManyModels) else ()
        return any(map(counts_classes, (self.model, *own)))

    def check_metrics(self, kind: Kind, keep: Keep, evaluate_every: int, rounds: int) -> None:
        """Refuse to wait for a metric that no round will have.

        Raises:
            ConfigError: a stop rule or `keep` names a metric of another kind of model, or there is no
                evaluation after a round.
        """
        named = [*(getattr(rule, "metric", None) for rule in self.rules), keep.best]
        for metric in [name for name in named if name not in (None, "train_loss")]:
            check_name(metric, kind)
            if not 1 <= evaluate_every <= rounds:
                raise ConfigError(
                    f"{metric} is looked at after every round, but evaluate_every={evaluate_every} evaluates after the "
                    f"last one only; set evaluate_every to between 1 and {rounds}."
                )


def _built(registry: Registry, protocol: Any, part: Any) -> Any:
    if isinstance(part, type):
        raise ConfigError(f"{part.__name__} is a class; give an instance of it: {part.__name__}().")
    built = registry.build(part) if isinstance(part, str | dict) else part
    for name in vars(protocol):
        if not name.startswith("_") and not hasattr(built, name):
            raise ConfigError(
                f'{type(built).__name__} is no {registry.what}: it has no "{name}". '
                f"Known: {', '.join(sorted(registry))}."
            )
    return built


def _all_built(registry: Registry, protocol: Any, parts: Any) -> tuple[Any, ...]:
    listed = parts if isinstance(parts, list | tuple) else [] if parts is None else [parts]
    return tuple(_built(registry, protocol, part) for part in listed)
