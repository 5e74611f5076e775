"""Who is asked in a round, drawn from the job's seed."""

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError
from fedpact.core.messages import Cohort, Cycle, Everyone, Recipients
from fedpact.core.seeds import Seed
from fedpact.engine.population import is_among

Sampling = Literal["fixed", "poisson", "cyclic"]


def choose(
    to: Recipients,
    ids: Sequence[str],
    cohort: int | float | None,
    round: int,
    seed: Seed,
    sampling: Sampling = "fixed",
) -> list[str]:
    """Return the clients that a task goes to, in a time that grows with their number and not with the population's.

    Args:
        to: whom the algorithm wants.
        ids: the clients that are there, sorted.
        cohort: the job's cohort: a number, a share, or None for all.
        round: the round.
        seed: the job's.
        sampling: "fixed": so many clients without replacement; "poisson": each by a coin of its own, so many on
            average; "cyclic": so many in turn, in an order drawn once, so that each takes part again only when all
            others have.

    Raises:
        ConfigError: a client named in the task is not there.
    """
    if isinstance(to, Everyone):
        return list(ids)
    if isinstance(to, Cycle):
        if not ids:
            return []
        turn, place = divmod(round, len(ids))
        return [ids[int(_order(seed, turn, len(ids))[place])] if to.shuffle else ids[place]]
    if isinstance(to, Cohort):
        size = count_of(cohort, len(ids))
        if sampling == "cyclic" and size < len(ids):
            turns = _order(seed.child("turns"), 0, len(ids))
            return sorted(
                ids[int(turns[place % len(ids)])] for place in range(round * size, (round + 1) * size)
            )
        generator = seed.child("cohort", round).generator()
        if sampling == "poisson" and size < len(ids):
            # As many as coins would choose, and then these: the same, without a coin for everybody.
            size = int(generator.binomial(len(ids), size / len(ids)))
        if size >= len(ids):
            return list(ids)
        # numpy draws by Floyd's algorithm where the cohort is small beside the population (Bentley and Floyd,
        # "A Sample of Brilliance", CACM 1987): no more than the cohort itself is ever held.
        chosen = generator.choice(len(ids), size, replace=False)
        # Names in order, as those of a population are, take no time to be sorted.
        return sorted(map(ids.__getitem__, np.sort(chosen).tolist()))
    for id in to.ids:
        if not is_among(ids, id):
            raise ConfigError(f'client "{id}" is asked by name but is not there in round {round}.')
    return list(to.ids)


@lru_cache(maxsize=1)
def _order(seed: Seed, turn: int, total: int) -> NDArray[np.int64]:
    """Return the order of one pass over all clients, which serves as many rounds as there are clients."""
    return seed.child("cycle", turn).generator().permutation(total)


def count_of(number: int | float | None, total: int) -> int:
    """Return a number of clients, given as a number, a share of the total (rounded up), or None for all."""
    if number is None:
        return total
    # The decimal as it was written: in floats, 0.07 · 100 is a little more than 7.
    return math.ceil(Fraction(str(number)) * total) if isinstance(number, float) else number


def check_cohort(cohort: int | float | None, quorum: int | float, total: int) -> None:
    """Refuse a cohort larger than the population, and a quorum larger than the cohort.

    Raises:
        ConfigError: it is.
    """
    if isinstance(cohort, int) and cohort > total:
        raise ConfigError(
            f"the cohort is {cohort} clients, but there are only {total}; ask for at most {total}, or for a "
            "share such as 0.5."
        )
    asked = count_of(cohort, total)
    if isinstance(quorum, int) and quorum > asked:
        raise ConfigError(
            f"the quorum is {quorum} clients, but only {asked} are asked in a round; ask for a quorum of at most "
            f"{asked}, or for a share such as 0.5."
        )
