"""pfl-research: FederatedAveraging on SimulatedBackend with a PyTorch model, as in its own image benchmarks.

Run it through torchrun, one process of one thread per core: its best setting on CPUs.
"""

import os
import types
from typing import Any

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from torch import Tensor

from benchmarks.contestants.common import Clock, Run, asked
from benchmarks.torch_models import loss, mean_loss, model, tensors

_NEVER = 10**6


class Rounds(TrainingProcessCallback):
    """Tells the clock where rounds end."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def on_train_begin(self, *, model: Any) -> Metrics:
        self._clock.tick()
        return Metrics()

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: Any, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        self._clock.tick()
        return False, Metrics()


def with_loss_and_metrics(module: Any, run: Run) -> Any:
    """Return the module with the two methods that pfl calls."""

    def batch_loss(self: Any, x: Tensor, y: Tensor) -> Tensor:
        return loss(run.workload, self(x), y)

    def metrics(self: Any, x: Tensor, y: Tensor) -> dict[str, Weighted]:
        return {"loss": Weighted(float(self.loss(x, y).detach()) * len(x), len(x))}

    module.loss = types.MethodType(batch_loss, module)
    module.metrics = types.MethodType(metrics, module)
    return module


def main(run: Run) -> None:
    torch.set_num_threads(1)
    workload, clock = run.workload, Clock()
    x, y = tensors(workload, run.data, run.device)
    torch.manual_seed(0)
    # pfl draws its cohorts from numpy's global generator.
    np.random.seed(0)  # noqa: NPY002
    module = with_loss_and_metrics(model(workload, run.data).to(run.device).train(), run)

    def clients() -> FederatedDataset:
        return FederatedDataset(
            lambda client: Dataset([x[client], y[client]], user_id=str(client)),
            get_user_sampler("random", list(range(workload.clients))),
        )

    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=run.rounds,
            evaluation_frequency=_NEVER,
            train_cohort_size=workload.cohort,
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(
            training_data=clients(), val_data=clients(), postprocessors=[WeightByDatapoints()]
        ),
        model=PyTorchModel(
            module,
            local_optimizer_create=torch.optim.SGD,
            central_optimizer=torch.optim.SGD(module.parameters(), 1.0),
        ),
        model_train_params=NNTrainHyperParams(
            local_learning_rate=workload.lr, local_num_epochs=1, local_batch_size=workload.batch_size
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=10_000),
        callbacks=[Rounds(clock)],
        send_metrics_to_platform=False,
    )
    if int(os.environ.get("RANK", "0")) == 0:
        weights = {name: tensor.cpu() for name, tensor in module.state_dict().items()}
        clock.report(
            mean_loss(workload, run.data),
            mean_loss(workload, run.data, weights),
            processes=int(os.environ.get("WORLD_SIZE", "1")),
            threads=torch.get_num_threads(),
            device=run.device,
        )


if __name__ == "__main__":
    main(asked())
