"""Encrypted exact sums of short vectors, such as statistics: many numbers packed into each Paillier plaintext.

For the cryptosystem itself see `paillier_keys`.
"""

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import UpdateError
from fedpact.secure.packing import Packing
from fedpact.secure.paillier_keys import KeyShare, PaillierKeys, PaillierPublic, combine

__all__ = [
    "DecryptionPart",
    "EncryptedNumbers",
    "KeyShare",
    "Packing",
    "PaillierKeys",
    "PaillierPublic",
    "add",
    "combine_parts",
    "decrypt",
    "decrypt_exact",
    "decrypt_part",
    "encrypt",
    "scale",
    "weighted_sum",
]

# Magic, key, numbers, bits, guard, fraction bits, load; then ciphertexts of one width.
_NUMBERS = struct.Struct("<8s32sQHHHQ")
_NUMBERS_MAGIC = b"FPPAILN1"
# Magic, key, digest of what was decrypted, party, parties; then as many numbers as ciphertexts.
_PART = struct.Struct("<8s32s32sII")
_PART_MAGIC = b"FPPAILD1"


@dataclass(frozen=True)
class EncryptedNumbers:
    """An encrypted vector of exact numbers.

    Attributes:
        public: the key that it was encrypted under.
        packing: how the numbers lie in the plaintexts.
        size: how many numbers.
        ciphertexts: the ciphertexts, `packing.slots` numbers each.
        load: what the sizes of the weights of all that was added come to; 1 for a fresh encryption.
    """

    public: PaillierPublic
    packing: Packing
    size: int
    ciphertexts: tuple[int, ...]
    load: int = 1

    def digest(self) -> bytes:
        """Return the SHA-256 of `to_bytes`."""
        return hashlib.sha256(self.to_bytes()).digest()

    def to_bytes(self) -> bytes:
        """Return the bytes to send: `public.ciphertext_bytes` for each ciphertext, and 64 more."""
        packing = self.packing
        header = _NUMBERS.pack(
            _NUMBERS_MAGIC,
            self.public.key_id,
            self.size,
            packing.bits,
            packing.guard,
            packing.fraction_bits,
            self.load,
        )
        return header + _packed(self.ciphertexts, self.public)

    @classmethod
    def read(cls, public: PaillierPublic, packing: Packing, data: bytes, size: int) -> "EncryptedNumbers":
        """Return the numbers that `to_bytes` wrote; key, packing and size are those expected.

        Raises:
            UpdateError: bytes of another kind, key, packing, size or length, or what is no ciphertext.
        """
        if len(data) < _NUMBERS.size or data[: len(_NUMBERS_MAGIC)] != _NUMBERS_MAGIC:
            raise UpdateError("these bytes are not what `EncryptedNumbers.to_bytes()` returns.")
        _, key_id, told_size, bits, guard, fraction_bits, load = _NUMBERS.unpack_from(data)
        if key_id != public.key_id:
            raise UpdateError("these numbers are encrypted under another key; encrypt them under this job's.")
        if (bits, guard, fraction_bits, told_size) != (
            packing.bits,
            packing.guard,
            packing.fraction_bits,
            size,
        ):
            raise UpdateError(
                f"{told_size} encrypted numbers of {bits} bits, guard {guard} and {fraction_bits} fraction bits "
                f"came; {size} in {packing} were expected."
            )
        if not 1 <= load <= 1 << packing.guard:
            raise UpdateError(
                f"encrypted numbers came with a load of {load}; it is 1 to {1 << packing.guard}."
            )
        ciphertexts = _unpacked(data[_NUMBERS.size :], packing.ciphertexts(size, public), public)
        return cls(public, packing, size, ciphertexts, load)


@dataclass(frozen=True)
class DecryptionPart:
    """What one party of a split key adds to a decryption.

    Attributes:
        public: the public key.
        digest: of what is decrypted, so that parts of different ciphertexts are not combined.
        party: whose part, from 0.
        parties: how many are needed.
        numbers: one for each ciphertext.
    """

    public: PaillierPublic
    digest: bytes
    party: int
    parties: int
    numbers: tuple[int, ...]

    def to_bytes(self) -> bytes:
        """Return the bytes to send to whoever combines the parts."""
        header = _PART.pack(_PART_MAGIC, self.public.key_id, self.digest, self.party, self.parties)
        return header + _packed(self.numbers, self.public)

    @classmethod
    def read(cls, data: bytes, encrypted: EncryptedNumbers) -> "DecryptionPart":
        """Return the part that `to_bytes` wrote, for these encrypted numbers.

        Raises:
            UpdateError: bytes of another kind, key, ciphertext or length.
        """
        if len(data) < _PART.size or data[: len(_PART_MAGIC)] != _PART_MAGIC:
            raise UpdateError("these bytes are not what `DecryptionPart.to_bytes()` returns.")
        _, key_id, digest, party, parties = _PART.unpack_from(data)
        if key_id != encrypted.public.key_id or digest != encrypted.digest():
            raise UpdateError("this part of a decryption is of another key or of other ciphertexts.")
        numbers = _unpacked(data[_PART.size :], len(encrypted.ciphertexts), encrypted.public)
        return cls(encrypted.public, digest, party, parties, numbers)


def encrypt(
    public: PaillierPublic, numbers: Sequence[float | Fraction] | NDArray[Any], packing: Packing | None = None
) -> EncryptedNumbers:
    """Return numbers, [d] of any real type, encrypted; integers below the declared bits stay exact.

    Raises:
        UpdateError: another shape, no numbers, or a number that is NaN, infinite or too large for the packing.
        ConfigError: the packing does not fit the key.
    """
    packing = packing or Packing()
    if isinstance(numbers, np.ndarray):
        if numbers.ndim != 1 or numbers.dtype.kind not in "fiub":
            raise UpdateError(
                f"only a vector of real numbers is encrypted; this is {numbers.dtype} of shape {numbers.shape}."
            )
        numbers = numbers.tolist()
    if not numbers:
        raise UpdateError("there are no numbers to encrypt.")
    slots = packing.slots(public)
    digits = [packing.encode(number, place) for place, number in enumerate(numbers)]
    plaintexts = (packing.pack(digits[start : start + slots]) for start in range(0, len(digits), slots))
    return EncryptedNumbers(public, packing, len(digits), tuple(map(public.encrypt, plaintexts)))


def add(first: EncryptedNumbers, second: EncryptedNumbers) -> EncryptedNumbers:
    """Return the encrypted sum.

    Raises:
        UpdateError: other keys, packings or sizes, or more load than the guard bits hold.
    """
    if first.public != second.public:
        raise UpdateError("these numbers are encrypted under different keys and cannot be added.")
    if (first.packing, first.size) != (second.packing, second.size):
        raise UpdateError(
            f"{first.size} numbers in {first.packing} and {second.size} in {second.packing} cannot be added; all "
            "clients must use the same packing."
        )
    load = _checked_load(first.load + second.load, first.packing)
    pairs = zip(first.ciphertexts, second.ciphertexts, strict=True)
    return replace(first, ciphertexts=tuple(first.public.add(a, b) for a, b in pairs), load=load)


def scale(encrypted: EncryptedNumbers, weight: int) -> EncryptedNumbers:
    """Return the encrypted product with an integer weight ≠ 0, of either sign.

    Raises:
        UpdateError: the weight is no integer or is 0, or more load than the guard bits hold.
    """
    if not isinstance(weight, int | np.integer) or not weight:
        raise UpdateError(
            f"a Paillier ciphertext cannot be multiplied by {weight!r}: weights are integers other than 0. Leave "
            "out what has no weight, and take fractions in a common unit."
        )
    weight = int(weight)
    load = _checked_load(encrypted.load * abs(weight), encrypted.packing)
    products = tuple(encrypted.public.multiply(each, weight) for each in encrypted.ciphertexts)
    return replace(encrypted, ciphertexts=products, load=load)


def weighted_sum(vectors: Sequence[EncryptedNumbers], weights: Sequence[int]) -> EncryptedNumbers:
    """Return the encrypted Σ weight·vector.

    Raises:
        UpdateError: no vectors, another number of weights, or as for `add` and `scale`.
    """
    if not vectors or len(vectors) != len(weights):
        raise UpdateError(
            f"{len(vectors)} encrypted vectors and {len(weights)} weights make no weighted sum."
        )
    total = scale(vectors[0], weights[0])
    for vector, weight in zip(vectors[1:], weights[1:], strict=True):
        total = add(total, scale(vector, weight))
    return total


def decrypt_exact(keys: PaillierKeys, encrypted: EncryptedNumbers) -> list[Fraction]:
    """Return the numbers as they are.

    Raises:
        UpdateError: another key, or numbers that no clients within the declared bits can have sent.
    """
    if keys.public != encrypted.public:
        raise UpdateError("these numbers are encrypted under another key than this one.")
    return _numbers(encrypted, map(keys.decrypt, encrypted.ciphertexts))


def decrypt(keys: PaillierKeys, encrypted: EncryptedNumbers) -> NDArray[np.float64]:
    """Return the numbers rounded once, to float64 [d].

    Raises:
        UpdateError: as for `decrypt_exact`.
    """
    return np.array(decrypt_exact(keys, encrypted), dtype=np.float64)


def decrypt_part(share: KeyShare, encrypted: EncryptedNumbers) -> DecryptionPart:
    """Return this party's part of the decryption; a party should give it for sums it has agreed to alone.

    Raises:
        UpdateError: another key.
    """
    if share.public != encrypted.public:
        raise UpdateError("these numbers are encrypted under another key than that of this share.")
    numbers = tuple(map(share.decrypt, encrypted.ciphertexts))
    return DecryptionPart(share.public, encrypted.digest(), share.party, share.parties, numbers)


def combine_parts(encrypted: EncryptedNumbers, parts: Sequence[DecryptionPart]) -> NDArray[np.float64]:
    """Return the numbers, float64 [d], from the parts of all parties in any order.

    Raises:
        UpdateError: a part is missing, wrong, twice there, or of another ciphertext.
    """
    digest = encrypted.digest()
    if any(part.digest != digest or part.public != encrypted.public for part in parts):
        raise UpdateError("a part of the decryption is of another key or of other ciphertexts.")
    there = sorted(part.party for part in parts)
    if not parts or there != list(range(len(parts))) or any(part.parties != len(parts) for part in parts):
        wanted = f"0 to {parts[0].parties - 1}; there are {there}" if parts else "there are none"
        raise UpdateError(f"all parties' parts are needed to decrypt, once each: {wanted}.")
    columns = zip(*(part.numbers for part in parts), strict=True)
    exact = _numbers(encrypted, (combine(encrypted.public, column) for column in columns))
    return np.array(exact, dtype=np.float64)


def _numbers(encrypted: EncryptedNumbers, plaintexts: Iterable[int]) -> list[Fraction]:
    packing, size = encrypted.packing, encrypted.size
    slots = packing.slots(encrypted.public)
    digits: list[int] = []
    for plaintext in plaintexts:
        digits += packing.unpack(plaintext, min(slots, size - len(digits)), encrypted.load)
    return list(map(packing.exact, digits))


def _checked_load(load: int, packing: Packing) -> int:
    if load > 1 << packing.guard:
        raise UpdateError(
            f"the weights of the sum come to {load}; with {packing.guard} guard bits they may come to "
            f"{1 << packing.guard} before numbers run into one another. Take more guard bits."
        )
    return load


def _packed(numbers: Sequence[int], public: PaillierPublic) -> bytes:
    return b"".join(number.to_bytes(public.ciphertext_bytes, "big") for number in numbers)


def _unpacked(data: bytes, count: int, public: PaillierPublic) -> tuple[int, ...]:
    width = public.ciphertext_bytes
    if len(data) != count * width:
        raise UpdateError(f"{len(data)} bytes of ciphertexts came; {count} take {count * width}.")
    return tuple(
        public.check(int.from_bytes(data[start : start + width], "big"))
        for start in range(0, len(data), width)
    )
