"""Encrypted weighted sums: clients encrypt, a server without the secret key adds, the key holder decrypts.

CKKS (Cheon, Kim, Kim and Song, "Homomorphic Encryption for Arithmetic of Approximate Numbers", ASIACRYPT 2017)
through TenSEAL. Whoever holds the secret key can read every single ciphertext, not the sum alone, and what was
decrypted tells about the key itself (Li and Micciancio, "On the Security of Homomorphic Encryption on
Approximate Numbers", EUROCRYPT 2021): see the guide on homomorphic encryption before sharing it.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import UpdateError
from fedpact.secure.ckks_ciphertexts import EXCESS, Ciphertexts, check_bound, parsed, power_of_two
from fedpact.secure.ckks_keys import CKKSKeys, CKKSParameters, CKKSPublic, Report, tenseal_library

__all__ = [
    "CKKSKeys",
    "CKKSParameters",
    "CKKSPublic",
    "Ciphertexts",
    "EncryptedSum",
    "Report",
    "add",
    "decrypt",
    "encrypt",
    "scale",
    "weighted_sum",
]

_TOTAL_WEIGHT = 65536.0


class EncryptedSum:
    """A running sum Σ weight·vector of ciphertexts: one ciphertext vector of memory, whatever their number.

    The product rule E(g)·w = E(g·w): nobody but the key holder learns g, and whoever adds chooses w.

    Args:
        public: the public key; no secret key is needed.
        total_weight: an upper bound on the sum of all |weight|. It is rounded up to a power of two, and weights
            to multiples of that times 2^-scale_bits.
        report: where to count the seconds.

    Raises:
        UpdateError: the total is not a positive number.
    """

    def __init__(
        self, public: CKKSPublic | bytes, total_weight: float = _TOTAL_WEIGHT, report: Report | None = None
    ) -> None:
        self.public = parsed(public)
        self.total_weight = power_of_two(total_weight)
        self.report = report or Report()
        self.weight = 0.0
        self.count = 0
        self._chunks: tuple[Any, ...] = ()
        self._size = 0
        self._bound = 0.0

    def add(self, ciphertexts: Ciphertexts, weight: float = 1.0) -> None:
        """Add weight · ciphertexts. `weight` then holds the sum of the weights as they entered, rounded.

        Raises:
            UpdateError: another key or size, ciphertexts that were multiplied before, a weight that is NaN,
                infinite or rounded to 0, or more weight than was declared. The sum is then as it was before.
        """
        _check_key(ciphertexts, self.public.key_id)
        if self.count and ciphertexts.size != self._size:
            raise UpdateError(
                f"an encrypted vector of {ciphertexts.size} numbers cannot be added to one of {self._size}."
            )
        factor = _factor(self.public, weight, self.total_weight)
        bound = self._bound + _weighted_bound(ciphertexts, factor, self.total_weight)
        check_bound(bound, self.public, self.total_weight)
        with self.report.timed("add"):
            if factor:
                products = _products(ciphertexts, factor)
                for mine, other in zip(self._chunks, products, strict=bool(self._chunks)):
                    mine.add_(other)
                self._chunks = self._chunks or products
        self._size = ciphertexts.size
        self._bound = bound
        self.weight += factor * self.total_weight
        self.count += 1

    def total(self) -> Ciphertexts:
        """Return the sum so far, for the key holder; adding may go on.

        Raises:
            UpdateError: nothing of any weight was added.
        """
        return self._of(tuple(chunk.copy() for chunk in self._chunks))

    def _of(self, chunks: tuple[Any, ...]) -> Ciphertexts:
        if not chunks:
            raise UpdateError("there is no encrypted sum: nothing of any weight was added.")
        return Ciphertexts(self.public, self._size, chunks, self.total_weight, self._bound)


def encrypt(
    public: CKKSPublic | bytes,
    vector: NDArray[np.float32] | NDArray[np.float64],
    report: Report | None = None,
) -> Ciphertexts:
    """Return a vector, float32 or float64 [d], encrypted under this key.

    Raises:
        UpdateError: another shape or dtype, no numbers, or a number that is NaN, infinite or outside the
            declared range.
    """
    public = parsed(public)
    parameters = public.parameters
    _check_vector(vector, parameters.limit)
    report = report or Report()
    library = tenseal_library()
    with report.timed("encrypt"):
        encoded = vector.astype(np.float64) / parameters.unit
        chunks = tuple(
            library.ckks_vector(public.context, encoded[start : start + parameters.slots])
            for start in range(0, len(encoded), parameters.slots)
        )
    return Ciphertexts(public, len(vector), chunks, 0.0, parameters.limit)


def add(first: Ciphertexts, second: Ciphertexts) -> Ciphertexts:
    """Return the encrypted sum of two vectors that were both, or neither, multiplied by weights of one total.

    Raises:
        UpdateError: other keys, sizes or totals, or a sum that could wrap.
    """
    _check_key(second, first.public.key_id)
    if first.size != second.size:
        raise UpdateError(f"encrypted vectors of {first.size} and {second.size} numbers cannot be added.")
    if first.total_weight != second.total_weight:
        raise UpdateError(
            "one of these encrypted vectors was multiplied by a weight and the other was not, or by one of "
            "another total; multiply both with the same total_weight."
        )
    bound = first.bound + second.bound
    check_bound(bound, first.public, first.total_weight)
    chunks = tuple(mine + other for mine, other in zip(first.chunks, second.chunks, strict=True))
    return replace(first, chunks=chunks, bound=bound)


def scale(ciphertexts: Ciphertexts, weight: float, total_weight: float = _TOTAL_WEIGHT) -> Ciphertexts:
    """Return E(g·w) for E(g): the weight is applied without decrypting.

    Args:
        ciphertexts: not multiplied before.
        weight: w ≠ 0, of either sign.
        total_weight: as for `EncryptedSum`; products of the same total can be added.

    Raises:
        UpdateError: as for `EncryptedSum.add`, or the weight is 0.
    """
    running = EncryptedSum(ciphertexts.public, total_weight)
    running.add(ciphertexts, weight)
    # Nothing else is added, and a copy takes a hundred times as long as the product.
    return running._of(running._chunks)


def weighted_sum(
    vectors: Sequence[Ciphertexts], weights: Sequence[float], report: Report | None = None
) -> Ciphertexts:
    """Return the encrypted Σ weight·vector.

    Raises:
        UpdateError: no vectors, another number of weights, or as for `EncryptedSum.add`.
    """
    if not vectors or len(vectors) != len(weights):
        raise UpdateError(
            f"{len(vectors)} encrypted vectors and {len(weights)} weights make no weighted sum."
        )
    running = EncryptedSum(vectors[0].public, math.fsum(map(abs, weights)), report)
    for vector, weight in zip(vectors, weights, strict=True):
        running.add(vector, weight)
    return running.total()


def decrypt(
    keys: CKKSKeys, ciphertexts: Ciphertexts | bytes, size: int | None = None, report: Report | None = None
) -> NDArray[np.float64]:
    """Return the numbers, float64 [d]. Sharing them with others endangers the key: see the guide.

    Args:
        keys: the key holder's.
        ciphertexts: or their bytes.
        size: how many numbers are expected; needed for bytes.
        report: where to count bytes and seconds.

    Raises:
        UpdateError: another key or size, or numbers that no clients within the declared range can have sent.
    """
    report = report or Report()
    if isinstance(ciphertexts, bytes):
        if size is None:
            raise UpdateError("give the size of the vector whose bytes are to be decrypted.")
        ciphertexts = Ciphertexts.read(keys.public_key, ciphertexts, size, report)
    _check_key(ciphertexts, keys.public_key.key_id)
    if size is not None and size != ciphertexts.size:
        raise UpdateError(f"this encrypted vector holds {ciphertexts.size} numbers; {size} were expected.")
    with report.timed("decrypt"):
        numbers = np.concatenate([keys.decrypted(chunk) for chunk in ciphertexts.chunks])
        numbers *= keys.parameters.unit * (ciphertexts.total_weight or 1.0)
    if not np.abs(numbers).max() <= ciphertexts.bound * EXCESS + keys.parameters.unit:
        raise UpdateError(
            f"decryption gives numbers beyond ±{ciphertexts.bound:g}, which clients within the declared range "
            "cannot have sent: a ciphertext was damaged, made under another key, or out of range."
        )
    return numbers


def _check_vector(vector: NDArray[Any], limit: float) -> None:
    if vector.ndim != 1 or vector.dtype not in (np.float32, np.float64) or not vector.size:
        raise UpdateError(
            f"only a float32 or float64 vector of one dimension is encrypted; this is {vector.dtype} of shape "
            f"{vector.shape}."
        )
    within = np.abs(vector) <= limit
    if not within.all():
        place = int(np.argmin(within))
        raise UpdateError(
            f"number {place} to encrypt is {vector[place]:g}; with the limit of this key, numbers between "
            f"-{limit:g} and {limit:g} are. Clip them, or generate the key with a larger limit."
        )


def _check_key(ciphertexts: Ciphertexts, key_id: bytes) -> None:
    if ciphertexts.public.key_id != key_id:
        raise UpdateError(
            f"these ciphertexts are of the key {ciphertexts.public.key_id.hex()[:16]}, not of "
            f"{key_id.hex()[:16]}; all clients must encrypt under the key of this job."
        )


def _factor(public: CKKSPublic, weight: float, total_weight: float) -> float:
    steps = 2.0**public.parameters.scale_bits
    factor = round(weight / total_weight * steps) / steps if math.isfinite(weight) else math.inf
    if not abs(factor) <= 1:
        raise UpdateError(
            f"a weight is {weight:g}; weights are finite and add up to {total_weight:g} at most."
        )
    if weight and not factor:
        raise UpdateError(
            f"the weight {weight:g} is lost beside a total of {total_weight:g}; declare a smaller total_weight."
        )
    return factor


def _weighted_bound(ciphertexts: Ciphertexts, factor: float, total_weight: float) -> float:
    if ciphertexts.total_weight:
        raise UpdateError(
            "these ciphertexts were multiplied by a weight before, and there is room for one product; add them."
        )
    return ciphertexts.bound * abs(factor) * total_weight


def _products(ciphertexts: Ciphertexts, factor: float) -> tuple[Any, ...]:
    products = tuple(chunk * factor for chunk in ciphertexts.chunks)
    wanted = 4.0**ciphertexts.public.parameters.scale_bits
    # What a client sent says at which scale it is multiplied.
    if any(product.ciphertext()[0].scale != wanted for product in products):
        raise UpdateError(
            "an encrypted vector is of another scale than its key; the client must encrypt anew."
        )
    return products
