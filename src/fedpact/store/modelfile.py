"""Model files: weights as safetensors, which other tools can open, and what belongs to them as JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import DependencyError, ModelError
from fedpact.core.vector import FLOATS, STORAGE, Entry, Layout, Vector
from fedpact.store.files import write_atomically
from fedpact.store.tensors import Tensor, TensorFile, TensorFileError, encode, written_by

_FORMAT = 1
# How torch.save has begun its files since 1.6, and before.
_TORCH_ZIP = b"PK\x03\x04"
_TORCH_PICKLE = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
_SHOWN = 3


def save_model(path: str | Path, arrays: Vector | Mapping[str, Vector], metadata: Mapping[str, Any]) -> None:
    """Write a model's weights and what belongs to them into one safetensors file.

    The arrays have the names and dtypes of their layouts, bfloat16 included. An array with aliases is written
    once; roles and aliases are recorded under "layouts" in the file's metadata.

    Args:
        path: where to.
        arrays: the weights, or several parts of them by name, such as the trained and the frozen ones.
        metadata: plain data that JSON can hold; tuples become lists.

    Raises:
        ModelError: two parts have an array of the same name, or the metadata hold what JSON cannot.
        FedpactError: the file cannot be written.
    """
    parts = {"model": arrays} if isinstance(arrays, Vector) else arrays
    tensors: dict[str, Tensor] = {}
    for part, vector in parts.items():
        for entry in vector.layout.entries:
            if entry.name in tensors:
                raise ModelError(
                    f'"{entry.name}" is in "{part}" and in another part of the model; rename one of them.'
                )
            tensors[entry.name] = (entry.dtype, vector[entry.name])
    about = {
        "format": _FORMAT,
        "written_by": written_by(),
        "layouts": {part: vector.layout.to_json() for part, vector in parts.items()},
        "metadata": dict(metadata),
    }
    try:
        text = json.dumps(about, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ModelError(f'the metadata of "{path}" cannot be written as JSON: {error}.') from None
    try:
        chunks = encode(tensors, {"fedpact": text})
    except TensorFileError as error:
        raise ModelError(f"a model file {error}") from None
    write_atomically(path, chunks)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Return the metadata of a model file that `save_model` wrote; no array is read.

    Raises:
        ModelError: there is no such file, it is damaged, of a newer format, or not a model file of Fedpact.
    """
    try:
        with TensorFile(path) as file:
            return _metadata(file, path)
    except TensorFileError as error:
        raise ModelError(f'model file "{path}" {error}') from None


def load_model(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return name → (dtype, array) and the metadata of a model file that `save_model` wrote.

    bfloat16 arrays are given as their bits in uint16.

    Raises:
        ModelError: there is no such file, it is damaged, of a newer format, or not a model file of Fedpact.
    """
    try:
        with TensorFile(path) as file:
            metadata = _metadata(file, path)
            return {name: (entry.dtype, file[name]) for name, entry in file.entries.items()}, metadata
    except TensorFileError as error:
        raise ModelError(f'model file "{path}" {error}') from None


def read_weights(path: str | Path, layout: Layout, frozen: Vector | None = None) -> Vector:
    """Return the weights in a file, in this layout.

    The file is a model file of Fedpact, any other safetensors file, or a torch state dict; its first bytes
    tell which. It must hold every array of the layout, under its name or an alias, in the same shape, and
    nothing else but the frozen parameters. A dtype is converted where no value changes, or from one float to
    another by rounding to the nearest.

    Args:
        path: the file.
        layout: the layout of the weights.
        frozen: the model's parameters that are never trained. A model file of Fedpact must hold them, any other
            file may, and then with the same bits.

    Raises:
        ModelError: the file is missing, damaged or of another kind, holds Python objects, or does not fit.
        DependencyError: it is a torch file, and torch is not installed.
    """
    frozen = Vector.zeros(Layout(())) if frozen is None else frozen
    if _is_torch(path):
        return _Source(path, *_torch_state(path), whole=False).weights(layout, frozen)
    try:
        with TensorFile(path) as file:
            if "checkpoint" in file.metadata:
                raise ModelError(
                    f'"{path}" is a checkpoint: resume from it, or name a model file, which '
                    "Fitted.load(checkpoint).save(file) makes of it."
                )
            whole = "fedpact" in file.metadata
            return _Source(path, file.entries, file, whole).weights(layout, frozen)
    except TensorFileError as error:
        raise ModelError(f'weights file "{path}" {error}') from None


def _metadata(file: TensorFile, path: str | Path) -> dict[str, Any]:
    if "fedpact" not in file.metadata:
        raise ModelError(
            f'"{path}" is a safetensors file, but no model file of Fedpact; it can serve as initial weights.'
        )
    try:
        about = json.loads(file.metadata["fedpact"])
        if about["format"] > _FORMAT:
            raise ModelError(
                f'model file "{path}" was written by Fedpact {about["written_by"]} in a newer format; '
                "upgrade Fedpact to read it."
            )
        return dict(about["metadata"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ModelError(f'model file "{path}" is damaged: its metadata cannot be read.') from None


@dataclass(frozen=True)
class _Source:
    """The arrays of a file: what they are, and each of them when asked for.

    Args:
        path: the file, for messages.
        entries: name → the array's shape and dtype.
        arrays: name → array.
        whole: whether the frozen parameters must be among them.
    """

    path: str | Path
    entries: Mapping[str, Entry]
    arrays: Mapping[str, NDArray[Any]]
    whole: bool

    def weights(self, layout: Layout, frozen: Vector) -> Vector:
        self._check_names(layout.entries, frozen.layout.entries)
        vector = Vector.zeros(layout)
        for entry in layout.entries:
            array = self._array(entry)
            if entry.role == "parameter" and not _is_finite(array, entry.dtype):
                raise ModelError(
                    f'"{self.path}": "{entry.name}" holds NaN or infinite values; no model can compute with them.'
                )
            vector[entry.name] = array
        for entry in frozen.layout.entries:
            held = any(name in self.entries for name in _names(entry))
            if held and self._array(entry).tobytes() != frozen[entry.name].tobytes():
                raise ModelError(
                    f'"{self.path}" has other values for "{entry.name}", which is frozen in this model; build the '
                    "model from a module that has the values of the file."
                )
        return vector

    def _array(self, entry: Entry) -> NDArray[Any]:
        first, *others = (name for name in _names(entry) if name in self.entries)
        source, array = self.entries[first], self.arrays[first]
        if source.shape != entry.shape:
            raise ModelError(f'"{self.path}" has "{first}" {source.shape}; the model needs {entry.shape}.')
        for alias in others:
            same = (
                self.entries[alias].shape == source.shape and self.arrays[alias].tobytes() == array.tobytes()
            )
            if not same:
                raise ModelError(
                    f'"{self.path}" has different values for "{first}" and "{alias}", which are one array in '
                    "this model."
                )
        return _converted(f'"{self.path}": "{first}"', array, source.dtype, entry.dtype)

    def _check_names(self, trained: tuple[Entry, ...], frozen: tuple[Entry, ...]) -> None:
        needed = trained + frozen if self.whole else trained
        missing = [entry for entry in needed if not any(name in self.entries for name in _names(entry))]
        known = {name for entry in trained + frozen for name in _names(entry)}
        extra = {name: entry for name, entry in self.entries.items() if name not in known}
        problems = [f'it lacks "{e.name}" {e.shape}{_nearest(e.name, extra)}' for e in missing[:_SHOWN]]
        if len(missing) > _SHOWN:
            problems.append(f"it lacks {len(missing) - _SHOWN} more")
        problems += [f'the model has no "{name}" {extra[name].shape}' for name in list(extra)[:_SHOWN]]
        if len(extra) > _SHOWN:
            problems.append(f"nor {len(extra) - _SHOWN} more that the file has")
        if problems:
            raise ModelError(f'"{self.path}" does not fit this model: {"; ".join(problems)}.')


def _names(entry: Entry) -> tuple[str, ...]:
    return entry.name, *entry.aliases


def _nearest(name: str, extra: Mapping[str, Entry]) -> str:
    found = get_close_matches(name, extra, n=1)
    return f' (nearest: "{found[0]}" {extra[found[0]].shape})' if found else ""


def _converted(where: str, array: NDArray[Any], source: str, target: str) -> NDArray[Any]:
    if source == target:
        return array
    numbers = _widened(array) if source == "bfloat16" else array
    with np.errstate(all="ignore"):
        if target == "bfloat16":
            result = _narrowed(numbers.astype(np.float32))
            values = _widened(result)
        else:
            result = values = numbers.astype(STORAGE[target])
        if source in FLOATS and target in FLOATS:
            if np.isinf(values).sum() > np.isinf(numbers).sum():
                raise ModelError(f"{where} holds values too large for {target}.")
        # A wrapped integer comes back as it was, but with the other sign in between.
        elif not (
            np.array_equal(values.astype(numbers.dtype), numbers) and np.array_equal(values < 0, numbers < 0)
        ):
            raise ModelError(
                f"{where} is {source}, and its values cannot become {target} without a change; convert it in "
                "the file."
            )
    return result


def _is_finite(array: NDArray[Any], dtype: str) -> bool:
    return bool(np.isfinite(_widened(array) if dtype == "bfloat16" else array).all())


def _widened(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    layout = Layout([Entry("x", bits.shape, "bfloat16")])
    return Vector.from_arrays({"x": bits}, layout).widened()["x"]


def _narrowed(numbers: NDArray[np.float32]) -> NDArray[np.uint16]:
    layout = Layout([Entry("x", numbers.shape, "bfloat16")])
    return Vector.from_arrays({"x": numbers}, layout)["x"]


def _is_torch(path: str | Path) -> bool:
    try:
        with open(path, "rb") as file:
            begin = file.read(len(_TORCH_PICKLE))
    except OSError:
        # The reader of safetensors files says why.
        return False
    if begin[8:9] == b"{":
        return False
    if begin[:1] == b"\x80" and begin != _TORCH_PICKLE:
        raise ModelError(
            f'"{path}" is a pickle of Python objects, which can run code when read; save its weights as a '
            "safetensors file, or as a torch state dict with torch.save(model.state_dict(), ...)."
        )
    return begin == _TORCH_PICKLE or begin.startswith(_TORCH_ZIP)


def _torch_state(path: str | Path) -> tuple[dict[str, Entry], dict[str, NDArray[Any]]]:
    try:
        import torch
    except ImportError:
        raise DependencyError(
            f'reading "{path}" needs torch: pip install "fedpact[torch]", or save the weights as safetensors.'
        ) from None
    try:
        # weights_only builds tensors and containers of them and refuses every other object. From a path torch
        # would take the kind of file by its name.
        with open(path, "rb") as file:
            state = torch.load(file, map_location="cpu", weights_only=True)  # noqa: TID251
    except Exception:
        # Damaged files and refused objects end in errors of many kinds.
        raise ModelError(
            f'"{path}" cannot be read as a torch state dict: it is damaged, or holds Python objects, which '
            "can run code when read. Save the weights alone, with torch.save(model.state_dict(), ...)."
        ) from None
    if not isinstance(state, Mapping) or not state:
        raise ModelError(
            f'"{path}" holds a {type(state).__name__}, not a state dict; save model.state_dict().'
        )
    entries, arrays = {}, {}
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor):
            raise ModelError(
                f'"{path}": "{name}" is a {type(tensor).__name__}, no tensor; save model.state_dict() alone.'
            )
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in STORAGE or tensor.layout != torch.strided or tensor.is_quantized:
            raise ModelError(
                f'"{path}": "{name}" is a {tensor.layout} tensor of {dtype}, which cannot be read here.'
            )
        entries[name] = Entry(name, tuple(tensor.shape), dtype)
        bits = tensor.detach().view(torch.int16) if dtype == "bfloat16" else tensor.detach()
        array = bits.numpy()
        arrays[name] = array.view(np.uint16) if dtype == "bfloat16" else array
    return entries, arrays
