"""Schedules: how a learning rate changes from round to round, as a factor of the base rate.

A schedule knows nothing but the round's number, counted from 0, so a resumed run needs no state of it.
"""

import math
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from fedpact.algorithms import PARTS
from fedpact.core.settings import check_counts, check_numbers, check_part


@runtime_checkable
class Schedule(Protocol):
    """A factor for each round; an implementation is a frozen dataclass whose fields are its parameters."""

    def factor(self, round: int) -> float:
        """Return what the base rate is multiplied by in this round, counted from 0."""
        ...


@dataclass(frozen=True)
class Constant:
    """The base rate in every round."""

    def factor(self, round: int) -> float:
        return 1.0


@dataclass(frozen=True)
class StepDecay:
    """rate^⌊t / every⌋: the rate falls at once, every so many rounds. `torch`'s StepLR.

    Args:
        every: the rounds between two falls, at least 1.
        rate: what remains after each, above 0 and at most 1.

    Raises:
        ConfigError: a parameter out of its range.
    """

    every: int
    rate: float = 0.1

    def __post_init__(self) -> None:
        check_counts(self, "every")
        check_numbers(self, "rate", positive=True, at_most=1)

    def factor(self, round: int) -> float:
        return self.rate ** (round // self.every)


@dataclass(frozen=True)
class ExponentialDecay:
    """rate^t: the rate falls by the same part each round. `torch`'s ExponentialLR.

    Args:
        rate: what remains after each round, above 0 and at most 1.

    Raises:
        ConfigError: a rate out of its range.
    """

    rate: float

    def __post_init__(self) -> None:
        check_numbers(self, "rate", positive=True, at_most=1)

    def factor(self, round: int) -> float:
        return self.rate**round


@dataclass(frozen=True)
class CosineDecay:
    """floor + (1 − floor)·(1 + cos(π·t / rounds)) / 2, and the floor from then on.

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, equation 5,
    without the restarts; `torch`'s CosineAnnealingLR, which turns back up after `rounds`.

    Args:
        rounds: the rounds until the floor, at least 1.
        floor: the last factor, in [0, 1].

    Raises:
        ConfigError: a parameter out of its range.
    """

    rounds: int
    floor: float = 0.0

    def __post_init__(self) -> None:
        check_counts(self, "rounds")
        check_numbers(self, "floor", at_most=1)

    def factor(self, round: int) -> float:
        progress = min(round / self.rounds, 1.0)
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class PolynomialDecay:
    """floor + (1 − floor)·(1 − t / rounds)^power, and the floor from then on. `torch`'s PolynomialLR.

    Args:
        rounds: the rounds until the floor, at least 1.
        power: above 0; 1 is a straight line.
        floor: the last factor, in [0, 1].

    Raises:
        ConfigError: a parameter out of its range.
    """

    rounds: int
    power: float = 1.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        check_counts(self, "rounds")
        check_numbers(self, "power", positive=True)
        check_numbers(self, "floor", at_most=1)

    def factor(self, round: int) -> float:
        remaining = max(1 - round / self.rounds, 0.0)
        return self.floor + (1 - self.floor) * math.pow(remaining, self.power)


@dataclass(frozen=True)
class InverseDecay:
    """(1 + t / rounds)^(−power): by default 1/√(t + 1), the classical rate of stochastic gradient descent.

    With power 1 it is the γ / (γ + t) under which FedAvg converges on clients that are not alike, γ being
    `rounds`: Li et al., "On the Convergence of FedAvg on Non-IID Data", ICLR 2020, Theorem 1.

    Args:
        rounds: the round whose factor is 2^(−power), at least 1.
        power: above 0.

    Raises:
        ConfigError: a parameter out of its range.
    """

    rounds: int = 1
    power: float = 0.5

    def __post_init__(self) -> None:
        check_counts(self, "rounds")
        check_numbers(self, "power", positive=True)

    def factor(self, round: int) -> float:
        return math.pow(1 + round / self.rounds, -self.power)


@dataclass(frozen=True)
class Warmup:
    """(t + 1) / (rounds + 1) of another schedule's start, and that schedule from then on, from its round 0.

    No round is spent at a rate of 0, and none of the warm-up at the full one. Goyal et al., "Accurate, Large
    Minibatch SGD", 2017, arXiv:1706.02677, section 2.2.

    Args:
        rounds: the rounds before the full rate, at least 1.
        then: the schedule that follows.

    Raises:
        ConfigError: rounds out of its range, or a `then` that is no schedule.
    """

    rounds: int
    then: Schedule = field(default_factory=Constant)

    def __post_init__(self) -> None:
        check_counts(self, "rounds")
        check_part(self, "then", Schedule, PARTS)

    def factor(self, round: int) -> float:
        if round < self.rounds:
            return (round + 1) / (self.rounds + 1) * self.then.factor(0)
        return self.then.factor(round - self.rounds)
