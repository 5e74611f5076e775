"""The columns that say most about the labels are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from fedpact.core.errors import ConfigError
from fedpact.core.settings import check_choice, check_counts
from fedpact.data.agree import Labels
from fedpact.data.preprocess.columns import Columns
from fedpact.data.preprocess.drop import FittedDrop, dropping
from fedpact.data.preprocess.estimate import Estimate
from fedpact.data.preprocess.numeric import numeric_names
from fedpact.data.preprocess.scores import AnovaF, MutualInformation, RegressionF
from fedpact.data.preprocess.steps import as_names

Score = Literal["f_classif", "f_regression", "mutual_information"]


@dataclass(frozen=True)
class SelectBest:
    """Keep the k columns that say most about the labels, over all clients' training rows.

    As scikit-learn's SelectKBest on the pooled rows; of equally good columns the first are kept. Values must not be
    missing, and other columns than those judged stay. The server sees sums: for "f_classif" those of values by class
    and of squares, in one round; for "f_regression" those of products with the labels, in two; for
    "mutual_information" counts of rows by bin and class, in nine.

    Args:
        score: "f_classif", the F of an analysis of variance by class; "f_regression", that of a linear regression of
            labels that are numbers; "mutual_information" of binned values and classes, or binned labels that are
            numbers.
        k: how many columns are kept, 1 or more.
        columns: the columns to judge; by default all numeric ones.
        bins: for "mutual_information": the number of bins of equally many training rows, 2 or more.

    Raises:
        ConfigError: a setting that cannot be.
    """

    score: Score = "f_classif"
    k: int = 10
    columns: tuple[str, ...] | None = None
    bins: int = 10

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", as_names("SelectBest", self.columns))
        check_choice(self, "score", get_args(Score))
        check_counts(self, "k", "bins")
        if self.bins < 2:
            raise ConfigError("SelectBest: bins is 1, which tells no values apart; give 2 or more.")

    def estimate(self, columns: Columns) -> Estimate:
        """Refuse rows without labels.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("SelectBest is fitted to labels, and these rows have none.")

    def labelled_estimate(self, columns: Columns, labels: Labels) -> Estimate:
        """Return what finds the scores.

        Raises:
            ConfigError: there are fewer than k columns, or the labels are of another kind than the score is for.
        """
        names = numeric_names("SelectBest", self.columns, columns)
        if len(names) < self.k:
            raise ConfigError(
                f"SelectBest: k is {self.k}, and there are {len(names)} numeric columns to choose from."
            )
        if labels.positions:
            raise ConfigError(
                "SelectBest needs one label for each row, and these rows have arrays of labels."
            )
        if self.score == "mutual_information":
            return MutualInformation(names, len(labels.classes), self.bins)
        if (self.score == "f_regression") != (labels.kind == "regression"):
            fitting = "f_regression" if labels.kind == "regression" else "f_classif"
            are = "numbers" if labels.kind == "regression" else "classes"
            raise ConfigError(
                f'SelectBest: the labels are {are}, and score is "{self.score}"; give "{fitting}".'
            )
        return AnovaF(names, len(labels.classes)) if self.score == "f_classif" else RegressionF(names)

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> FittedDrop:
        """Return the step with the columns that it leaves out."""
        # Sorting leaves equally good ones in their order.
        ranked = sorted(estimates, key=lambda name: -estimates[name])
        worse = set(ranked[self.k :])
        return dropping("SelectBest", columns, tuple(name for name in estimates if name in worse))
