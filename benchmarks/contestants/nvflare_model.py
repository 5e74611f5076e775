"""The model as NVIDIA FLARE wants it: a class with constructor arguments that it can write down, built anew by each."""

from torch import Tensor, nn

from benchmarks.contestants.common import asked
from benchmarks.torch_models import model


class Network(nn.Module):
    """The workload's model with the weights that all contestants start from.

    Args:
        words: a contestant's command line.
    """

    def __init__(self, words: list[str]) -> None:
        super().__init__()
        self.words = words
        run = asked(words)
        self.network = model(run.workload, run.data)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.network(x)
        return outputs
