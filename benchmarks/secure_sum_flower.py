"""Flower's SecAgg+ client functions, called directly: run by benchmarks.secure_sum with a Python that has flwr.

secure_sum_flower.py PARAMETERS CLIENTS prints one line of JSON: processor seconds and bytes of one client.
"""

import json
import os
import sys
import time

import numpy as np
from flwr.client.mod.secure_aggregation.secaggplus_mod import (
    SecAggPlusState,
    _collect_masked_vectors,
    _setup,
    _share_keys,
)
from flwr.common import ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.symmetric_encryption import encrypt, generate_shared_key
from flwr.common.secure_aggregation.secaggplus_constants import Key
from flwr.common.secure_aggregation.secaggplus_utils import share_keys_plaintext_concat
from flwr.supercore.primitives.asymmetric import bytes_to_private_key, bytes_to_public_key


def main() -> None:
    size, clients = map(int, sys.argv[1:])
    settings = {
        Key.SAMPLE_NUMBER: clients,
        Key.SHARE_NUMBER: clients,
        Key.THRESHOLD: clients // 2 + 1,
        Key.CLIPPING_RANGE: 8.0,
        Key.TARGET_RANGE: 1 << 22,
        Key.MOD_RANGE: 1 << 32,
        Key.MAX_WEIGHT: 1000.0,
    }
    states = [SecAggPlusState(nid=i) for i in range(clients)]
    start = time.process_time()
    _setup(states[0], settings)
    share_s = time.process_time() - start
    for state in states[1:]:
        _setup(state, settings)
    start = time.process_time()
    _share_keys(states[0], {str(state.nid): [state.pk1, state.pk2] for state in states})
    share_s += time.process_time() - start
    # What the others send to the first client; masking looks at no share.
    sealed = []
    for other in states[1:]:
        key = generate_shared_key(bytes_to_private_key(other.sk2), bytes_to_public_key(states[0].pk2))
        sealed.append(encrypt(key, share_keys_plaintext_concat(other.nid, 0, os.urandom(32), os.urandom(32))))
    values = np.random.default_rng(0).standard_normal(size, np.float32)
    delivery = {Key.CIPHERTEXT_LIST: sealed, Key.SOURCE_LIST: [state.nid for state in states[1:]]}
    parameters = ndarrays_to_parameters([values])
    start = time.process_time()
    answer = _collect_masked_vectors(states[0], delivery, 100, parameters)
    mask_s = time.process_time() - start
    sent = sum(len(part) for part in answer[Key.MASKED_PARAMETERS])
    print(json.dumps({"share_s": share_s, "mask_s": mask_s, "bytes": sent}))


if __name__ == "__main__":
    main()
