"""Sums over all rows with noise for differential privacy, added by the server or, under a mask, in shares by clients.

Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020; Agarwal, Kairouz and Liu,
"The Skellam Mechanism for Differentially Private Federated Learning", NeurIPS 2021: a sum of shares is Skellam again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from fedpact.channel.noise import GaussianNoise, Sampler
from fedpact.channel.transform import RoundContext
from fedpact.core.algorithm import Around, ClientState
from fedpact.core.errors import DataError
from fedpact.core.grid import Grid
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.core.vector import Vector
from fedpact.data.preprocess.estimate import Estimating
from fedpact.data.summary.record_sums import RecordSums
from fedpact.privacy.events import Mechanism
from fedpact.privacy.events import Skellam as SkellamEvent
from fedpact.privacy.skellam import Skellam

# Noise is beyond so many standard deviations once in 10^15.
_TAIL = 8.0


@dataclass(frozen=True)
class CentralNoise:
    """A discrete Gaussian that the server adds to the sums.

    Args:
        sums: what is summed.
    """

    sums: RecordSums

    def mechanism(self, multiplier: float) -> Mechanism:
        """Return the noise as accountants know it, its deviation so many times the length of a row's vector."""
        return GaussianNoise(multiplier).mechanism(self._context, self.sums.size)

    def sampler(self, multiplier: float) -> Sampler:
        """Return what draws it."""
        return GaussianNoise(multiplier).sampler(self._context, self.sums.size, 1)[0]

    def deviation(self, multiplier: float) -> float:
        """Return the standard deviation in steps."""
        return GaussianNoise(multiplier).sampler(self._context, self.sums.size, 1)[1]

    @property
    def _context(self) -> RoundContext:
        return RoundContext(0, sensitivity=math.sqrt(self.sums.weight), grid=Grid(1 / self.sums.step, 1.0))


@dataclass(frozen=True)
class SharedNoise:
    """Skellam noise of which each client adds a share.

    Args:
        sums: what is summed.
        clients: how many clients add a share.
        least: how many are in a sum that is opened, at least: so many shares have all of the noise.
    """

    sums: RecordSums
    clients: int
    least: int

    def mechanism(self, multiplier: float) -> Mechanism:
        """Return the noise of the fewest shares as accountants know it, as `CentralNoise` does."""
        weight, step = self.sums.weight, self.sums.step
        return SkellamEvent(multiplier, step * weight, step * math.sqrt(weight))

    def sampler(self, multiplier: float) -> Sampler:
        """Return what draws a share."""
        return Skellam(self.share(multiplier) ** 2)

    def deviation(self, multiplier: float) -> float:
        """Return the standard deviation of the sum of all shares, in steps."""
        return self.share(multiplier) * math.sqrt(self.clients)

    def share(self, multiplier: float) -> float:
        """Return the standard deviation of a share, in steps."""
        return multiplier * self.sums.step * math.sqrt(self.sums.weight / self.least)

    def room(self, bits: int) -> float:
        """Return how large a client's noisy sum may be, in steps, where the sum over all has so many bits."""
        # One of them is the sign.
        return 2.0 ** (bits - 1 - self.clients.bit_length())

    def most(self, bits: int, multiplier: float) -> float:
        """Return how large a client's sum may be before its share of the noise is added, in steps."""
        return self.room(bits) - _TAIL * self.share(multiplier)


@dataclass(frozen=True)
class NoisyAtServer(Around):
    """As another algorithm of one vector of sums, whose server adds noise before it keeps them.

    Args:
        algorithm: whose clients send the sums.
        sampler: draws the noise.
    """

    sampler: Sampler

    def server(self, model: Any, state: Any, aggregate: Aggregate) -> Any:
        """Add the noise."""
        sums = aggregate.sum("sums")
        return Estimating(state.round + 1, (sums + self.sampler.draw(sums.size)).tolist())


@dataclass(frozen=True)
class NoisyAtClients(NoisyAtServer):
    """As another algorithm of one vector of sums, to which each client adds a share of noise and which a mask can hide.

    The vector is masked as it is, not in parts: sums of parts would tell more than the noisy sums. A client with too
    many rows for the ring refuses, which tells that it has so many, and no more.

    Args:
        algorithm: whose clients send the sums.
        sampler: draws a share.
        most: the largest size of a client's sum, in steps, with which the sum over all fits into the ring.
    """

    most: float

    releases: ClassVar[Literal["averaged", "summed"]] = "averaged"

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return the client's sums with its share of the noise.

        Raises:
            DataError: it has more rows than the ring holds.
        """
        update, kept = super().client(model, task, data, kept, seed)
        sums = np.asarray(update.summed["sums"], np.int64)
        if np.abs(sums).max() > self.most:
            raise DataError(
                f'client "{data.id}" has more rows than can be summed under this mask; give the mask more bits.'
            )
        noisy = (sums + self.sampler.draw(sums.size)).astype(np.float64)
        return replace(update, averaged={"sums": Vector.from_arrays({"sums": noisy})}, summed={}), kept

    def server(self, model: Any, state: Any, aggregate: Aggregate) -> Any:
        """Keep the noisy sums."""
        means = aggregate.means["sums"]["sums"].astype(np.float64)
        return Estimating(state.round + 1, np.rint(means * aggregate.weight).astype(np.int64).tolist())
