"""Federated algorithms, one file per paper."""

from fedpact.core.registry import Registry

_OPTIMIZERS = "fedpact.algorithms.optimizers:"
_SCHEDULES = "fedpact.algorithms.schedules:"

PARTS = Registry(
    "optimiser, schedule or privacy",
    {
        "RecordDP": "fedpact.algorithms.record_dp:RecordDP",
        **{
            name: _OPTIMIZERS + name
            for name in ("SGD", "EMAMomentum", "Adam", "AdamW", "Adagrad", "Yogi", "RMSprop")
        },
        **{
            name: _SCHEDULES + name
            for name in (
                "Constant",
                "StepDecay",
                "ExponentialDecay",
                "CosineDecay",
                "PolynomialDecay",
                "InverseDecay",
                "Warmup",
            )
        },
    },
    recursive=True,
)

ALGORITHMS = Registry(
    "algorithm",
    {
        "FedAvg": "fedpact.algorithms.fedavg:FedAvg",
        "FedSGD": "fedpact.algorithms.fedsgd:FedSGD",
        "FedAvgM": "fedpact.algorithms.fedopt:FedAvgM",
        "FedAdam": "fedpact.algorithms.fedopt:FedAdam",
        "FedYogi": "fedpact.algorithms.fedopt:FedYogi",
        "FedAdagrad": "fedpact.algorithms.fedopt:FedAdagrad",
        "FedProx": "fedpact.algorithms.fedprox:FedProx",
        "SCAFFOLD": "fedpact.algorithms.scaffold:SCAFFOLD",
        "Cyclic": "fedpact.algorithms.cyclic:Cyclic",
        "Newton": "fedpact.algorithms.newton:Newton",
        "OneShot": "fedpact.algorithms.one_shot:OneShot",
        "FedDF": "fedpact.algorithms.fed_df:FedDF",
    },
    parts=PARTS,
)
