"""Record-level differential privacy inside a client: local training by noisy sums of clipped gradients (DP-SGD).

Abadi et al., "Deep Learning with Differential Privacy", CCS 2016, Algorithm 1. Its batches are Poisson samples, its
sums are divided by the expected size of a batch, and its noise is a discrete Gaussian on a grid (Canonne, Kamath and
Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, ModelError
from fedpact.core.model import Batch, ClippingSession, Session, clips
from fedpact.core.rows import Rows
from fedpact.core.seeds import Seed
from fedpact.core.settings import check_numbers
from fedpact.privacy.discrete_gaussian import DiscreteGaussian
from fedpact.privacy.events import Everyone, Gaussian, Poisson, Release
from fedpact.privacy.secret import secret_stream

Floats = NDArray[np.float64]

# Steps of the grid in one norm. A discrete Gaussian of so many steps and more is a rounded Gaussian but for less than
# 10^-14 in statistical distance, for 10^10 numbers together: it is accounted for as a Gaussian.
_STEPS = 2.0**30
# By how much more than the norm one record may move a sum: in a batch of another size a library adds up in another
# order, and the gradients of all other records change in their last bits.
_ALLOWANCE = 2.0**-10
# So that the noise stays within what the sampler draws.
_MOST_NOISE = 2.0**20


@runtime_checkable
class RecordPrivacy(Protocol):
    """How local training keeps single records private: what `RecordDP` is, and what one of your own must have."""

    def differentiate(self, session: ClippingSession, index: NDArray[np.int64], expected: float) -> None:
        """Write a private gradient to `session.gradients`.

        Args:
            session: the model, and a client's rows.
            index: the places of the rows in the batch; there may be none.
            expected: the expected size of a batch.
        """
        ...

    def release(self, rate: float, count: int) -> Release:
        """Return what so many gradients release about a record that is in each batch with this probability."""
        ...


@dataclass(frozen=True)
class RecordDP:
    """DP-SGD: each record's gradient is clipped, and their sum is released with noise at every local step.

    As `dp` of FedAvg and its kin it hides from everybody, the server and the other clients with it, whether a record
    was among a client's rows. Every record is in a batch by a secret coin of its own, with probability batch_size over
    the client's number of rows, and noise and coins come from the operating system's entropy: such a run cannot be
    repeated bit for bit. A client's training loss stays with it, as nothing hides a record in it. The number of its
    rows is public.

    The noise has the standard deviation noise_multiplier · norm · (1 + 2^-10), the thousandth being for what rounding
    adds to the norm. A gradient that is NaN or infinite counts as 0.

    Args:
        norm: the largest L2 norm of one record's gradient, over all parameters; larger ones are scaled down to it.
        noise_multiplier: the standard deviation of the noise in units of that norm, > 0 and at most 2^20.

    Raises:
        ConfigError: a setting is out of its range.
    """

    norm: float
    noise_multiplier: float

    def __post_init__(self) -> None:
        check_numbers(self, "norm", positive=True)
        check_numbers(self, "noise_multiplier", positive=True, at_most=_MOST_NOISE)

    def differentiate(self, session: ClippingSession, index: NDArray[np.int64], expected: float) -> None:
        """Write (the sum of the clipped gradients of these rows + noise) / expected to `session.gradients`."""
        sums = session.clipped(index, self.norm)
        session.set_gradient([noisy / expected for noisy in self.noisy(sums)])

    def noisy(self, sums: Sequence[Floats]) -> list[Floats]:
        """Return a sum of clipped gradients, in parts, with the noise; all values are multiples of norm · 2^-30."""
        step = self.norm / _STEPS
        noise = DiscreteGaussian(self.std(sum(part.size for part in sums)) / step)
        integers = [np.rint(part / step).astype(np.int64) + noise.draw(part.size) for part in sums]
        return [each.astype(np.float64) * step for each in integers]

    def std(self, dimension: int) -> float:
        """Return the standard deviation of the noise on so many numbers.

        Rounding a sum and its neighbour to the grid takes them at most one step further apart in each number.
        """
        return self.noise_multiplier * self.norm * (1 + _ALLOWANCE + math.sqrt(dimension) / _STEPS)

    def release(self, rate: float, count: int) -> Release:
        """Return so many Gaussian releases on Poisson samples."""
        return Release(Gaussian(self.noise_multiplier), Poisson(rate) if rate < 1 else Everyone(), count)


def private_steps(
    dp: RecordPrivacy, session: Session, rows: Rows, expected: int, steps: int
) -> tuple[Callable[[Any], float], Iterator[tuple[Batch, int]]]:
    """Return what writes a private gradient of a batch, and the batches of so many steps, each with its size.

    Args:
        dp: how records are kept private.
        session: the model, with the weights loaded.
        rows: the client's rows.
        expected: the expected size of a batch.
        steps: how many steps.

    Raises:
        ModelError: the model gives no gradients of single records.
    """
    if not clips(session):
        raise no_gradients("this model")
    clipping = session
    clipping.bind(rows, secret_seed())

    def differentiate(index: Any) -> float:
        dp.differentiate(clipping, index, expected)
        # Nothing hides a record in a loss.
        return 0.0

    batches = (poisson_batch(len(rows), expected) for _ in range(steps))
    return differentiate, ((batch, len(batch)) for batch in batches)


def check_beside(name: str, max_grad_norm: float | None, shuffle: bool) -> None:
    """Refuse settings of an algorithm of this name that would have no effect, or another, beside `dp`.

    Raises:
        ConfigError: there are such.
    """
    if max_grad_norm is not None:
        raise ConfigError(
            f"{name}: dp clips the gradient of every record; leave max_grad_norm out, which is for their mean."
        )
    if not shuffle:
        raise ConfigError(
            f"{name}: dp draws every record by a coin of its own; leave shuffle out, which is for an order of rows."
        )


def no_gradients(model: str) -> ModelError:
    """Return the error of a model that gives no gradients of single records."""
    return ModelError(
        f"dp clips the gradients of single records, which {model} does not give; use a torch module, or Linear, "
        "Logistic or Softmax."
    )


def poisson_batch(n: int, expected: int) -> NDArray[np.int64]:
    """Return the places of those of n rows whose secret coins came up, each with probability expected / n.

    A batch drawn from the job's seed would be known to the server, against which sampling then hides nothing.
    """
    if expected >= n:
        return np.arange(n)
    return np.flatnonzero(secret_stream().words(n) < np.uint64((expected << 64) // n))


def secret_seed() -> Seed:
    """Return a seed that nobody knows, for dropout and the like.

    With known masks, that the rows of a batch move up where one is left out would show in the gradients of all.
    """
    return Seed.of("-".join(map(str, secret_stream().words(4).tolist())))
