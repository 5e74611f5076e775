"""One round of a masked channel by hand: clients encode, a server adds up, and the sum is opened."""

import numpy as np

from fedpact.algorithms.fedavg import FedAvg
from fedpact.channel.channel import Channel
from fedpact.channel.clip import Clip
from fedpact.core.accumulator import Accumulator
from fedpact.core.messages import Task, Update
from fedpact.core.seeds import Seed
from fedpact.core.vector import Entry, Layout, Vector

CLIP = 10.0
LAYOUT = Layout([Entry("w", (3, 5), "float64"), Entry("b", (4,), "float64")])


class Round:
    """A round among these clients, of which each has a weight."""

    def __init__(self, mask, weights, weighting="examples", stages=None, layout=LAYOUT, number=0):
        self.weights = dict(weights)
        self.channel = Channel(
            [*(stages or [Clip(CLIP)]), mask], FedAvg(lr=0.1, local_steps=1, weighting=weighting)
        )
        self.task = Task("train", 0, {"model": Vector.zeros(layout)}, kind="delta", weighting=weighting)
        self.round = self.channel.begin(self.task, list(weights), Seed.of(0).child(number))

    def sums(self):
        return Accumulator(self.task, 1e6, 1e6, len(self.weights))

    def sent(self, client, change, metrics=None):
        """What leaves a client."""
        update = Update(
            client,
            0,
            "delta",
            self.weights[client],
            averaged={"model": Vector.from_arrays(change, self.task.arrays["model"].layout)},
            metrics=metrics or {},
        )
        return self.channel.encode(update, self.round, {}, {})[0]

    def received(self, update):
        return self.channel.receive(update, self.round)

    def opened(self, sums):
        return self.channel.aggregate(sums, self.round)[0]

    def mean(self, changes, metrics=None):
        """The aggregate of these clients' changes."""
        sums = self.sums()
        for client, change in changes.items():
            sums.add(self.received(self.sent(client, change, metrics)))
        return self.opened(sums)

    def exact(self, changes):
        """The mean as integers in clear would give it, in the order of the layout."""
        grid, total, weight = self.round.grid, 0, 0.0
        for client, change in changes.items():
            vector = Vector.from_arrays(change, self.task.arrays["model"].layout)
            if self.channel.mask.weighs:
                whole = grid.integers({"model": vector}, 1.0, client).arrays["model"]
                total = total + whole * int(self.weights[client])
            else:
                total = total + grid.integers({"model": vector}, self.weights[client], client).arrays["model"]
            weight += self.weights[client]
        return total * (grid.step / weight)


def random_changes(clients, seed=0, layout=LAYOUT, size=0.5):
    """Client → arrays of random numbers."""
    rng = np.random.default_rng(seed)
    return {
        client: {entry.name: rng.uniform(-size, size, entry.shape) for entry in layout.entries}
        for client in clients
    }


def flat(aggregate):
    return np.concatenate(aggregate.means["model"].flats)
