"""Fedpact: federated learning with the data owner's signature on it.

>>> import fedpact as fp
>>> clients = fp.datasets.breast_cancer()
>>> result = fp.train(
...     fp.models.Logistic(), clients, preprocess=[fp.Standardize()], algorithm=fp.FedAvg(lr=0.1), rounds=3
... )
>>> result.evaluation.metrics["accuracy"] > 0.9
True
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedpact import models as models
    from fedpact import populations as populations
    from fedpact.algorithms.cyclic import Cyclic as Cyclic
    from fedpact.algorithms.fed_df import FedDF as FedDF
    from fedpact.algorithms.fedavg import FedAvg as FedAvg
    from fedpact.algorithms.fedopt import FedAdagrad as FedAdagrad
    from fedpact.algorithms.fedopt import FedAdam as FedAdam
    from fedpact.algorithms.fedopt import FedAvgM as FedAvgM
    from fedpact.algorithms.fedopt import FedYogi as FedYogi
    from fedpact.algorithms.fedprox import FedProx as FedProx
    from fedpact.algorithms.fedsgd import FedSGD as FedSGD
    from fedpact.algorithms.newton import Newton as Newton
    from fedpact.algorithms.one_shot import OneShot as OneShot
    from fedpact.algorithms.optimizers import SGD as SGD
    from fedpact.algorithms.optimizers import Adagrad as Adagrad
    from fedpact.algorithms.optimizers import Adam as Adam
    from fedpact.algorithms.optimizers import AdamW as AdamW
    from fedpact.algorithms.optimizers import EMAMomentum as EMAMomentum
    from fedpact.algorithms.optimizers import RMSprop as RMSprop
    from fedpact.algorithms.optimizers import Yogi as Yogi
    from fedpact.algorithms.record_dp import RecordDP as RecordDP
    from fedpact.algorithms.scaffold import SCAFFOLD as SCAFFOLD
    from fedpact.algorithms.schedules import Constant as Constant
    from fedpact.algorithms.schedules import CosineDecay as CosineDecay
    from fedpact.algorithms.schedules import ExponentialDecay as ExponentialDecay
    from fedpact.algorithms.schedules import InverseDecay as InverseDecay
    from fedpact.algorithms.schedules import PolynomialDecay as PolynomialDecay
    from fedpact.algorithms.schedules import StepDecay as StepDecay
    from fedpact.algorithms.schedules import Warmup as Warmup
    from fedpact.channel.adaptive_clip import AdaptiveClip as AdaptiveClip
    from fedpact.channel.cast import Cast as Cast
    from fedpact.channel.clip import Clip as Clip
    from fedpact.channel.correlated_noise import CorrelatedNoise as CorrelatedNoise
    from fedpact.channel.count_sketch import CountSketch as CountSketch
    from fedpact.channel.drive import Drive as Drive
    from fedpact.channel.eden import Eden as Eden
    from fedpact.channel.ef_sign_sgd import EFSignSGD as EFSignSGD
    from fedpact.channel.hadamard import Hadamard as Hadamard
    from fedpact.channel.homomorphic_sum import HomomorphicSum as HomomorphicSum
    from fedpact.channel.layer_clip import LayerClip as LayerClip
    from fedpact.channel.lossless import Lossless as Lossless
    from fedpact.channel.noise import GaussianNoise as GaussianNoise
    from fedpact.channel.noise import LaplaceNoise as LaplaceNoise
    from fedpact.channel.noise import SkellamNoise as SkellamNoise
    from fedpact.channel.partial import Partial as Partial
    from fedpact.channel.power_sgd import PowerSGD as PowerSGD
    from fedpact.channel.projection import Projection as Projection
    from fedpact.channel.prune import Prune as Prune
    from fedpact.channel.qsgd import QSGD as QSGD
    from fedpact.channel.quantize import Quantize as Quantize
    from fedpact.channel.random_k import RandomK as RandomK
    from fedpact.channel.secure_sum import SecureSum as SecureSum
    from fedpact.channel.send_quantized import SendQuantized as SendQuantized
    from fedpact.channel.sign_sgd import SignSGD as SignSGD
    from fedpact.channel.split_trust import SplitTrust as SplitTrust
    from fedpact.channel.tern_grad import TernGrad as TernGrad
    from fedpact.channel.top_k import TopK as TopK
    from fedpact.channel.zero_outliers import ZeroOutliers as ZeroOutliers
    from fedpact.core import errors as errors
    from fedpact.core.errors import FedpactError as FedpactError
    from fedpact.core.job import Job as Job
    from fedpact.core.rows import ClientData as ClientData
    from fedpact.core.rows import Rows as Rows
    from fedpact.data import datasets as datasets
    from fedpact.data import partition as partition
    from fedpact.data import partitions as partitions
    from fedpact.data import splits as splits
    from fedpact.data.federation import Federation as Federation
    from fedpact.data.image_folder import ImageFolder as ImageFolder
    from fedpact.data.preprocess.bins import Bin as Bin
    from fedpact.data.preprocess.clean import Clean as Clean
    from fedpact.data.preprocess.clip import ClipRange as ClipRange
    from fedpact.data.preprocess.dates import DateParts as DateParts
    from fedpact.data.preprocess.drop_correlated import DropCorrelated as DropCorrelated
    from fedpact.data.preprocess.duplicates import DropDuplicates as DropDuplicates
    from fedpact.data.preprocess.encode import OneHot as OneHot
    from fedpact.data.preprocess.extra_passes import ExtraPasses as ExtraPasses
    from fedpact.data.preprocess.hash_text import HashText as HashText
    from fedpact.data.preprocess.image_normalize import NormalizeImages as NormalizeImages
    from fedpact.data.preprocess.image_resize import Resize as Resize
    from fedpact.data.preprocess.impute import Impute as Impute
    from fedpact.data.preprocess.iterative import IterativeImpute as IterativeImpute
    from fedpact.data.preprocess.log import Log as Log
    from fedpact.data.preprocess.low_variance import LowVariance as LowVariance
    from fedpact.data.preprocess.minmax import MaxAbs as MaxAbs
    from fedpact.data.preprocess.minmax import MinMax as MinMax
    from fedpact.data.preprocess.ordinal import Ordinal as Ordinal
    from fedpact.data.preprocess.pca import PCA as PCA
    from fedpact.data.preprocess.power import YeoJohnson as YeoJohnson
    from fedpact.data.preprocess.quantile_transform import QuantileTransform as QuantileTransform
    from fedpact.data.preprocess.random_rows import OverSample as OverSample
    from fedpact.data.preprocess.random_rows import UnderSample as UnderSample
    from fedpact.data.preprocess.rare import MergeRare as MergeRare
    from fedpact.data.preprocess.robust import Robust as Robust
    from fedpact.data.preprocess.scale import Standardize as Standardize
    from fedpact.data.preprocess.select_best import SelectBest as SelectBest
    from fedpact.data.preprocess.smote import ADASYN as ADASYN
    from fedpact.data.preprocess.smote import SMOTE as SMOTE
    from fedpact.data.preprocess.target import TargetEncode as TargetEncode
    from fedpact.data.preprocess.tf_idf import TfIdf as TfIdf
    from fedpact.data.read import by_column as by_column
    from fedpact.data.read import client as client
    from fedpact.data.read import clients as clients
    from fedpact.data.read import read_rows as read_rows
    from fedpact.data.sql import SQL as SQL
    from fedpact.data.table_schema import ColumnSchema as ColumnSchema
    from fedpact.data.table_schema import TableSchema as TableSchema
    from fedpact.data.text_folder import TextFolder as TextFolder
    from fedpact.engine.batched import Batched as Batched
    from fedpact.engine.describe import compare_schemas as compare_schemas
    from fedpact.engine.describe import describe as describe
    from fedpact.engine.description import Description as Description
    from fedpact.engine.evaluation import Evaluation as Evaluation
    from fedpact.engine.fitted import Fitted as Fitted
    from fedpact.engine.in_process import InProcess as InProcess
    from fedpact.engine.population import InMemory as InMemory
    from fedpact.engine.population import Population as Population
    from fedpact.engine.ray import Ray as Ray
    from fedpact.engine.result import Result as Result
    from fedpact.engine.result import evaluate as evaluate
    from fedpact.engine.runner import Keep as Keep
    from fedpact.engine.stop import NoImprovement as NoImprovement
    from fedpact.engine.stop import Target as Target
    from fedpact.engine.stop import TimeLimit as TimeLimit
    from fedpact.engine.train import run as run
    from fedpact.engine.train import train as train
    from fedpact.engine.workers import Workers as Workers
    from fedpact.learn import metrics as metrics
    from fedpact.learn.focal import Focal as Focal
    from fedpact.learn.lora import lora as lora
    from fedpact.learn.lora import merge_lora as merge_lora
    from fedpact.learn.torch_augment import ColorJitter as ColorJitter
    from fedpact.learn.torch_augment import RandomCrop as RandomCrop
    from fedpact.learn.torch_augment import RandomErasing as RandomErasing
    from fedpact.learn.torch_augment import RandomFlip as RandomFlip
    from fedpact.learn.torch_augment import RandomRotation as RandomRotation
    from fedpact.learn.torch_frozen import freeze as freeze

__version__ = "0.1.0"

# Everything is imported when it is first asked for, so that `import fedpact` costs nothing.
_HOMES = {
    "fedpact.engine.train": ("train", "run"),
    "fedpact.engine.fitted": ("Fitted",),
    "fedpact.engine.result": ("Result", "evaluate"),
    "fedpact.engine.runner": ("Keep",),
    "fedpact.engine.population": ("InMemory", "Population"),
    "fedpact.engine.evaluation": ("Evaluation",),
    "fedpact.engine.in_process": ("InProcess",),
    "fedpact.engine.batched": ("Batched",),
    "fedpact.engine.workers": ("Workers",),
    "fedpact.engine.ray": ("Ray",),
    "fedpact.engine.stop": ("Target", "NoImprovement", "TimeLimit"),
    "fedpact.core.job": ("Job",),
    "fedpact.core.rows": ("ClientData", "Rows"),
    "fedpact.core.errors": ("FedpactError",),
    "fedpact.data.read": ("client", "clients", "by_column", "read_rows"),
    "fedpact.data.sql": ("SQL",),
    "fedpact.data.text_folder": ("TextFolder",),
    "fedpact.data.image_folder": ("ImageFolder",),
    "fedpact.data.federation": ("Federation",),
    "fedpact.data.table_schema": ("TableSchema", "ColumnSchema"),
    "fedpact.engine.describe": ("describe", "compare_schemas"),
    "fedpact.engine.description": ("Description",),
    "fedpact.data.preprocess.impute": ("Impute",),
    "fedpact.data.preprocess.scale": ("Standardize",),
    "fedpact.data.preprocess.minmax": ("MinMax", "MaxAbs"),
    "fedpact.data.preprocess.robust": ("Robust",),
    "fedpact.data.preprocess.clip": ("ClipRange",),
    "fedpact.data.preprocess.log": ("Log",),
    "fedpact.data.preprocess.power": ("YeoJohnson",),
    "fedpact.data.preprocess.quantile_transform": ("QuantileTransform",),
    "fedpact.data.preprocess.encode": ("OneHot",),
    "fedpact.data.preprocess.ordinal": ("Ordinal",),
    "fedpact.data.preprocess.rare": ("MergeRare",),
    "fedpact.data.preprocess.target": ("TargetEncode",),
    "fedpact.data.preprocess.dates": ("DateParts",),
    "fedpact.data.preprocess.hash_text": ("HashText",),
    "fedpact.data.preprocess.tf_idf": ("TfIdf",),
    "fedpact.data.preprocess.bins": ("Bin",),
    "fedpact.data.preprocess.clean": ("Clean",),
    "fedpact.data.preprocess.drop_correlated": ("DropCorrelated",),
    "fedpact.data.preprocess.duplicates": ("DropDuplicates",),
    "fedpact.data.preprocess.iterative": ("IterativeImpute",),
    "fedpact.data.preprocess.image_normalize": ("NormalizeImages",),
    "fedpact.data.preprocess.image_resize": ("Resize",),
    "fedpact.data.preprocess.low_variance": ("LowVariance",),
    "fedpact.data.preprocess.pca": ("PCA",),
    "fedpact.data.preprocess.select_best": ("SelectBest",),
    "fedpact.data.preprocess.random_rows": ("OverSample", "UnderSample"),
    "fedpact.data.preprocess.smote": ("SMOTE", "ADASYN"),
    "fedpact.data.preprocess.extra_passes": ("ExtraPasses",),
    "fedpact.channel.adaptive_clip": ("AdaptiveClip",),
    "fedpact.channel.cast": ("Cast",),
    "fedpact.channel.clip": ("Clip",),
    "fedpact.channel.correlated_noise": ("CorrelatedNoise",),
    "fedpact.channel.count_sketch": ("CountSketch",),
    "fedpact.channel.drive": ("Drive",),
    "fedpact.channel.eden": ("Eden",),
    "fedpact.channel.ef_sign_sgd": ("EFSignSGD",),
    "fedpact.channel.hadamard": ("Hadamard",),
    "fedpact.channel.homomorphic_sum": ("HomomorphicSum",),
    "fedpact.channel.layer_clip": ("LayerClip",),
    "fedpact.channel.lossless": ("Lossless",),
    "fedpact.channel.noise": ("GaussianNoise", "LaplaceNoise", "SkellamNoise"),
    "fedpact.channel.power_sgd": ("PowerSGD",),
    "fedpact.channel.projection": ("Projection",),
    "fedpact.channel.prune": ("Prune",),
    "fedpact.channel.qsgd": ("QSGD",),
    "fedpact.channel.quantize": ("Quantize",),
    "fedpact.channel.random_k": ("RandomK",),
    "fedpact.channel.secure_sum": ("SecureSum",),
    "fedpact.channel.send_quantized": ("SendQuantized",),
    "fedpact.channel.sign_sgd": ("SignSGD",),
    "fedpact.channel.split_trust": ("SplitTrust",),
    "fedpact.channel.tern_grad": ("TernGrad",),
    "fedpact.channel.top_k": ("TopK",),
    "fedpact.channel.zero_outliers": ("ZeroOutliers",),
    "fedpact.algorithms.fedavg": ("FedAvg",),
    "fedpact.algorithms.fedsgd": ("FedSGD",),
    "fedpact.algorithms.fedopt": ("FedAvgM", "FedAdam", "FedYogi", "FedAdagrad"),
    "fedpact.algorithms.fedprox": ("FedProx",),
    "fedpact.algorithms.scaffold": ("SCAFFOLD",),
    "fedpact.algorithms.cyclic": ("Cyclic",),
    "fedpact.algorithms.newton": ("Newton",),
    "fedpact.algorithms.one_shot": ("OneShot",),
    "fedpact.algorithms.record_dp": ("RecordDP",),
    "fedpact.algorithms.fed_df": ("FedDF",),
    "fedpact.channel.partial": ("Partial",),
    "fedpact.learn.focal": ("Focal",),
    "fedpact.learn.lora": ("lora", "merge_lora"),
    "fedpact.learn.torch_augment": (
        "ColorJitter",
        "RandomCrop",
        "RandomErasing",
        "RandomFlip",
        "RandomRotation",
    ),
    "fedpact.learn.torch_frozen": ("freeze",),
    "fedpact.algorithms.optimizers": ("SGD", "EMAMomentum", "Adam", "AdamW", "Adagrad", "Yogi", "RMSprop"),
    "fedpact.algorithms.schedules": (
        "Constant",
        "StepDecay",
        "ExponentialDecay",
        "CosineDecay",
        "PolynomialDecay",
        "InverseDecay",
        "Warmup",
    ),
}
_MODULES = {
    "datasets": "fedpact.data.datasets",
    "models": "fedpact.models",
    "partition": "fedpact.data.partition",
    "partitions": "fedpact.data.partitions",
    "splits": "fedpact.data.splits",
    "populations": "fedpact.populations",
    "metrics": "fedpact.learn.metrics",
    "errors": "fedpact.core.errors",
}
_PLACES = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    from fedpact.core.errors import suggest

    raise AttributeError(f'fedpact has no "{name}".{suggest(name, __dir__())}')


def __dir__() -> list[str]:
    return sorted(["__version__", *_MODULES, *_PLACES])
