"""What the hand-written contestants share: processes that add their parts of a round up in shared memory."""

import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from typing import Any

import torch
from torch import Tensor

from benchmarks.contestants.common import Clock, Run
from benchmarks.workloads import Array, cohorts


@dataclass
class Together:
    """One of the processes that train together.

    Args:
        run: what they are to do.
        rank: which of them this is.
        present: the global model, flat.
        sums: a flat vector for each process.
        barrier: where they wait for one another.
        clock: notes the rounds.
    """

    run: Run
    rank: int
    present: Tensor
    sums: Tensor
    barrier: Barrier
    clock: Clock

    def rounds(self) -> Iterator[tuple[Array, Tensor]]:
        """Yield this process's clients of each cohort, and the vector to add up their share of the mean in.

        When the next is asked for, `present` becomes the sum over the processes.
        """
        self.clock.tick()
        for cohort in cohorts(self.run.workload, self.run.rounds):
            yield cohort[self.rank :: self.run.workers], self.sums[self.rank].zero_()
            self.barrier.wait()
            if self.rank == 0:
                torch.sum(self.sums, 0, out=self.present)
            self.barrier.wait()
            self.clock.tick()


def train_together(run: Run, start: Tensor, train: Callable[[Together], Any], clock: Clock) -> Tensor:
    """Run `train` in `run.workers` processes, this one included, and return the flat model that they end with."""
    context = multiprocessing.get_context("fork")
    present: Tensor = start.clone().share_memory_()
    sums: Tensor = torch.zeros(run.workers, len(start)).share_memory_()
    barrier = context.Barrier(run.workers)
    others = [
        context.Process(target=train, args=(Together(run, rank, present, sums, barrier, Clock()),))
        for rank in range(1, run.workers)
    ]
    for process in others:
        process.start()
    train(Together(run, 0, present, sums, barrier, clock))
    for process in others:
        process.join()
    return present
