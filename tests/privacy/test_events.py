from dataclasses import dataclass
from typing import Any

import pytest

from fedpact.core.errors import ConfigError
from fedpact.privacy.events import (
    DiscreteGaussian,
    Everyone,
    FixedSize,
    Gaussian,
    Laplace,
    MatrixFactorized,
    Poisson,
    Release,
    Skellam,
    TreeAggregation,
    check_relation,
)

RELEASES = [
    Release(Gaussian(1.1), Poisson(0.01), 1000),
    Release(Laplace(2.0), Everyone(), 3),
    Release(DiscreteGaussian(1.0, 300.0, 1024, shares=10), FixedSize(10, 100), 5),
    Release(Skellam(1.0, 900.0, 300.0), Poisson(0.5)),
    Release(TreeAggregation(5.0, 128, participations=2, separation=50)),
    Release(MatrixFactorized(5.0, 128, 16, participations=4, separation=16)),
]


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: type(release.mechanism).__name__)
def test_what_is_written_down_is_read_back(release: Release) -> None:
    assert Release.from_json(release.to_json()) == release


def test_a_release_is_written_down_as_plain_json() -> None:
    assert RELEASES[0].to_json() == {
        "mechanism": {"name": "Gaussian", "noise_multiplier": 1.1},
        "sampling": {"name": "Poisson", "rate": 0.01},
        "count": 1000,
    }


@dataclass(frozen=True)
class RoundRobin:
    clients: int


def test_sampling_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"RoundRobin.* is no sampling with a known event.*Everyone\(\)"):
        Release(Gaussian(1.0), RoundRobin(10))  # type: ignore[arg-type]


def test_a_subclass_of_a_known_sampling_is_another_one() -> None:
    class Shuffled(Poisson): ...

    with pytest.raises(ConfigError, match="no sampling with a known event"):
        Release(Gaussian(1.0), Shuffled(0.1))


def test_noise_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="no mechanism with a known event"):
        Release(object())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "got nothing"),
        ({"mechanism": {"name": "Gausian"}, "sampling": {"name": "Everyone"}}, 'Did you mean "Gaussian"'),
        (
            {"mechanism": {"name": "os:system"}, "sampling": {"name": "Everyone"}},
            "no mechanism with a known event",
        ),
        ({"mechanism": "Gaussian", "sampling": {"name": "Everyone"}}, "no mechanism with a known event"),
        (RELEASES[0].to_json() | {"rate": 1}, "a mechanism, a sampling and a count"),
        (RELEASES[0].to_json() | {"count": 0}, "count is 0"),
    ],
)
def test_what_is_no_event_is_not_read(data: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Release.from_json(data)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Poisson(0.0),
        lambda: Poisson(1.01),
        lambda: FixedSize(11, 10),
        lambda: FixedSize(0, 10),
        lambda: Gaussian(0.0),
        lambda: Gaussian(float("nan")),
        lambda: Laplace(-1.0),
        lambda: DiscreteGaussian(1.0, 1.0, 0),
        lambda: Skellam(1.0, 1.0, 2.0),
        lambda: TreeAggregation(1.0, 10, participations=3, separation=5),
        lambda: MatrixFactorized(1.0, 10, 11),
        lambda: Release(TreeAggregation(1.0, 10), Poisson(0.1)),
    ],
)
def test_numbers_out_of_their_range_are_refused(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()


def test_misspelt_relation_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match='Did you mean "replace_one"'):
        check_relation("replace-one")
