"""Optimisers: how a gradient, or a round's aggregated update, moves the weights.

One code for the server and the clients, for numpy arrays and torch tensors on any device, for one flat
vector or a cohort's `[clients, parameters]`: everything is elementwise and in place. Names and meanings of
the hyper-parameters are those of `torch.optim`. The learning rate is not one of them: it is an argument of
`step`, because a schedule changes it from round to round.

The server's use of them is Reddi et al., "Adaptive Federated Optimization", ICLR 2021, Algorithm 2, where
the gradient is the negative of the cohort's average update.
"""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError
from fedpact.core.settings import check_numbers, number_in

if TYPE_CHECKING:
    import torch

Array = TypeVar("Array", NDArray[Any], "torch.Tensor")

# Of 64 Ki elements a scratch array stays in the cache of one core.
_BLOCK = 1 << 16


@runtime_checkable
class Optimizer(Protocol):
    """A rule for one step, without state of its own.

    An implementation is a frozen dataclass whose fields are its hyper-parameters; what it remembers
    between steps is in arrays that the caller keeps, saves and hands back (see `init_slots`).
    """

    def slots(self) -> dict[str, float]:
        """Return the name of each state array and the number that all its elements start from."""
        ...

    def step(
        self, weights: Array, gradient: Array, slots: Mapping[str, Array], count: int, lr: float
    ) -> None:
        """Take one step, in place on `weights` and `slots`; torch tensors need a surrounding `no_grad`.

        Args:
            weights: floating-point, any shape.
            gradient: of the same shape, dtype and device; it is used as scratch and holds nothing of
                meaning afterwards.
            slots: the arrays that `init_slots` made, as the previous step left them.
            count: the number of this step, 1 for the first.
            lr: the learning rate, a plain float (a numpy scalar would promote float32 arrays).
        """
        ...


def init_slots(optimizer: Optimizer, like: Array) -> dict[str, Array]:
    """Return an optimiser's state arrays before its first step, of the shape, dtype and device of `like`."""
    xp = _namespace(like)
    return {name: xp.full_like(like, start) for name, start in optimizer.slots().items()}


@dataclass(frozen=True)
class SGD:
    """Gradient descent, with classical (heavy-ball) momentum: b ← γ·b + (1 − dampening)·g, w ← w − lr·b.

    The buffer sums gradients, so steps grow up to 1/(1 − γ) times a gradient; `EMAMomentum` is the other
    convention, which averages them. The first step's buffer is the gradient itself, whatever the dampening.

    Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013, in the
    form of `torch.optim.SGD`. FedAvgM is this on the server: Hsu et al., arXiv:1909.06335.

    Args:
        momentum: γ in [0, 1).
        dampening: in [0, 1), the part of each later gradient that is left out of the buffer.
        nesterov: step along g + γ·b instead of b.
        weight_decay: λ ≥ 0; λ·w is added to the gradient.

    Raises:
        ConfigError: a hyper-parameter out of its range; dampening without momentum; nesterov without
            momentum or with dampening.
    """

    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_numbers(self, "momentum", "dampening", below=1)
        check_numbers(self, "weight_decay")
        if self.dampening and not self.momentum:
            raise ConfigError("SGD's dampening acts only with momentum; set momentum too, or dampening=0.")
        if self.nesterov and (not self.momentum or self.dampening):
            raise ConfigError("SGD's nesterov needs a momentum above 0 and dampening=0.")

    def slots(self) -> dict[str, float]:
        return {"momentum": 0.0} if self.momentum else {}

    def step(
        self, weights: Array, gradient: Array, slots: Mapping[str, Array], count: int, lr: float
    ) -> None:
        if self.weight_decay:
            _add(gradient, self.weight_decay, weights)
        direction = gradient
        if self.momentum:
            buffer = slots["momentum"]
            if count == 1:
                buffer[...] = gradient
            else:
                buffer *= self.momentum
                _add(buffer, 1 - self.dampening, gradient)
            if self.nesterov:
                _add(gradient, self.momentum, buffer)
            else:
                direction = buffer
        _descend(weights, direction, lr, scratch=gradient)


@dataclass(frozen=True)
class EMAMomentum:
    """Gradient descent along the moving average of gradients: m ← β·m + (1 − β)·g, w ← w − lr·m, from m = 0.

    The average is not corrected for its start at 0, so the first step is 1 − β times that of `SGD`, whose
    momentum sums gradients instead. From the same gradients `EMAMomentum(beta=β)` at lr and
    `SGD(momentum=β)` at (1 − β)·lr take the same steps.

    The m of Reddi et al., ICLR 2021, Algorithm 2, without its denominator.

    Args:
        beta: β in [0, 1).

    Raises:
        ConfigError: beta out of its range.
    """

    beta: float = 0.9

    def __post_init__(self) -> None:
        check_numbers(self, "beta", below=1)

    def slots(self) -> dict[str, float]:
        return {"first_moment": 0.0}

    def step(
        self, weights: Array, gradient: Array, slots: Mapping[str, Array], count: int, lr: float
    ) -> None:
        average = slots["first_moment"]
        average *= self.beta
        gradient *= 1 - self.beta
        average += gradient
        _descend(weights, average, lr, scratch=gradient)


@dataclass(frozen=True)
class Adam:
    """Steps scaled by moving averages of g and g²: m ← β₁·m + (1 − β₁)·g, v ← β₂·v + (1 − β₂)·g².

    With bias correction w ← w − lr·(m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + eps), as in Kingma and Ba, "Adam: A
    Method for Stochastic Optimization", ICLR 2015, Algorithm 1, and in `torch.optim.Adam`. Without it
    w ← w − lr·m / (√v + eps), which is FedAdam with τ = eps: Reddi et al., ICLR 2021, Algorithm 2.

    Args:
        betas: (β₁, β₂), each in [0, 1).
        eps: ≥ 0, added outside the root.
        weight_decay: λ ≥ 0; λ·w is added to the gradient (`AdamW` decays the weights instead).
        bias_correction: undo the pull of m and v towards 0, their start, in the first steps.
        initial_accumulator: ≥ 0, where v starts; Reddi et al. start it at τ² or more.

    Raises:
        ConfigError: a hyper-parameter out of its range.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    bias_correction: bool = True
    initial_accumulator: float = 0.0

    def __post_init__(self) -> None:
        betas: Any = self.betas
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ConfigError(f"{type(self).__name__}: betas is {betas}; it must be two numbers.")
        pair = tuple(number_in(self, f"betas[{i}]", beta, below=1) for i, beta in enumerate(betas))
        object.__setattr__(self, "betas", pair)
        check_numbers(self, "eps", "weight_decay", "initial_accumulator")

    def slots(self) -> dict[str, float]:
        return {"first_moment": 0.0, "second_moment": self.initial_accumulator}

    def step(
        self, weights: Array, gradient: Array, slots: Mapping[str, Array], count: int, lr: float
    ) -> None:
        beta1, beta2 = self.betas
        first, second = slots["first_moment"], slots["second_moment"]
        if self.weight_decay:
            self._decay(weights, gradient, lr)
        first *= beta1
        _add(first, 1 - beta1, gradient)
        gradient *= gradient
        self._accumulate(second, gradient)

        xp = _namespace(weights)
        denominator = gradient  # its memory: g² is spent
        xp.sqrt(second, out=denominator)
        if self.bias_correction:
            lr /= 1 - beta1**count
            denominator *= 1 / math.sqrt(1 - beta2**count)
        denominator += self.eps
        direction = denominator
        xp.divide(first, denominator, out=direction)
        _descend(weights, direction, lr, scratch=direction)

    def _decay(self, weights: Array, gradient: Array, lr: float) -> None:
        _add(gradient, self.weight_decay, weights)

    def _accumulate(self, second: Array, squared: Array) -> None:
        second *= self.betas[1]
        squared *= 1 - self.betas[1]
        second += squared


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam whose weight decay is apart from the gradient: w ← (1 − lr·λ)·w before each of Adam's steps.

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, in the form of
    `torch.optim.AdamW`. Its arguments and errors are `Adam`'s.
    """

    weight_decay: float = 0.01

    def _decay(self, weights: Array, gradient: Array, lr: float) -> None:
        weights *= 1 - lr * self.weight_decay


@dataclass(frozen=True)
class Yogi(Adam):
    """Adam whose v moves towards g² by (1 − β₂)·g², however far it is: v ← v − (1 − β₂)·g²·sign(v − g²).

    After a burst of large gradients v falls slowly, so that the steps do not jump up. Zaheer et
    al., "Adaptive Methods for Nonconvex Optimization", NeurIPS 2018, Algorithm 2; FedYogi in Reddi et al.,
    ICLR 2021, Algorithm 2. Neither corrects m and v for their start, hence the default here.

    Its arguments and errors are `Adam`'s.
    """

    eps: float = 1e-3
    bias_correction: bool = False
    initial_accumulator: float = 1e-6

    def _accumulate(self, second: Array, squared: Array) -> None:
        change = second - squared
        _namespace(change).sign(change, out=change)
        change *= squared
        change *= 1 - self.betas[1]
        second -= change


@dataclass(frozen=True)
class Adagrad:
    """Steps scaled by the sum of all squared gradients: v ← v + g², w ← w − lr·g / (√v + eps).

    Duchi et al., "Adaptive Subgradient Methods", JMLR 2011, in the form of `torch.optim.Adagrad`. With
    eps = τ and `initial_accumulator` = τ² it is FedAdagrad: Reddi et al., ICLR 2021, Algorithm 2, whose β₁
    steps along a moving average of the gradients, m ← β₁·m + (1 − β₁)·g, instead of g.

    Args:
        beta1: β₁ in [0, 1); 0 steps along the gradient itself.
        eps: ≥ 0, added outside the root.
        weight_decay: λ ≥ 0; λ·w is added to the gradient.
        lr_decay: ≥ 0; step t uses lr / (1 + (t − 1)·lr_decay).
        initial_accumulator: ≥ 0, where v starts.

    Raises:
        ConfigError: a hyper-parameter out of its range.
    """

    beta1: float = 0.0
    eps: float = 1e-10
    weight_decay: float = 0.0
    lr_decay: float = 0.0
    initial_accumulator: float = 0.0

    def __post_init__(self) -> None:
        check_numbers(self, "eps", "weight_decay", "lr_decay", "initial_accumulator")
        check_numbers(self, "beta1", below=1)

    def slots(self) -> dict[str, float]:
        moment = {"first_moment": 0.0} if self.beta1 else {}
        return {**moment, "sum_of_squares": self.initial_accumulator}

    def step(
        self, weights: Array, gradient: Array, slots: Mapping[str, Array], count: int, lr: float
    ) -> None:
        squares = slots["sum_of_squares"]
        if self.weight_decay:
            _add(gradient, self.weight_decay, weights)
        denominator = gradient * gradient
        squares += denominator
        _namespace(squares).sqrt(squares, out=denominator)
        denominator += self.eps
        if self.beta1:
            moment = slots["first_moment"]
            moment *= self.beta1
            gradient *= 1 - self.beta1
            moment += gradient
            gradient[...] = moment
        gradient /= denominator
        _descend(weights, gradient, lr / (1 + (count - 1) * self.lr_decay), scratch=gradient)


@dataclass(frozen=True)
class RMSprop:
    """Steps scaled by a moving average of g²: v ← α·v + (1 − α)·g², w ← w − lr·g / (√v + eps).

    Tieleman and Hinton, "Neural Networks for Machine Learning", lecture 6.5, 2012, in the form of
    `torch.optim.RMSprop`. Centred, the root is of v − a², the variance, with a the moving average of g:
    Graves, arXiv:1308.0850, equations 38 to 41. With momentum, b ← γ·b + g / (√v + eps) and w ← w − lr·b.

    Args:
        alpha: α in [0, 1).
        eps: ≥ 0, added outside the root.
        weight_decay: λ ≥ 0; λ·w is added to the gradient.
        momentum: γ in [0, 1).
        centered: scale by the variance of the gradient instead of its mean square.

    Raises:
        ConfigError: a hyper-parameter out of its range.
    """

    alpha: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.0
    centered: bool = False

    def __post_init__(self) -> None:
        check_numbers(self, "alpha", "momentum", below=1)
        check_numbers(self, "eps", "weight_decay")

    def slots(self) -> dict[str, float]:
        names = ["second_moment"]
        if self.centered:
            names.append("first_moment")
        if self.momentum:
            names.append("momentum")
        return dict.fromkeys(names, 0.0)

    def step(
        self, weights: Array, gradient: Array, slots: Mapping[str, Array], count: int, lr: float
    ) -> None:
        second = slots["second_moment"]
        if self.weight_decay:
            _add(gradient, self.weight_decay, weights)
        denominator = gradient * gradient
        denominator *= 1 - self.alpha
        second *= self.alpha
        second += denominator
        xp = _namespace(weights)
        if self.centered:
            first = slots["first_moment"]
            first *= self.alpha
            _add(first, 1 - self.alpha, gradient)
            xp.multiply(first, first, out=denominator)
            xp.subtract(second, denominator, out=denominator)
            # Rounding makes the variance of a nearly constant gradient negative, and its root would be NaN.
            xp.clip(denominator, 0.0, None, out=denominator)
            xp.sqrt(denominator, out=denominator)
        else:
            xp.sqrt(second, out=denominator)
        denominator += self.eps
        gradient /= denominator
        direction = gradient
        if self.momentum:
            direction = slots["momentum"]
            direction *= self.momentum
            direction += gradient
        _descend(weights, direction, lr, scratch=gradient)


def _namespace(array: Any) -> Any:
    # Whoever made a tensor has imported torch; importing it here would cost everyone else a second.
    return np if isinstance(array, np.ndarray) else sys.modules["torch"]


def _descend(weights: Array, direction: Array, lr: float, scratch: Array) -> None:
    # The inner loop of all local training: no temporary array in numpy, a single kernel in torch.
    if isinstance(weights, np.ndarray):
        np.multiply(direction, lr, out=scratch)
        weights -= scratch
    else:
        weights.add_(direction, alpha=-lr)


def _add(total: Array, factor: float, term: Array) -> None:
    """Add factor · term, without a temporary array of their size."""
    if isinstance(total, np.ndarray):
        sums, terms = np.atleast_1d(total, term)
        for start in range(0, len(sums), _BLOCK):
            sums[start : start + _BLOCK] += factor * terms[start : start + _BLOCK]
    else:
        total.add_(term, alpha=factor)
