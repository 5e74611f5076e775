"""A torch module in memory whose trained parameters are views of one flat tensor, and their gradients of another.

Optimisers, corrections and transport then work on a few flat arrays, whatever the architecture.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedpact.core.errors import ClientError, DataError, ModelError
from fedpact.core.model import Batch
from fedpact.core.rows import Rows
from fedpact.core.seeds import Seed
from fedpact.core.vector import Layout, Vector
from fedpact.learn.torch_augmenting import augmenting_of
from fedpact.learn.torch_chain import chain_of
from fedpact.learn.torch_clipped import Clipping, Step, Sums
from fedpact.learn.torch_clipping import clipping_of
from fedpact.learn.torch_dropout import masks_of
from fedpact.learn.torch_losses import is_cross_entropy, weights_in
from fedpact.learn.torch_modules import buffer_places, resting, set_training, shared, views
from fedpact.learn.torch_running import Generators, rows_at_once
from fedpact.learn.torch_sinks import Descent, Recording, Sink

if TYPE_CHECKING:
    from fedpact.learn.torch import TorchModel

_nll_forward = torch.ops.aten.nll_loss_forward.default
_nll_backward = torch.ops.aten.nll_loss_backward.default
_MEAN, _SUM = 1, 2
_NOTHING = nullcontext()
_AS_IT_IS = nn.Identity()
# So many bytes of rows are copied into the order of the steps at once, or else those of a single step.
_LAID_OUT_BYTES = 1 << 22
_CACHE_LINE = 64


class TorchSession:
    """One copy of a module whose trained parameters and gradients are views of flat tensors.

    Attributes:
        module: the copy; its parameters and buffers change with the flat tensors, and these with it.
        weights: one flat tensor for each dtype of trained parameters, in the order of the layout.
        gradients: as many flat tensors; the parameters' `grad` are views of them.
    """

    def __init__(self, model: "TorchModel") -> None:
        self._model = model
        layout, device = model.layout, model.device
        self._buffer = torch.zeros(layout.nbytes, dtype=torch.uint8, device=device)
        flats, self._arrays = views(self._buffer, layout)
        trained = [segment for segment in layout.segments if segment.role == "parameter"]
        self.weights = flats[: len(trained)]
        # The same places in a buffer of its own; what the layout has behind the parameters is not needed.
        gradients = torch.zeros(trained[-1].stop, dtype=torch.uint8, device=device)
        self.gradients, grads = views(gradients, Layout(e for segment in trained for e in segment.entries))
        self.module = model.replica()
        self._still = resting(self.module)
        set_training(self.module, self._still)
        self._chain = chain_of(self.module, _examples(model), model.spec.precision == "bf16")
        self._parameters = [(name, p) for name, p in self.module.named_parameters() if p.requires_grad]
        for name, parameter in self._parameters:
            parameter.data, parameter.grad = self._arrays[name], grads[name]
        places = list(buffer_places(self.module))
        self._travelling = [place for place in places if place[0] in self._arrays]
        self._transient = [
            (owner, key, owner._buffers[key]) for name, owner, key in places if name not in self._arrays
        ]
        traits = model.traits
        self._random = (
            Generators(device, Seed.of(0), traits.draws_on_cpu) if traits.draws_in_training else None
        )
        self._masks = masks_of(self.module)
        self._augmenting = augmenting_of(model)
        self._one = torch.ones((), device=device)
        self._clipping: Clipping | None = None
        self._inputs = self._targets = torch.empty(0)
        # The order of the steps; where in it the rows begin and end that lie in that order in `_laid`.
        self._order: Tensor | None = None
        self._window = 0, 0
        self._laid = self._inputs, self._targets

    def load(self, weights: Vector) -> None:
        """Overwrite all weights: one copy, on the CPU or to the device.

        Raises:
            ModelError: they are another model's.
        """
        self._model.check(weights)
        self._buffer.copy_(shared(weights.buffer, np.uint8))
        self._attach(self._arrays)
        # A buffer that does not travel starts anew, so that no client leaves a trace of itself for the next.
        for owner, key, first in self._transient:
            owner._buffers[key] = None if first is None else first.clone()

    def store(self) -> Vector:
        """Return a copy of all weights."""
        self._collect()
        return Vector(self._model.layout, self._buffer.to("cpu", copy=True).numpy())

    def change(self, start: Vector) -> Vector:
        """Return all weights − start, in the layout `layout.wide`."""
        self._collect()
        return Vector(self._model.layout, self._buffer.cpu().numpy()).minus(start)

    def _collect(self) -> None:
        for name, owner, key in self._travelling:
            tensor = owner._buffers[key]
            # A module may have put a new tensor in the place of a buffer instead of writing into it.
            if tensor is not None and tensor is not self._arrays[name]:
                self._arrays[name].copy_(tensor)
        self._attach(self._arrays)

    def bind(self, rows: Rows, seed: Seed) -> None:
        """Make these rows the ones that `gradient` reads; the seed is for dropout and the like.

        Raises:
            DataError: the rows have no labels, are not numeric, or have another shape.
        """
        if rows.y is None:
            raise DataError("a module cannot be trained on rows without labels.")
        self._inputs = self._model.inputs(rows.x).to(self._model.device)
        self._targets = self._model.targets(rows.y).to(self._model.device)
        self._order = None
        if self._random is not None:
            self._random.seed(seed)
        if self._masks is not None:
            self._masks.seed(seed.child("dropout"))
        if self._augmenting is not None:
            self._augmenting.seed(seed.child("augment"))

    def arrange(self, order: NDArray[np.int64]) -> None:
        """Put the rows into this order, of which steps then take slices; the next `bind` ends it."""
        self._order = shared(order, np.int64).to(self._model.device)
        self._window = 0, 0

    def gradient(self, index: Batch) -> float | Tensor:
        """Write the gradient of the mean loss over these rows (None: all) into `gradients`; return the loss.

        Buffers are updated as in training. Parameters that the loss does not depend on get a gradient of 0. On a
        CUDA device the loss is a tensor [] that may not be computed yet.

        Raises:
            ClientError: the module or the loss fails on these rows.
        """
        return self._step(index, Recording())

    def descend(self, index: Batch, lr: float) -> float | Tensor:
        """Take a step of gradient descent on the mean loss over these rows (None: all); return the loss.

        The weights become those of `gradient` and w ← w − lr·g but for rounding, and `gradients` has no meaning
        afterwards. The loss is as there.

        Raises:
            ClientError: the module or the loss fails on these rows.
        """
        return self._step(index, Descent(lr))

    def _step(self, index: Batch, sink: Sink) -> float | Tensor:
        x, y = self._batch(index)
        try:
            with torch.no_grad(), self._random or _NOTHING:
                loss = self._chain.differentiate(x, lambda outputs: self._objective(outputs, y), sink)
        except Exception as error:
            raise _failure(len(x), error) from error
        return loss if loss.is_cuda else loss.item()

    def _batch(self, index: Batch) -> tuple[Tensor, Tensor]:
        x, y = self._taken(index)
        return (x if self._augmenting is None else self._augmenting(x)), y

    def _taken(self, index: Batch) -> tuple[Tensor, Tensor]:
        if isinstance(index, slice):
            return self._slice(index.start, index.stop)
        if index is None:
            return self._own(self._inputs), self._targets
        chosen = shared(index, np.int64).to(self._model.device)
        return self._inputs.index_select(0, chosen), self._targets.index_select(0, chosen)

    def _slice(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        if self._order is None:
            return self._aligned(self._inputs[start:stop]), self._targets[start:stop]
        first, last = self._window
        if start < first or stop > last:
            row_bytes = max(1, self._inputs.nbytes // max(1, len(self._inputs)))
            first, last = start, max(stop, start + _LAID_OUT_BYTES // row_bytes)
            chosen = self._order[first:last]
            self._laid = self._inputs.index_select(0, chosen), self._targets.index_select(0, chosen)
            self._window = first, last
        x, y = self._laid
        return self._aligned(x[start - first : stop - first]), y[start - first : stop - first]

    def _aligned(self, x: Tensor) -> Tensor:
        # What a product rounds to depends on where its factors lie in a cache line.
        return x.clone() if x.data_ptr() % _CACHE_LINE else self._own(x)

    def _objective(self, outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean loss of a module's outputs, and its gradient with respect to them."""
        model = self._model
        if outputs.ndim == 2 and outputs.dtype is torch.float32 and is_cross_entropy(model.loss):
            scores, weights = torch._log_softmax(outputs, 1, False), weights_in(model.loss)
            # Torch's own mean is divided by the sum of the weights.
            how, share = (_MEAN, self._one) if weights is None else (_SUM, self._one / len(y))
            loss, rows = _nll_forward(scores, y, weights, how, -100)
            gradient = _nll_backward(share, scores, y, weights, how, -100, rows)
            loss = loss if weights is None else loss / len(y)
            return loss, torch._log_softmax_backward_data(gradient, scores, 1, torch.float32)
        leaf = outputs.detach().requires_grad_()
        with torch.enable_grad():
            # A copy, into which a loss may write.
            loss = model.loss(model.run(_AS_IT_IS, leaf.clone()), y)
        return loss.detach(), torch.autograd.grad(loss, leaf)[0]

    def clipped(self, index: NDArray[np.int64], norm: float) -> list[NDArray[np.float64]]:
        """Return the sum of these rows' gradients, each scaled down to an L2 norm of at most `norm`.

        Raises:
            ModelError: the module or its loss mixes the rows of a batch, or computes in float16.
            ClientError: the module or the loss fails on these rows.
        """
        if self._clipping is None:
            self._clipping = clipping_of(self._model, self._chain)
        sums = Sums(self._model)
        x, y = self._batch(index)
        try:
            with torch.no_grad(), self._random or _NOTHING:
                self._clipping.add(x, y, Step(norm, self._arrays, self._masks, self._objective), sums)
        except Exception as error:
            raise _failure(len(x), error) from error
        return [flat.cpu().numpy() for flat in sums.flats]

    def set_gradient(self, gradient: Sequence[NDArray[np.float64]]) -> None:
        """Write a gradient of the mean loss to `gradients`; a module has no penalty on its weights."""
        for flat, given in zip(self.gradients, gradient, strict=True):
            flat.copy_(torch.from_numpy(given))

    def arrays(self, vector: Vector) -> list[Tensor]:
        """Return a parameter-shaped vector (layout `layout.wide`) as flat tensors that match `weights`.

        They keep the vector's dtypes, and on the CPU they share its memory.

        Raises:
            ModelError: the vector has another layout.
        """
        wide = self._model.layout.wide
        if vector.layout != wide:
            raise ModelError(f"a vector of {vector.layout!r} does not fit this model's {wide!r}.")
        return [
            shared(flat, flat.dtype).to(self._model.device)
            for segment, flat in zip(wide.segments, vector.flats, strict=True)
            if segment.role == "parameter"
        ]

    def predict(
        self, weights: Vector, x: Any, link: Callable[[Tensor], Tensor] | None = None
    ) -> NDArray[np.floating[Any]]:
        """Return the predictions with these weights, or what another link makes of the outputs.

        The session's own weights stay as they are.
        """
        model = self._model
        link = link or model.link
        model.check(weights)
        inputs = model.inputs(x)
        outputs, binary = model.traits.outputs, model.schema.kind == "binary"
        if not len(inputs):
            return np.empty(0 if binary or outputs == 1 else (0, outputs), np.float32)
        rows = rows_at_once(model.traits, model.device)
        traits = model.traits
        random = (
            Generators(model.device, Seed.of(0), traits.draws_on_cpu) if traits.draws_in_prediction else None
        )
        parts = []
        self._attach(views(torch.from_numpy(weights.copy().buffer).to(model.device), model.layout)[1])
        self.module.eval()
        try:
            with torch.no_grad(), random or nullcontext():
                for batch in inputs.split(rows):
                    try:
                        computed = self._chain(self._own(batch.to(model.device)))
                        predicted = link(model.run(_AS_IT_IS, computed))
                    except Exception as error:
                        raise _failure(len(batch), error) from error
                    parts.append(predicted.cpu())
        finally:
            set_training(self.module, self._still)
            self._attach(self._arrays)
        predictions = torch.cat(parts).numpy()
        return predictions[:, 1] if binary and outputs == 2 else predictions

    def _attach(self, arrays: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters:
            if parameter.data_ptr() != arrays[name].data_ptr():
                parameter.data = arrays[name]
        for name, owner, key in self._travelling:
            owner._buffers[key] = arrays[name]

    def _own(self, x: Tensor) -> Tensor:
        return x.clone() if self._model.traits.writes_inputs else x


def _examples(model: "TorchModel") -> Tensor:
    """Return four examples: numbers between 0 and 1, or where whole ones are needed, zeros."""
    numbers = Seed.of(0).generator().random((4, *model.schema.shape))
    return torch.from_numpy(numbers).to(model.device, model.traits.floats or torch.int64)


def _failure(rows: int, error: Exception) -> ClientError:
    return ClientError(f"the module fails on {rows} row{'s' if rows != 1 else ''}: {error}")
