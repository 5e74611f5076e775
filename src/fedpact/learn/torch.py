"""Torch modules whose trained parameters are views of one flat tensor, and their gradients of another.

Optimisers, corrections and transport then work on a few flat arrays, whatever the architecture.
"""

import copy
import hashlib
import importlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parameter import is_lazy

from fedpact.core.errors import ClientError, ConfigError, DataError, ModelError, suggest
from fedpact.core.model import Kind, Schema
from fedpact.core.rows import Rows
from fedpact.core.seeds import Seed
from fedpact.core.vector import STORAGE, Entry, Layout, Vector

Loss = Callable[[Tensor, Tensor], Tensor]
Link = Callable[[Tensor], Tensor]
Precision = Literal["float32", "bf16"]
Init = Literal["as_given", "seed"]

# Prediction takes as many rows at once as keep the inputs below 16 MiB of float32.
_PREDICTED_ROWS = 4096
_PREDICTED_ELEMENTS = 1 << 22

_DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in STORAGE}
_HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class NamedLoss:
    """A mean loss by name.

    Args:
        kinds: the kinds of labels it is for.
        one_output: whether it reads outputs [n]; else [n, classes].
        mean: the loss of outputs and targets.
        link: how outputs become predictions.
    """

    kinds: tuple[Kind, ...]
    one_output: bool
    mean: Loss
    link: Link


def _softmax(outputs: Tensor) -> Tensor:
    return outputs.softmax(dim=1)


def _identity(outputs: Tensor) -> Tensor:
    return outputs


_CLASSES: tuple[Kind, ...] = ("binary", "multiclass")
LOSSES: Mapping[str, NamedLoss] = {
    "cross_entropy": NamedLoss(_CLASSES, False, functional.cross_entropy, _softmax),
    "nll": NamedLoss(_CLASSES, False, functional.nll_loss, torch.exp),
    "bce": NamedLoss(("binary",), True, functional.binary_cross_entropy_with_logits, torch.sigmoid),
    "mse": NamedLoss(("regression",), True, functional.mse_loss, _identity),
    "l1": NamedLoss(("regression",), True, functional.l1_loss, _identity),
    "huber": NamedLoss(("regression",), True, functional.huber_loss, _identity),
    "poisson": NamedLoss(("regression",), True, functional.poisson_nll_loss, torch.exp),
}


@dataclass(frozen=True)
class Torch:
    """A torch module, and how it is trained.

    Parameters that require a gradient are trained and travel, and so do the buffers of `state_dict`
    (batch-norm statistics). Frozen parameters are constants of the model: every client must build the same.

    Args:
        module: a module that takes a batch of examples [n, ...] and returns one output tensor: [n] or [n, 1]
            for regression or two classes, or [n, classes]; or "package.module:factory", the name of a
            function or class that returns one, called with `options`.
        loss: "cross_entropy" (on logits), "nll" (on log-probabilities), "bce" (on one logit), "mse", "l1",
            "huber" or "poisson" (on the logarithm of the rate); or a function of outputs [n] or [n, classes]
            and targets [n] that returns the mean loss, its outputs being logits where classes are predicted;
            None for "bce", "cross_entropy" or "mse", whichever fits the labels.
        device: where to compute: "cpu", "cuda", or one such as "cuda:1".
        precision: "float32" for the module's own dtypes, or "bf16" for automatic mixed precision with them.
        init: start from the weights "as_given": those that the module has when the model is built, or that
            the factory gives it under a torch seed drawn from the job's; or from "seed": every submodule's
            `reset_parameters` draws them anew.
        options: the factory's keyword arguments.

    Raises:
        ConfigError: a setting is not among those above, or there are options without a factory.
        ModelError: the module is neither a module nor the name of a factory.
    """

    module: nn.Module | str
    loss: str | Loss | None = None
    device: str = "cpu"
    precision: Precision = "float32"
    init: Init = "as_given"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.module, str):
            if not re.fullmatch(r"[\w.]+:\w+", self.module):
                raise ModelError(f'"{self.module}" names no factory; write it as "package.module:factory".')
        elif not isinstance(self.module, nn.Module):
            raise ModelError(f"Torch needs an instance of torch.nn.Module; {self.module!r} is not one.")
        elif self.options:
            raise ConfigError("Torch: options are for a factory; the module given is built already.")
        settings: list[tuple[str, Any, tuple[str, ...]]] = [
            ("precision", self.precision, get_args(Precision)),
            ("init", self.init, get_args(Init)),
        ]
        if isinstance(self.loss, str):
            settings.append(("loss", self.loss, tuple(LOSSES)))
        for setting, value, known in settings:
            if value not in known:
                hint = suggest(str(value), known)
                raise ConfigError(f"Torch: {setting} is {value!r}; it must be {' or '.join(known)}.{hint}")

    def build(self, schema: Schema) -> "TorchModel":
        """Return the model for rows of this schema.

        Raises:
            ConfigError: the device is not there.
            ModelError: the factory fails, nothing in the module is trained, or it does not fit the schema; it
                is tried on two examples of zeros.
        """
        return TorchModel(self, schema)

    def create(self) -> nn.Module:
        """Return the module that was given, or a new one from the factory.

        Raises:
            ModelError: there is no such factory, it fails, or it returns something else.
        """
        if isinstance(self.module, nn.Module):
            return self.module
        place, _, name = self.module.partition(":")
        try:
            source = importlib.import_module(place)
        except ImportError as error:
            raise ModelError(f'the factory "{self.module}" cannot be imported: {error}.') from error
        if not hasattr(source, name):
            raise ModelError(f'there is no "{name}" in {place}.{suggest(name, dir(source))}')
        try:
            module = getattr(source, name)(**self.options)
        except Exception as error:
            options = dict(self.options)
            raise ModelError(f'the factory "{self.module}" fails with {options}: {error}') from error
        if not isinstance(module, nn.Module):
            raise ModelError(f'the factory "{self.module}" returns {type(module).__name__}, not a module.')
        return module

    def describe(self) -> dict[str, Any]:
        """Return the specification as plain data, for a job.

        A factory is described by its name and options, from which it can be built again. A module is described
        by its class, the SHA-256 of its printed structure, the digest of its layout, and the SHA-256 of its
        frozen parameters and, unless they are drawn from the seed, of its weights. Code is not written down.
        """
        settings = {
            "name": "Torch",
            "loss": _describe_loss(self.loss),
            "device": self.device,
            "precision": self.precision,
            "init": self.init,
        }
        if isinstance(self.module, str):
            return {**settings, "module": self.module, "options": dict(self.options)}
        layout, frozen = _layouts(self.module)
        # A function is printed with its address, which differs from one process to the next.
        printed = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(self.module))
        return {
            **settings,
            "architecture": _qualified(type(self.module)),
            "structure": _sha256(printed.encode()),
            "layout": layout.digest,
            "weights": None if self.init == "seed" else _sha256(_gather(layout, self.module).buffer.data),
            "frozen": _sha256(_gather(frozen, self.module).buffer.data) if frozen.entries else None,
        }


class TorchModel:
    """A torch module for rows of one schema.

    Attributes:
        schema: what the rows have in common.
        layout: the trained parameters, then the buffers; tied weights are one entry with aliases.
        frozen: the parameters that are not trained. They do not travel, but belong in a model file.
        input_dtype: the numpy dtype that it wants where examples are floating-point numbers.
    """

    def __init__(self, spec: Torch, schema: Schema) -> None:
        self.spec = spec
        self.schema = schema
        self.device = _device(spec.device)
        # A factory's frozen parameters must be the same at every client, whatever the job's seed.
        with _Generators(self.device, Seed.of(0)):
            module = spec.create()
        self.layout, frozen = _layouts(module)
        self._template = _copied(module).to("cpu")
        if not any(entry.role == "parameter" for entry in self.layout.entries):
            raise ModelError("the module has no parameters to train: there are none, or all are frozen.")
        self.frozen = _gather(frozen, self._template)
        self.traits = _try_out(self)
        self.input_dtype = self.traits.input_dtype
        self.loss, self.link = _loss_and_link(spec.loss, schema, self.traits.outputs)
        if isinstance(self.loss, nn.Module):
            self.loss = _copied(self.loss).to(self.device)
        self._check_loss()
        self._sessions: dict[threading.Thread, TorchSession] = {}
        self._lock = threading.Lock()

    def initial(self, seed: Seed) -> Vector:
        """Return the weights to start from.

        Raises:
            ModelError: init is "seed" and a parameter is drawn by no `reset_parameters`.
        """
        with _Generators(self.device, seed):
            module = self.spec.create() if isinstance(self.spec.module, str) else _copied(self._template)
            if self.spec.init == "seed":
                _redraw(module)
        return _gather(self.layout, module)

    def predict(self, weights: Vector, x: Any) -> NDArray[np.floating[Any]]:
        """Return P(class 1) [n], class probabilities [n, classes], or values [n].

        Raises:
            DataError: x is not numeric, or its examples have another shape.
            ModelError: the weights are another model's.
            ClientError: the module fails on these examples.
        """
        return self.session().predict(weights, x)

    def session(self) -> "TorchSession":
        """Return this thread's session: a new one, or that of a thread that has ended."""
        thread = threading.current_thread()
        with self._lock:
            if thread not in self._sessions:
                ended = next((other for other in self._sessions if not other.is_alive()), None)
                self._sessions[thread] = self._sessions.pop(ended) if ended else TorchSession(self)
            return self._sessions[thread]

    def export(self, weights: Vector) -> nn.Module:
        """Return a module with these weights, on the CPU, ready to predict.

        Raises:
            ModelError: the weights are another model's.
        """
        module = _copied(self._template)
        module.load_state_dict(self.state_dict(weights))
        return module.eval()

    def state_dict(self, weights: Vector) -> dict[str, Tensor]:
        """Return what `module.load_state_dict` takes: copies, with frozen parameters and every tied name.

        Raises:
            ModelError: the weights are another model's.
        """
        self.check(weights)
        state = dict(self._template.state_dict())
        for vector in (weights, self.frozen):
            state.update(_views(torch.from_numpy(vector.copy().buffer), vector.layout)[1])
        return state

    def vector_from(self, state: Mapping[str, Tensor | NDArray[Any]]) -> Vector:
        """Return the weights of a state dictionary, cast to the model's dtypes.

        Frozen parameters may be left out, and so may all but one name of a tied weight. A uint16 array is
        taken as the bits of a bfloat16 parameter.

        Raises:
            ModelError: an array is missing, unexpected or of another shape, tied names have different values,
                or a frozen parameter is not the one that this model has.
        """
        known = self._template.state_dict()
        for name in state:
            if name not in known:
                raise ModelError(f'there is no "{name}" in this model.{suggest(name, known)}')
        vector = Vector.zeros(self.layout)
        _, arrays = _views(torch.from_numpy(vector.buffer), self.layout)
        for entry in self.layout.entries:
            given = {name: state[name] for name in (entry.name, *entry.aliases) if name in state}
            if not given:
                raise ModelError(f'"{entry.name}" is missing.{suggest(entry.name, state)}')
            for i, (name, value) in enumerate(given.items()):
                tensor = _like(value, name, entry)
                if i == 0:
                    arrays[entry.name].copy_(tensor)
                elif not _same(tensor, arrays[entry.name]):
                    raise ModelError(f'"{entry.name}" and "{name}" are one array here, but two in the state.')
        _, constants = _views(torch.from_numpy(self.frozen.buffer), self.frozen.layout)
        for name in constants.keys() & state.keys():
            entry, _ = self.frozen.layout.place(name)
            if not _same(_like(state[name], name, entry), constants[name]):
                raise ModelError(
                    f'"{name}" is frozen in this model, and other values cannot be given to it; build the '
                    "model from a module that has them."
                )
        return vector

    def inputs(self, x: Any) -> Tensor:
        """Return examples as a tensor on the CPU, of the dtype that the module wants, shared where possible.

        Raises:
            DataError: they are not numeric, have another shape, or are not the whole numbers that it takes.
        """
        array = np.asarray(x)
        if array.shape[1:] != self.schema.shape:
            raise DataError(f"an example has shape {array.shape[1:]}; the model takes {self.schema.shape}.")
        if array.dtype.kind not in "iubf":
            raise DataError(f"the examples are of dtype {array.dtype}; a torch module takes numbers.")
        if array.dtype.kind != "f" and self.traits.integers:
            return _shared(array, np.int64)
        if self.traits.floats is not None:
            return _shared(array, self.input_dtype).to(self.traits.floats)
        if not np.array_equal(array, np.rint(array)):
            raise DataError("the module takes whole numbers, as an embedding does; the examples have others.")
        return _shared(array, np.int64)

    def targets(self, y: NDArray[Any]) -> Tensor:
        """Return labels as the loss takes them: int64 class indexes, or numbers where there is one output."""
        if self.traits.outputs > 1:
            return _shared(y, np.int64)
        return _shared(y, np.float64 if self.traits.output_dtype is torch.float64 else np.float32)

    def run(self, module: nn.Module, x: Tensor) -> Tensor:
        """Return a module's outputs, [n] or [n, outputs], of 32 bits or more."""
        with self.autocast():
            outputs: Tensor = module(x)
        if outputs.dtype in _HALF:
            outputs = outputs.float()
        return outputs.reshape(-1) if self.traits.outputs == 1 else outputs

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which the module runs."""
        if self.spec.precision == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    def replica(self) -> nn.Module:
        """Return a copy of the module on the model's device."""
        return _copied(self._template).to(self.device)

    def check(self, weights: Vector) -> None:
        """Refuse weights of another layout.

        Raises:
            ModelError: they are another model's.
        """
        if weights.layout != self.layout:
            raise ModelError(f"weights of {weights.layout!r} do not fit this model of {self.layout!r}.")

    def _check_loss(self) -> None:
        if isinstance(self.loss, nn.Module) and any(p.requires_grad for p in self.loss.parameters()):
            raise ModelError(
                "the loss has parameters of its own, which nobody trains; move them to the module."
            )
        shape = (2,) if self.traits.outputs == 1 else (2, self.traits.outputs)
        outputs = torch.zeros(shape, dtype=self.traits.output_dtype, device=self.device)
        try:
            loss: Any = self.loss(outputs, self.targets(np.zeros(2)).to(self.device))
        except Exception as error:
            raise ModelError(f"the loss fails on outputs {shape} and targets (2,): {error}") from error
        if not isinstance(loss, Tensor) or loss.ndim:
            raise ModelError("the loss must return the mean over the rows, as a tensor of one number.")


class TorchSession:
    """One copy of a module whose trained parameters and gradients are views of flat tensors.

    Attributes:
        module: the copy; its parameters and buffers change with the flat tensors, and these with it.
        weights: one flat tensor for each dtype of trained parameters, in the order of the layout.
        gradients: as many flat tensors; the parameters' `grad` are views of them.
    """

    def __init__(self, model: TorchModel) -> None:
        self._model = model
        layout, device = model.layout, model.device
        self._buffer = torch.zeros(layout.nbytes, dtype=torch.uint8, device=device)
        flats, self._arrays = _views(self._buffer, layout)
        trained = [segment for segment in layout.segments if segment.role == "parameter"]
        self.weights = flats[: len(trained)]
        # The same places in a buffer of its own; what the layout has behind the parameters is not needed.
        gradients = torch.zeros(trained[-1].stop, dtype=torch.uint8, device=device)
        self.gradients, grads = _views(gradients, Layout(e for segment in trained for e in segment.entries))
        self.module = model.replica().train()
        self._parameters = [(name, p) for name, p in self.module.named_parameters() if p.requires_grad]
        for name, parameter in self._parameters:
            parameter.data, parameter.grad = self._arrays[name], grads[name]
        places = list(_buffer_places(self.module))
        self._travelling = [place for place in places if place[0] in self._arrays]
        self._transient = [
            (owner, key, owner._buffers[key]) for name, owner, key in places if name not in self._arrays
        ]
        self._random = _Generators(device, Seed.of(0)) if model.traits.draws_in_training else None
        self._inputs = self._targets = torch.empty(0)

    def load(self, weights: Vector) -> None:
        """Overwrite all weights: one copy, on the CPU or to the device.

        Raises:
            ModelError: they are another model's.
        """
        self._model.check(weights)
        self._buffer.copy_(_shared(weights.buffer, np.uint8))
        self._attach(self._arrays)
        # A buffer that does not travel starts anew, so that no client leaves a trace of itself for the next.
        for owner, key, first in self._transient:
            owner._buffers[key] = None if first is None else first.clone()

    def store(self) -> Vector:
        """Return a copy of all weights."""
        for name, owner, key in self._travelling:
            tensor = owner._buffers[key]
            # A module may have put a new tensor in the place of a buffer instead of writing into it.
            if tensor is not None and tensor is not self._arrays[name]:
                self._arrays[name].copy_(tensor)
        self._attach(self._arrays)
        weights = Vector.zeros(self._model.layout)
        torch.from_numpy(weights.buffer).copy_(self._buffer)
        return weights

    def bind(self, rows: Rows, seed: Seed) -> None:
        """Make these rows the ones that `gradient` reads; the seed is for dropout and the like.

        Raises:
            DataError: the rows have no labels, are not numeric, or have another shape.
        """
        if rows.y is None:
            raise DataError("a module cannot be trained on rows without labels.")
        self._inputs = self._model.inputs(rows.x).to(self._model.device)
        self._targets = self._model.targets(rows.y).to(self._model.device)
        if self._random is not None:
            self._random.seed(seed)

    def gradient(self, index: NDArray[np.int64] | None) -> float:
        """Write the gradient of the mean loss over these rows (None: all) into `gradients`; return the loss.

        Buffers are updated as in training. Parameters that the loss does not depend on get a gradient of 0.

        Raises:
            ClientError: the module or the loss fails on these rows.
        """
        if index is None:
            x, y = self._own(self._inputs), self._targets
        else:
            chosen = _shared(index, np.int64).to(self._model.device)
            x, y = self._inputs.index_select(0, chosen), self._targets.index_select(0, chosen)
        for flat in self.gradients:
            flat.zero_()
        with torch.enable_grad(), self._random or nullcontext(), _explained(len(x)):
            loss = self._model.loss(self._model.run(self.module, x), y)
            loss.backward()
        return float(loss.item())

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
            _shared(flat, flat.dtype).to(self._model.device)
            for segment, flat in zip(wide.segments, vector.flats, strict=True)
            if segment.role == "parameter"
        ]

    def predict(self, weights: Vector, x: Any) -> NDArray[np.floating[Any]]:
        """Return the predictions with these weights; the session's own weights stay as they are."""
        model = self._model
        model.check(weights)
        inputs = model.inputs(x)
        outputs, binary = model.traits.outputs, model.schema.kind == "binary"
        if not len(inputs):
            return np.empty(0 if binary or outputs == 1 else (0, outputs), np.float32)
        rows = max(1, min(_PREDICTED_ROWS, _PREDICTED_ELEMENTS // max(1, inputs[0].numel())))
        random = _Generators(model.device, Seed.of(0)) if model.traits.draws_in_prediction else None
        parts = []
        self._attach(_views(torch.from_numpy(weights.copy().buffer).to(model.device), model.layout)[1])
        self.module.eval()
        try:
            with torch.no_grad(), random or nullcontext():
                for batch in inputs.split(rows):
                    with _explained(len(batch)):
                        predicted = model.link(model.run(self.module, self._own(batch.to(model.device))))
                    parts.append(predicted.cpu())
        finally:
            self.module.train()
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


@dataclass(frozen=True)
class _Traits:
    """What two examples of zeros showed about a module.

    Args:
        floats: the dtype of its floating-point inputs; None if it takes whole numbers alone.
        integers: whether it takes int64 inputs.
        outputs: the number of outputs of an example.
        output_dtype: the dtype in which the loss is computed.
        draws_in_training: whether it draws random numbers in training;
        draws_in_prediction: and in prediction.
        writes_inputs: whether it overwrites its inputs.
    """

    floats: torch.dtype | None
    integers: bool
    outputs: int
    output_dtype: torch.dtype
    draws_in_training: bool
    draws_in_prediction: bool
    writes_inputs: bool

    @property
    def input_dtype(self) -> str:
        """The numpy dtype of its floating-point inputs; float64 holds whole numbers exactly, as in a table."""
        return "float64" if self.floats in (None, torch.float64) else "float32"


def _try_out(model: TorchModel) -> _Traits:
    module = model.replica()
    arrays = chain(module.parameters(), module.buffers())
    floats = next((array.dtype for array in arrays if array.is_floating_point()), torch.float32)
    random = _Generators(model.device, Seed.of(0))
    trials = {}
    for dtype in (torch.int64, floats):
        x = torch.zeros((2, *model.schema.shape), dtype=dtype, device=model.device)
        try:
            with random, model.autocast():
                start = random.position()
                trained = module.train()(x)
                middle = random.position()
                predicted = module.eval()(x)
                draws = middle != start, random.position() != middle
        except Exception as error:
            failure = error
        else:
            trials[dtype] = trained, predicted, draws, x._version > 0
    if not trials:
        shape = model.schema.shape
        raise ModelError(f"the module fails on two examples of shape {shape}: {failure}") from failure
    trained, predicted, draws, writes = trials.get(floats) or trials[torch.int64]
    width = _width(trained)
    if _width(predicted) != width:
        raise ModelError(
            f"the module gives {width} outputs in training and {_width(predicted)} in prediction."
        )
    return _Traits(
        floats=floats if floats in trials else None,
        integers=torch.int64 in trials,
        outputs=width,
        output_dtype=torch.float32 if trained.dtype in _HALF else trained.dtype,
        draws_in_training=draws[0],
        draws_in_prediction=draws[1],
        writes_inputs=writes,
    )


def _width(outputs: Any) -> int:
    if not isinstance(outputs, Tensor):
        kind = type(outputs).__name__
        raise ModelError(f"the module returns {kind}; wrap it in one that returns its outputs as one tensor.")
    if outputs.ndim not in (1, 2) or len(outputs) != 2:
        shape = tuple(outputs.shape)
        raise ModelError(f"for two examples the module gives {shape}; it must be (2,) or (2, outputs).")
    return outputs.shape[1] if outputs.ndim == 2 else 1


def _loss_and_link(loss: str | Loss | None, schema: Schema, outputs: int) -> tuple[Loss, Link]:
    classes = len(schema.classes)
    fitting = {"regression": (1,), "binary": (1, 2), "multiclass": (classes,)}[schema.kind]
    if outputs not in fitting:
        known = ", ".join(map(str, schema.classes[:10])) + (", …" if classes > 10 else "")
        needed = (
            f"the data has {classes} classes ({known})" if classes else "a regression predicts one number"
        )
        raise ModelError(
            f"the model gives {outputs} output{'s' if outputs != 1 else ''} but {needed}; its last layer must "
            f"have {' or '.join(map(str, fitting))}."
        )
    one = outputs == 1
    if loss is None:
        loss = "mse" if schema.kind == "regression" else "bce" if one else "cross_entropy"
    if not isinstance(loss, str):
        return loss, _identity if schema.kind == "regression" else torch.sigmoid if one else _softmax
    usable = [name for name, n in LOSSES.items() if schema.kind in n.kinds and n.one_output == one]
    if loss not in usable:
        raise ModelError(
            f'the loss "{loss}" does not fit a {schema.kind} label and {outputs} '
            f"output{'' if one else 's'}; use {' or '.join(usable)}."
        )
    return LOSSES[loss].mean, LOSSES[loss].link


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f'Torch: device is "{name}"; it must be "cpu", "cuda", or one such as "cuda:1".')
    if device.type == "cpu":
        return device
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= found:
        raise ConfigError(f'Torch: there is no device "{name}": torch finds {found} CUDA devices; use "cpu".')
    return torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)


class _Generators:
    """A random stream of its own in the place of torch's global generators, while entered.

    Layers such as dropout draw from the global generators and from no other; one thread has them at a time.
    """

    _turn = threading.RLock()

    def __init__(self, device: torch.device, seed: Seed) -> None:
        self._globals = [torch.default_generator]
        if device.type == "cuda":
            torch.cuda.init()
            self._globals.append(torch.cuda.default_generators[device.index])
        self.seed(seed)

    def seed(self, seed: Seed) -> None:
        """Go to the start of the stream of this seed."""
        start = seed.integer()
        self._states = [torch.Generator(g.device).manual_seed(start).get_state() for g in self._globals]

    def position(self) -> list[bytes]:
        """Return where the global generators are."""
        return [generator.get_state().numpy().tobytes() for generator in self._globals]

    def __enter__(self) -> None:
        self._turn.acquire()
        self._outer = self._exchange(self._states)

    def __exit__(self, *_: object) -> None:
        self._states = self._exchange(self._outer)
        self._turn.release()

    def _exchange(self, states: list[Tensor]) -> list[Tensor]:
        present = [generator.get_state() for generator in self._globals]
        for generator, state in zip(self._globals, states, strict=True):
            generator.set_state(state)
        return present


def _named(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and the buffers of the state dictionary, tied ones under each of their names."""
    saved = module.state_dict().keys()
    buffers = ((name, b) for name, b in module.named_buffers(remove_duplicate=False) if name in saved)
    return dict(chain(module.named_parameters(remove_duplicate=False), buffers))


def _buffer_places(module: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    for prefix, owner in module.named_modules(remove_duplicate=False):
        for key in owner._buffers:
            yield f"{prefix}.{key}" if prefix else key, owner, key


def _layouts(module: nn.Module) -> tuple[Layout, Layout]:
    """Return the layout of what travels, and that of the frozen parameters."""
    tensors = _named(module)
    names: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        if is_lazy(tensor) or tensor.is_meta:
            raise ModelError(f'"{name}" has no values yet; run the module on an example beforehand.')
        names.setdefault(id(tensor), []).append(name)
    travelling: list[Entry] = []
    frozen: list[Entry] = []
    memory: dict[int, str] = {}
    for name, *aliases in names.values():
        tensor, shape = tensors[name], tuple(tensors[name].shape)
        dtype = str(tensor.dtype).removeprefix("torch.")
        if not isinstance(tensor, nn.Parameter):
            travelling.append(Entry(name, shape, dtype, "buffer", tuple(aliases)))
            continue
        other = memory.setdefault(tensor.data_ptr(), name)
        if other != name and tensor.numel():
            raise ModelError(
                f'"{name}" and "{other}" are two parameters in the same memory; to tie them, assign one '
                "parameter to both names."
            )
        entry = Entry(name, shape, dtype, "parameter", tuple(aliases))
        (travelling if tensor.requires_grad else frozen).append(entry)
    return Layout(travelling), Layout(frozen)


def _views(buffer: Tensor, layout: Layout) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return a buffer's flat tensors, and its arrays by each of their names; all share its memory."""
    flats, arrays = [], {}
    for segment in layout.segments:
        flat = buffer[segment.start : segment.stop].view(_DTYPES[segment.dtype])
        flats.append(flat)
        start = 0
        for entry in segment.entries:
            array = flat[start : start + entry.size].view(entry.shape)
            arrays.update(dict.fromkeys((entry.name, *entry.aliases), array))
            start += entry.size
    return flats, arrays


def _gather(layout: Layout, module: nn.Module) -> Vector:
    vector, tensors = Vector.zeros(layout), _named(module)
    for name, array in _views(torch.from_numpy(vector.buffer), layout)[1].items():
        array.copy_(tensors[name].detach())
    return vector


def _shared(array: NDArray[Any], dtype: Any) -> Tensor:
    """Return the array as a tensor in the same memory, unless it is of another dtype or not writable."""
    return torch.from_numpy(np.require(array, dtype, ["C", "W"]))


def _like(value: Any, name: str, entry: Entry) -> Tensor:
    """Return an array of a state dictionary as a tensor; refuse one that cannot be this entry."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "iubf":
        bits = entry.dtype == "bfloat16" and value.dtype == np.uint16
        value = _shared(value, np.int16 if bits else value.dtype)
        value = value.view(torch.bfloat16) if bits else value
    if not isinstance(value, Tensor):
        raise ModelError(f'"{name}" must be a tensor or an array of numbers, not {type(value).__name__}.')
    if tuple(value.shape) != entry.shape:
        raise ModelError(f'"{name}" has shape {tuple(value.shape)}; the model needs {entry.shape}.')
    return value.detach()


def _same(tensor: Tensor, array: Tensor) -> bool:
    """Whether a tensor, once cast, has the same bits; torch.equal would find a NaN to differ from itself."""
    a, b = tensor.to("cpu", array.dtype).reshape(-1).contiguous(), array.reshape(-1)
    return torch.equal(a.view(torch.uint8), b.view(torch.uint8))


def _copied(module: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(module)
    except Exception as error:
        raise ModelError(f"the module {type(module).__name__} cannot be copied: {error}") from error


def _redraw(module: nn.Module) -> None:
    def reset(part: nn.Module) -> None:
        # Attention and transformer layers of torch call theirs _reset_parameters.
        for name in ("reset_parameters", "_reset_parameters"):
            if hasattr(part, name):
                getattr(part, name)()

    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    for _, parameter in trained:
        parameter.data.fill_(torch.nan)
    with torch.no_grad():
        module.apply(reset)
    for name, parameter in trained:
        if parameter.data.isnan().any():
            raise ModelError(
                f'"{name}" cannot be drawn from the seed: no reset_parameters sets it. Give its module this '
                'method, or use init="as_given".'
            )


@contextmanager
def _explained(rows: int) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise ClientError(f"the module fails on {rows} row{'s' if rows != 1 else ''}: {error}") from error


def _sha256(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def _describe_loss(loss: str | Loss | None) -> str | None:
    if loss is None or isinstance(loss, str):
        return loss
    if not isinstance(loss, nn.Module):
        return _qualified(loss)
    settings = {name: value for name, value in vars(loss).items() if not name.startswith("_")}
    settings.update((name, tensor.tolist()) for name, tensor in loss.state_dict().items())
    return f"{_qualified(loss)}({', '.join(f'{name}={settings[name]}' for name in sorted(settings))})"


def _qualified(thing: Any) -> str:
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}.{named.__qualname__}"
