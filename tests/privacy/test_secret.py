"""Claims about secret randomness: it is AES-CTR, nobody gets the same bytes twice, and it cannot be taken away."""

import copy
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpact.core.errors import ConfigError
from fedpact.privacy import secret
from fedpact.privacy.secret import SecretStream, secret_stream

# NIST SP 800-38A, F.5.5: CTR-AES256.Encrypt.
KEY = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
COUNTER = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
PLAINTEXT = bytes.fromhex(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)
CIPHERTEXT = bytes.fromhex(
    "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
    "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
)


def keyed(key: bytes = KEY, first_block: bytes = COUNTER) -> SecretStream:
    stream = SecretStream()
    stream._rekey(key, first_block)
    return stream


def drawn(stream: SecretStream, n: int) -> bytes:
    out = np.zeros(n, np.uint8)
    stream.fill(out)
    return out.tobytes()


def test_bytes_are_the_key_stream_of_the_standard_s_example() -> None:
    key_stream = bytes(p ^ c for p, c in zip(PLAINTEXT, CIPHERTEXT, strict=True))
    assert drawn(keyed(), 64) == key_stream


@given(st.lists(st.integers(0, 150_000), max_size=4))
def test_stream_goes_on_where_the_last_call_ended(sizes: list[int]) -> None:
    stream = keyed()
    assert b"".join(drawn(stream, n) for n in sizes) == drawn(keyed(), sum(sizes))


def test_key_is_replaced_when_it_has_given_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret, "_BYTES_PER_KEY", 64)
    stream, with_one_key = keyed(), drawn(keyed(), 64)
    assert drawn(stream, 48) == with_one_key[:48]
    assert drawn(stream, 16) == with_one_key[48:]
    after = drawn(stream, 64)
    monkeypatch.undo()
    assert after != drawn(keyed(), 128)[64:]


def test_one_key_gives_less_than_what_tells_it_from_random_bits() -> None:
    blocks = secret._BYTES_PER_KEY // 16
    assert blocks**2 / 2.0**129 <= 2.0**-85


def test_two_streams_differ_and_so_do_two_draws_from_one() -> None:
    stream = SecretStream()
    assert len({drawn(stream, 32), drawn(stream, 32), drawn(SecretStream(), 32)}) == 3


def test_every_call_returns_the_one_stream_of_the_process() -> None:
    assert secret_stream() is secret_stream()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64])
def test_whole_array_of_any_integers_is_overwritten(dtype: type) -> None:
    out = np.zeros((40, 7, 100), dtype)
    secret_stream().fill(out)
    # 2.8·10⁴ elements: that 8 bytes in a row stay 0 has a chance of 2^-64.
    assert all(np.any(row) for row in out.reshape(-1, 50))


def test_half_of_all_bits_are_set() -> None:
    words = secret_stream().words(1_000_000)
    for bit in range(64):
        ones = int(np.count_nonzero(words >> np.uint64(bit) & np.uint64(1)))
        assert abs(ones - 500_000) < 7 * 500


def test_threads_that_share_a_stream_never_get_the_same_words() -> None:
    stream = SecretStream()
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda _: np.concatenate([stream.words(500) for _ in range(50)]), range(4)))
    assert len(np.unique(np.concatenate(parts))) == 100_000


def test_nothing_is_drawn_into_an_empty_array() -> None:
    assert secret_stream().words(0).size == 0


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_stream_can_be_neither_pickled_nor_copied(take: object) -> None:
    with pytest.raises(ConfigError, match="cannot be pickled or copied"):
        take(secret_stream())  # type: ignore[operator]


def test_array_that_cannot_be_filled_is_refused() -> None:
    read_only = np.zeros(4, np.uint64)
    read_only.flags.writeable = False
    for array in (np.zeros(4), np.zeros(8, np.uint64)[::2], read_only):
        with pytest.raises(ConfigError, match="contiguous and writeable array of integers"):
            secret_stream().fill(array)


FORK = """
import os, sys, threading
from fedpact.privacy.discrete_gaussian import DiscreteGaussian
from fedpact.privacy.secret import SecretStream, secret_stream

own = SecretStream()
DiscreteGaussian(1000.0).draw(10)
{before}
read, write = os.pipe()
child = os.fork()
drawn = [*secret_stream().words(4), *own.words(4), *DiscreteGaussian(2.0**40).draw(4)]
text = " ".join(map(str, drawn))
if child == 0:
    os.write(write, text.encode())
    os._exit(0)
os.waitpid(child, 0)
print(text)
print(os.read(read, 10_000).decode())
"""
# Another thread holds the locks, as if it were drawing at the moment of the fork.
HELD = """
held, forked = threading.Event(), threading.Event()
def hold():
    with secret_stream()._lock, own._lock:
        held.set()
        forked.wait(1)
threading.Thread(target=hold).start()
held.wait()
"""


@pytest.mark.skipif(not hasattr(secret.os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("before", ["", HELD], ids=["alone", "while another thread draws"])
def test_child_of_a_fork_draws_other_noise_than_its_parent(before: str) -> None:
    code = FORK.format(before=before)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    parent, child = (line.split() for line in done.stdout.splitlines())
    assert len(parent) == len(child) == 12
    assert not set(parent) & set(child)
