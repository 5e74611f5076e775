"""What the tests of client states share."""

from fedpact.core import Entry, Layout, Vector
from fedpact.core.algorithm import ClientState
from fedpact.store.states import ClientStates

CONTROL = Layout([Entry("w", (2, 3)), Entry("steps", (), "int64", "buffer")])
OWN = Layout([Entry("head", (5,), "float64")])
CLIENTS = ["lyon", "nice", "paris", "上海", "file"]


def state(value: float) -> dict[str, Vector]:
    control, own = Vector.zeros(CONTROL), Vector.zeros(OWN)
    control["w"], control["steps"], own["head"] = value, int(value), -value
    return {"control": control, "own": own}


def vector(size: int, value: float) -> Vector:
    made = Vector.zeros(Layout([Entry("w", (size,))]))
    made["w"] = value
    return made


def all_of(states: ClientStates) -> dict[str, ClientState]:
    return {id: states.get(id) for id in states.ids()}
