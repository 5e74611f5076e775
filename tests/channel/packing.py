"""What is sent of an update: as bytes, and as the server makes of it."""

from dataclasses import replace

import numpy as np

from tests.channel.rounds import begin, flat, update


def sent_of(stage, vectors, **settings):
    """What a client sends of its vectors, and what it is told."""
    context = begin(stage, vectors, **settings)
    return stage.encode(update(**vectors), context), context


def received(stage, vectors, **settings):
    """What the server makes of a client's vectors."""
    sent, context = sent_of(stage, vectors, **settings)
    return stage.receive(sent, context).averaged


def serialised(sent):
    """All bytes of an update's packed vectors: whoever knows the round knows how many belong to which array."""
    parts = []
    for packed in sent.packed.values():
        parts += [array.tobytes() for array in packed.arrays.values()]
        parts += [np.float64(number).tobytes() for number in packed.numbers.values()]
    return b"".join(parts)


def error_of(stage, x, **settings):
    """The squared error of what arrives of a vector, over its squared norm."""
    vectors = {"model": x}
    found = flat(received(stage, vectors, **settings)["model"])
    return float(np.sum((found - flat(x)) ** 2) / np.sum(flat(x) ** 2))


def mean_received(stage, x, number):
    """The mean of what arrives of one vector in so many rounds, and the standard deviation of a number in it."""
    found = np.array([flat(received(stage, {"model": x}, number=t)["model"]) for t in range(number)])
    return found.mean(0), found.std(0, ddof=1) / np.sqrt(number)


def altered(sent, arrays=None, numbers=None, layout=None):
    """The same update with other parts in its packed model; those that are None are left out."""
    packed = sent.packed["model"]
    changed = {**packed.arrays, **(arrays or {})}
    changed = {name: array for name, array in changed.items() if array is not None}
    packed = replace(
        packed,
        arrays=changed,
        numbers={**packed.numbers, **(numbers or {})},
        layout=layout or packed.layout,
    )
    return replace(sent, packed={"model": packed})
