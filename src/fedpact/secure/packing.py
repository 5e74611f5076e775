"""Many numbers in one plaintext: fixed-point digits of one large integer, with guard bits for the carries of a sum.

Ge and Zdonik, "Answering Aggregation Queries in a Secure System Model", VLDB 2007. What could run into the next
digit is refused.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from fedpact.core.errors import ConfigError, UpdateError
from fedpact.secure.paillier_keys import PaillierPublic


@dataclass(frozen=True)
class Packing:
    """How numbers lie in a plaintext: as signed fixed-point digits with room for a sum.

    Args:
        bits: of one number, with its sign: |number| < 2^(bits − 1 − fraction_bits).
        guard: weights of a sum may add up to 2^guard.
        fraction_bits: numbers are rounded to multiples of 2^-fraction_bits.

    Raises:
        ConfigError: fewer than 2 bits, more than 1024, a guard not in 0 … 62, or fraction bits not in 0 … 1074.
    """

    bits: int = 64
    guard: int = 24
    fraction_bits: int = 24

    def __post_init__(self) -> None:
        if not (2 <= self.bits <= 1024 and 0 <= self.guard <= 62 and 0 <= self.fraction_bits <= 1074):
            raise ConfigError(
                f"{self} is not possible: bits are 2 to 1024, guard is 0 to 62, fraction_bits are 0 to 1074."
            )

    @property
    def width(self) -> int:
        """Bits of one digit."""
        return self.bits + self.guard

    @property
    def largest(self) -> int:
        """The largest digit of one client, in units of 2^-fraction_bits."""
        return (1 << (self.bits - 1)) - 1

    def slots(self, public: PaillierPublic) -> int:
        """Return how many numbers one plaintext holds.

        Raises:
            ConfigError: not one.
        """
        found = (public.n.bit_length() - 2) // self.width
        if not found:
            raise ConfigError(
                f"a number of {self.width} bits, guard bits included, does not fit a key of "
                f"{public.n.bit_length()}; take fewer bits or a longer key."
            )
        return found

    def ciphertexts(self, size: int, public: PaillierPublic) -> int:
        """Return how many ciphertexts so many numbers take."""
        return -(-size // self.slots(public))

    def encode(self, number: float | Fraction, place: int = 0) -> int:
        """Return the nearest digit, ties to even.

        Raises:
            UpdateError: the number is NaN, infinite or has no digit; `place` says which it is.
        """
        if not math.isfinite(number):
            raise UpdateError(f"number {place} to encrypt is {number}; only finite numbers are encrypted.")
        digit = round(Fraction(number) * (1 << self.fraction_bits))
        if abs(digit) > self.largest:
            raise UpdateError(
                f"number {place} to encrypt is {float(number):g}; with {self.bits} bits, {self.fraction_bits} of "
                f"them for the fraction, numbers up to ±{float(self.exact(self.largest)):g} are. Take more bits."
            )
        return digit

    def exact(self, digit: int) -> Fraction:
        """Return what a digit is worth."""
        return Fraction(digit, 1 << self.fraction_bits)

    def pack(self, digits: Sequence[int]) -> int:
        """Return the plaintext with these digits, the first one lowest."""
        return sum(digit << (place * self.width) for place, digit in enumerate(digits))

    def unpack(self, plaintext: int, count: int, load: int = 1) -> list[int]:
        """Return the digits of a plaintext.

        Raises:
            UpdateError: a digit is larger than a sum with weights of this total can have, or something is left.
        """
        digits = []
        for _ in range(count):
            digit = plaintext & ((1 << self.width) - 1)
            if digit >> (self.width - 1):
                digit -= 1 << self.width
            digits.append(digit)
            plaintext = (plaintext - digit) >> self.width
        if plaintext or any(abs(digit) > load * self.largest for digit in digits):
            raise UpdateError(
                "decryption gives numbers that no clients within the declared bits can have sent: a ciphertext "
                "was damaged, made under another key, or out of range."
            )
        return digits
