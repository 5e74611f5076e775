"""FedOpt: FedAvg with an adaptive optimiser, or momentum, at the server.

Reddi et al., "Adaptive Federated Optimization", ICLR 2021, Algorithm 2 (FedAdagrad, FedAdam, FedYogi);
Hsu et al., "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification",
2019 (FedAvgM).
"""

from dataclasses import dataclass, field

from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.optimizers import SGD, Adagrad, Adam, Optimizer, Yogi

# Algorithm 2 starts the second moments at τ² or more, and uses no bias correction.
_TAU = 1e-3


@dataclass(frozen=True, kw_only=True)
class FedAvgM(FedAvg):
    """FedAvg with server momentum, 0.9 unless set otherwise."""

    server_optimizer: Optimizer = field(default_factory=lambda: SGD(momentum=0.9))


@dataclass(frozen=True, kw_only=True)
class FedAdam(FedAvg):
    """FedAvg with Adam at the server: β = (0.9, 0.99), τ = 1e-3, no bias correction."""

    server_lr: float = 0.1
    server_optimizer: Optimizer = field(
        default_factory=lambda: Adam(
            betas=(0.9, 0.99), eps=_TAU, bias_correction=False, initial_accumulator=_TAU**2
        )
    )


@dataclass(frozen=True, kw_only=True)
class FedYogi(FedAvg):
    """FedAvg with Yogi at the server: β = (0.9, 0.99), τ = 1e-3, no bias correction."""

    server_lr: float = 0.1
    server_optimizer: Optimizer = field(
        default_factory=lambda: Yogi(
            betas=(0.9, 0.99), eps=_TAU, bias_correction=False, initial_accumulator=_TAU**2
        )
    )


@dataclass(frozen=True, kw_only=True)
class FedAdagrad(FedAvg):
    """FedAvg with Adagrad at the server: τ = 1e-3."""

    server_lr: float = 0.1
    server_optimizer: Optimizer = field(
        default_factory=lambda: Adagrad(eps=_TAU, initial_accumulator=_TAU**2)
    )
