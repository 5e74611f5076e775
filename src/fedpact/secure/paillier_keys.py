"""Paillier's cryptosystem over gmpy2: exact encrypted sums of integers, and decryption shared by several parties.

Paillier, "Public-Key Cryptosystems Based on Composite Degree Residuosity Classes", EUROCRYPT 1999, scheme 1 with
g = n + 1 and the decryption by remainders of section 7. Shared decryption is additive, n of n: the exponent of
Damgård and Jurik ("A Generalisation, a Simplification and Some Applications of Paillier's Probabilistic
Public-Key System", PKC 2001, section 4.1) as a sum of random numbers.
"""

import hashlib
import json
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

from fedpact.core.errors import ConfigError, DependencyError, UpdateError

_LEAST_BITS = 2048
_MOST_BITS = 8192
# A composite passes a Miller-Rabin round with probability 1/4 at most.
_PRIMALITY_ROUNDS = 64
_MAGIC = b"FPPAILL1"
_LARGEST_KEY = 1 << 16


@dataclass(frozen=True)
class PaillierPublic:
    """The public key: enough to encrypt, to add and to multiply by integers, not to decrypt.

    Args:
        n: the product of two secret primes.
        least_bits: the least length of n that is taken; for tests alone.

    Raises:
        ConfigError: n is too short, too long or even.
    """

    n: int
    least_bits: int = field(default=_LEAST_BITS, repr=False, compare=False, kw_only=True)

    def __post_init__(self) -> None:
        _check_modulus(self.n, self.least_bits)

    @property
    def ciphertext_bytes(self) -> int:
        """Bytes of one ciphertext, a number below n²."""
        return (2 * self.n.bit_length() + 7) // 8

    @property
    def key_id(self) -> bytes:
        """What tells this key from others: the SHA-256 of n."""
        return hashlib.sha256(_number_bytes(self.n)).digest()

    def encrypt(self, plaintext: int) -> int:
        """Return a fresh ciphertext of an integer, |plaintext| < n / 2.

        Raises:
            UpdateError: the integer does not fit.
            DependencyError: gmpy2 is not installed.
        """
        if 2 * abs(plaintext) >= self.n:
            raise UpdateError(
                f"an integer of {plaintext.bit_length()} bits does not fit a key of {self.n.bit_length()} bits."
            )
        gmpy2 = gmpy2_library()
        square = self.n * self.n
        while gmpy2.gcd(blind := 1 + secrets.randbelow(self.n - 1), self.n) != 1:
            pass  # a factor of n, found by chance
        return int((1 + plaintext * self.n) * gmpy2.powmod(blind, self.n, square) % square)

    def add(self, first: int, second: int) -> int:
        """Return a ciphertext of the sum of two ciphertexts' plaintexts, modulo n."""
        return first * second % (self.n * self.n)

    def multiply(self, ciphertext: int, factor: int) -> int:
        """Return a ciphertext of factor times a ciphertext's plaintext, modulo n; the factor may be negative."""
        return int(gmpy2_library().powmod(ciphertext, factor, self.n * self.n))

    def check(self, ciphertext: int) -> int:
        """Return a number that came as a ciphertext, if it is one of this key.

        Raises:
            UpdateError: it is not between 0 and n², or shares a factor with n.
        """
        if not 0 < ciphertext < self.n * self.n or gmpy2_library().gcd(ciphertext, self.n) != 1:
            raise UpdateError("a number that came as a Paillier ciphertext is none of this key.")
        return ciphertext

    def centred(self, residue: int) -> int:
        """Return the integer of least size that has this remainder modulo n."""
        return residue - self.n if 2 * residue > self.n else residue

    def to_bytes(self) -> bytes:
        """Return the bytes that `read` takes."""
        return _write("public", n=self.n)

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Return the key that `to_bytes` wrote.

        Raises:
            UpdateError: bytes of another kind, or damaged.
            ConfigError: the key is too short.
        """
        return cls(_read(data, "public", "n")["n"])


@dataclass(frozen=True)
class PaillierKeys:
    """A key pair, for the key holder alone; clients and server get `public`.

    Args:
        p: a secret prime.
        q: another, of the same length.
        least_bits: the least length of p·q that is taken; for tests alone.

    Raises:
        ConfigError: p and q are not two different primes of one length whose product is long enough.
    """

    p: int = field(repr=False)
    q: int = field(repr=False)
    least_bits: int = field(default=_LEAST_BITS, repr=False, compare=False, kw_only=True)

    def __post_init__(self) -> None:
        prime = all(
            factor > 2 and gmpy2_library().is_prime(factor, _PRIMALITY_ROUNDS) for factor in (self.p, self.q)
        )
        # n and (p − 1)(q − 1) must have no common factor; of two primes of one length they never have.
        if not prime or self.p == self.q or math.gcd(self.p * self.q, (self.p - 1) * (self.q - 1)) != 1:
            raise ConfigError("a Paillier key pair is two different primes of one length; these are not.")
        _check_modulus(self.p * self.q, self.least_bits)

    @classmethod
    def generate(cls, bits: int = 3072, *, least_bits: int = _LEAST_BITS) -> Self:
        """Return a new key pair, from the operating system's entropy.

        Args:
            bits: the length of n; 3072 gives 128-bit security, 2048 gives 112 (NIST SP 800-57).
            least_bits: the least length that is taken; for tests alone.

        Raises:
            ConfigError: fewer bits than are safe, more than are of use, or an odd number of them.
            DependencyError: gmpy2 is not installed.
        """
        if not least_bits <= bits <= _MOST_BITS or bits % 2:
            raise ConfigError(f"bits is {bits}; give an even number from {least_bits} to {_MOST_BITS}.")
        p = q = _prime(bits // 2)
        # FIPS 186-5, A.1.3: primes too near to one another are found from the root of n.
        while abs(p - q).bit_length() <= bits // 2 - min(100, bits // 8):
            q = _prime(bits // 2)
        return cls(p, q, least_bits=least_bits)

    @cached_property
    def public(self) -> PaillierPublic:
        """What clients and server need."""
        return PaillierPublic(self.p * self.q, least_bits=self.least_bits)

    def decrypt(self, ciphertext: int) -> int:
        """Return the integer of a ciphertext, between −n/2 and n/2.

        Raises:
            UpdateError: it is no ciphertext of this key.
        """
        self.public.check(ciphertext)
        p, q, n = self.p, self.q, self.public.n
        in_p, in_q = _remainder(ciphertext, p, n), _remainder(ciphertext, q, n)
        return self.public.centred((in_p + p * ((in_q - in_p) * pow(p, -1, q) % q)) % n)

    def split(self, parties: int) -> "list[KeyShare]":
        """Return shares of which all are needed to decrypt; forget the key pair afterwards.

        Whoever calls this is trusted at that moment: it has seen the whole key.

        Raises:
            ConfigError: fewer than two parties.
        """
        if parties < 2:
            raise ConfigError(f"a key is split among two parties or more, not {parties}.")
        n, order = self.public.n, math.lcm(self.p - 1, self.q - 1)
        # c^exponent = 1 + n·plaintext: the exponent is 0 modulo the order of the blinding and 1 modulo n.
        exponent = order * pow(order, -1, n)
        parts = [secrets.randbelow(n * order) for _ in range(parties - 1)]
        parts.append((exponent - sum(parts)) % (n * order))
        return [KeyShare(self.public, place, parties, part) for place, part in enumerate(parts)]

    def to_bytes(self) -> bytes:
        """Return the whole key pair, to be stored where the key holder alone can read it."""
        return _write("secret", p=self.p, q=self.q)

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Return the key pair that `to_bytes` wrote.

        Raises:
            UpdateError: bytes of another kind, or damaged.
            ConfigError: these are no primes, or too short.
        """
        return cls(**_read(data, "secret", "p", "q"))


@dataclass(frozen=True)
class KeyShare:
    """One party's share of a secret key.

    Attributes:
        public: the public key.
        party: which share, from 0.
        parties: how many there are.
        exponent: the share itself.
    """

    public: PaillierPublic
    party: int
    parties: int
    exponent: int = field(repr=False)

    def decrypt(self, ciphertext: int) -> int:
        """Return this party's part of a decryption, for `combine`.

        Raises:
            UpdateError: it is no ciphertext of this key.
        """
        square = self.public.n * self.public.n
        return int(gmpy2_library().powmod_sec(self.public.check(ciphertext), self.exponent, square))

    def to_bytes(self) -> bytes:
        """Return the share, to be stored where its party alone can read it."""
        return _write(
            "share", n=self.public.n, party=self.party, parties=self.parties, exponent=self.exponent
        )

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Return the share that `to_bytes` wrote.

        Raises:
            UpdateError: bytes of another kind, or damaged.
            ConfigError: the key is too short.
        """
        told = _read(data, "share", "n", "party", "parties", "exponent")
        if not (0 <= told["party"] < told["parties"] and 0 < told["exponent"] < told["n"] ** 2):
            raise UpdateError("these bytes hold a damaged share of a key; ask its maker again.")
        return cls(PaillierPublic(told["n"]), told["party"], told["parties"], told["exponent"])


def combine(public: PaillierPublic, parts: Sequence[int]) -> int:
    """Return the integer of a ciphertext of which every party gave its part.

    A part is not proven right: a party that gives a wrong one can change what comes out, or make it fail.

    Raises:
        UpdateError: a part is missing, wrong or of another ciphertext.
    """
    product = 1
    for part in parts:
        product = product * public.check(part) % (public.n * public.n)
    plaintext, remainder = divmod(product - 1, public.n)
    if remainder:
        raise UpdateError(
            f"{len(parts)} parts of a decryption do not fit: one is missing, wrong or of another ciphertext. All "
            "parties must decrypt the same ciphertext."
        )
    return public.centred(plaintext)


def gmpy2_library() -> Any:
    """Return the module gmpy2.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        import gmpy2
    except ImportError:
        raise DependencyError('Paillier needs gmpy2: pip install "fedpact[he]".') from None
    return gmpy2


def _check_modulus(n: int, least_bits: int) -> None:
    if n < 0 or n % 2 == 0 or not least_bits <= n.bit_length() <= _MOST_BITS:
        raise ConfigError(
            f"a Paillier key is an odd number of {least_bits} to {_MOST_BITS} bits; this one has "
            f"{n.bit_length()}. Take bits=3072."
        )


def _prime(bits: int) -> int:
    gmpy2 = gmpy2_library()
    # With its two highest bits set, the product of two has twice the length.
    fixed = (3 << (bits - 2)) | 1
    while not gmpy2.is_prime(candidate := secrets.randbits(bits) | fixed, _PRIMALITY_ROUNDS):
        pass  # Every odd number of this length is as likely as another.
    return candidate


def _remainder(ciphertext: int, prime: int, n: int) -> int:
    """Return the plaintext modulo one prime: L(c^(p−1) mod p²) / L((n + 1)^(p−1) mod p²), L(x) = (x − 1) / p."""
    powmod = gmpy2_library().powmod_sec
    square = prime * prime
    numerator = (int(powmod(ciphertext % square, prime - 1, square)) - 1) // prime
    denominator = (int(powmod((n + 1) % square, prime - 1, square)) - 1) // prime
    return numerator * pow(denominator, -1, prime) % prime


def _number_bytes(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _write(kind: str, **numbers: int) -> bytes:
    return (
        _MAGIC
        + json.dumps({"kind": kind, **{name: hex(number) for name, number in numbers.items()}}).encode()
    )


def _read(data: bytes, kind: str, *names: str) -> dict[str, int]:
    if len(data) > _LARGEST_KEY or data[: len(_MAGIC)] != _MAGIC:
        raise UpdateError("these bytes are no Paillier key.")
    try:
        told = json.loads(data[len(_MAGIC) :])
        if told.pop("kind") != kind:
            raise UpdateError(f"these bytes are a Paillier key of another kind; a {kind} one was expected.")
        if told.keys() != set(names):
            raise ValueError(f"it names {', '.join(told)}")
        return {name: int(number, 16) for name, number in told.items()}
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UpdateError(f"these bytes hold a damaged Paillier key ({error}).") from None
