"""Cyclic weight transfer: the model travels from client to client and trains at each in turn.

Chang et al., "Distributed deep learning networks among institutions for medical imaging", JAMIA 2018.
"""

from dataclasses import dataclass

from fedpact.algorithms.fedavg import FedAvg
from fedpact.core.messages import Cycle, Recipients


@dataclass(frozen=True, kw_only=True)
class Cyclic(FedAvg):
    """One client a round trains the model, which then goes on to the next; a pass over K clients is K rounds.

    Args:
        shuffle_clients: draw a new order of the clients for every pass, instead of the order of their names.
    """

    shuffle_clients: bool = True

    @property
    def recipients(self) -> Recipients:  # type: ignore[override]
        """One client a round, each in turn."""
        return Cycle(shuffle=self.shuffle_clients)
