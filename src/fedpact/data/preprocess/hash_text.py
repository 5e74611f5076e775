"""Texts hashed into a fixed number of columns, without a vocabulary.

Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedpact.core.settings import check_counts
from fedpact.data.preprocess.columns import Columns, with_columns
from fedpact.data.preprocess.estimate import Estimate
from fedpact.data.preprocess.moments import Means
from fedpact.data.preprocess.words import (
    Norm,
    Splitting,
    Unit,
    as_texts,
    bucket,
    check_norm,
    normed,
    splitting_of,
    text_names,
    word_counts,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class HashText:
    """Replace a column of texts by counts of its words in `n_features` columns; nothing is asked of anyone.

    As scikit-learn's HashingVectorizer: a word with the hash h (`words.hashed`, MurmurHash3 for 32 bits with the seed
    0) counts in the column |h| modulo `n_features`, and, where `signed`, with the sign of h, so that words that meet
    in one column cancel on average. No word leaves a client, and none is saved with the model. A missing text is a
    row of zeros.

    Args:
        columns: the columns of texts.
        n_features: the number of columns for each, called "column:0", "column:1" and so on.
        unit: whether "word"s are counted, of two letters or more, or "char"acters.
        ngrams: the lengths of the shortest and the longest run of words, or characters, that counts as one.
        lowercase: count capitals as small letters.
        signed: whether words count 1 or −1.
        norm: divide each row by its "l2" norm, by its "l1" norm, or (None) not.

    Raises:
        ConfigError: a setting that cannot be.
    """

    columns: tuple[str, ...]
    n_features: int = 256
    unit: Unit = "word"
    ngrams: tuple[int, int] = (1, 1)
    lowercase: bool = True
    signed: bool = True
    norm: Norm | None = "l2"

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", as_texts(self))
        check_counts(self, "n_features")
        check_norm(self)
        splitting_of(self)

    def estimate(self, columns: Columns) -> Estimate:
        """Return an estimate of no columns."""
        text_names("HashText", columns, self.columns)
        return Means(())

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> FittedHashText:
        """Return the step with its columns."""
        names = text_names("HashText", columns, self.columns)
        return FittedHashText(names, self.n_features, splitting_of(self), self.signed, self.norm)


@dataclass(frozen=True)
class FittedHashText:
    """Which columns are hashed, and how.

    Args:
        columns: the columns of texts.
        n_features: the number of columns for each.
        splitting: how texts are split.
        signed: whether words count 1 or −1.
        norm: what each row is divided by.
    """

    columns: tuple[str, ...]
    n_features: int
    splitting: Splitting
    signed: bool = True
    norm: Norm | None = "l2"

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the table with each of these columns replaced by `n_features` others, float64.

        Raises:
            DataError: a column is missing, or a value is neither text nor a finite number.
        """
        changed = {}
        for name in self.columns:
            counts, rows = word_counts(
                frame,
                name,
                self.splitting,
                lambda word: bucket(word, self.n_features, self.signed),
                self.n_features,
            )
            made = normed(counts, self.norm)
            changed[name] = {f"{name}:{i}": made[rows, i] for i in range(self.n_features)}
        return with_columns(frame, changed)

    def columns_out(self, columns: Columns) -> Columns:
        """Return the columns, those of words in the place of the texts.

        Raises:
            DataError: two columns would have one name.
        """
        return columns.replaced(
            "HashText",
            {name: [(f"{name}:{i}", "numeric") for i in range(self.n_features)] for name in self.columns},
        )

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain data."""
        return {
            "columns": list(self.columns),
            "n_features": self.n_features,
            "splitting": vars(self.splitting).copy(),
            "signed": self.signed,
            "norm": self.norm,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FittedHashText:
        """Return the step that `to_json` wrote down."""
        splitting = Splitting(**data["splitting"])
        return cls(tuple(data["columns"]), data["n_features"], splitting, data["signed"], data["norm"])
