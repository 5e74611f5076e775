"""What running a torch module takes: a device, a precision, random numbers; and what it makes of two examples."""

import math
import os
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from fedpact.core.errors import ConfigError, ModelError
from fedpact.core.seeds import Seed
from fedpact.learn.torch_modules import resting, set_training

Precision = Literal["full", "bf16", "fp16"]

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
# The largest tensor of a prediction. On a CPU more is slower, as it no longer fits into the cache; a GPU wants it.
_PREDICTED_ELEMENTS = 1 << 20
_PREDICTED_ELEMENTS_ON_DEVICE = 1 << 26
_PREDICTED_ROWS = 4096
# A page less than 32 MiB, for what the allocator adds.
_LARGEST_COUNTED = (32 << 20) - 8192


def device_of(name: str) -> torch.device:
    """Return the device of this name.

    Raises:
        ConfigError: it is neither "cpu" nor a CUDA device that torch finds.
    """
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


def devices_of(setting: str | Sequence[str]) -> tuple[torch.device, ...]:
    """Return the devices of a setting: the name of one, "cuda:*" for every CUDA device there is, or several names.

    Raises:
        ConfigError: one of them is not there or named twice, or there are several that are not all CUDA devices.
    """
    if setting == "cuda:*":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        names: Sequence[str] = [f"cuda:{index}" for index in range(count)] or ["cuda"]
    else:
        names = [setting] if isinstance(setting, str) else setting
    devices = tuple(device_of(name) for name in names)
    if len(devices) > 1 and any(device.type == "cpu" for device in devices):
        raise ConfigError(
            'Torch: several devices are CUDA devices; "cpu" is none of them: give device="cpu" alone, whose cores '
            'engine="workers" uses.'
        )
    if len(set(devices)) < len(devices):
        raise ConfigError(f"Torch: {', '.join(map(str, devices))} names a device twice.")
    return devices


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Return the context in which a module runs."""
    return nullcontext() if precision == "full" else torch.autocast(device.type, _HALF[precision])


def check_precision(precision: Precision, devices: Sequence[torch.device]) -> None:
    """Refuse float16 where bfloat16 is faster and loses no gradient.

    Raises:
        ConfigError: it is asked for on a processor.
    """
    if precision == "fp16" and any(device.type == "cpu" for device in devices):
        raise ConfigError('Torch: precision="fp16" is for CUDA devices; on a processor use precision="bf16".')


class Generators:
    """A random stream of its own in the place of torch's global generators, while entered.

    Layers such as dropout draw from the global generators and from no other; one thread has each of them at a time,
    so that threads that compute on devices of their own do not wait for each other.

    Args:
        device: whose generator it is.
        seed: of the stream.
        cpu: whether the processor's generator is exchanged as well, where the device is another.
    """

    _turns: ClassVar[dict[torch.device, threading.RLock]] = {}

    def __init__(self, device: torch.device, seed: Seed, cpu: bool = True) -> None:
        # In this order everywhere, so that no two threads wait for each other.
        self._globals = [torch.default_generator] if cpu or device.type == "cpu" else []
        if device.type == "cuda":
            torch.cuda.init()
            self._globals.append(torch.cuda.default_generators[device.index])
        self.seed(seed)

    @classmethod
    def renew(cls) -> None:
        """Let nobody have the global generators."""
        cls._turns.clear()

    def seed(self, seed: Seed) -> None:
        """Go to the start of the stream of this seed."""
        start = seed.integer()
        self._states = [torch.Generator(g.device).manual_seed(start).get_state() for g in self._globals]

    def mark(self) -> list[Tensor]:
        """Return where in the stream it will go on when entered."""
        return self._states

    def go_to(self, mark: list[Tensor]) -> None:
        """Go to where the stream once was."""
        self._states = mark

    def position(self) -> list[bytes]:
        """Return where the global generators are, the processor's first."""
        return [generator.get_state().numpy().tobytes() for generator in self._globals]

    def __enter__(self) -> None:
        self._held = [self._turns.setdefault(each.device, threading.RLock()) for each in self._globals]
        for turn in self._held:
            turn.acquire()
        self._outer = self._exchange(self._states)

    def __exit__(self, *_: object) -> None:
        self._states = self._exchange(self._outer)
        for turn in self._held:
            turn.release()

    def _exchange(self, states: list[Tensor]) -> list[Tensor]:
        present = [generator.get_state() for generator in self._globals]
        for generator, state in zip(self._globals, states, strict=True):
            generator.set_state(state)
        return present


# The child of a fork has none of the other threads, and so none of them will ever give the generators back.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=Generators.renew)


def keep_freed_memory() -> None:
    """Let the allocator keep what one training step frees for the next.

    glibc returns unused memory to the system above a limit of twice the largest block freed so far that had been
    mapped on its own, counting blocks up to 32 MiB; the next step then has the system map and clear every page
    anew. One such block, never written to, sets the limit. Other allocators are left as they are.
    """
    torch.empty(_LARGEST_COUNTED, dtype=torch.uint8)


@dataclass(frozen=True)
class Traits:
    """What two examples of zeros showed about a module.

    Args:
        floats: the dtype of its floating-point inputs; None if it takes whole numbers alone.
        integers: whether it takes int64 inputs.
        outputs: the number of outputs for a label.
        output_dtype: the dtype in which the loss is computed, of 32 bits or more.
        draws_in_training: whether it draws random numbers in training;
        draws_in_prediction: and in prediction;
        draws_on_cpu: whether any of them come from the processor's generator.
        writes_inputs: whether it overwrites its inputs.
        widest: the elements for one example of the largest tensor that it, or a submodule, takes or gives.
    """

    floats: torch.dtype | None
    integers: bool
    outputs: int
    output_dtype: torch.dtype
    draws_in_training: bool
    draws_in_prediction: bool
    draws_on_cpu: bool
    writes_inputs: bool
    widest: int

    @property
    def input_dtype(self) -> str:
        """The numpy dtype of its floating-point inputs; float64 holds whole numbers exactly, as in a table."""
        return "float64" if self.floats in (None, torch.float64) else "float32"


def rows_at_once(traits: Traits, device: torch.device) -> int:
    """Return how many examples prediction takes at once: so many that the largest tensor on the way stays small."""
    elements = _PREDICTED_ELEMENTS if device.type == "cpu" else _PREDICTED_ELEMENTS_ON_DEVICE
    return max(1, min(_PREDICTED_ROWS, elements // max(1, traits.widest)))


def try_out(
    module: nn.Module,
    shape: tuple[int, ...],
    positions: tuple[int, ...],
    device: torch.device,
    precision: Precision,
) -> Traits:
    """Run a module on two examples of zeros, as whole numbers and as floating-point ones.

    Args:
        module: the module, which may be changed.
        shape: the shape of one example.
        positions: the shape of one example's labels.
        device: where the module is.
        precision: in which it runs.

    Raises:
        ModelError: it fails on both, or returns something else than one tensor [2, *positions] or
            [2, *positions, outputs]; examples and positions may be one axis.
    """
    arrays = chain(module.parameters(), module.buffers())
    floats = next((array.dtype for array in arrays if array.is_floating_point()), torch.float32)
    random = Generators(device, Seed.of(0))
    trials = {}
    still = resting(module)
    widest = _Widest(module)
    for dtype in (torch.int64, floats):
        x = torch.zeros((2, *shape), dtype=dtype, device=device)
        try:
            with random, autocast(device, precision):
                start = random.position()
                set_training(module, still)
                trained = module(x)
                middle = random.position()
                predicted = module.eval()(x)
                end = random.position()
                draws = middle != start, end != middle, end[0] != start[0]
        except Exception as error:
            failure = error
        else:
            trials[dtype] = trained, predicted, draws, x._version > 0
    if not trials:
        raise ModelError(f"the module fails on two examples of shape {shape}: {failure}") from failure
    trained, predicted, draws, writes = trials.get(floats) or trials[torch.int64]
    width, predicting = _width(trained, positions), _width(predicted, positions)
    if predicting != width:
        raise ModelError(f"the module gives {width} outputs in training and {predicting} in prediction.")
    return Traits(
        floats=floats if floats in trials else None,
        integers=torch.int64 in trials,
        outputs=width,
        output_dtype=torch.float32 if trained.dtype in _HALF.values() else trained.dtype,
        draws_in_training=draws[0],
        draws_in_prediction=draws[1],
        draws_on_cpu=draws[2],
        writes_inputs=writes,
        widest=max(math.prod(shape), widest.elements // 2),
    )


class _Widest:
    """Notes the elements of the largest tensor that a module or one of its submodules gives."""

    def __init__(self, module: nn.Module) -> None:
        self.elements = 0
        for part in module.modules():
            part.register_forward_hook(self._note)

    def _note(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        if isinstance(outputs, Tensor):
            self.elements = max(self.elements, outputs.numel())
        elif isinstance(outputs, tuple | list):
            for each in outputs:
                self._note(module, inputs, each)


def _width(outputs: Any, positions: tuple[int, ...]) -> int:
    if not isinstance(outputs, Tensor):
        kind = type(outputs).__name__
        raise ModelError(f"the module returns {kind}; wrap it in one that returns its outputs as one tensor.")
    shape = tuple(outputs.shape)
    rows = 2, *positions
    for axes in (rows, (math.prod(rows),)):
        if shape == axes:
            return 1
        if shape[:-1] == axes:
            return shape[-1]
    wanted = ", ".join(map(str, rows))
    why = f", as the labels of one are of shape {positions}" if positions else ""
    first = len(shape) == len(rows) + 1 and shape[2:] == positions
    hint = " Move its outputs to the last axis: .movedim(1, -1)." if first and positions else ""
    raise ModelError(
        f"for two examples the module gives {shape}; it must be ({wanted}{'' if positions else ','}) or "
        f"({wanted}, outputs){why}.{hint}"
    )
