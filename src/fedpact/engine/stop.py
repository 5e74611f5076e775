"""When a run ends before its last round. A rule reads the history alone, so a resumed run stops alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Any, Protocol

from fedpact.core.errors import ConfigError
from fedpact.core.registry import Registry
from fedpact.learn.metrics import LARGER_IS_BETTER, check_name

History = Sequence[Mapping[str, Any]]

STOP_RULES = Registry(
    "stop rule",
    {
        "Target": "fedpact.engine.stop:Target",
        "NoImprovement": "fedpact.engine.stop:NoImprovement",
        "TimeLimit": "fedpact.engine.stop:TimeLimit",
    },
)


class StopRule(Protocol):
    """A reason to end a run."""

    def reached(self, history: History) -> str | None:
        """Return why the run ends after the last round of this history, or None if it goes on."""
        ...


@dataclass(frozen=True)
class Target:
    """Stop when a metric, over all held-out rows, is as good as this.

    Args:
        metric: its name, or "train_loss".
        value: the value to reach.
    """

    metric: str
    value: float

    def __post_init__(self) -> None:
        _check(self.metric)

    def reached(self, history: History) -> str | None:
        """Return the reason once the last round's metric has reached the value."""
        present = history[-1].get(self.metric)
        if present is None or isnan(present):
            return None
        if goodness(self.metric, present) >= goodness(self.metric, self.value):
            return f"{self.metric} reached {present:.4g} (target {self.value:g})"
        return None


@dataclass(frozen=True)
class NoImprovement:
    """Stop when a metric has not become better for some rounds; one that is NaN has not.

    Args:
        metric: its name, or "train_loss".
        patience: how many evaluated rounds without a new best.
        min_delta: by how much a new best must be better.
    """

    metric: str
    patience: int = 5
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        _check(self.metric)
        if self.patience < 1:
            raise ConfigError(f"NoImprovement: patience is {self.patience}; it must be 1 or more.")

    def reached(self, history: History) -> str | None:
        """Return the reason once the best value is `patience` evaluated rounds old."""
        best, age = nan, 0
        for row in history:
            if self.metric not in row:
                continue
            value = row[self.metric]
            if isnan(best):
                better = not isnan(value)
            else:
                better = goodness(self.metric, value) > goodness(self.metric, best) + self.min_delta
            best, age = (value, 0) if better else (best, age + 1)
        if age >= self.patience:
            return f"{self.metric} has not improved on {best:.4g} in {age} evaluated rounds"
        return None


@dataclass(frozen=True)
class TimeLimit:
    """Stop when the rounds have taken this long together.

    Args:
        seconds: the limit.
    """

    seconds: float

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ConfigError(f"TimeLimit: seconds is {self.seconds}; it must be greater than 0.")

    def reached(self, history: History) -> str | None:
        """Return the reason once the time is used up."""
        spent = sum(row["seconds"] for row in history)
        return f"{spent:.1f} s spent (limit {self.seconds:g} s)" if spent >= self.seconds else None


def _check(metric: str) -> None:
    if metric != "train_loss":
        check_name(metric)


def goodness(metric: str, value: float) -> float:
    """Return a number that is larger where the metric is better; a bias is judged by its size."""
    if metric == "bias":
        return -abs(value)
    return value if LARGER_IS_BETTER.get(metric, False) else -value
