"""Keys and parameters for CKKS, through TenSEAL: who may encrypt and add, and who may decrypt."""

import hashlib
import json
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from fedpact.core.errors import ConfigError, DependencyError, UpdateError

# Of log2 q, all primes together, at most so many bits give 128-bit security (homomorphicencryption.org, 2018).
_MOST_BITS = {2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881}
_PUBLIC_MAGIC = b"FPCKKSP1"
_SECRET_MAGIC = b"FPCKKSS1"
_LENGTH = struct.Struct("<I")
_LARGEST_KEY = 1 << 26
# Beside its integers a ciphertext has headers, and what does not compress takes a little more room.
_CHUNK_OVERHEAD = 4096


@dataclass(frozen=True)
class CKKSParameters:
    """What clients, server and key holder agree on.

    A number v is encrypted as v / limit · 2^headroom at the scale 2^scale_bits, a weight w as w / total_weight
    at the same scale, so that no sum within the declared range and total can wrap, and nothing is rescaled.

    Args:
        poly_modulus_degree: N, a power of two; a ciphertext holds N / 2 numbers.
        coeff_mod_bits: bits of each prime; the last is the special one and holds no data.
        scale_bits: bits of the fraction, of numbers and of weights each.
        limit: the declared range: every |value| ≤ limit. A range far wider than the values costs precision.

    Raises:
        ConfigError: less than 128-bit security, or no room for the product of a number and a weight.
    """

    poly_modulus_degree: int = 8192
    coeff_mod_bits: tuple[int, ...] = (60, 40, 60)
    scale_bits: int = 40
    limit: float = 1024.0

    def __post_init__(self) -> None:
        most = _MOST_BITS.get(self.poly_modulus_degree)
        if most is None:
            raise ConfigError(
                f"poly_modulus_degree is {self.poly_modulus_degree}; known: {', '.join(map(str, _MOST_BITS))}."
            )
        if len(self.coeff_mod_bits) < 2 or not all(20 <= bits <= 60 for bits in self.coeff_mod_bits):
            raise ConfigError(
                f"coeff_mod_bits is {list(self.coeff_mod_bits)}; give two primes or more of 20 to 60 bits each."
            )
        if sum(self.coeff_mod_bits) > most:
            raise ConfigError(
                f"coeff_mod_bits add up to {sum(self.coeff_mod_bits)}; with a poly_modulus_degree of "
                f"{self.poly_modulus_degree}, more than {most} gives less than 128-bit security."
            )
        if self.scale_bits < 20 or self.headroom < 0:
            raise ConfigError(
                f"scale_bits is {self.scale_bits}; it must be 20 or more, and its double at most "
                f"{sum(self.coeff_mod_bits[:-1]) - 2}: the bits of all primes but the last, less 2."
            )
        if not 2.0**-64 <= self.limit <= 2.0**64:
            raise ConfigError(f"the declared range is ±{self.limit:g}; it must be between 2^-64 and 2^64.")

    @property
    def headroom(self) -> int:
        """Bits that are left above the scales of a number and a weight, a sign and a bit for the noise."""
        return sum(self.coeff_mod_bits[:-1]) - 2 * self.scale_bits - 2

    @property
    def slots(self) -> int:
        """How many numbers one ciphertext holds."""
        return self.poly_modulus_degree // 2

    @property
    def unit(self) -> float:
        """What a decoded 1 is worth before weights."""
        return self.limit / 2.0**self.headroom

    def chunks(self, size: int) -> int:
        """Return how many ciphertexts a vector of this size takes."""
        return -(-size // self.slots)

    @property
    def largest_chunk(self) -> int:
        """Bytes that one serialised ciphertext has at most."""
        return 2 * 8 * self.poly_modulus_degree * (len(self.coeff_mod_bits) - 1) + _CHUNK_OVERHEAD


@dataclass
class Report:
    """What encryption cost whoever passes this along: bytes of ciphertexts and seconds of each operation."""

    ciphertext_bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, operation: str) -> Iterator[None]:
        """Add the seconds that the block takes to those of this operation."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[operation] = self.seconds.get(operation, 0.0) + time.perf_counter() - start


class CKKSPublic:
    """The public key and the parameters: enough to encrypt and to add, not to decrypt.

    Args:
        data: what `CKKSKeys.public` returned.

    Raises:
        UpdateError: these bytes are no public key, are damaged, or hold a secret key.
        DependencyError: TenSEAL is not installed.
    """

    def __init__(self, data: bytes) -> None:
        self.parameters, context = _read_key(data)
        if context.has_secret_key():
            raise UpdateError(
                "these bytes hold a secret key; give what `CKKSKeys.public()` returns, and keep the rest at the "
                "key holder."
            )
        self.data = bytes(data)
        self.key_id = hashlib.sha256(data).digest()
        self.context = context

    def __repr__(self) -> str:
        return f"CKKSPublic({self.key_id.hex()[:16]}, {self.parameters})"


class CKKSKeys:
    """A key pair, for the key holder alone; clients and server get `public()`.

    Made by `CKKSKeys.generate` or `CKKSKeys.read`.
    """

    def __init__(self, public: bytes, secret: Any) -> None:
        self._public = CKKSPublic(public)
        self._secret = secret

    @classmethod
    def generate(cls, parameters: CKKSParameters | None = None) -> Self:
        """Return a new key pair, from the operating system's entropy.

        Raises:
            DependencyError: TenSEAL is not installed.
        """
        parameters = parameters or CKKSParameters()
        tenseal = tenseal_library()
        context = tenseal.context(
            tenseal.SCHEME_TYPE.CKKS,
            parameters.poly_modulus_degree,
            coeff_mod_bit_sizes=list(parameters.coeff_mod_bits),
            n_threads=1,
        )
        context.global_scale = 2.0**parameters.scale_bits
        context.auto_rescale = False
        # TenSEAL's make_context_public leaves the decryptor in place; bytes without a secret key do not.
        return cls(_write_key(parameters, context, secret=False), context)

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Return the key pair that `to_bytes` wrote.

        Raises:
            UpdateError: these bytes are no key pair, or are damaged.
            DependencyError: TenSEAL is not installed.
        """
        if data[: len(_SECRET_MAGIC)] != _SECRET_MAGIC or len(data) < len(_SECRET_MAGIC) + _LENGTH.size:
            raise UpdateError("these bytes are not what `CKKSKeys.to_bytes()` returns.")
        (length,) = _LENGTH.unpack_from(data, len(_SECRET_MAGIC))
        start = len(_SECRET_MAGIC) + _LENGTH.size
        _, secret = _read_key(data[start + length :])
        if not secret.has_secret_key():
            raise UpdateError("these bytes hold no secret key; give what `CKKSKeys.to_bytes()` returned.")
        return cls(data[start : start + length], secret)

    def public(self) -> bytes:
        """Return what clients and server need: parameters and public key, without the secret key."""
        return self._public.data

    def to_bytes(self) -> bytes:
        """Return both keys, to be stored where the key holder alone can read them."""
        public = self.public()
        secret = _write_key(self.parameters, self._secret, secret=True)
        return _SECRET_MAGIC + _LENGTH.pack(len(public)) + public + secret

    @property
    def parameters(self) -> CKKSParameters:
        """What was agreed on."""
        return self._public.parameters

    def __repr__(self) -> str:
        return f"CKKSKeys({self._public.key_id.hex()[:16]}, {self.parameters})"

    @property
    def public_key(self) -> CKKSPublic:
        """The public key, parsed."""
        return self._public

    def decrypted(self, chunk: Any) -> list[float]:
        """Return the numbers in one of TenSEAL's encrypted vectors, as they were encoded."""
        numbers: list[float] = chunk.decrypt(self._secret.secret_key())
        return numbers


def tenseal_library() -> Any:
    """Return the module tenseal.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        import tenseal
    except ImportError:
        raise DependencyError('CKKS needs TenSEAL: pip install "fedpact[he]".') from None
    return tenseal


def _write_key(parameters: CKKSParameters, context: Any, *, secret: bool) -> bytes:
    written = json.dumps(asdict(parameters)).encode()
    body: bytes = context.serialize(
        save_public_key=True, save_secret_key=secret, save_galois_keys=False, save_relin_keys=False
    )
    return _PUBLIC_MAGIC + _LENGTH.pack(len(written)) + written + body


def _read_key(data: bytes) -> tuple[CKKSParameters, Any]:
    start = len(_PUBLIC_MAGIC) + _LENGTH.size
    if len(data) > _LARGEST_KEY or len(data) < start or data[: len(_PUBLIC_MAGIC)] != _PUBLIC_MAGIC:
        raise UpdateError("these bytes are not what `CKKSKeys.public()` returns.")
    (length,) = _LENGTH.unpack_from(data, len(_PUBLIC_MAGIC))
    tenseal = tenseal_library()
    try:
        written = json.loads(data[start : start + length])
        written["coeff_mod_bits"] = tuple(written["coeff_mod_bits"])
        parameters = CKKSParameters(**written)
        context = tenseal.context_from(data[start + length :], n_threads=1)
        inside = context.seal_context().data.key_context_data()
        agrees = (
            context.has_public_key()
            and inside.parms().poly_modulus_degree() == parameters.poly_modulus_degree
            and inside.total_coeff_modulus_bit_count() == sum(parameters.coeff_mod_bits)
            and context.global_scale == 2.0**parameters.scale_bits
        )
    except (ValueError, RuntimeError, KeyError, TypeError, ConfigError) as error:
        raise UpdateError(f"these bytes hold a damaged key ({error}); ask the key holder again.") from None
    if not agrees:
        raise UpdateError("the key and the parameters beside it disagree; ask the key holder for both again.")
    context.auto_rescale = False
    return parameters, context
