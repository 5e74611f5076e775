"""DP-FTRL: noise that is correlated over rounds, for clients who take part rarely and whom nobody samples.

What is learned is the sum of all rounds so far. Let A be the lower triangle of ones and A = B·C; then A·x + B·z with
independent noise z is private as soon as C·x + z is. The round's own noise is C⁻¹·z: part of what a round adds is taken
back in later ones, so that prefix sums stay accurate. Kairouz et al., "Practical and Private (Deep) Learning Without
Sampling or Shuffling", ICML 2021 (binary tree); Denisov et al., "Improved Differential Privacy for SGD via Optimal
Private Linear Operators on Adaptive Streams", NeurIPS 2022 (adaptive streams, Theorem 2.1); Choquette-Choo et al.,
"Multi-Epoch Matrix Factorization Mechanisms", ICML 2023, and "(Amplified) Banded Matrix Factorization", NeurIPS 2023;
Fichtenberger, Henzinger and Upadhyay, "Constant Matters", ICML 2023 (the square root C = A^½).
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import CheckpointError, ConfigError

Array = NDArray[np.float64]


def coefficients(rounds: int, bands: int | None = None) -> Array:
    """Return the first column of the square root of the lower triangle of ones: c₀ = 1, c_k = c_{k-1}·(2k-1)/(2k).

    Args:
        rounds: its length.
        bands: how many to keep; the others are 0. All by default.

    Returns:
        [rounds].
    """
    steps = np.arange(1, rounds)
    column = np.concatenate([[1.0], np.cumprod((2 * steps - 1) / (2 * steps))])
    column[rounds if bands is None else bands :] = 0.0
    return column


def toeplitz_sensitivity(
    rounds: int, bands: int | None = None, participations: int = 1, separation: int = 1
) -> float:
    """Return how far one unit moves C·x in L2 norm, when each of its terms has norm 1.

    The coefficients fall and none is negative, so the worst unit takes part in the rounds 0, b, 2b, …, always with the
    same term (Kalinin and Lampert, "Banded Square Root Matrix Factorization", NeurIPS 2024, Theorem 2).

    Args:
        rounds: length of the run.
        bands: coefficients kept; all by default.
        participations: rounds in which a unit takes part, at most.
        separation: rounds from one of these to the next, at least.
    """
    column = coefficients(rounds, bands)
    total = np.zeros(rounds)
    for start in range(0, min(participations * separation, rounds), separation):
        total[start:] += column[: rounds - start]
    return float(np.linalg.norm(total))


def tree_sensitivity(rounds: int, participations: int = 1, separation: int = 1) -> float:
    """Return how far one unit moves the nodes of the binary tree in L2 norm, when each of its terms has norm 1.

    Node t, for t = 1 … rounds, is the sum of the last lowbit(t) rounds. Level by level a unit is in at most so many
    nodes as it takes part, and in one node at most ⌈width / separation⌉ times. For one participation that is exact, and
    otherwise it may be too high, never too low.

    Args:
        rounds: length of the run.
        participations: rounds in which a unit takes part, at most.
        separation: rounds from one of these to the next, at least.
    """
    squared = 0
    for level in range(rounds.bit_length()):
        width = 1 << level
        nodes = (rounds // width + 1) // 2
        most = min(participations, -(-width // separation))
        full, rest = divmod(min(participations, nodes * most), most)
        squared += full * most**2 + rest**2
    return math.sqrt(squared)


def toeplitz_error(
    rounds: int, bands: int | None = None, participations: int = 1, separation: int = 1
) -> float:
    """Return the root mean square error of the prefix sums, for a noise multiplier of 1 after the sensitivity.

    That is sens(C)·‖B‖_F/√rounds, in units of the norm bound of one term; with one band the noise is independent.

    Args:
        rounds: length of the run.
        bands: coefficients kept; all by default.
        participations: rounds in which a unit takes part, at most.
        separation: rounds from one of these to the next, at least.
    """
    weights = coefficients(rounds, bands)[1:bands]
    inverse = np.zeros(rounds)
    inverse[0] = 1.0
    for t in range(1, rounds):
        past = inverse[max(0, t - weights.size) : t][::-1]
        inverse[t] = -float(weights[: past.size] @ past)
    # The first column of B = A·C⁻¹.
    column = np.cumsum(inverse)
    squared = float(np.sum(column**2 * np.arange(rounds, 0, -1)))
    return toeplitz_sensitivity(rounds, bands, participations, separation) * math.sqrt(squared / rounds)


def tree_error(rounds: int, participations: int = 1, separation: int = 1) -> float:
    """Return the same error for the binary tree: the prefix of t rounds is the sum of as many nodes as t has bits set.

    Args:
        rounds: length of the run.
        participations: rounds in which a unit takes part, at most.
        separation: rounds from one of these to the next, at least.
    """
    nodes = sum(t.bit_count() for t in range(1, rounds + 1))
    return tree_sensitivity(rounds, participations, separation) * math.sqrt(nodes / rounds)


class BandedNoise:
    """Each round's noise C⁻¹·z, one round after the other, from independent noise; bands - 1 vectors are remembered.

    The independent vectors are the caller's: N(0, (noise_multiplier·sensitivity of one term)²) from secret entropy.

    Args:
        rounds: length of the run.
        bands: coefficients kept, 1 to rounds; all by default, which remembers a vector a round.

    Raises:
        ConfigError: the bands are not 1 to rounds.
    """

    def __init__(self, rounds: int, bands: int | None = None) -> None:
        bands = rounds if bands is None else bands
        if not 1 <= bands <= rounds:
            raise ConfigError(f"BandedNoise: {bands} bands in {rounds} rounds; it must be 1 to {rounds}.")
        self._rounds, self._bands = rounds, bands
        self._coefficients = coefficients(bands)
        self._round = 0
        self._recent: Array | None = None

    def correlate(self, independent: Array) -> Array:
        """Return the next round's noise: w_t = z_t − Σ_k c_k·w_{t−k}.

        Args:
            independent: z_t, of the same shape every round.

        Raises:
            ConfigError: the run is over, or the shape is another than before.
        """
        _check_next(self._round, self._rounds)
        if self._recent is None:
            self._recent = np.zeros((self._bands - 1, *independent.shape))
        if independent.shape != self._recent.shape[1:]:
            raise ConfigError(
                f"the noise has the shape {independent.shape}; in the rounds before it was {self._recent.shape[1:]}."
            )
        noise = np.array(independent, np.float64)
        known = min(self._round, self._bands - 1)
        # Slot s holds the round that is s modulo (bands − 1): nothing is moved.
        slots = [(self._round - k) % (self._bands - 1) for k in range(1, known + 1)]
        for slot, weight in zip(slots, self._coefficients[1:], strict=False):
            noise -= weight * self._recent[slot]
        if self._bands > 1:
            self._recent[self._round % (self._bands - 1)] = noise
        self._round += 1
        return noise

    def state(self) -> dict[str, Array]:
        """Return what must be kept to go on: "round" [] and "recent" [bands - 1, …], which is as secret as the noise.

        With the noise of past rounds what was released can be denoised: whoever may read a checkpoint that holds it
        must be trusted like the server.
        """
        recent = np.zeros((0,)) if self._recent is None else self._recent.copy()
        return {"round": np.array(float(self._round)), "recent": recent}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Go on where `state` was taken.

        Raises:
            CheckpointError: it is the state of another run.
        """
        now, recent = _round_of(state, "recent", self._rounds), np.array(state["recent"], np.float64)
        if now and len(recent) != self._bands - 1:
            raise CheckpointError(
                f"the noise's state has {len(recent)} vectors instead of {self._bands - 1}."
            )
        self._round, self._recent = now, recent if now else None


class TreeNoise:
    """Each round's noise of the binary tree, so that prefix sums carry that of their nodes alone.

    The independent vectors are the caller's, one a round: N(0, (noise_multiplier·sensitivity of one term)²).

    Args:
        rounds: length of the run.
    """

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self._round = 0
        self._nodes: Array | None = None

    def correlate(self, independent: Array) -> Array:
        """Return the next round's noise: the new node's, less that of the nodes which it takes the place of.

        Args:
            independent: the new node's noise, of the same shape every round.

        Raises:
            ConfigError: the run is over, or the shape is another than before.
        """
        _check_next(self._round, self._rounds)
        if self._nodes is None:
            self._nodes = np.zeros((self._rounds.bit_length(), *independent.shape))
        if independent.shape != self._nodes.shape[1:]:
            raise ConfigError(
                f"the noise has the shape {independent.shape}; in the rounds before it was {self._nodes.shape[1:]}."
            )
        self._round += 1
        level = (self._round & -self._round).bit_length() - 1
        noise = independent - self._nodes[:level].sum(axis=0)
        self._nodes[:level] = 0.0
        self._nodes[level] = independent
        return noise

    def state(self) -> dict[str, Array]:
        """Return what must be kept to go on: "round" [] and "nodes" [levels, …], which is as secret as the noise."""
        nodes = np.zeros((0,)) if self._nodes is None else self._nodes.copy()
        return {"round": np.array(float(self._round)), "nodes": nodes}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Go on where `state` was taken.

        Raises:
            CheckpointError: it is the state of another run.
        """
        now, nodes = _round_of(state, "nodes", self._rounds), np.array(state["nodes"], np.float64)
        if now and len(nodes) != self._rounds.bit_length():
            raise CheckpointError(
                f"the noise's state has {len(nodes)} levels instead of {self._rounds.bit_length()}."
            )
        self._round, self._nodes = now, nodes if now else None


def _check_next(done: int, rounds: int) -> None:
    if done >= rounds:
        raise ConfigError(
            f"the correlated noise was made for {rounds} rounds, and they are over: more would not be covered by its "
            "guarantee. Start with more rounds."
        )


def _round_of(state: Mapping[str, Array], name: str, rounds: int) -> int:
    if "round" not in state or name not in state:
        raise CheckpointError(f'the noise\'s state must have "round" and "{name}".')
    now = int(state["round"])
    if not 0 <= now <= rounds:
        raise CheckpointError(f"the noise's state is of round {now}, and the run has {rounds}.")
    return now
