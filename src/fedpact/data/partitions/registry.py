"""The partitions by name, as a job's `data` names them."""

from fedpact.core.registry import Registry

PARTITIONS = Registry(
    "partition",
    {
        "IID": "fedpact.data.partitions.sizes:IID",
        "QuantitySkew": "fedpact.data.partitions.sizes:QuantitySkew",
        "Dirichlet": "fedpact.data.partitions.labels:Dirichlet",
        "Shards": "fedpact.data.partitions.labels:Shards",
        "Noise": "fedpact.data.partitions.features:Noise",
        "Rotation": "fedpact.data.partitions.features:Rotation",
        "PermutedLabels": "fedpact.data.partitions.concepts:PermutedLabels",
        "FlippedLabels": "fedpact.data.partitions.concepts:FlippedLabels",
        "ByColumn": "fedpact.data.partitions.columns:ByColumn",
        "TimeSlices": "fedpact.data.partitions.columns:TimeSlices",
    },
    recursive=True,
)
