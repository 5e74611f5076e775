"""Claims about encrypted weighted sums with CKKS."""

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpact.core.errors import ConfigError, DependencyError, UpdateError
from fedpact.secure import ckks
from fedpact.secure.ckks import Ciphertexts, CKKSKeys, CKKSParameters, CKKSPublic, EncryptedSum, Report

tenseal = pytest.importorskip("tenseal")

# Less to compute than the default, and as much of the way is walked.
SMALL = CKKSParameters(poly_modulus_degree=4096, coeff_mod_bits=(40, 28, 40), scale_bits=28, limit=8.0)


@cache
def the_keys() -> CKKSKeys:
    return CKKSKeys.generate()


@cache
def small_keys() -> CKKSKeys:
    return CKKSKeys.generate(SMALL)


@cache
def small_public() -> CKKSPublic:
    return CKKSPublic(small_keys().public())


def vectors(count: int, size: int, spread: float = 0.01) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [(random.standard_normal(size) * spread).astype(np.float32) for _ in range(count)]


def sent(keys: CKKSKeys, vector: np.ndarray) -> bytes:
    return ckks.encrypt(keys.public(), vector).to_bytes()


def relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 10_000])
def test_weighted_sum_of_encrypted_vectors_is_the_sum_of_the_vectors(size: int) -> None:
    keys, weights = the_keys(), [3.0, 0.25, 17.0]
    clear = vectors(3, size)
    total = ckks.weighted_sum([ckks.encrypt(keys.public(), vector) for vector in clear], weights)
    wanted = sum(weight * vector.astype(float) for weight, vector in zip(weights, clear, strict=True))
    assert relative_error(ckks.decrypt(keys, total), wanted) < 1e-5


@pytest.mark.parametrize("spread", [1e-5, 1e-2, 100.0])
def test_running_sum_is_within_the_error_for_small_and_large_numbers(spread: float) -> None:
    keys, clear, weights = the_keys(), vectors(4, 300, spread), [100.0, 740.0, 1.0, 20.0]
    running = EncryptedSum(keys.public())
    for vector, weight in zip(clear, weights, strict=True):
        running.add(Ciphertexts.read(running.public, sent(keys, vector), 300), weight)
    wanted = sum(weight * vector.astype(float) for weight, vector in zip(weights, clear, strict=True))
    assert relative_error(ckks.decrypt(keys, running.total()), wanted) < 1e-5


@settings(max_examples=25)
@given(
    weights=st.lists(st.floats(-100, 100).map(lambda w: round(w, 3)), min_size=1, max_size=5),
    seed=st.integers(0, 2**32 - 1),
)
def test_sum_is_right_for_any_weights_of_either_sign(weights: list[float], seed: int) -> None:
    keys, random = small_keys(), np.random.default_rng(seed)
    clear = [random.uniform(-8, 8, 5) for _ in weights]
    running = EncryptedSum(small_public(), total_weight=512)
    for vector, weight in zip(clear, weights, strict=True):
        running.add(ckks.encrypt(small_public(), vector), weight)
    if any(weights):
        wanted = sum(weight * vector for weight, vector in zip(weights, clear, strict=True))
        # Each weight is rounded to a multiple of 512 · 2^-28, and the noise of 28 bits is below 2^-10 here.
        assert np.abs(ckks.decrypt(keys, running.total()) - wanted).max() < 0.05
    else:
        with pytest.raises(UpdateError, match="nothing of any weight was added"):
            running.total()


def test_a_weight_that_the_server_applies_multiplies_what_is_encrypted() -> None:
    keys, (vector,) = the_keys(), vectors(1, 50)
    product = ckks.scale(ckks.encrypt(keys.public(), vector), -2.5)
    assert relative_error(ckks.decrypt(keys, product), -2.5 * vector.astype(float)) < 1e-5


def test_products_with_weights_of_one_total_can_be_added() -> None:
    keys, (first, second) = the_keys(), vectors(2, 50)
    a, b = (ckks.encrypt(keys.public(), vector) for vector in (first, second))
    total = ckks.add(ckks.scale(a, 2.0), ckks.scale(b, 3.0))
    assert relative_error(ckks.decrypt(keys, total), 2.0 * first.astype(float) + 3.0 * second) < 1e-5


def test_sum_of_fresh_ciphertexts_can_be_multiplied_once() -> None:
    keys, (first, second) = the_keys(), vectors(2, 50)
    both = ckks.add(*(ckks.encrypt(keys.public(), vector) for vector in (first, second)))
    product = ckks.scale(both, 0.5)
    assert relative_error(ckks.decrypt(keys, product), 0.5 * (first.astype(float) + second)) < 1e-5
    with pytest.raises(UpdateError, match="multiplied by a weight before"):
        ckks.scale(product, 2.0)


def test_what_was_added_is_left_as_it_was() -> None:
    keys, (first, second) = the_keys(), vectors(2, 50)
    a, b = (ckks.encrypt(keys.public(), vector) for vector in (first, second))
    running = EncryptedSum(keys.public())
    running.add(a, 2.0)
    early = running.total()
    running.add(b, 3.0)
    ckks.add(a, b)
    assert relative_error(ckks.decrypt(keys, early), 2.0 * first.astype(float)) < 1e-5
    assert relative_error(ckks.decrypt(keys, a), first) < 1e-5


def test_running_sum_holds_one_vector_whatever_the_number_of_clients() -> None:
    keys, running = small_keys(), EncryptedSum(small_keys().public())
    for _ in range(10):
        running.add(ckks.encrypt(running.public, np.ones(3000)), 1.0)
    held = [value for value in vars(running).values() if isinstance(value, tuple | list)]
    assert [len(value) for value in held] == [SMALL.chunks(3000)] == [2]
    assert ckks.decrypt(keys, running.total()) == pytest.approx(np.full(3000, 10.0), abs=0.1)


def test_server_with_the_public_bytes_alone_cannot_decrypt() -> None:
    keys = the_keys()
    running = EncryptedSum(keys.public())
    running.add(Ciphertexts.read(running.public, sent(keys, np.ones(10)), 10), 2.0)
    context = running.public.context
    assert not context.has_secret_key()
    for refused in (
        running.total().chunks[0].decrypt,
        context.secret_key,
        context.decryptor,
    ):
        with pytest.raises(ValueError, match=r"(?i)secret[ _]key|decryption"):
            refused()
    # The secret key's own bytes are in what the key holder keeps and nowhere in what the server has.
    secret = keys.to_bytes()
    assert len(secret) - 2 * len(keys.public()) > 100_000
    with pytest.raises(UpdateError, match="hold a secret key"):
        CKKSPublic(secret[12 + len(keys.public()) :])


def test_two_encryptions_of_one_vector_have_nothing_in_common() -> None:
    first, second = (np.frombuffer(sent(the_keys(), np.ones(4096))[4096:200_000], np.uint8) for _ in range(2))
    # Of unrelated bytes one in 256 is the same.
    assert np.mean(first == second) < 0.01


def test_keys_that_were_stored_decrypt_what_was_encrypted_before() -> None:
    keys = small_keys()
    data = sent(keys, np.array([1.0, -2.0]))
    again = CKKSKeys.read(keys.to_bytes())
    assert ckks.decrypt(again, data, 2) == pytest.approx([1.0, -2.0], abs=1e-3)


def test_names_of_keys_show_no_secret() -> None:
    assert repr(the_keys()).startswith("CKKSKeys(")
    assert len(repr(the_keys())) + len(repr(EncryptedSum(the_keys().public()).public)) < 400


@pytest.mark.parametrize(
    ("vector", "sentence"),
    [
        (np.array([0.0, np.nan]), "number 1 to encrypt is nan"),
        (np.array([np.inf]), "number 0 to encrypt is inf"),
        (np.array([1.0, -1025.0]), r"number 1 to encrypt is -1025.* between -1024 and 1024"),
        (np.zeros(0), "of shape \\(0,\\)"),
        (np.zeros((2, 2)), "of shape \\(2, 2\\)"),
        (np.zeros(2, np.int64), "this is int64"),
    ],
)
def test_vectors_that_cannot_be_encrypted_are_refused(vector: np.ndarray, sentence: str) -> None:
    with pytest.raises(UpdateError, match=sentence):
        ckks.encrypt(the_keys().public(), vector)


@pytest.mark.parametrize("weight", [np.nan, np.inf, 65537.0, 1e-9])
def test_weights_that_do_not_fit_the_declared_total_are_refused(weight: float) -> None:
    running = EncryptedSum(the_keys().public())
    running.add(ckks.encrypt(running.public, np.ones(3)), 5.0)
    with pytest.raises(UpdateError, match="weight"):
        running.add(ckks.encrypt(running.public, np.ones(3)), weight)
    assert (running.count, running.weight) == (1, 5.0)
    assert ckks.decrypt(the_keys(), running.total()) == pytest.approx([5.0] * 3)


def test_weights_that_add_up_to_more_than_was_declared_are_refused_not_wrapped() -> None:
    keys = the_keys()
    running = EncryptedSum(keys.public(), total_weight=4.0)
    at_the_limit = ckks.encrypt(keys.public(), np.full(3, 1024.0))
    for _ in range(4):
        running.add(at_the_limit)
    with pytest.raises(UpdateError, match="wraps beyond 4096; declare a larger total_weight"):
        running.add(at_the_limit)
    assert ckks.decrypt(keys, running.total()) == pytest.approx(np.full(3, 4096.0))


def test_ciphertexts_of_another_key_are_refused_by_server_and_key_holder() -> None:
    other = ckks.encrypt(CKKSKeys.generate(SMALL).public(), np.ones(3))
    with pytest.raises(UpdateError, match="not of"):
        EncryptedSum(small_keys().public()).add(other)
    with pytest.raises(UpdateError, match="not of"):
        Ciphertexts.read(small_keys().public(), other.to_bytes(), 3)
    with pytest.raises(UpdateError, match="not of"):
        ckks.decrypt(small_keys(), other)


def test_ciphertext_that_lies_about_its_key_is_found_at_decryption() -> None:
    other = sent(CKKSKeys.generate(SMALL), np.ones(3))
    lie = other[:8] + EncryptedSum(small_keys().public()).public.key_id + other[40:]
    with pytest.raises(UpdateError, match="clients within the declared range cannot have sent"):
        ckks.decrypt(small_keys(), lie, 3)


def test_vector_out_of_the_declared_range_is_found_at_decryption() -> None:
    keys, public = small_keys(), small_public()
    cheat = tenseal.ckks_vector(public.context, [9.0 / SMALL.unit])
    with pytest.raises(UpdateError, match="cannot have sent"):
        ckks.decrypt(keys, Ciphertexts(public, 1, (cheat,), 0.0, SMALL.limit))


def test_ciphertexts_of_other_parameters_are_refused() -> None:
    keys = the_keys()
    public = CKKSPublic(keys.public())
    foreign = ckks.encrypt(small_keys().public(), np.ones(3)).chunks
    with pytest.raises(UpdateError, match="damaged or of other parameters"):
        Ciphertexts.read(public, Ciphertexts(public, 3, foreign, 0.0, 1.0).to_bytes(), 3)


def test_ciphertext_at_another_scale_is_refused() -> None:
    public = small_public()
    odd = tenseal.ckks_vector(public.context, [1.0, 2.0], 2.0**20)
    with pytest.raises(UpdateError, match="size, level and scale"):
        Ciphertexts.read(public, Ciphertexts(public, 2, (odd,), 0.0, 8.0).to_bytes(), 2)


def test_ciphertext_that_asks_to_be_multiplied_at_another_scale_is_refused() -> None:
    public = small_public()
    data = ckks.encrypt(public, np.ones(3)).to_bytes()
    # TenSEAL writes the scale for products last, as a float64.
    odd = Ciphertexts.read(public, data[:-8] + struct.pack("<d", 2.0**20), 3)
    with pytest.raises(UpdateError, match="of another scale than its key"):
        EncryptedSum(public).add(odd)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda data: b"", "not what"),
        (lambda data: data[:50], "not what"),
        (lambda data: b"X" + data[1:], "not what"),
        (lambda data: data[:-1], "damaged"),
        (lambda data: data + b"\0", "is .* bytes long; its chunks make"),
        (lambda data: data + bytes(200_000), "bytes are more than 3 encrypted numbers take"),
        (lambda data: data[:80] + bytes(16) + data[96:], "damaged"),
        (
            lambda data: data[:40] + struct.pack("<Q", 4) + data[48:],
            "4 encrypted numbers in 1 chunks came; 3 in 1",
        ),
        (lambda data: data[:48] + struct.pack("<d", 3.0) + data[56:], "total weight of 3"),
        (lambda data: data[:48] + struct.pack("<d", -1.0) + data[56:], "total weight of -1"),
        (lambda data: data[:56] + struct.pack("<d", np.nan) + data[64:], "a bound of nan"),
        (lambda data: data[:56] + struct.pack("<d", np.inf) + data[64:], "wraps beyond"),
        (lambda data: data[:64] + struct.pack("<I", 2) + data[68:], "3 encrypted numbers in 2 chunks"),
    ],
)
def test_bytes_that_are_not_such_an_encrypted_vector_are_refused(
    change: Callable[[bytes], bytes], sentence: str
) -> None:
    data = sent(small_keys(), np.ones(3))
    with pytest.raises(UpdateError, match=sentence):
        Ciphertexts.read(small_keys().public(), change(data), 3)


@settings(max_examples=60)
@given(place=st.integers(0, 400), value=st.integers(1, 255), cut=st.none() | st.integers(0, 100_000))
def test_damaged_bytes_are_refused_or_read_but_never_break(place: int, value: int, cut: int | None) -> None:
    data = bytearray(ckks.encrypt(small_public(), np.ones(3)).to_bytes())
    data[place] ^= value
    try:
        read = Ciphertexts.read(small_public(), bytes(data[:cut]), 3)
    except UpdateError:
        return
    assert (read.size, len(read.chunks)) == (3, 1)


def test_sizes_that_differ_are_refused() -> None:
    keys = small_keys()
    first, second = (ckks.encrypt(keys.public(), np.ones(size)) for size in (3, 4))
    running = EncryptedSum(keys.public())
    running.add(first)
    with pytest.raises(UpdateError, match="of 4 numbers cannot be added to one of 3"):
        running.add(second)
    with pytest.raises(UpdateError, match="of 3 and 4 numbers"):
        ckks.add(first, second)
    with pytest.raises(UpdateError, match="holds 3 numbers; 4 were expected"):
        ckks.decrypt(keys, first, 4)
    with pytest.raises(UpdateError, match="give the size"):
        ckks.decrypt(keys, first.to_bytes())
    with pytest.raises(UpdateError, match="multiply both with the same total_weight"):
        ckks.add(first, ckks.scale(first, 2.0))
    with pytest.raises(UpdateError, match="1 encrypted vectors and 2 weights"):
        ckks.weighted_sum([first], [1.0, 2.0])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"poly_modulus_degree": 5000}, "poly_modulus_degree is 5000; known: 2048, 4096"),
        ({"poly_modulus_degree": 4096}, "add up to 160; .* more than 109 gives less than 128-bit"),
        ({"coeff_mod_bits": (60,)}, "two primes or more"),
        ({"coeff_mod_bits": (60, 61, 60)}, "of 20 to 60 bits"),
        ({"scale_bits": 50}, "scale_bits is 50; .* its double at most 98"),
        ({"limit": 0.0}, "declared range is ±0"),
        ({"limit": float("nan")}, "declared range is ±nan"),
    ],
)
def test_parameters_that_are_unsafe_or_leave_no_room_are_refused(
    options: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        CKKSParameters(**options)


def test_public_bytes_that_are_damaged_or_disagree_with_themselves_are_refused() -> None:
    public = small_keys().public()
    (length,) = struct.unpack_from("<I", public, 8)
    told = json.loads(public[12 : 12 + length])
    lie = json.dumps({**told, "coeff_mod_bits": [40, 29, 40]}).encode()
    with pytest.raises(UpdateError, match="disagree"):
        CKKSPublic(public[:8] + struct.pack("<I", len(lie)) + lie + public[12 + length :])
    for damaged in (public[:100], public[: len(public) // 2], public[:12] + b"{" * 50 + public[62:]):
        with pytest.raises(UpdateError, match="damaged key"):
            CKKSPublic(damaged)
    for other in (b"", b"nothing of ours at all", small_keys().to_bytes()):
        with pytest.raises(UpdateError, match=r"not what `CKKSKeys\.public"):
            CKKSPublic(other)
    with pytest.raises(UpdateError, match=r"not what `CKKSKeys\.to_bytes"):
        CKKSKeys.read(public)


def test_report_counts_the_bytes_that_were_sent_and_the_seconds_of_each_step() -> None:
    keys, client, server = small_keys(), Report(), Report()
    data = ckks.encrypt(keys.public(), np.ones(3000), client).to_bytes(client)
    running = EncryptedSum(keys.public(), report=server)
    running.add(Ciphertexts.read(running.public, data, 3000, server))
    assert client.ciphertext_bytes == server.ciphertext_bytes == len(data)
    assert set(client.seconds) == {"encrypt", "serialise"}
    assert set(server.seconds) == {"read", "add"}
    assert all(seconds > 0 for seconds in (*client.seconds.values(), *server.seconds.values()))


def test_import_without_tenseal_works_and_use_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys, fedpact.secure.ckks, fedpact.secure.paillier; print({'tenseal', 'gmpy2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    monkeypatch.setitem(sys.modules, "tenseal", None)
    with pytest.raises(DependencyError, match=r'pip install "fedpact\[he\]"'):
        CKKSKeys.generate()
