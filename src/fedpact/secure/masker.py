"""The masks of one client's vector in one round."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import SecureError
from fedpact.secure.prg import KEY_BYTES, add_masks
from fedpact.secure.ring import check_bits, reduce


class Masker:
    """What one client masks one vector with: the keys of its own mask and of those that it shares with neighbours.

    It hides one vector alone: of two under the same masks anyone can tell the difference, so a second one is refused.
    Between processes of one simulation it travels as bytes, or as a pickle of them; to a server it never does.

    Args:
        bits: numbers are mod 2^bits.
        plus: the keys, 32 bytes each, of the masks that are added.
        minus: of those that are subtracted, which the other client adds.
    """

    def __init__(self, bits: int, plus: Sequence[bytes], minus: Sequence[bytes]) -> None:
        check_bits(bits)
        self.bits = bits
        self._plus = tuple(plus)
        self._minus = tuple(minus)
        self._used = False

    def apply(self, ring: NDArray[np.uint32]) -> None:
        """Add all masks, in place, mod 2^bits.

        Args:
            ring: uint32 [parameters], contiguous, each below 2^bits.

        Raises:
            SecureError: the vector is not such a row, or this masker has masked one before.
        """
        if self._used:
            raise SecureError(
                "these masks have hidden a vector already; a second one under them would show the difference of the "
                "two. Begin a new round."
            )
        add_masks(ring, self._plus, self._minus)
        reduce(ring, self.bits)
        self._used = True
        self._plus = self._minus = ()

    def to_bytes(self) -> bytes:
        """Return it as 5 + 32 (k + 1) bytes.

        Raises:
            SecureError: it has masked a vector.
        """
        if self._used:
            raise SecureError("these masks have hidden a vector and are gone; begin a new round.")
        return bytes([self.bits]) + len(self._plus).to_bytes(4, "big") + b"".join(self._plus + self._minus)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Masker":
        """Return the masker that these bytes are of.

        Raises:
            SecureError: they are of none.
        """
        bits, added, keys = data[:1], int.from_bytes(data[1:5], "big"), data[5:]
        split = [keys[i : i + KEY_BYTES] for i in range(0, len(keys), KEY_BYTES)]
        if len(data) < 5 or len(keys) % KEY_BYTES or added > len(split):
            raise SecureError(f"{len(data)} bytes are no masker's.")
        return cls(bits[0], split[:added], split[added:])

    def __repr__(self) -> str:
        return f"<Masker of {len(self._plus) + len(self._minus)} masks mod 2^{self.bits}: its keys are not shown>"

    def __reduce__(self) -> tuple[Callable[[bytes], "Masker"], tuple[bytes]]:
        return Masker.from_bytes, (self.to_bytes(),)
