"""Many clients' torch modules side by side: weights [clients, elements], and one operation for all of them.

Whether a module can be trained so is found out by trying it with two clients, against one at a time.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.core.stack import Stack, beside
from fedpact.core.vector import Layout, Segment, Vector
from fedpact.learn.joined import Joined, rounded_up
from fedpact.learn.torch_dropout import Masks
from fedpact.learn.torch_stacked_layers import Cohort, Descent, Recording, Sink, by_name
from fedpact.learn.torch_stacked_trial import settled
from fedpact.learn.torch_stacked_ways import MaskShapes, Way

if TYPE_CHECKING:
    from fedpact.learn.torch import TorchModel

# So many bytes of weights and rows keep a step within the cache of a processor; on a device this share of its memory
# leaves room for gradients, changes and activations.
_CACHE = 8 << 20
_DEVICE_SHARE = 8
# To fill small batches up costs less than to compute each size by itself.
_SMALL = 32


class StackedTorch:
    """Many clients' modules, whose trained parameters and gradients are views of flat tensors.

    Attributes:
        weights: one tensor [clients, elements] for each dtype of trained parameters, in the order of the layout.
        gradients: as many tensors.
    """

    def __init__(self, model: "TorchModel", way: Way, fills: bool) -> None:
        self._model = model
        self._way = way
        self._fills = fills
        self._draws = bool(MaskShapes(model).of(1))
        # On the CPU numpy's sums are faster than torch's.
        self._in_numpy = model.device.type == "cpu"
        self._masks: list[Masks] = []
        self.weights: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self._memory: list[tuple[Tensor, Tensor]] = []

    def load(
        self, weights: Vector, clients: Sequence[ClientData], seeds: Callable[[], Sequence[Seed]]
    ) -> None:
        """Start a group of clients from the same weights.

        Raises:
            ModelError: they are another model's.
            DataError: there are rows without labels, or that the model does not take.
        """
        model = self._model
        model.check(weights)
        joined = Joined.of(clients)
        self._inputs = model.inputs(joined.x).to(model.device)
        self._targets = model.targets(joined.y).to(model.device)
        self._joined = joined
        self._make(len(clients))
        for stacked, flat in zip(self.weights, weights.flats, strict=True):
            stacked.copy_(beside(flat, stacked))
        if self._draws:
            self._masks = [Masks(seed.child("dropout")) for seed in seeds()]

    def widths(self, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sizes themselves where a module or a loss reads its whole batch.

        Otherwise the largest of those up to 32, and above the sizes rounded up to three bits.
        """
        if not self._fills:
            return sizes
        small = sizes <= _SMALL
        return np.where(small, sizes.max(where=small, initial=1), rounded_up(sizes))

    def gradient(self, first: int, index: NDArray[np.int64] | None, sizes: NDArray[np.int64]) -> Tensor:
        """Write the gradients of k clients' mean losses to `gradients`; return the losses [k].

        Raises:
            Exception: the module fails on somebody's rows.
        """
        part = slice(first, first + len(sizes))
        return self._step(index, sizes, part, Recording(_part(self._slopes, part)))

    def descend(
        self, first: int, index: NDArray[np.int64] | None, sizes: NDArray[np.int64], lr: float
    ) -> Tensor:
        """Take a step of gradient descent with k clients; return the losses [k]. `gradients` mean nothing then."""
        part = slice(first, first + len(sizes))
        return self._step(index, sizes, part, Descent(_part(self._parameters, part), lr))

    def models(self) -> Stack:
        """Return all clients' weights."""
        return self._stack(self._model.layout, self.weights)

    def slopes(self) -> Stack:
        """Return all clients' gradients."""
        return self._stack(self._model.layout.wide, self.gradients)

    def arrays(self, vectors: Stack | Vector) -> list[Tensor]:
        """Return parameter-shaped vectors as tensors that match `weights`."""
        return [beside(flat, like) for flat, like in zip(vectors.flats, self.weights, strict=True)]

    def _step(
        self, index: NDArray[np.int64] | None, sizes: NDArray[np.int64], part: slice, sink: Sink
    ) -> Tensor:
        x, y = self._batch(part.start, index, sizes)
        cohort = Cohort(_part(self._parameters, part), sizes, self._masks[part])
        with torch.no_grad():
            return self._way.descend(x, y, cohort, sink)

    def _batch(
        self, first: int, index: NDArray[np.int64] | None, sizes: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """Return clients' batches of examples and of labels [k, rows, ...]."""
        places, shape = self._joined.places(first, index, sizes)
        x, y = self._inputs, self._targets
        if isinstance(places, slice):
            x, y = x[places], y[places]
            if self._model.traits.writes_inputs:
                x = x.clone()
        else:
            chosen = torch.from_numpy(places).to(x.device)
            x, y = x.index_select(0, chosen), y.index_select(0, chosen)
        return x.view(*shape, *x.shape[1:]), y.view(*shape, *y.shape[1:])

    def _stack(self, layout: Layout, tensors: Sequence[Tensor]) -> Stack:
        return Stack(layout, [tensor.numpy() if self._in_numpy else tensor for tensor in tensors])

    def _make(self, clients: int) -> None:
        """Make room for so many clients, in the memory of those before where there is enough of it."""
        segments = self._model.layout.segments
        if not self._memory or len(self._memory[0][0]) < clients:
            self._memory = [
                (_empty(clients, segment, self._model.device), _empty(clients, segment, self._model.device))
                for segment in segments
            ]
        self.weights = [weights[:clients] for weights, _ in self._memory]
        self.gradients = [gradients[:clients] for _, gradients in self._memory]
        self._parameters = by_name(self.weights, segments)
        self._slopes = by_name(self.gradients, segments)


class Stacking:
    """Whether and how a torch model's clients are trained side by side.

    Args:
        model: the model.
        like: of a model that differs in its device alone, and of which this is known already; None to find it out.
    """

    def __init__(self, model: "TorchModel", like: "Stacking | None" = None) -> None:
        self._model = model
        self._like = like
        self._sessions = threading.local()

    @property
    def refusal(self) -> str | None:
        """Why they are not, in a clause; None if they are."""
        return self._found if isinstance(self._found, str) else None

    @property
    def bytes(self) -> int:
        """How many bytes of clients' weights and rows are best in memory at once."""
        if self._model.device.type == "cpu":
            return _CACHE
        device = self._model.device
        free, _ = torch.cuda.mem_get_info(device)
        # What torch keeps for the next tensor is as good as free.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return (int(free) + kept) // _DEVICE_SHARE

    def session(self) -> StackedTorch:
        """Return this thread's session."""
        if not hasattr(self._sessions, "session"):
            assert not isinstance(self._found, str)
            make, fills = self._found
            self._sessions.session = StackedTorch(self._model, make(self._model), fills)
        return self._sessions.session

    def __getstate__(self) -> dict[str, Any]:
        # Sessions are threads' own: another process makes its own.
        return {"_model": self._model, "_like": self._like}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _sessions=threading.local())

    @cached_property
    def _found(self) -> tuple[Callable[["TorchModel"], Way], bool] | str:
        return settled(self._model) if self._like is None else self._like._found


def _part(arrays: Mapping[str, Tensor], part: slice) -> dict[str, Tensor]:
    return {name: array[part] for name, array in arrays.items()}


def _empty(clients: int, segment: Segment, device: torch.device) -> Tensor:
    return torch.empty((clients, segment.size), dtype=getattr(torch, segment.dtype), device=device)
