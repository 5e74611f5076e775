"""Memory is that of a cohort: it does not grow with the rounds."""

import subprocess
import sys

import pytest

RUN = """
import gc, sys
import numpy as np
import fedpact as fp

WARM, MORE = 200, 2000
random = np.random.default_rng(0)
x = random.normal(size=(100_000, 3, 4)).astype(np.float32)
y = x.sum(axis=2).astype(np.float64)
clients = fp.populations.arrays(x, y, test=(x[:, :1], y[:, :1]))
held = {}


def after_round(record):
    if record["round"] in (WARM, WARM + MORE):
        gc.collect()
        status = open("/proc/self/status").read()
        held[record["round"]] = int(status.split("VmRSS:")[1].split()[0])


result = fp.train(
    fp.models.Linear(),
    clients,
    algorithm=fp.FedAvg(lr=0.01, local_steps=1, batch_size=3),
    channel=fp.Clip(1.0),
    cohort=50,
    evaluate_every=1,
    evaluate_cohort=10,
    rounds=WARM + MORE,
    engine=sys.argv[1],
    workers=2 if sys.argv[1] == "workers" else None,
    on_round=after_round,
    progress=False,
)
assert len(result.clients) > 50_000
print(held[WARM], held[WARM + MORE])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("engine", ["in_process", "batched", "workers"])
def test_two_thousand_rounds_with_changing_cohorts_grow_by_less_than_a_hundredth(engine):
    done = subprocess.run(
        [sys.executable, "-c", RUN, engine], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    assert after < 1.01 * before
