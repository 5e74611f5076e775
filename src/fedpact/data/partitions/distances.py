"""How far clients are from alike: distances between each client's distribution and the whole's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.rows import ClientData

Floats = NDArray[np.float64]

_MOST_FEATURES = 64
_DECILES = np.linspace(0, 1, 11)[1:-1]


@dataclass(frozen=True)
class Distances:
    """Each client's distance from the whole [clients], between 0 and 1.

    Args:
        total_variation: ½ Σ |p_c − p|, the largest difference in the probability of any event.
        jensen_shannon: the square root of the Jensen-Shannon divergence to base 2, a metric (Endres and
            Schindelin, "A New Metric for Probability Distributions", IEEE TIT 2003).
        by_chance: the total variation that as many rows drawn at random would have on average, so that a
            small client is not taken for a skewed one.
    """

    total_variation: Floats
    jensen_shannon: Floats
    by_chance: Floats


def distances(counts: NDArray[np.integer]) -> Distances:
    """Return the distances of clients' histograms [clients, values] from their sum; each client has rows."""
    sizes = counts.sum(axis=1, keepdims=True).astype(np.float64)
    total = float(sizes.sum())
    shares, whole = counts / sizes, counts.sum(axis=0) / total
    middle = (shares + whole) / 2
    divergence = (_entropy(middle) - (_entropy(shares) + _entropy(whole)) / 2).clip(0, 1)
    # A count is hypergeometric; E|X| of a normal X is √(2/π) of its deviation.
    left = (total - sizes) / max(total - 1, 1)
    deviation = np.sqrt(whole * (1 - whole) * left / sizes)
    return Distances(
        total_variation=np.abs(shares - whole).sum(axis=1) / 2,
        jensen_shannon=np.sqrt(divergence),
        by_chance=np.sqrt(2 / np.pi) * deviation.sum(axis=1) / 2,
    )


def feature_distances(clients: Sequence[ClientData]) -> Distances:
    """Return the mean over features of the distances of each feature's distribution, one feature at a time.

    A numeric feature is counted between its deciles over all rows (values that equal a decile, and missing ones,
    apart), any other by its values; a feature that is constant everywhere is left out. Of arrays with more than
    64 features, such as pixels, 64 are taken at equal distances. What features do together is not seen.
    """
    sizes = [sum(len(rows) for rows in (each.train, each.test) if rows is not None) for each in clients]
    owners = np.repeat(np.arange(len(clients)), sizes)
    found = []
    for codes in _coded(clients):
        width = int(codes.max()) + 1
        counts = np.bincount(owners * width + codes, minlength=len(clients) * width)
        counts = counts.reshape(len(clients), width)
        if np.count_nonzero(counts.sum(axis=0)) > 1:
            found.append(distances(counts))
    if not found:
        none = np.zeros(len(clients))
        return Distances(none, none, none)
    return Distances(
        total_variation=np.mean([each.total_variation for each in found], axis=0),
        jensen_shannon=np.mean([each.jensen_shannon for each in found], axis=0),
        by_chance=np.mean([each.by_chance for each in found], axis=0),
    )


def _coded(clients: Sequence[ClientData]) -> list[NDArray[np.intp]]:
    """Return for each feature the cell that each row's value is counted in, clients in order."""
    parts = [rows.x for each in clients for rows in (each.train, each.test) if rows is not None]
    if hasattr(parts[0], "iloc"):
        import pandas as pd

        table = pd.concat(parts, ignore_index=True)
        return [_column_codes(table[name]) for name in table.columns]
    flat = [np.asarray(part).reshape(len(part), -1) for part in parts]
    features = flat[0].shape[1]
    chosen = np.unique(np.linspace(0, features - 1, min(features, _MOST_FEATURES)).astype(np.intp))
    together = np.concatenate([part[:, chosen] for part in flat])
    return [_numeric_codes(column.astype(np.float64)) for column in together.T]


def _column_codes(column: Any) -> NDArray[np.intp]:
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column.dtype):
        return _numeric_codes(column.to_numpy(np.float64, na_value=np.nan))
    return pd.factorize(column)[0].astype(np.intp) + 1


def _numeric_codes(values: Floats) -> NDArray[np.intp]:
    present = values[~np.isnan(values)]
    if not len(present):
        return np.zeros(len(values), np.intp)
    edges = np.unique(np.quantile(present, _DECILES, method="inverted_cdf"))
    # Once from each side, so that a value which many rows share has a cell of its own.
    codes = np.searchsorted(edges, values, "left") + np.searchsorted(edges, values, "right") + 1
    return np.where(np.isnan(values), 0, codes)


def _entropy(shares: Floats) -> Floats:
    safe = np.where(shares > 0, shares, 1.0)
    return -(safe * np.log2(safe)).sum(axis=-1)
