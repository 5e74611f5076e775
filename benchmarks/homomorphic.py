"""Homomorphic encryption: bytes and seconds of CKKS sums and of packed Paillier, one thread."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fedpact.core.errors import DependencyError
from fedpact.secure import ckks, paillier

SIZES = {"100k": 100_000, "1M": 1_000_000}


def measure() -> dict[str, float | str]:
    try:
        return _ckks() | _paillier(2048) | _paillier(3072)
    except DependencyError as missing:
        return {"not measured": str(missing)}


def _ckks() -> dict[str, float | str]:
    keys = ckks.CKKSKeys.generate()
    public = ckks.CKKSPublic(keys.public())
    figures: dict[str, float | str] = {"CKKS public key, MB": len(public.data) / 1e6}
    for label, size in SIZES.items():
        vector = np.random.default_rng(0).normal(0, 0.01, size).astype(np.float32)
        client, server, holder = ckks.Report(), ckks.Report(), ckks.Report()
        sent = ckks.encrypt(public, vector, client).to_bytes(client)
        running = ckks.EncryptedSum(public, report=server)
        for weight in (3.0, 5.0):
            running.add(ckks.Ciphertexts.read(public, sent, size, server), weight)
        total = running.total().to_bytes()
        found = ckks.decrypt(keys, total, size, holder)
        error = np.abs(found / 8 - vector).max() / np.abs(vector).max()
        figures |= {
            f"CKKS {label}: upload, MB": len(sent) / 1e6,
            f"CKKS {label}: upload, times float32": len(sent) / vector.nbytes,
            f"CKKS {label}: encrypt and serialise, s": sum(client.seconds.values()),
            f"CKKS {label}: read, multiply and add one client, s": sum(server.seconds.values()) / 2,
            f"CKKS {label}: read and decrypt the sum, s": sum(holder.seconds.values()),
            f"CKKS {label}: largest error, relative": float(error),
        }
    return figures


def _paillier(bits: int) -> dict[str, float | str]:
    packing = paillier.Packing()
    keys, key_seconds = _timed(lambda: paillier.PaillierKeys.generate(bits))
    slots = packing.slots(keys.public)
    count = 4 * slots
    numbers = np.random.default_rng(0).normal(0, 1000, count)
    encrypted, encrypt = _timed(lambda: paillier.encrypt(keys.public, numbers, packing))
    scaled, scale = _timed(lambda: paillier.scale(encrypted, 1000))
    total, add = _timed(lambda: paillier.add(scaled, encrypted))
    _, decrypt = _timed(lambda: paillier.decrypt(keys, total))
    parts = [_timed(lambda share=share: paillier.decrypt_part(share, total)) for share in keys.split(3)]
    _, combine = _timed(lambda: paillier.combine_parts(total, [part for part, _ in parts]))
    name = f"Paillier {bits}"
    return {
        f"{name}: generate a key, s": key_seconds,
        f"{name}: numbers in one ciphertext": float(slots),
        f"{name}: bytes a number": len(encrypted.to_bytes()) / count,
        f"{name}: encrypt, ms a number": encrypt / count * 1e3,
        f"{name}: times an integer, ms a number": scale / count * 1e3,
        f"{name}: add, ms a number": add / count * 1e3,
        f"{name}: decrypt, ms a number": decrypt / count * 1e3,
        f"{name}: one party's part, ms a number": min(seconds for _, seconds in parts) / count * 1e3,
        f"{name}: combine three parts, ms a number": combine / count * 1e3,
    }


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start
