"""How rows reach a client's model: readers, splits, partitions, data sets, and federated preprocessing."""

from fedpact.core.registry import Registry

STEPS = Registry(
    "preprocessing step",
    {
        "Impute": "fedpact.data.preprocess.impute:Impute",
        "Standardize": "fedpact.data.preprocess.scale:Standardize",
        "OneHot": "fedpact.data.preprocess.encode:OneHot",
    },
)
