"""Claims about exact encrypted sums with Paillier's cryptosystem."""

import math
import struct
import sys
from collections.abc import Callable
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpact.core.errors import ConfigError, DependencyError, UpdateError
from fedpact.secure import paillier
from fedpact.secure.paillier import (
    DecryptionPart,
    EncryptedNumbers,
    KeyShare,
    Packing,
    PaillierKeys,
    PaillierPublic,
)
from fedpact.secure.paillier_keys import combine

pytest.importorskip("gmpy2")

# Keys of 256 bits are quick and break in minutes: for tests alone.
SHORT = 256
PACKING = Packing(bits=32, guard=12, fraction_bits=8)


@cache
def keys() -> PaillierKeys:
    return PaillierKeys.generate(SHORT, least_bits=SHORT)


@cache
def shares() -> list[KeyShare]:
    return keys().split(3)


@cache
def long_keys() -> PaillierKeys:
    return PaillierKeys.generate(2048)


def textbook_decrypt(ciphertext: int, p: int, q: int) -> int:
    # Paillier 1999, scheme 1, with g = n + 1: m = L(c^λ mod n²) / L(g^λ mod n²) mod n, L(u) = (u − 1) / n.
    n = p * q
    exponent = math.lcm(p - 1, q - 1)

    def function_l(u: int) -> int:
        return (u - 1) // n

    divisor = function_l(pow(n + 1, exponent, n * n))
    return function_l(pow(ciphertext, exponent, n * n)) * pow(divisor, -1, n) % n


def encrypted(numbers: object, packing: Packing = PACKING) -> EncryptedNumbers:
    return paillier.encrypt(keys().public, numbers, packing)


integers = st.integers(-(2**250), 2**250)
digits = st.integers(-PACKING.largest, PACKING.largest)


def test_ciphertext_worked_out_by_others_decrypts_to_its_plaintext() -> None:
    # p = 3, q = 5, n = 15, g = 16, m = 12, r = 7: 16^12 · 7^15 mod 225 = 208, as two developers of Apache Pirk
    # worked it out and back (dev@pirk.incubator.apache.org, 19 September 2016). 12 stands for 12 − 15.
    assert PaillierKeys(3, 5, least_bits=4).decrypt(208) == 12 - 15
    assert textbook_decrypt(208, 3, 5) == 12


def test_textbook_example_with_another_base_decrypts_up_to_the_base() -> None:
    # p = 7, q = 11, g = 5652, m = 42, r = 23: c = 5652^42 · 23^77 mod 5929 = 4624, an example of many lecture notes.
    # With respect to the base n + 1 the plaintext is 42 times that of g itself (Paillier 1999, lemma 7).
    pair = PaillierKeys(7, 11, least_bits=7)
    assert pow(5652, 42, 5929) * pow(23, 77, 5929) % 5929 == 4624
    assert pair.decrypt(4624) % 77 == 42 * pair.decrypt(5652) % 77


@given(plaintext=integers)
def test_textbook_implementation_reads_our_ciphertexts(plaintext: int) -> None:
    ciphertext = keys().public.encrypt(plaintext)
    assert textbook_decrypt(ciphertext, keys().p, keys().q) == plaintext % keys().public.n


@given(plaintext=integers, blind=st.integers(2, 2**200))
def test_we_read_the_textbooks_ciphertexts(plaintext: int, blind: int) -> None:
    n = keys().public.n
    ciphertext = pow(n + 1, plaintext % n, n * n) * pow(blind, n, n * n) % (n * n)
    assert keys().decrypt(ciphertext) == plaintext


@given(first=integers, second=integers, factor=st.integers(-1000, 1000))
def test_sums_and_multiples_of_ciphertexts_are_those_of_the_integers(
    first: int, second: int, factor: int
) -> None:
    public = keys().public
    a, b = public.encrypt(first), public.encrypt(second)
    assert keys().decrypt(public.add(a, b)) == first + second
    small = public.encrypt(first >> 20)
    assert keys().decrypt(public.multiply(small, factor)) == factor * (first >> 20)


def test_keys_of_safe_length_encrypt_add_and_decrypt() -> None:
    public = long_keys().public
    assert public.n.bit_length() == 2048
    total = public.add(public.encrypt(10**600), public.multiply(public.encrypt(-5), 7))
    assert long_keys().decrypt(total) == 10**600 - 35


def test_two_encryptions_of_one_integer_differ_in_half_their_bits() -> None:
    first, second = (long_keys().public.encrypt(1) for _ in range(2))
    # 4096 fair coins: 2048 ± 32, so ±320 is ten standard deviations.
    assert abs((first ^ second).bit_count() - 2048) < 320


def test_primes_are_of_one_length_different_and_far_apart() -> None:
    for _ in range(5):
        pair = PaillierKeys.generate(SHORT, least_bits=SHORT)
        assert pair.p.bit_length() == pair.q.bit_length() == SHORT // 2
        assert abs(pair.p - pair.q).bit_length() > SHORT // 2 - 32
        assert pair.public.n.bit_length() == SHORT


@pytest.mark.parametrize("bits", [256, 1024, 2046, 2049, 10_000])
def test_keys_of_unsafe_or_odd_length_are_refused(bits: int) -> None:
    with pytest.raises(ConfigError, match=f"bits is {bits}; give an even number from 2048 to 8192"):
        PaillierKeys.generate(bits)


def test_short_keys_are_refused_wherever_they_come_from() -> None:
    for make in (
        lambda: PaillierPublic(keys().public.n),
        lambda: PaillierKeys(keys().p, keys().q),
        lambda: PaillierPublic.read(keys().public.to_bytes()),
        lambda: PaillierKeys.read(keys().to_bytes()),
        lambda: KeyShare.read(shares()[0].to_bytes()),
    ):
        with pytest.raises(ConfigError, match="odd number of 2048 to 8192 bits; this one has 256"):
            make()


@pytest.mark.parametrize(("p", "q"), [(11, 11), (15, 7), (7, 1), (-11, -7), (3, 7)])
def test_numbers_that_make_no_key_pair_are_refused(p: int, q: int) -> None:
    # 3 · 7: 3 divides (3 − 1)(7 − 1) = 12.
    with pytest.raises(ConfigError, match="two different primes of one length"):
        PaillierKeys(p, q, least_bits=2)


def test_integers_that_do_not_fit_are_refused() -> None:
    n = keys().public.n
    assert keys().decrypt(keys().public.encrypt(n // 2)) == n // 2
    for integer in (n // 2 + 1, -(n // 2) - 1):
        with pytest.raises(UpdateError, match="does not fit a key of 256 bits"):
            keys().public.encrypt(integer)


@pytest.mark.parametrize("number", [0, -1, lambda n: n, lambda n: 5 * n, lambda n: n * n])
def test_numbers_that_are_no_ciphertexts_are_refused(number: int | Callable[[int], int]) -> None:
    ciphertext = number(keys().public.n) if callable(number) else number
    with pytest.raises(UpdateError, match="none of this key"):
        keys().decrypt(ciphertext)
    with pytest.raises(UpdateError, match="none of this key"):
        shares()[0].decrypt(ciphertext)


@given(numbers=st.lists(digits, min_size=1, max_size=12))
def test_packing_is_undone_by_unpacking(numbers: list[int]) -> None:
    assert PACKING.unpack(PACKING.pack(numbers), len(numbers)) == numbers


@settings(max_examples=50)
@given(
    rows=st.integers(1, 12).flatmap(
        lambda size: st.lists(st.lists(digits, min_size=size, max_size=size), min_size=1, max_size=5)
    ),
    weights=st.lists(st.integers(-819, 819).filter(bool), min_size=5, max_size=5),
)
def test_weighted_sums_of_packed_numbers_are_exact_up_to_their_limits(
    rows: list[list[int]], weights: list[int]
) -> None:
    # 5 · 819 ≤ 2^12: whatever the digits and signs, nothing may run into its neighbour.
    clear = [[PACKING.exact(digit) for digit in row] for row in rows]
    weights = weights[: len(rows)]
    total = paillier.weighted_sum([encrypted(row) for row in clear], weights)
    wanted = [
        sum(weight * row[place] for weight, row in zip(weights, clear, strict=True))
        for place in range(len(clear[0]))
    ]
    assert paillier.decrypt_exact(keys(), total) == wanted


@given(numbers=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8))
def test_each_number_is_rounded_once_to_the_nearest_step(numbers: list[float]) -> None:
    for number, exact in zip(numbers, paillier.decrypt_exact(keys(), encrypted(numbers)), strict=True):
        assert abs(exact - Fraction(number)) <= Fraction(1, 2**9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8, bool])
def test_arrays_of_any_real_type_are_encrypted(dtype: type) -> None:
    numbers = np.array([0, 1, 1, 0, 1], dtype)
    found = paillier.decrypt(keys(), encrypted(numbers))
    assert found.dtype == np.float64
    assert found.tolist() == [0, 1, 1, 0, 1]


def test_sums_of_statistics_over_clients_are_those_of_the_pooled_rows() -> None:
    random = np.random.default_rng(0)
    clients = [random.normal(50, 10, size) for size in (30, 50, 20)]
    packing = Packing(bits=72, guard=8, fraction_bits=40)
    sent = [encrypted([len(rows), rows.sum(), (rows**2).sum()], packing) for rows in clients]
    count, total, squares = paillier.decrypt(keys(), paillier.weighted_sum(sent, [1, 1, 1]))
    pooled = np.concatenate(clients)
    assert count == 100
    assert total / count == pytest.approx(pooled.mean(), rel=1e-12)
    assert squares / count - (total / count) ** 2 == pytest.approx(pooled.var(), rel=1e-9)


def test_weights_beyond_the_guard_bits_are_refused_not_wrapped() -> None:
    largest = encrypted([PACKING.exact(PACKING.largest), PACKING.exact(-PACKING.largest)])
    full = paillier.scale(largest, -(2**12))
    assert paillier.decrypt_exact(keys(), full)[0] == -(2**12) * PACKING.exact(PACKING.largest)
    with pytest.raises(UpdateError, match=r"weights of the sum come to 4097; with 12 guard bits .* 4096"):
        paillier.add(full, largest)
    with pytest.raises(UpdateError, match="come to 8192"):
        paillier.scale(full, 2)


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ([0.0, 2.0**23], r"number 1 to encrypt is 8\.38861e\+06; with 32 bits, 8 of them"),
        ([math.nan], "number 0 to encrypt is nan"),
        ([1.0, -math.inf], "number 1 to encrypt is -inf"),
        ([], "no numbers"),
        (np.zeros((2, 2)), "of shape \\(2, 2\\)"),
        (np.zeros(2, complex), "this is complex128"),
    ],
)
def test_numbers_that_cannot_be_encrypted_are_refused(numbers: object, sentence: str) -> None:
    with pytest.raises(UpdateError, match=sentence):
        encrypted(numbers)


@pytest.mark.parametrize("weight", [0, 0.5, 2.0, "3"])
def test_weights_that_are_no_integers_are_refused(weight: object) -> None:
    with pytest.raises(UpdateError, match="weights are integers other than 0"):
        paillier.scale(encrypted([1.0]), weight)


def test_client_that_packs_too_large_a_number_is_found_at_decryption() -> None:
    for plaintext in (PACKING.largest + 1, 1 << (2 * PACKING.width)):
        cheat = EncryptedNumbers(keys().public, PACKING, 2, (keys().public.encrypt(plaintext),))
        with pytest.raises(UpdateError, match="no clients within the declared bits can have sent"):
            paillier.decrypt(keys(), cheat)


def test_different_keys_packings_and_sizes_are_not_added() -> None:
    other = PaillierKeys.generate(SHORT, least_bits=SHORT)
    ours = encrypted([1.0, 2.0])
    with pytest.raises(UpdateError, match="different keys"):
        paillier.add(ours, paillier.encrypt(other.public, [1.0, 2.0], PACKING))
    with pytest.raises(UpdateError, match="same packing"):
        paillier.add(ours, encrypted([1.0, 2.0], Packing(32, 12, 9)))
    with pytest.raises(UpdateError, match="same packing"):
        paillier.add(ours, encrypted([1.0]))
    with pytest.raises(UpdateError, match="another key"):
        paillier.decrypt(other, ours)
    with pytest.raises(UpdateError, match="another key"):
        paillier.decrypt_part(other.split(2)[0], ours)
    with pytest.raises(UpdateError, match="1 encrypted vectors and 0 weights"):
        paillier.weighted_sum([ours], [])


def test_packing_that_does_not_fit_the_key_or_itself_is_refused() -> None:
    with pytest.raises(ConfigError, match="a number of 262 bits, guard bits included, does not fit"):
        encrypted([1.0], Packing(bits=250, guard=12))
    for options in ({"bits": 1}, {"bits": 2000}, {"guard": -1}, {"guard": 63}, {"fraction_bits": -1}):
        with pytest.raises(ConfigError, match="is not possible"):
            Packing(**options)


def test_as_many_numbers_as_the_key_has_room_for_share_a_ciphertext() -> None:
    # (3072 − 2) / (64 + 24) = 34.9, (256 − 2) / (32 + 12) = 5.8.
    assert Packing().slots(PaillierPublic((1 << 3071) + 1)) == 34
    assert [len(encrypted([1.0] * size).ciphertexts) for size in (1, 5, 6, 11)] == [1, 1, 2, 3]


@given(numbers=st.lists(st.integers(-1000, 1000), min_size=1, max_size=12), weight=st.integers(1, 4096))
def test_what_was_written_is_read_again(numbers: list[int], weight: int) -> None:
    sent = paillier.scale(encrypted(numbers), weight)
    data = sent.to_bytes()
    assert EncryptedNumbers.read(keys().public, PACKING, data, len(numbers)) == sent
    assert len(data) == 62 + 64 * len(sent.ciphertexts)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda data: b"", "not what"),
        (lambda data: b"X" + data[1:], "not what"),
        (lambda data: data[:8] + bytes(32) + data[40:], "under another key"),
        (lambda data: data[:40] + struct.pack("<Q", 7) + data[48:], "7 encrypted numbers of 32 bits"),
        (lambda data: data[:48] + struct.pack("<H", 33) + data[50:], "6 encrypted numbers of 33 bits"),
        (lambda data: data[:54] + struct.pack("<Q", 0) + data[62:], "load of 0; it is 1 to 4096"),
        (lambda data: data[:54] + struct.pack("<Q", 4097) + data[62:], "load of 4097"),
        (lambda data: data[:-1], "127 bytes of ciphertexts came; 2 take 128"),
        (lambda data: data + bytes(64), "192 bytes"),
        (lambda data: data[:62] + bytes(128), "none of this key"),
        (lambda data: data[:62] + b"\xff" * 128, "none of this key"),
    ],
)
def test_bytes_that_are_not_such_encrypted_numbers_are_refused(
    change: Callable[[bytes], bytes], sentence: str
) -> None:
    data = encrypted([1.0] * 6).to_bytes()
    with pytest.raises(UpdateError, match=sentence):
        EncryptedNumbers.read(keys().public, PACKING, change(data), 6)


def test_keys_and_shares_that_were_stored_work_as_before() -> None:
    sent = paillier.encrypt(long_keys().public, [1.5, -2.0])
    again = PaillierKeys.read(long_keys().to_bytes())
    assert paillier.decrypt(again, sent).tolist() == [1.5, -2.0]
    assert PaillierPublic.read(long_keys().public.to_bytes()) == long_keys().public
    parts = [paillier.decrypt_part(KeyShare.read(share.to_bytes()), sent) for share in again.split(2)]
    assert paillier.combine_parts(sent, parts).tolist() == [1.5, -2.0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"FPPAILL1",
        b"FPPAILL1[]",
        b'FPPAILL1{"kind": "public"}',
        b'FPPAILL1{"kind": "public", "n": "zz"}',
        b'FPPAILL1{"kind": "public", "n": 5}',
        b'FPPAILL1{"kind": "secret", "p": "0x1", "q": "0x1"}',
        b"FPPAILL1" + b" " * 100_000,
    ],
)
def test_bytes_that_are_no_key_are_refused(data: bytes) -> None:
    with pytest.raises(UpdateError, match="Paillier key"):
        PaillierPublic.read(data)


def test_names_of_keys_show_no_secret() -> None:
    shown = repr(keys()) + repr(shares())
    assert not any(str(secret) in shown for secret in (keys().p, keys().q, *(s.exponent for s in shares())))


@settings(max_examples=25)
@given(numbers=st.lists(digits, min_size=1, max_size=12), order=st.permutations(range(3)))
def test_all_parties_together_decrypt_in_any_order(numbers: list[int], order: list[int]) -> None:
    clear = [float(PACKING.exact(number)) for number in numbers]
    sent = encrypted(clear)
    parts = [paillier.decrypt_part(shares()[party], sent) for party in order]
    carried = [DecryptionPart.read(part.to_bytes(), sent) for part in parts]
    assert paillier.combine_parts(sent, carried).tolist() == clear


@pytest.mark.parametrize("parties", [2, 3, 5])
def test_all_parties_but_one_do_not_decrypt(parties: int) -> None:
    public = keys().public
    ciphertext = public.encrypt(7)
    parts = [share.decrypt(ciphertext) for share in keys().split(parties)]
    assert combine(public, parts) == 7
    for missing in range(parties):
        rest = parts[:missing] + parts[missing + 1 :]
        with pytest.raises(UpdateError, match="do not fit: one is missing"):
            combine(public, rest)
        # Nor does the textbook's division hide a plaintext there: what is left is a random power.
        assert math.prod(rest) % public.n != 1


def test_shares_but_one_are_spread_over_all_exponents() -> None:
    # Were a share smaller than the exponents' range, the last one would tell of the key.
    n, order = keys().public.n, math.lcm(keys().p - 1, keys().q - 1)
    places = [share.exponent * 4 // (n * order) for _ in range(200) for share in keys().split(2)]
    # 400 numbers into four quarters: 100 each, and ±50 is more than five standard deviations of 8.7.
    assert all(abs(places.count(quarter) - 100) < 50 for quarter in range(4))


def test_parts_that_are_missing_twice_there_or_of_other_numbers_are_refused() -> None:
    sent, other = encrypted([1.0]), encrypted([2.0])
    parts = [paillier.decrypt_part(share, sent) for share in shares()]
    for wrong in (parts[:2], [*parts, parts[0]], [parts[0], parts[1], parts[1]], []):
        with pytest.raises(UpdateError, match="all parties' parts are needed"):
            paillier.combine_parts(sent, wrong)
    foreign = paillier.decrypt_part(shares()[0], other)
    with pytest.raises(UpdateError, match="of other ciphertexts"):
        paillier.combine_parts(sent, [foreign, *parts[1:]])
    with pytest.raises(UpdateError, match="of other ciphertexts"):
        DecryptionPart.read(foreign.to_bytes(), sent)
    with pytest.raises(UpdateError, match="not what"):
        DecryptionPart.read(b"", sent)
    with pytest.raises(UpdateError, match="0 bytes of ciphertexts came; 1 take 64"):
        DecryptionPart.read(parts[0].to_bytes()[:-64], sent)


def test_part_of_another_split_is_refused() -> None:
    sent = encrypted([1.0])
    parts = [paillier.decrypt_part(share, sent) for share in (*keys().split(3)[:1], *shares()[1:])]
    with pytest.raises(UpdateError, match="do not fit"):
        paillier.combine_parts(sent, parts)


def test_key_is_split_among_two_or_more() -> None:
    with pytest.raises(ConfigError, match="two parties or more, not 1"):
        keys().split(1)


def test_use_without_gmpy2_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gmpy2", None)
    with pytest.raises(DependencyError, match=r'pip install "fedpact\[he\]"'):
        PaillierKeys.generate(2048)
