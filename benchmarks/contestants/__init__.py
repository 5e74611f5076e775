"""Who is compared: one script for each simulator, run in an environment of its own, each with its best settings."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Contestant:
    """One simulator, or one way to train without any.

    Args:
        name: its script, `benchmarks/contestants/<name>.py`, and its environment.
        title: what it is called in tables.
        how: the way in which it is run here.
        package: the distribution that it comes in; None for what runs beside Fedpact, with the same torch.
        workloads: those that it can run.
        why_not: what keeps it from the others.
        torchrun: whether torchrun starts it, one process for each worker.
        one_thread: whether each of its processes is to have one thread of computation.
        options: those of `--engine`, `--precision` and `--device` that it heeds.
    """

    name: str
    title: str
    how: str
    package: str | None = None
    workloads: str = "ABCDE"
    why_not: str = ""
    torchrun: bool = False
    one_thread: bool = False
    options: frozenset[str] = frozenset()


OURS = "fedpact"
CONTESTANTS: Mapping[str, Contestant] = {
    contestant.name: contestant
    for contestant in (
        Contestant(
            OURS,
            "Fedpact",
            "fp.train over memory-mapped arrays",
            options=frozenset({"engine", "precision", "device"}),
        ),
        Contestant(
            "floor",
            "floor",
            "by hand: a resident model per process, flat parameters, sums in shared memory",
            one_thread=True,
        ),
        Contestant(
            "stacked",
            "stacked",
            "by hand: the floor, clients stacked by torch.func.vmap",
            workloads="CD",
            why_not="vmap takes neither torch's LSTM nor, at any speed, weights of its own for every convolution",
            one_thread=True,
        ),
        Contestant(
            "naive",
            "naive loop",
            "by hand: deepcopy, DataLoader, optim.SGD and state_dict averaging, torch's default threads",
            options=frozenset({"device"}),
        ),
        Contestant(
            "pfl",
            "pfl-research",
            "SimulatedBackend and FederatedAveraging under torchrun, one process of one thread per core",
            package="pfl",
            torchrun=True,
            one_thread=True,
            options=frozenset({"device"}),
        ),
        Contestant(
            "flower",
            "Flower",
            "run_simulation (Ray), one core per client, model and data kept in the actors",
            package="flwr",
        ),
        Contestant(
            "fedjax",
            "FedJAX",
            "fed_avg.federated_averaging, jit backend, haiku models",
            package="fedjax",
        ),
        Contestant(
            "nvflare",
            "NVIDIA FLARE",
            "FedAvgRecipe in SimEnv, one process for each member of the cohort",
            package="nvflare",
            workloads="B",
            why_not="its simulator runs a process for each member of the cohort, and holds no larger population",
        ),
        Contestant(
            "tff",
            "TensorFlow Federated",
            "build_weighted_fed_avg on the C++ execution context, one call at a time per core",
            package="tensorflow-federated",
        ),
    )
}
ALIASES: Mapping[str, str] = {"flwr": "flower", "pfl-research": "pfl", "nvidia-flare": "nvflare"}
