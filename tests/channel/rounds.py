"""One round of one stage by hand: what a channel tells it, and the mean of what its clients sent."""

import numpy as np

from fedpact.channel.transform import RoundContext
from fedpact.core.messages import Aggregate, Update
from fedpact.core.seeds import Seed
from fedpact.core.vector import Entry, Layout, Vector

# Two dtypes of parameters, and buffers of which one is a counter, widened as in an update.
MIXED = Layout(
    [
        Entry("a", (4, 5)),
        Entry("b", (3,), "float64"),
        Entry("var", (2,), role="buffer"),
        Entry("steps", (), "int64", "buffer"),
    ]
).wide


def vector(array, dtype=None):
    """A vector of one parameter array."""
    return Vector.from_arrays({"x": np.asarray(array, dtype)})


def random_vector(layout, rng):
    arrays = {entry.name: rng.normal(size=entry.shape) for entry in layout.entries}
    return Vector.from_arrays(arrays, layout)


def update(client="lyon", weight=1, kind="delta", **vectors):
    return Update(client, 0, kind, weight=weight, averaged=vectors)


def begin(stage, vectors, seed=0, state=None, number=0):
    """What the stage is told in a round in which clients send vectors like these."""
    layouts = {name: v.layout for name, v in vectors.items()}
    state = stage.init(layouts) if state is None else state
    return RoundContext(number, seed=Seed.of(seed).child(number), state=state, layouts=layouts)


def mean(updates):
    """The aggregate of updates, in float64 until it is written into the vectors."""
    total = sum(each.weight for each in updates)
    means = {}
    for name, first in updates[0].averaged.items():
        means[name] = Vector.zeros(first.layout)
        for place, flat in enumerate(means[name].flats):
            flat[:] = (
                sum(u.weight * u.averaged[name].flats[place].astype(np.float64) for u in updates) / total
            )
    return Aggregate(updates[0].kind, len(updates), total, len(updates), means)


def flat(vector):
    return np.concatenate([np.asarray(part, np.float64) for part in vector.flats])


def norm(update):
    return float(np.linalg.norm(np.concatenate([flat(v) for v in update.averaged.values()])))


def through(stage, vectors, **settings):
    """What the server makes of one client's vectors."""
    context = begin(stage, vectors, **settings)
    return stage.decode(mean([stage.encode(update(**vectors), context)]), context).means
