"""Masks are AES-256 in counter mode, and every bit of their key matters."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from fedpact.core.errors import SecureError
from fedpact.secure.prg import add_masks, expand

KEY = bytes(range(32))
# More than two chunks, and not a multiple of a block.
SIZE = 150_001


def test_first_block_under_the_zero_key_is_that_of_the_standard():
    # NIST AESAVS, AES-256 known answers: the zero block under the zero key.
    block = expand(bytes(32), 4).astype("<u4").tobytes()
    assert block.hex() == "dc95c078a2408989ad48a21492842087"


def test_mask_is_the_encryption_of_a_counter():
    blocks = -(-4 * SIZE // 16)
    counters = b"".join(i.to_bytes(16, "big") for i in range(blocks))
    stream = Cipher(AES(KEY), ECB()).encryptor().update(counters)
    assert expand(KEY, SIZE).astype("<u4").tobytes() == stream[: 4 * SIZE]


@pytest.mark.parametrize("size", [0, 1, 3, 65_535, 65_536, 65_537, SIZE])
def test_masks_of_any_size_are_the_beginning_of_the_same_one(size):
    assert np.array_equal(expand(KEY, size), expand(KEY, SIZE)[:size])


def test_masks_are_added_and_subtracted_in_any_order():
    keys = [bytes([i]) * 32 for i in range(5)]
    vector = np.arange(SIZE, dtype=np.uint32)
    by_hand = vector + expand(keys[0], SIZE) + expand(keys[1], SIZE) - expand(keys[2], SIZE)
    masked = vector.copy()
    add_masks(masked, [keys[1], keys[0]], [keys[2]])
    assert np.array_equal(masked, by_hand)
    add_masks(masked, [keys[2]], keys[:2])
    assert np.array_equal(masked, vector)


def test_any_bit_of_a_key_changes_half_of_the_bits_of_its_mask():
    mask = expand(KEY, 2_000)
    for bit in range(256):
        other = (int.from_bytes(KEY, "big") ^ (1 << bit)).to_bytes(32, "big")
        changed = np.unpackbits((mask ^ expand(other, 2_000)).view(np.uint8)).mean()
        # Six standard deviations of the mean of 64,000 fair bits.
        assert abs(changed - 0.5) < 6 * 0.5 / 64_000**0.5


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros(3, np.int64),
        np.zeros((2, 2), np.uint32),
        np.zeros(8, np.uint32)[::2],
        np.frombuffer(bytes(8), np.uint32),
    ],
    ids=["dtype", "shape", "stride", "read only"],
)
def test_what_is_no_row_of_words_is_refused(vector):
    with pytest.raises(SecureError, match="one contiguous, writable row of uint32"):
        add_masks(vector, [KEY])


def test_a_short_key_is_refused():
    with pytest.raises(SecureError, match="has 32 bytes, not 4"):
        expand(b"seed", 1)
