"""The core: vectors, exact sums, messages, the algorithm's four methods, jobs, seeds. It knows no ML library."""

from fedpact.core.accumulator import Accumulator
from fedpact.core.algorithm import Algorithm, ClientState
from fedpact.core.exact import FixedPointSum
from fedpact.core.messages import Aggregate, Cohort, Cycle, Everyone, Named, Recipients, Task, Update
from fedpact.core.model import Schema
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.core.vector import Entry, Layout, Vector
from fedpact.core.wide import Wide

__all__ = [
    "Accumulator",
    "Aggregate",
    "Algorithm",
    "ClientData",
    "ClientState",
    "Cohort",
    "Cycle",
    "Entry",
    "Everyone",
    "FixedPointSum",
    "Layout",
    "Named",
    "Recipients",
    "Rows",
    "Schema",
    "Seed",
    "Task",
    "Update",
    "Vector",
    "Wide",
]
