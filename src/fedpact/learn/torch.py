"""Torch modules as models: how one is specified, and what it is for rows of one schema."""

import copy
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedpact.core.errors import ConfigError, DataError, ModelError, suggest
from fedpact.core.model import Kind, Schema
from fedpact.core.seeds import Seed
from fedpact.core.vector import Vector
from fedpact.learn import AUGMENTATIONS
from fedpact.learn.class_weight import ClassWeight, check_class_weight, weights_of_classes
from fedpact.learn.focal import Focal
from fedpact.learn.torch_augmenting import as_augmentations, check_augment
from fedpact.learn.torch_factory import fingerprint, made_by
from fedpact.learn.torch_fast import accelerated
from fedpact.learn.torch_losses import (
    LOSSES,
    Loss,
    at_every_position,
    check_loss,
    check_named,
    describe_loss,
    loss_and_link,
    moved,
)
from fedpact.learn.torch_modules import copied, gather, layouts, redraw, shared, views
from fedpact.learn.torch_running import (
    Generators,
    Precision,
    autocast,
    check_precision,
    devices_of,
    keep_freed_memory,
    try_out,
)
from fedpact.learn.torch_scaled import ScaledSession
from fedpact.learn.torch_session import TorchSession
from fedpact.learn.torch_stacked import StackedTorch, Stacking
from fedpact.learn.torch_taught import Teachable

Init = Literal["as_given", "seed"]


@dataclass(frozen=True)
class Torch:
    """A torch module, and how it is trained.

    Parameters that require a gradient are trained and travel, and so do the buffers of `state_dict`
    (batch-norm statistics). Frozen parameters are constants of the model: every client must build the same.
    Submodules in evaluation mode stay in it while the rest is trained, such as a batch norm whose statistics are
    to be kept; a module that is in it as a whole is trained as a whole.

    Args:
        module: a module that takes a batch of examples [n, ...] and returns one output tensor: [n] or [n, 1]
            for regression or two classes, or [n, classes]; or "package.module:factory", the name of a
            function or class that returns one, called with `options`. Where an example has a label at each of
            several positions, such as the next character at every one of a text, it returns [n, *positions] or
            [n, *positions, classes], or the same with examples and positions as one axis.
        loss: "cross_entropy" (on logits), "nll" (on log-probabilities), "bce" (on one logit), "mse", "l1",
            "huber" or "poisson" (on the logarithm of the rate); or `Focal` (on logits); or a function of outputs [n]
            or [n, classes] and targets [n] that returns the mean loss, its outputs being logits where classes are
            predicted; None for "bce", "cross_entropy" or "mse", whichever fits the labels. Each position of an
            example is one of the n.
        device: where to compute: "cpu", "cuda", or one such as "cuda:1"; or on several at once: "cuda:*" for all there
            are, or names such as ["cuda:0", "cuda:1"].
        precision: "full" for the module's own dtypes; or "bf16": weights keep theirs, and convolutions and large
            products are computed in bfloat16, what else there is as automatic mixed precision of torch has it; or
            "fp16", the same in float16 with a scaled loss, for GPUs without bfloat16.
        init: start from the weights "as_given": those that the module has when the model is built, or that
            the factory gives it under a torch seed drawn from the job's; or from "seed": every submodule's
            `reset_parameters` draws them anew.
        options: the factory's keyword arguments.
        class_weight: what a row of each class counts: "balanced" for n / (classes · n_c), from the training rows of all
            clients; label → weight, 1 where a label is not named; or None. The loss is (1/n) Σ weight·loss: divided by
            the number of rows, and not by the sum of their weights as torch's CrossEntropyLoss does, so that the mean
            over clients by their rows is the mean over all rows, however these are spread.
        augment: what changes images each time that training takes them, in order, such as `RandomFlip()` and
            `RandomCrop(4)`; each image by draws from the client's stream. Tests and predictions are left as they are.

    Raises:
        ConfigError: a setting is not among those above, there are options without a factory, or class weights for a
            loss that is not of classes, or is a function of one's own.
        ModelError: the module is neither a module nor the name of a factory.
    """

    module: nn.Module | str
    loss: str | Loss | Focal | None = None
    device: str | Sequence[str] = "cpu"
    precision: Precision = "full"
    init: Init = "as_given"
    options: Mapping[str, Any] = field(default_factory=dict)
    class_weight: ClassWeight = None
    augment: Sequence[Any] = ()

    def __post_init__(self) -> None:
        if isinstance(self.module, str):
            if not re.fullmatch(r"[\w.]+:\w+", self.module):
                raise ModelError(f'"{self.module}" names no factory; write it as "package.module:factory".')
        elif not isinstance(self.module, nn.Module):
            raise ModelError(f"Torch needs an instance of torch.nn.Module; {self.module!r} is not one.")
        elif self.options:
            raise ConfigError("Torch: options are for a factory; the module given is built already.")
        names = [self.device] if isinstance(self.device, str) else self.device
        if not isinstance(names, list | tuple) or not names or not all(isinstance(n, str) for n in names):
            raise ConfigError(
                f'Torch: device is {self.device!r}; it must be a name such as "cuda", or a list of names.'
            )
        check_class_weight(self)
        check_named(self)
        object.__setattr__(self, "augment", as_augmentations(self.augment))
        settings: list[tuple[str, Any, tuple[str, ...]]] = [
            ("precision", self.precision, get_args(Precision)),
            ("init", self.init, get_args(Init)),
        ]
        for setting, value, known in settings:
            if value not in known:
                hint = suggest(str(value), known)
                raise ConfigError(f"Torch: {setting} is {value!r}; it must be {' or '.join(known)}.{hint}")

    @property
    def devices(self) -> tuple[str, ...]:
        """The names of the devices to compute on.

        Raises:
            ConfigError: one of them is not there.
        """
        return tuple(map(str, devices_of(self.device)))

    @property
    def kind(self) -> Kind | None:
        """The kind of label that the loss is for, the widest where there are several; None if the labels tell."""
        if isinstance(self.loss, Focal):
            return "multiclass"
        return LOSSES[self.loss].kinds[-1] if isinstance(self.loss, str) else None

    @property
    def counts_classes(self) -> bool:
        """Whether the model cannot be built before all clients' training rows of each class are counted."""
        return self.class_weight == "balanced"

    def build(self, schema: Schema) -> "TorchModel":
        """Return the model for rows of this schema.

        Raises:
            ConfigError: the device is not there, or there are class weights and numbers to predict, or "balanced" ones
                and no counts of classes in the schema.
            DataError: class weights are to be balanced, and a class has no training row.
            ModelError: the factory fails, nothing in the module is trained, it does not fit the schema, or a class
                weight is for no class; it is tried on two examples of zeros.
        """
        return TorchModel(self, schema)

    def create(self) -> nn.Module:
        """Return the module that was given, or a new one from the factory.

        Raises:
            ModelError: there is no such factory, it fails, or it returns something else.
        """
        if isinstance(self.module, nn.Module):
            return self.module
        return made_by(self.module, self.options)

    def describe(self) -> dict[str, Any]:
        """Return the specification as plain data, for a job.

        A factory is described by its name and options, from which it can be built again. A module is described
        by its class, the SHA-256 of its printed structure and of the names of what stays in evaluation mode, the
        digest of its layout, and the SHA-256 of its frozen parameters and, unless they are drawn from the seed, of
        its weights. Code is not written down.
        """
        settings: dict[str, Any] = {
            "name": "Torch",
            "loss": describe_loss(self.loss),
            "device": self.device if isinstance(self.device, str) else list(self.device),
            "precision": self.precision,
            "init": self.init,
        }
        if self.class_weight is not None:
            settings["class_weight"] = self.class_weight
        if self.augment:
            settings["augment"] = [AUGMENTATIONS.describe(step) for step in self.augment]
        if isinstance(self.module, str):
            return {**settings, "module": self.module, "options": dict(self.options)}
        return {**settings, **fingerprint(self.module, self.init == "as_given")}


class TorchModel(Teachable):
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
        self._apart = False
        self.devices = devices_of(spec.device)
        self.device = self.devices[0]
        check_precision(spec.precision, self.devices)
        # A factory's frozen parameters must be the same at every client, whatever the job's seed.
        with Generators(self.device, Seed.of(0)):
            module = spec.create()
        self.layout, frozen = layouts(module)
        self._template = copied(module).to("cpu")
        if not any(entry.role == "parameter" for entry in self.layout.entries):
            raise ModelError("the module has no parameters to train: there are none, or all are frozen.")
        self.frozen = gather(frozen, self._template)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.traits = try_out(self.replica(), schema.shape, schema.positions, self.device, spec.precision)
        self.input_dtype = self.traits.input_dtype
        check_augment(spec.augment, schema, self.traits)
        weights = weights_of_classes(spec.class_weight, schema, "Torch")
        by_class = None if weights is None else torch.from_numpy(weights).to(self.traits.output_dtype)
        self.loss, self.link = loss_and_link(spec.loss, schema, self.traits.outputs, by_class)
        self.loss = moved(self.loss, self.device)
        shape = (2,) if self.traits.outputs == 1 else (2, self.traits.outputs)
        outputs = torch.zeros(shape, dtype=self.traits.output_dtype, device=self.device)
        check_loss(self.loss, outputs, self.targets(np.zeros(2, np.int64)).to(self.device))
        if schema.positions:
            self.loss = partial(at_every_position, self.loss)
        self._stacking = Stacking(self)
        # By process and thread.
        self._sessions: dict[tuple[int, threading.Thread], TorchSession] = {}

    def on(self, device: str | torch.device) -> "TorchModel":
        """Return this model as it computes on a device, for threads that compute nowhere else.

        What was found out by trying is not tried again.
        """
        twin = copy.copy(self)
        twin._apart = True
        twin.device = torch.device(device)
        twin.devices = (twin.device,)
        twin.loss = moved(self.loss, twin.device)
        twin._stacking = Stacking(twin, like=self._stacking)
        twin._sessions = {}
        return twin

    def initial(self, seed: Seed) -> Vector:
        """Return the weights to start from.

        Raises:
            ModelError: init is "seed" and a parameter is drawn by no `reset_parameters`.
        """
        with Generators(self.device, seed):
            module = self.spec.create() if isinstance(self.spec.module, str) else copied(self._template)
            if self.spec.init == "seed":
                redraw(module)
        return gather(self.layout, module)

    def predict(self, weights: Vector, x: Any) -> NDArray[np.floating[Any]]:
        """Return P(class 1) or values [n, *positions], or class probabilities [n, *positions, classes].

        Raises:
            DataError: x is not numeric, or its examples have another shape.
            ModelError: the weights are another model's.
            ClientError: the module fails on these examples.
        """
        predictions = self.session().predict(weights, x)
        return predictions.reshape(len(x), *self.schema.positions, *predictions.shape[1:])

    def session(self) -> TorchSession:
        """Return this thread's session: a new one, or that of a thread that has ended."""
        self._settle()
        mine = os.getpid(), threading.current_thread()
        if mine not in self._sessions:
            make = ScaledSession if self.spec.precision == "fp16" else TorchSession
            self._sessions[mine] = self._left_behind(mine[0]) or make(self)
        return self._sessions[mine]

    @property
    def stack_bytes(self) -> int:
        """How many bytes of weights and rows, of clients trained side by side, are best in memory at once."""
        return self._stacking.bytes

    def unstackable(self) -> str | None:
        """Return why clients cannot be trained side by side, in a clause; None if they can."""
        return self._stacking.refusal

    def stacked(self) -> StackedTorch:
        """Return this thread's session for many clients."""
        self._settle()
        return self._stacking.session()

    def __getstate__(self) -> dict[str, Any]:
        # Sessions are threads' own: another process makes its own.
        return {**vars(self), "_sessions": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.device.type == "cpu":
            keep_freed_memory()

    def export(self, weights: Vector) -> nn.Module:
        """Return a module with these weights, on the CPU, ready to predict.

        Raises:
            ModelError: the weights are another model's.
        """
        module = copied(self._template)
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
            state.update(views(torch.from_numpy(vector.copy().buffer), vector.layout)[1])
        return state

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
            return shared(array, np.int64)
        if self.traits.floats is not None:
            return shared(array, self.input_dtype).to(self.traits.floats)
        if not np.array_equal(array, np.rint(array)):
            raise DataError("the module takes whole numbers, as an embedding does; the examples have others.")
        return shared(array, np.int64)

    def targets(self, y: NDArray[Any]) -> Tensor:
        """Return labels as the loss takes them: int64 class indexes, numbers for one output, or class probabilities."""
        if self.traits.outputs > 1 and y.dtype.kind != "f":
            return shared(y, np.int64)
        return shared(y, np.float64 if self.traits.output_dtype is torch.float64 else np.float32)

    def run(self, module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Return a module's outputs, [n] or [n, outputs], of 32 bits or more; each position of an example is a row."""
        with autocast(self.device, self.spec.precision):
            outputs: Tensor = module(x)
        outputs = outputs.to(self.traits.output_dtype)
        return outputs.reshape(-1) if self.traits.outputs == 1 else outputs.flatten(0, -2)

    def replica(self) -> nn.Module:
        """Return a copy of the module on the model's device."""
        return accelerated(copied(self._template).to(self.device))

    def check(self, weights: Vector) -> None:
        """Refuse weights of another layout.

        Raises:
            ModelError: they are another model's.
        """
        if weights.layout != self.layout:
            raise ModelError(f"weights of {weights.layout!r} do not fit this model of {self.layout!r}.")

    def _settle(self) -> None:
        if self._apart and self.device.type == "cuda":
            # What a module makes on "cuda" is to be where the module is.
            torch.cuda.set_device(self.device)

    def _left_behind(self, process: int) -> TorchSession | None:
        """Return the session of a thread that has ended, which is nobody's any more; None if there is none."""
        for other in list(self._sessions):
            if other[0] != process:
                # A fork took it along, in whatever state a thread of the parent had it.
                self._sessions.pop(other, None)
            elif not other[1].is_alive():
                # Another thread may have been quicker.
                session = self._sessions.pop(other, None)
                if session is not None:
                    return session
        return None
