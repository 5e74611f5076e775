"""Shorter floats: trained parameters are sent as bfloat16 or float16, in half the bytes of float32."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.packer import check_expected
from fedpact.channel.transform import Kind, RoundContext, Transform, check_averages, check_may_change
from fedpact.core.errors import ModelError, UpdateError
from fedpact.core.messages import Update
from fedpact.core.packed import Packed
from fedpact.core.settings import check_choice
from fedpact.core.vector import STORAGE, Entry, Layout, Segment, Vector

_DTYPES = {"bf16": "bfloat16", "fp16": "float16"}
# What is rounded to infinity: half a step above the largest number, and beyond.
_TOO_LARGE = {"bf16": 2.0**128 - 2.0**119, "fp16": 65520.0}


@dataclass(frozen=True)
class Cast(Transform):
    """Round trained parameters to bfloat16 or float16, to the nearest, half to even; two bytes each are sent.

    Sums are taken of what they were rounded to, in the dtypes of the model. Buffers keep their dtype: a counter of
    batches would not survive. Averaged vectors that answer no array of the task, such as counts of earlier stages, are
    left as they are.

    It packs, so it stands in a channel without noise or masks: those add integers of a common step, which have a
    number of bits of their own (see `Quantize`), and floats of a common size are no such integers.

    Args:
        dtype: "bf16" (8 bits of precision, the range of float32) or "fp16" (11 bits, up to 65504).

    Raises:
        ConfigError: the dtype is neither.
    """

    dtype: Literal["bf16", "fp16"] = "bf16"

    kind: ClassVar[Kind] = "pack"

    def __post_init__(self) -> None:
        check_choice(self, "dtype", tuple(_DTYPES))

    def check(self, before: Sequence[Transform], algorithm: Any, layout: Layout | None) -> None:
        check_averages(self, algorithm)
        check_may_change(self, algorithm)

    def encode(self, update: Update, context: RoundContext) -> Update:
        """Pack the vectors.

        Raises:
            UpdateError: a number is beyond the range of the dtype.
        """
        packed = dict(update.packed)
        for name in sorted(context.layouts.keys() & update.averaged.keys()):
            vector, arrays = update.averaged[name], {}
            for place, (flat, segment) in enumerate(zip(vector.flats, vector.layout.segments, strict=True)):
                arrays[str(place)] = self._rounded(flat, segment, update.client)
            packed[name] = Packed(vector.layout, arrays)
        averaged = {name: vector for name, vector in update.averaged.items() if name not in packed}
        return replace(update, averaged=averaged, packed=packed)

    def receive(self, update: Update, context: RoundContext) -> Update:
        """Unpack the vectors.

        Raises:
            UpdateError: the arrays are not those that the vectors' layouts say.
        """
        averaged = dict(update.averaged)
        for name, packed in update.packed.items():
            sender = f'client "{update.client}": "{name}"'
            check_expected(packed, context.layouts.get(name), sender)
            averaged[name] = self._unpacked(packed, sender)
        return replace(update, averaged=averaged, packed={})

    def _rounded(self, flat: NDArray[Any], segment: Segment, client: str) -> NDArray[Any]:
        if segment.role == "buffer":
            return flat
        try:
            return Vector.from_arrays({"x": flat}, self._short(flat.size))["x"]
        except ModelError:
            with np.errstate(over="ignore"):
                rounded = np.abs(flat.astype(np.float32))
            place = int(np.argmax(np.isfinite(flat) & (rounded >= _TOO_LARGE[self.dtype])))
            name = Layout(segment.entries).locate(place)
            raise UpdateError(
                f'client "{client}": {name} is {float(flat[place]):g}, which {self.dtype} cannot hold; clip the '
                'update, or use dtype="bf16", which has the range of float32.'
            ) from None

    def _unpacked(self, packed: Packed, name: str) -> Vector:
        vector = Vector.zeros(packed.layout)
        if packed.arrays.keys() != {str(place) for place in range(len(vector.flats))}:
            raise UpdateError(f"{name} came in other parts than its layout has.")
        for place, (flat, segment) in enumerate(zip(vector.flats, packed.layout.segments, strict=True)):
            array = packed.arrays[str(place)]
            dtype = STORAGE[segment.dtype if segment.role == "buffer" else _DTYPES[self.dtype]]
            if array.shape != (segment.size,) or array.dtype != dtype:
                raise UpdateError(
                    f"{name} came as {array.dtype} {array.shape}; {self.dtype} has {dtype} ({segment.size},)."
                )
            if segment.role == "buffer":
                flat[:] = array
            else:
                flat[:] = Vector.from_arrays({"x": array}, self._short(segment.size)).widened()["x"]
        return vector

    def _short(self, size: int) -> Layout:
        return Layout([Entry("x", (size,), _DTYPES[self.dtype])])
