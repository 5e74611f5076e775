"""Target encoding: a category becomes the mean label of its rows, drawn to the mean label of all rows.

Micci-Barreca, "A preprocessing scheme for high-cardinality categorical attributes in classification and prediction
problems", SIGKDD Explorations 3(1), 2001.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError
from fedpact.core.settings import check_choice, check_counts, check_numbers
from fedpact.data.agree import Labels
from fedpact.data.preprocess.columns import Columns, Value, with_columns
from fedpact.data.preprocess.estimate import Estimate
from fedpact.data.preprocess.steps import as_names
from fedpact.data.preprocess.target_sums import Encodings, Smooth, TargetSums, fold_of, with_missing
from fedpact.data.preprocess.vocabulary import declared_categories, encoded_names, places

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TargetEncode:
    """Replace each category by the mean label of its training rows over all clients, drawn to that of all rows.

    As scikit-learn's TargetEncoder. A category of n rows with labels of the sum s becomes (s + smooth·m)/(n + smooth),
    where m is the mean of all labels; missing values are one more category, and one that is unknown becomes m. The
    labels are numbers, or 0 and 1, or for several classes whether they are each of these: a column "column:class"
    for every class.

    A row must not be encoded by its own label, so training rows are encoded out of fold: each client's are dealt to
    `folds` parts at random, and those of a part are encoded by the sums without it. Rows of tests and predictions
    are encoded by the sums of all. These are the same bits for any partition of the rows into clients; the parts,
    which are drawn from each client's stream of the job's seed, are not.

    The server sees each client's categories, unless they are declared, and by category and part the sums over all
    clients: of rows and labels, or of rows of each class; and a few rows say much about their labels. The encodings
    are saved with the model, those of the parts too; `min_count` keeps small categories out of them.

    Args:
        columns: the columns to encode; by default all category columns (text, pandas categoricals) and all
            whose categories are declared.
        smooth: how many rows of the mean label are added to each category; or "auto" for the empirical Bayes
            estimate: a weight of v·n/(v·n + w) for the category's own mean, where v is the variance of all labels and w
            that of the category's.
        folds: how many parts there are, 2 or more.
        min_count: a category of fewer training rows is encoded as an unknown one.
        categories: column → its categories, where they are known beforehand; others are unknown.

    Raises:
        ConfigError: a setting that cannot be; categories are declared for a column that is not encoded,
            for none, or twice.
    """

    needs_all_rows: ClassVar[bool] = True

    columns: tuple[str, ...] | None = None
    smooth: Smooth = "auto"
    folds: int = 5
    min_count: int = 1
    categories: Mapping[str, Sequence[Value]] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", as_names("TargetEncode", self.columns))
        if isinstance(self.smooth, str):
            check_choice(self, "smooth", ("auto",))
        else:
            check_numbers(self, "smooth")
        check_counts(self, "folds", "min_count")
        if self.folds < 2:
            raise ConfigError(
                "TargetEncode: folds is 1; rows of one fold have no others to be encoded by: give 2."
            )
        declared = declared_categories("TargetEncode", self.categories, self.columns)
        object.__setattr__(self, "categories", declared)

    def estimate(self, columns: Columns) -> Estimate:
        """Raise ConfigError: there are no labels."""
        raise ConfigError("TargetEncode is fitted to labels, and these rows have none.")

    def labelled_estimate(self, columns: Columns, labels: Labels) -> Estimate:
        """Return what finds the encodings.

        Raises:
            ConfigError: there is no such column, or a label at each of several positions.
        """
        if labels.positions:
            raise ConfigError(
                "TargetEncode needs one label for each row, and these rows have arrays of labels."
            )
        names = encoded_names("TargetEncode", columns, self.columns, self.categories)
        declared = {name: tuple(each) for name, each in (self.categories or {}).items()}
        classes = tuple(str(each) for each in labels.classes)
        return TargetSums(names, declared, labels.kind, classes, self.smooth, self.folds, self.min_count)

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> FittedTargetEncode:
        """Return the step with the encodings."""
        return FittedTargetEncode(
            estimates.get("encodings", {}), tuple(estimates["outputs"]), estimates["stream"]
        )


@dataclass(frozen=True)
class FittedTargetEncode:
    """What stands for the categories of columns.

    Args:
        encodings: column → its encodings.
        outputs: the classes that have a column each; () for one number in the column's own place.
        stream: the key of the stream that folds are drawn from, in hexadecimal.
    """

    needs_all_rows: ClassVar[bool] = True

    encodings: Mapping[str, Encodings]
    outputs: tuple[str, ...] = ()
    stream: str = ""

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the table with these columns encoded by the sums of all training rows, float64.

        Raises:
            DataError: a column is missing, or a value is neither text nor a finite number.
        """
        return self._encoded(frame, lambda folds: np.zeros(len(frame), np.int64))

    def transform_training(self, frame: pd.DataFrame, client: str) -> pd.DataFrame:
        """Return the table with these columns encoded by the sums without each row's fold, float64.

        Args:
            frame: the client's training rows: all of them, in the order they were fitted in.
            client: the client.

        Raises:
            DataError: as `transform`.
        """
        return self._encoded(frame, lambda folds: 1 + fold_of(self.stream, client, len(frame), folds))

    def columns_out(self, columns: Columns) -> Columns:
        """Return the columns, these as numbers, or replaced by one for each class.

        Raises:
            DataError: two columns would have one name.
        """
        return columns.replaced(
            "TargetEncode",
            {name: [(made, "numeric") for made in self._names_out(name)] for name in self.encodings},
        )

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain data."""
        return {
            "encodings": {
                name: {"categories": list(each.categories), "numbers": each.numbers}
                for name, each in self.encodings.items()
            },
            "outputs": list(self.outputs),
            "stream": self.stream,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FittedTargetEncode:
        """Return the step that `to_json` wrote down."""
        encodings = {
            name: Encodings(tuple(each["categories"]), each["numbers"])
            for name, each in data["encodings"].items()
        }
        return cls(encodings, tuple(data["outputs"]), data["stream"])

    def _names_out(self, name: str) -> list[str]:
        return [f"{name}:{output}" for output in self.outputs] or [name]

    def _encoded(self, frame: pd.DataFrame, part_of: Callable[[int], NDArray[np.int64]]) -> pd.DataFrame:
        changed = {}
        for name, (categories, lists) in self.encodings.items():
            numbers = np.array(lists)
            present = [each for each in categories if each is not None]
            place = with_missing(places(frame, name, present), len(present))
            if len(present) == len(categories):
                # Missing values have no encoding of their own here, and are encoded as what is unknown.
                place = np.minimum(place, len(present))
            encoded = numbers[part_of(len(numbers) - 1), place]
            changed[name] = {made: encoded[:, i] for i, made in enumerate(self._names_out(name))}
        return with_columns(frame, changed)
