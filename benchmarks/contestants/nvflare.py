"""NVIDIA FLARE: FedAvgRecipe in SimEnv, one site for each member of the cohort.

It tells nobody when a round ends; the times are those of its server's log, which it polls in steps of half a second.
"""

import shlex
import tempfile
from pathlib import Path

import torch
from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
from nvflare.recipe.sim_env import SimEnv

from benchmarks.contestants import nvflare_client
from benchmarks.contestants.common import Clock, Run, asked
from benchmarks.contestants.nvflare_log import round_times
from benchmarks.contestants.nvflare_model import Network
from benchmarks.torch_models import mean_loss


def trained_weights(workspace: Path) -> dict[str, torch.Tensor]:
    """Return the global model that the server has left."""
    (path,) = workspace.rglob("FL_global_model.pt")
    saved = torch.load(path, weights_only=True)
    return {name.removeprefix("network."): value for name, value in saved["model"].items()}


def main(run: Run) -> None:
    workload, clock = run.workload, Clock()
    words = run.arguments()
    recipe = FedAvgRecipe(
        name="benchmark",
        model=Network(words),
        min_clients=workload.cohort,
        num_rounds=run.rounds,
        train_script=nvflare_client.__file__,
        train_args=shlex.join(words),
    )
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        recipe.execute(
            SimEnv(num_clients=workload.cohort, num_threads=workload.cohort, workspace_root=str(workspace))
        )
        logs = [path for path in workspace.rglob("log.txt") if "server" in path.parts]
        clock.ticks = round_times("\n".join(path.read_text(errors="replace") for path in logs))
        weights = trained_weights(workspace)
    clock.report(
        mean_loss(workload, run.data),
        mean_loss(workload, run.data, weights),
        sites=workload.cohort,
        processes=workload.cohort,
        threads=1,
    )


if __name__ == "__main__":
    main(asked())
