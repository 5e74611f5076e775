"""Rounds under a mask that are given up and held again, cohorts of nobody, and clients whose turns must not shift."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import fedpact as fp
from fedpact.algorithms.fedavg import FedAvg
from fedpact.channel.clip import Clip
from fedpact.channel.correlated_noise import CorrelatedNoise
from fedpact.channel.noise import GaussianNoise
from fedpact.channel.quantize import Quantize
from fedpact.channel.secure_sum import SecureSum
from fedpact.channel.transform import RoundContext, StageState, Transform
from fedpact.core.errors import ChannelError, ConfigError, SecureError
from fedpact.core.messages import Update
from fedpact.engine.privacy import Spent
from tests.engine.runs import two_classes

UNIFORM = FedAvg(lr=0.3, local_epochs=1, batch_size=8, weighting="uniform")


def train(channel: Any, clients: int = 4, **changed: Any) -> fp.Result:
    settings = {"rounds": 12, "engine": "in_process", "evaluate_every": 0, **changed}
    return fp.train(
        fp.models.Logistic(), two_classes(clients), algorithm=UNIFORM, channel=channel, **settings
    )


@dataclass(frozen=True)
class Noting(SecureSum):
    """Notes how many clients were asked each time that masks were agreed on."""

    def agree(self, ids: Any, context: Any, digest: bytes) -> Any:
        AGREED.append(len(ids))
        return super().agree(ids, context, digest)


AGREED: list[int] = []


def test_a_masked_round_that_is_given_up_is_held_again_with_other_masks() -> None:
    # Of four clients three must stay to the end, so that a round with two dropouts is given up.
    AGREED.clear()
    result = train([Clip(1.0), Noting(dropout=0.2)])
    assert len(result.history) == 12
    assert result.history["clients"].min() >= 3
    # The last one is of the evaluation.
    assert len(AGREED) - 1 > 12


def test_a_run_whose_clients_never_stay_to_the_end_is_given_up() -> None:
    with pytest.raises(SecureError, match="round 1 was given up 5 times, for too few clients stayed"):
        train([Clip(1.0), SecureSum(dropout=0.95)])


def test_a_cohort_of_nobody_is_released_like_any_other() -> None:
    weights: list[Any] = []
    result = train(
        [Clip(1.0), GaussianNoise(0.5)],
        cohort=1,
        sampling="poisson",
        on_round=lambda record: weights.append(record["clients"]),
    )
    empty = [i for i, clients in enumerate(weights) if clients == 0]
    assert empty
    assert result.history["noise.std"].tolist() == pytest.approx([0.5] * 12, rel=1e-6)
    assert sum(release.count for release in result.privacy.protections[0].releases) == 12


def test_of_nobody_the_noise_alone_moves_the_model() -> None:
    # Poisson cohorts of one of 40 on average: a seed whose first cohort is empty.
    for seed in range(40):
        result = train([Clip(1.0), GaussianNoise(0.5)], 40, cohort=1, sampling="poisson", rounds=1, seed=seed)
        if result.history["clients"].iloc[0] == 0:
            break
    moved = np.concatenate([np.ravel(array) for _, array in result.weights.items()])
    assert result.history["clients"].iloc[0] == 0
    assert np.all(moved != 0)


@dataclass(frozen=True)
class Filling(Transform):
    """Makes every number as large as the bound, and says that the norm stays within it."""

    def bound(self, before: float, state: StageState) -> float:
        return before

    def encode(self, update: Update, context: RoundContext) -> Update:
        averaged = {name: vector.copy() for name, vector in update.averaged.items()}
        for vector in averaged.values():
            for flat in vector.flats:
                flat[:] = 0.5
        return replace(update, averaged=averaged)


def test_an_update_beyond_the_bound_that_its_channel_declares_is_refused() -> None:
    # Four numbers of 0.5 have the norm 1.
    with pytest.raises(ChannelError, match="rounded 200 times, and its norm was never within"):
        train([Clip(0.6), Filling(), Quantize(12), GaussianNoise(1.0)], rounds=1)


def test_noise_that_counts_on_turns_refuses_other_clients() -> None:
    noise, spent = CorrelatedNoise(1.0, rounds=4), Spent.of({})
    spent.check_turns(noise, ["a", "b"])
    again = Spent.of(spent.contents())
    again.check_turns(noise, ["a", "b"])
    with pytest.raises(ConfigError, match="some have come or gone"):
        again.check_turns(noise, ["a", "c"])
    again.check_turns(GaussianNoise(1.0), ["a", "c"])
