"""What a partition made: the clients' sizes, their labels, and how far they are from alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedpact.data.federation import Federation
from fedpact.data.partitions.distances import distances, feature_distances

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Report:
    """How the clients of a simulation differ.

    Args:
        how: the partition and its seed.
        sizes: client → its rows, train and test together.
        labels: client → how often each label occurs, as `Federation.describe` counts; without columns where there
            are no labels.
        distances: client → its distances from IID, each 0 where a client is like the whole and at most 1:
            `labels` and `labels_js` are the total variation and the Jensen-Shannon distance between its labels and
            all labels (label skew); `features` is the mean over features of the total variation between its values
            and all values (feature shift); `relabelled` is the share of its rows whose label is not what it was,
            the total variation between its labels and the whole's where features are alike (concept shift).
            `labels_by_chance` and `features_by_chance` say what IID clients of these sizes would have on average.
    """

    how: str
    sizes: pd.Series[int]
    labels: pd.DataFrame
    distances: pd.DataFrame

    @property
    def distance(self) -> dict[str, float]:
        """The mean over clients of each distance, each client counting alike."""
        return {str(name): float(self.distances[name].mean()) for name in self.distances.columns}

    def table(self) -> pd.DataFrame:
        """Return sizes, labels and distances in one table, a row for each client."""
        return self.sizes.to_frame().join(self.labels).join(self.distances)

    def plot(self) -> Figure:
        """Return a figure of each client's labels and of its distance from IID.

        Raises:
            DependencyError: matplotlib is not installed.
        """
        from fedpact.data.partitions.picture import draw_partition

        return draw_partition(self)

    def __str__(self) -> str:
        """Return the partition, the sizes and the mean distances, a line each."""
        lines = [
            self.how,
            f"{len(self.sizes)} clients of {self.sizes.min():,} to {self.sizes.max():,} rows, "
            f"{self.sizes.sum():,} in all",
        ]
        mean = self.distance
        for name in ("labels", "features"):
            if name in mean:
                chance = mean[f"{name}_by_chance"]
                lines.append(f"{name}: {mean[name]:.3f} from IID (by chance {chance:.3f})")
        if mean.get("relabelled"):
            lines.append(f"relabelled: {mean['relabelled']:.3f} of a client's rows")
        return "\n".join(lines)


def report_on(federation: Federation, how: str, relabelled: Mapping[str, float]) -> Report:
    """Return the report on a federation.

    Args:
        federation: the clients; train and test rows are taken together.
        how: what made it.
        relabelled: client → the share of its rows whose label was changed.
    """
    import pandas as pd

    described = federation.describe()
    sizes = (described["train"] + described["test"]).rename("rows")
    labels = described.drop(columns=["train", "test"])
    columns = {}
    if len(labels.columns):
        apart = distances(labels.to_numpy(np.int64))
        columns = {
            "labels": apart.total_variation,
            "labels_js": apart.jensen_shannon,
            "labels_by_chance": apart.by_chance,
            "relabelled": np.array([relabelled[id] for id in federation.ids]),
        }
    seen = feature_distances(federation.clients)
    columns |= {"features": seen.total_variation, "features_by_chance": seen.by_chance}
    return Report(how, sizes, labels, pd.DataFrame(columns, index=described.index))
