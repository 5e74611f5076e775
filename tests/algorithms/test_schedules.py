import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpact.algorithms.schedules import (
    Constant,
    CosineDecay,
    ExponentialDecay,
    InverseDecay,
    PolynomialDecay,
    Schedule,
    StepDecay,
    Warmup,
)
from fedpact.core.errors import ConfigError

ROUNDS = 20


def factors(schedule: Schedule, rounds: int = ROUNDS) -> list[float]:
    return [schedule.factor(round) for round in range(rounds)]


def torch_factors(name: str, rounds: int = ROUNDS, **options: Any) -> list[float]:
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = getattr(torch.optim.lr_scheduler, name)(optimizer, **options)
    found = []
    for _ in range(rounds):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("schedule", "name", "options"),
    [
        (StepDecay(every=3, rate=0.5), "StepLR", {"step_size": 3, "gamma": 0.5}),
        (ExponentialDecay(0.9), "ExponentialLR", {"gamma": 0.9}),
        (CosineDecay(rounds=25, floor=0.1), "CosineAnnealingLR", {"T_max": 25, "eta_min": 0.1}),
        (PolynomialDecay(rounds=12, power=2), "PolynomialLR", {"total_iters": 12, "power": 2}),
        (
            PolynomialDecay(rounds=12, floor=0.25),
            "LinearLR",
            {"start_factor": 1, "end_factor": 0.25, "total_iters": 12},
        ),
        (Warmup(4), "LinearLR", {"start_factor": 0.2, "total_iters": 4}),
    ],
    ids=repr,
)
def test_equals_the_schedule_of_torch(schedule: Schedule, name: str, options: dict[str, Any]) -> None:
    np.testing.assert_allclose(factors(schedule), torch_factors(name, **options), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Constant(), [1, 1, 1, 1, 1]),
        (StepDecay(every=2), [1, 1, 0.1, 0.1, 0.01]),
        (ExponentialDecay(0.5), [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16]),
        (CosineDecay(rounds=3), [1, 3 / 4, 1 / 4, 0, 0]),
        (CosineDecay(rounds=2, floor=0.2), [1, 0.6, 0.2, 0.2, 0.2]),
        (PolynomialDecay(rounds=4), [1, 3 / 4, 1 / 2, 1 / 4, 0]),
        (PolynomialDecay(rounds=2, power=2, floor=0.2), [1, 0.4, 0.2, 0.2, 0.2]),
        (InverseDecay(), [1, 1 / math.sqrt(2), 1 / math.sqrt(3), 1 / 2, 1 / math.sqrt(5)]),
        (InverseDecay(rounds=8, power=1), [1, 8 / 9, 8 / 10, 8 / 11, 8 / 12]),
        (Warmup(2, then=ExponentialDecay(0.5)), [1 / 3, 2 / 3, 1, 1 / 2, 1 / 4]),
        (Warmup(1, then=Warmup(1)), [1 / 4, 1 / 2, 1, 1, 1]),
    ],
    ids=repr,
)
def test_first_rounds_equal_a_hand_calculation(schedule: Schedule, expected: list[float]) -> None:
    np.testing.assert_allclose(factors(schedule, 5), expected, rtol=1e-14, atol=1e-16)


rounds = st.integers(1, 1000)
rates = st.floats(0.01, 1)
decaying = st.one_of(
    st.builds(Constant),
    st.builds(StepDecay, rounds, rates),
    st.builds(ExponentialDecay, rates),
    st.builds(CosineDecay, rounds, st.floats(0, 1)),
    st.builds(PolynomialDecay, rounds, st.floats(0.1, 3), st.floats(0, 1)),
    st.builds(InverseDecay, rounds, st.floats(0.1, 3)),
)


@given(decaying, st.integers(0, 2000))
def test_a_decay_starts_at_one_and_never_rises(schedule: Schedule, round: int) -> None:
    assert schedule.factor(0) == 1.0
    # Rounding may lift a factor that stands still by its last bit.
    assert 0 <= schedule.factor(round + 1) <= schedule.factor(round) * (1 + 1e-15) <= 1 + 1e-15


@given(rounds, decaying)
def test_a_warm_up_rises_to_its_schedule_and_then_is_that_schedule(length: int, then: Schedule) -> None:
    found = factors(Warmup(length, then), length + 5)
    assert found[0] > 0
    assert all(before < after for before, after in pairwise(found[: length + 1]))
    assert found[length:] == factors(then, 5)


def test_floors_are_reached_exactly_and_kept() -> None:
    for schedule in (CosineDecay(rounds=7, floor=0.3), PolynomialDecay(rounds=7, floor=0.3)):
        assert factors(schedule, 20)[7:] == [0.3] * 13


def test_a_decay_over_very_many_rounds_ends_at_zero_and_not_in_an_error() -> None:
    assert ExponentialDecay(0.5).factor(10**6) == 0.0


def test_a_schedule_has_one_way_to_be_written() -> None:
    found = StepDecay(every=np.int64(3), rate=1)  # type: ignore[arg-type]
    assert found == StepDecay(every=3, rate=1.0)
    assert (type(found.every), type(found.rate)) == (int, float)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (
            lambda: StepDecay(every=0),
            "StepDecay: every is 0; it must be a whole number, 1 or more.",
        ),
        (
            lambda: StepDecay(every=2.5),  # type: ignore[arg-type]
            "StepDecay: every is 2.5; it must be a whole number, 1 or more.",
        ),
        (lambda: StepDecay(3, rate=0), "StepDecay: rate is 0; it must be a positive number and at most 1."),
        (
            lambda: ExponentialDecay(1.5),
            "ExponentialDecay: rate is 1.5; it must be a positive number and at most 1.",
        ),
        (
            lambda: CosineDecay(True),
            "CosineDecay: rounds is True; it must be a whole number, 1 or more.",
        ),
        (
            lambda: CosineDecay(3, -0.1),
            "CosineDecay: floor is -0.1; it must be a number, 0 or more and at most 1.",
        ),
        (
            lambda: CosineDecay(3, math.nan),
            "CosineDecay: floor is nan; it must be a number, 0 or more and at most 1.",
        ),
        (lambda: PolynomialDecay(3, 0), "PolynomialDecay: power is 0; it must be a positive number."),
        (lambda: InverseDecay(power=math.inf), "InverseDecay: power is inf; it must be a positive number."),
        (lambda: PolynomialDecay(3, "1"), 'PolynomialDecay: power is "1"; it must be a positive number.'),  # type: ignore[arg-type]
        (lambda: Warmup(0), "Warmup: rounds is 0; it must be a whole number, 1 or more."),
    ],
)
def test_a_parameter_out_of_its_range_is_refused(build: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        build()
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("then", "sentence"),
    [
        (Constant, r"then is the class Constant; give fp\.Constant\(\)\."),
        (CosineDecay, r"give fp\.CosineDecay\(rounds=\.\.\.\)\."),
        ("CosineDecay", r'then is "CosineDecay"; give fp\.CosineDecay\(rounds=\.\.\.\)\.'),
        ("CosineDcay", r'Did you mean "CosineDecay"\?'),
        (0.5, r"then is 0\.5; give one of fp\.Constant\(\), fp\.StepDecay\(every=\.\.\.\), "),
    ],
)
def test_what_is_no_schedule_is_refused_with_one_that_is(then: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Warmup(3, then)
