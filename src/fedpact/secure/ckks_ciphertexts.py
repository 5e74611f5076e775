"""Encrypted vectors and their bytes."""

import math
import struct
from dataclasses import dataclass
from typing import Any

from fedpact.core.errors import UpdateError
from fedpact.secure.ckks_keys import CKKSPublic, Report, tenseal_library

# Magic, key, numbers, total weight, bound, chunks; then each chunk's length and bytes.
_HEADER = struct.Struct("<8s32sQddI")
_MAGIC = b"FPCKKSC1"
_LENGTH = struct.Struct("<I")
# Bounds are sums and products of float64.
EXCESS = 1 + 2.0**-20


@dataclass(frozen=True, eq=False)
class Ciphertexts:
    """An encrypted vector, in chunks of `parameters.slots` numbers.

    Attributes:
        public: the key that it was encrypted under.
        size: how many numbers.
        chunks: TenSEAL's encrypted vectors; never changed in place.
        total_weight: what the weights that it was multiplied by add up to at most; 0 before any.
        bound: no |number| is more than this if every client kept to the declared range.
    """

    public: CKKSPublic
    size: int
    chunks: tuple[Any, ...]
    total_weight: float
    bound: float

    def to_bytes(self, report: Report | None = None) -> bytes:
        """Return the bytes to send."""
        report = report or Report()
        with report.timed("serialise"):
            parts = [
                _HEADER.pack(
                    _MAGIC, self.public.key_id, self.size, self.total_weight, self.bound, len(self.chunks)
                )
            ]
            for chunk in self.chunks:
                data = chunk.serialize()
                parts += [_LENGTH.pack(len(data)), data]
            joined = b"".join(parts)
        report.ciphertext_bytes += len(joined)
        return joined

    @staticmethod
    def read(
        public: CKKSPublic | bytes, data: bytes, size: int, report: Report | None = None
    ) -> "Ciphertexts":
        """Return the ciphertexts that `to_bytes` wrote; `size` is how many numbers are expected.

        Raises:
            UpdateError: bytes of another kind, key, size or number of chunks, more bytes than such a vector
                can have, or what is not a ciphertext of these parameters.
        """
        public = parsed(public)
        report = report or Report()
        with report.timed("read"):
            found = _read(public, data, size)
        report.ciphertext_bytes += len(data)
        return found


def parsed(public: CKKSPublic | bytes) -> CKKSPublic:
    """Return the public key that is given as such or as its bytes.

    Raises:
        UpdateError: the bytes are no public key.
    """
    return public if isinstance(public, CKKSPublic) else CKKSPublic(public)


def power_of_two(total_weight: float) -> float:
    """Return the least power of two that is no less than a declared total of weights.

    Raises:
        UpdateError: it is not a number that weights can be scaled by.
    """
    if not 2.0**-64 <= total_weight <= 2.0**64:
        raise UpdateError(
            f"the weights are declared to add up to {total_weight:g}; it must be between 2^-64 and 2^64."
        )
    return 2.0 ** math.ceil(math.log2(total_weight))


def check_bound(bound: float, public: CKKSPublic, total_weight: float) -> None:
    """Check that numbers up to this bound cannot wrap.

    Raises:
        UpdateError: they could.
    """
    parameters = public.parameters
    # Without weights the bits that are kept for theirs are free.
    most = parameters.limit * (total_weight or 2.0**parameters.scale_bits)
    if not bound <= most * EXCESS:
        raise UpdateError(
            f"the encrypted sum could reach {bound:g} and wraps beyond {most:g}; declare a larger total_weight "
            "for the weights that are added."
        )


def _read(public: CKKSPublic, data: bytes, size: int) -> Ciphertexts:
    parameters = public.parameters
    count = parameters.chunks(size)
    most = _HEADER.size + count * (_LENGTH.size + parameters.largest_chunk)
    if len(data) > most:
        raise UpdateError(f"{len(data)} bytes are more than {size} encrypted numbers take, which is {most}.")
    if len(data) < _HEADER.size or data[: len(_MAGIC)] != _MAGIC:
        raise UpdateError("these bytes are not what `Ciphertexts.to_bytes()` returns.")
    _, key_id, told_size, total_weight, bound, told_count = _HEADER.unpack_from(data)
    if key_id != public.key_id:
        raise UpdateError(
            f"these ciphertexts are of the key {key_id.hex()[:16]}, not of {public.key_id.hex()[:16]}; all "
            "clients must encrypt under the key of this job."
        )
    if told_size != size or told_count != count:
        raise UpdateError(
            f"{told_size} encrypted numbers in {told_count} chunks came; {size} in {count} were expected."
        )
    if not (total_weight == 0 or (total_weight > 0 and total_weight == power_of_two(total_weight))):
        raise UpdateError(f"a total weight of {total_weight:g} was not written by `Ciphertexts.to_bytes()`.")
    if not bound > 0:
        raise UpdateError(f"a bound of {bound:g} was not written by `Ciphertexts.to_bytes()`.")
    check_bound(bound, public, total_weight)
    chunks, start = [], _HEADER.size
    for place in range(count):
        (length,) = _LENGTH.unpack(data[start : start + _LENGTH.size].ljust(_LENGTH.size, b"\0"))
        start += _LENGTH.size
        numbers = min(parameters.slots, size - place * parameters.slots)
        chunks.append(_read_chunk(public, data[start : start + length], numbers, bool(total_weight)))
        start += length
    if start != len(data):
        raise UpdateError(f"the encrypted vector is {len(data)} bytes long; its chunks make {start}.")
    return Ciphertexts(public, size, tuple(chunks), total_weight, bound)


def _read_chunk(public: CKKSPublic, data: bytes, numbers: int, weighted: bool) -> Any:
    parameters = public.parameters
    try:
        chunk = tenseal_library().ckks_vector_from(public.context, data)
        (inside,) = chunk.ciphertext()
    except (ValueError, RuntimeError) as error:
        raise UpdateError(f"an encrypted vector is damaged or of other parameters ({error}).") from None
    if (
        chunk.size() != numbers
        or inside.size() != 2
        or inside.coeff_modulus_size() != len(parameters.coeff_mod_bits) - 1
        or inside.scale != 2.0 ** (parameters.scale_bits * (2 if weighted else 1))
        or inside.is_transparent()
    ):
        raise UpdateError("an encrypted vector is not of the size, level and scale that its key asks for.")
    return chunk
