"""Weights of classes: how much a row of each counts in a model's loss.

"balanced" is scikit-learn's n / (classes · n_c), here from the rows of all clients, after King and Zeng, "Logistic
Regression in Rare Events Data", Political Analysis 2001.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedpact.core.errors import ConfigError, DataError, ModelError, suggest
from fedpact.core.model import Schema
from fedpact.core.settings import number_in
from fedpact.learn.links import Floats

# "balanced"; label → weight, where a label that is not named weighs 1; or None, where each row counts the same.
ClassWeight = str | Mapping[Any, float] | None


def check_class_weight(part: Any, positive: bool = False) -> None:
    """Check a part's setting `class_weight`, and keep labels as text and weights as floats.

    Args:
        part: the part, a frozen dataclass.
        positive: whether a weight of 0 is refused.

    Raises:
        ConfigError: it is neither "balanced" nor weights of labels, or a weight is no number of 0 or more.
    """
    given = part.class_weight
    if given is None or given == "balanced":
        return
    name = type(part).__name__
    if given == "none":
        object.__setattr__(part, "class_weight", None)
    elif not isinstance(given, Mapping) or not given:
        hint = suggest(given, ["balanced"]) if isinstance(given, str) else ""
        raise ConfigError(
            f'{name}: class_weight is {given!r}; it must be "balanced", the weights of labels such as '
            f'{{"no": 1, "yes": 5}}, or None.{hint}'
        )
    else:
        weights = {
            _as_text(label): number_in(part, f'class_weight of "{_as_text(label)}"', weight, positive)
            for label, weight in given.items()
        }
        if len(weights) < len(given):
            raise ConfigError(f"{name}: class_weight names a label twice: {', '.join(map(repr, given))}.")
        if not any(weights.values()):
            raise ConfigError(f"{name}: class_weight is 0 for every label; give one a positive weight.")
        object.__setattr__(part, "class_weight", weights)


def counts_classes(spec: Any) -> bool:
    """Return whether a model cannot be built before all clients' training rows of each class are counted."""
    return bool(getattr(spec, "counts_classes", False))


def weights_of_classes(class_weight: ClassWeight, schema: Schema, name: str) -> Floats | None:
    """Return what a row of each class counts [classes]; None where each counts 1.

    Args:
        class_weight: as `check_class_weight` keeps it.
        schema: the labels, and for "balanced" how many training rows there are of each.
        name: what the user calls the model.

    Raises:
        ConfigError: the labels are numbers to predict, or for "balanced" their rows are not counted.
        DataError: for "balanced", no client has a training row of a class.
        ModelError: a weight is for a label that no row has.
    """
    if class_weight is None:
        return None
    if schema.kind == "regression":
        raise ConfigError(
            f"{name}: class_weight is for labels that are classes, and these are numbers to predict; leave it out."
        )
    if not isinstance(class_weight, str):
        weights = np.ones(len(schema.classes))
        for index, weight in by_index(class_weight, schema.classes).items():
            weights[index] = weight
        return weights
    if not schema.class_counts:
        raise ConfigError(
            f'{name}: class_weight="balanced" needs the number of training rows of each class; give it in the schema, '
            "Schema(..., class_counts=(...))."
        )
    return balanced(schema.class_counts, schema.classes)


def balanced(counts: Sequence[int], classes: Sequence[Any]) -> Floats:
    """Return n / (classes · n_c) of these numbers of rows [classes]: the mean over all rows is 1.

    Raises:
        DataError: a class has no row.
    """
    for label, n in zip(classes, counts, strict=True):
        if not n:
            raise DataError(
                f'no client has a training row of class "{label}", so class_weight="balanced" has no weight for it; '
                "leave the class out, or give weights by label."
            )
    return np.asarray(sum(counts) / (len(counts) * np.asarray(counts, np.float64)))


def by_index(class_weight: Mapping[Any, float], classes: Sequence[Any]) -> dict[int, float]:
    """Return class index → weight, of label → weight; in a job's file a label is the key of a table, and so is text.

    Raises:
        ModelError: a label is no class.
    """
    indexes = {_as_text(label): index for index, label in enumerate(classes)}
    for label in map(_as_text, class_weight):
        if label not in indexes:
            raise ModelError(f'class_weight has "{label}", which is no class.{suggest(label, indexes)}')
    return {indexes[_as_text(label)]: weight for label, weight in class_weight.items()}


def _as_text(label: Any) -> str:
    """Return a label as text; True, 1.0 and 1 are the same class."""
    label = label.item() if isinstance(label, np.generic) else label
    whole = isinstance(label, bool) or (isinstance(label, float) and label.is_integer())
    return str(int(label) if whole else label)
