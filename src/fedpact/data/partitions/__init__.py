"""Partitions for simulation: one table, spread over clients in the ways in which real clients differ.

Each is a frozen dataclass in one registry; `simulate` turns rows and a partition into a federation and a report
of how far its clients are from alike.
"""

from fedpact.data.partitions.columns import ByColumn, TimeSlices
from fedpact.data.partitions.concepts import FlippedLabels, PermutedLabels
from fedpact.data.partitions.features import Noise, Rotation
from fedpact.data.partitions.labels import Dirichlet, Shards
from fedpact.data.partitions.partitioner import Partitioner
from fedpact.data.partitions.registry import PARTITIONS
from fedpact.data.partitions.report import Report
from fedpact.data.partitions.simulate import Simulation, simulate
from fedpact.data.partitions.sizes import IID, QuantitySkew

__all__ = [
    "IID",
    "PARTITIONS",
    "ByColumn",
    "Dirichlet",
    "FlippedLabels",
    "Noise",
    "Partitioner",
    "PermutedLabels",
    "QuantitySkew",
    "Report",
    "Rotation",
    "Shards",
    "Simulation",
    "TimeSlices",
    "simulate",
]
