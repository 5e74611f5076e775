"""How rows reach a client's model: readers, splits, partitions, data sets, and federated preprocessing."""

from fedpact.core.registry import Registry

STEPS = Registry(
    "preprocessing step",
    {
        "Impute": "fedpact.data.preprocess.impute:Impute",
        "Standardize": "fedpact.data.preprocess.scale:Standardize",
        "MinMax": "fedpact.data.preprocess.minmax:MinMax",
        "MaxAbs": "fedpact.data.preprocess.minmax:MaxAbs",
        "Robust": "fedpact.data.preprocess.robust:Robust",
        "ClipRange": "fedpact.data.preprocess.clip:ClipRange",
        "Log": "fedpact.data.preprocess.log:Log",
        "YeoJohnson": "fedpact.data.preprocess.power:YeoJohnson",
        "QuantileTransform": "fedpact.data.preprocess.quantile_transform:QuantileTransform",
        "OneHot": "fedpact.data.preprocess.encode:OneHot",
        "Ordinal": "fedpact.data.preprocess.ordinal:Ordinal",
        "MergeRare": "fedpact.data.preprocess.rare:MergeRare",
        "TargetEncode": "fedpact.data.preprocess.target:TargetEncode",
        "DateParts": "fedpact.data.preprocess.dates:DateParts",
        "HashText": "fedpact.data.preprocess.hash_text:HashText",
        "TfIdf": "fedpact.data.preprocess.tf_idf:TfIdf",
        "Bin": "fedpact.data.preprocess.bins:Bin",
        "IterativeImpute": "fedpact.data.preprocess.iterative:IterativeImpute",
        "Clean": "fedpact.data.preprocess.clean:Clean",
        "DropDuplicates": "fedpact.data.preprocess.duplicates:DropDuplicates",
        "LowVariance": "fedpact.data.preprocess.low_variance:LowVariance",
        "DropCorrelated": "fedpact.data.preprocess.drop_correlated:DropCorrelated",
        "SelectBest": "fedpact.data.preprocess.select_best:SelectBest",
        "PCA": "fedpact.data.preprocess.pca:PCA",
    },
)
