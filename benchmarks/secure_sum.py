"""Secure sums: what masking, sharing and unmasking cost, in one thread, and the same steps of Flower's SecAgg+.

python -m benchmarks.secure_sum [--quick] [--flower PYTHON]
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from benchmarks.workloads import cache_folder
from fedpact.secure.client import SecureClient
from fedpact.secure.keys import Roster, verify
from fedpact.secure.member import Member
from fedpact.secure.messages import Delivery, MaskedVector, Message
from fedpact.secure.parameters import Parameters
from fedpact.secure.ring import to_ring
from fedpact.secure.server import PHASES, SecureServer
from fedpact.secure.simulation import SimulatedRoster

MILLION = 1_000_000
CLIP, STEPS = 8.0, 1 << 22
# Parameters, clients, neighbours, what one client may take to mask (ms) and the server to unmask (s).
CASES = (
    (MILLION, 10, None, 30.0, None),
    (MILLION, 100, None, 150.0, 2.0),
    (10 * MILLION, 100, 30, 600.0, None),
)
_FLOWER = Path(__file__).with_name("secure_sum_flower.py")
_FLOWER_CASES = ((MILLION, 10), (MILLION, 100))


class Prepared:
    """A round in which all have exchanged keys, and one client, the first, has yet to do anything.

    That client checks every signature and agrees on every key itself; the others only remember what was checked.
    """

    def __init__(self, clients: int, parameters: Parameters) -> None:
        crowd = SimulatedRoster()
        names = [f"client {i:03}" for i in range(clients)]
        members = crowd.members(names, 2)
        roster = Roster({name: member.identity.public for name, member in members.items()})
        self.first = names[0]
        alone = Member(self.first, members[self.first].identity, roster, crowd.session, 2, verify=verify)
        members[self.first] = alone
        self.server = SecureServer(roster, names, crowd.session, 1, b"", parameters, crowd.verify)
        self.clients = {name: SecureClient(member, b"") for name, member in members.items()}
        self.sent_bytes = 0
        self.share_s = 0.0
        requests: Mapping[str, Message] = self.server.start()
        for _ in PHASES[:2]:
            for name, request in requests.items():
                start = time.process_time()
                answer = self.clients[name].handle(request)
                if name == self.first:
                    self.share_s += time.process_time() - start
                    self.sent_bytes += len(answer.to_bytes())
                self.server.receive(name, answer)
            requests = self.server.advance()
        self.deliveries = requests

    def mask(self, vector: np.ndarray) -> MaskedVector:
        delivery = self.deliveries[self.first]
        assert isinstance(delivery, Delivery)
        masked = self.clients[self.first].handle(delivery, vector)
        assert isinstance(masked, MaskedVector)
        return masked

    def unmask(self, size: int, dropped: int) -> float:
        """Return the seconds that the server takes to open a sum that some clients have dropped out of."""
        names = list(self.clients)
        for name in names[1:]:
            delivery = self.deliveries[name]
            assert isinstance(delivery, Delivery)
            self.clients[name].masker(delivery)
        self.server.receive_sum(np.zeros(size, np.uint32), names[: len(names) - dropped])
        requests = self.server.advance()
        for _ in PHASES[3:]:
            for name, request in requests.items():
                self.server.receive(name, self.clients[name].handle(request))
            if self.server.phase == "unmask":
                break
            requests = self.server.advance()
        start = time.process_time()
        self.server.advance()
        return time.process_time() - start


def measure(quick: bool = False, flower: Path | None = None) -> dict[str, float | str]:
    """Return the figures; seconds are of the processor, the best of three."""
    figures: dict[str, float | str] = {}
    for size, clients, neighbours, mask_bar, unmask_bar in CASES[: 2 if quick else None]:
        label = f"{size // MILLION}M, {clients} clients" + (f", k={neighbours}" if neighbours else "")
        parameters = _parameters(clients, neighbours)
        vector = np.random.default_rng(0).integers(0, 1 << 32, size, np.uint32)
        rounds = [Prepared(clients, parameters) for _ in range(3)]
        masking = min(_seconds(lambda round_=round_, vector=vector: round_.mask(vector)) for round_ in rounds)
        unmasking = min(round_.unmask(size, clients // 10) for round_ in rounds[: 1 if size > MILLION else 3])
        figures[f"{label}: keys and shares, ms a client"] = 1e3 * min(round_.share_s for round_ in rounds)
        figures[f"{label}: mask, ms a client (bar {mask_bar:g})"] = 1e3 * masking
        bar = f" (bar {unmask_bar:g})" if unmask_bar else ""
        figures[f"{label}: unmask, 10 % dropped, s{bar}"] = unmasking
        for bits in (32, 20):
            upload = rounds[0].sent_bytes + len(MaskedVector.of(vector & 0xFFFF, bits).to_bytes())
            figures[f"{label}: upload at {bits} bits, bytes a parameter"] = upload / size
    return figures | _beside_flower(flower)


def _beside_flower(python: Path | None) -> dict[str, float | str]:
    python = python or cache_folder() / "peers" / "flower" / "bin" / "python"
    if not python.exists():
        return {"Flower's SecAgg+": f"skipped: there is no {python}; name one that has flwr with --flower"}
    figures: dict[str, float | str] = {}
    for size, clients in _FLOWER_CASES:
        label = f"{size // MILLION}M, {clients} clients, quantised and serialised"
        values = np.random.default_rng(0).standard_normal(size, np.float32)
        # In turns, so that what else the machine does meets both alike.
        ours, theirs = [], []
        for _ in range(2):
            round_ = Prepared(clients, Parameters.complete(clients))
            masking = _seconds(
                lambda round_=round_, values=values: round_.mask(_quantised(values)).to_bytes()
            )
            ours.append((round_.share_s, masking))
            done = subprocess.run(
                [str(python), str(_FLOWER), str(size), str(clients)],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            if done.returncode:
                return figures | {"Flower's SecAgg+": f"skipped: {done.stderr.strip().splitlines()[-1]}"}
            theirs.append(json.loads(done.stdout.splitlines()[-1]))
        for part, index in (("share_s", 0), ("mask_s", 1)):
            name = "keys and shares" if part == "share_s" else "mask"
            mine, other = min(pair[index] for pair in ours), min(told[part] for told in theirs)
            figures[f"{label}: {name}, ms: Fedpact"] = 1e3 * mine
            figures[f"{label}: {name}, ms: Flower"] = 1e3 * other
            figures[f"{label}: {name}, Flower over Fedpact"] = other / mine
        figures[f"{label}: bytes a parameter: Flower"] = theirs[0]["bytes"] / size
    return figures


def _quantised(values: np.ndarray) -> np.ndarray:
    """Clip, scale and round at random, as Flower does before it masks; the noise need not be secret."""
    scaled = np.clip(values, -CLIP, CLIP)
    scaled *= STEPS / (2 * CLIP)
    scaled += np.random.default_rng(1).random(values.size, np.float32)
    return to_ring(np.floor(scaled, out=scaled).astype(np.int64), 32)


def _parameters(clients: int, neighbours: int | None) -> Parameters:
    if neighbours is None:
        return Parameters.complete(clients)
    return Parameters(clients, 2 * (neighbours + 1) // 3 + 1, neighbours)


def _seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.secure_sum", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the vectors of 10M parameters")
    parser.add_argument("--flower", type=Path, help="a Python that has flwr")
    arguments = parser.parse_args()
    for label, value in measure(arguments.quick, arguments.flower).items():
        print(f"{label:<75} {value:.4g}" if isinstance(value, float) else f"{label:<75} {value}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
