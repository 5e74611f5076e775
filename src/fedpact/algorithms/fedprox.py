"""FedProx: local training that is pulled back to the global model.

Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, Algorithm 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fedpact.algorithms.fedavg import FedAvg
from fedpact.core.model import Array
from fedpact.core.settings import check_numbers


@dataclass(frozen=True, kw_only=True)
class FedProx(FedAvg):
    """FedAvg with a proximal term (mu/2)·‖w − w_global‖² in each client's loss.

    Args:
        mu: strength of the pull, ≥ 0; 0 is FedAvg.
    """

    mu: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, "mu")

    def correct(self, gradient: Array, weights: Array, anchors: Mapping[str, Array]) -> None:
        """Add the gradient of the proximal term."""
        pull = weights - anchors["start"]
        pull *= self.mu
        gradient += pull
