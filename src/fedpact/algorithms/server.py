"""How a server steps: an optimiser on the global model, along a cohort's mean gradient."""

from collections.abc import Mapping

from fedpact.algorithms.optimizers import Optimizer
from fedpact.core.vector import Vector


def first_slots(optimizer: Optimizer, model: Vector) -> dict[str, Vector]:
    """Return the optimiser's state before its first step, in the layout `model.layout.wide`."""
    slots = {}
    for name, start in optimizer.slots().items():
        slots[name] = Vector.zeros(model.layout.wide)
        for flat in slots[name].flats:
            flat.fill(start)
    return slots


def server_step(
    optimizer: Optimizer,
    model: Vector,
    gradient: Vector,
    slots: Mapping[str, Vector],
    count: int,
    lr: float,
) -> tuple[Vector, dict[str, Vector]]:
    """Return the model and the optimiser's state after one step, leaving those given as they are.

    Parameters take an optimiser step; buffers, which have no gradient, are simply moved by its negative.

    Args:
        optimizer: the server's optimiser.
        model: the global model.
        gradient: the mean gradient, or the negative of the mean change, in the layout `model.layout.wide`; it is
            used as scratch and holds nothing of meaning afterwards.
        slots: the optimiser's state.
        count: the number of this step, 1 for the first.
        lr: the server's learning rate.
    """
    stepped = model.widened()
    after = {name: slot.copy() for name, slot in slots.items()}
    for i, segment in enumerate(model.layout.segments):
        weights, step = stepped.flats[i], gradient.flats[i]
        if segment.role == "parameter":
            optimizer.step(weights, step, {name: slot.flats[i] for name, slot in after.items()}, count, lr)
        else:
            weights -= step
    return stepped if stepped.layout == model.layout else stepped.narrowed(model.layout), after
