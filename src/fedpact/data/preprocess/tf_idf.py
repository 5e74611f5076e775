"""Texts as frequencies of words, each weighted by how few of all clients' texts it is in.

Salton and Buckley, "Term-weighting approaches in automatic text retrieval", Information Processing & Management 24(5),
1988.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from fedpact.core.errors import ConfigError, DataError
from fedpact.core.settings import check_choice, check_counts
from fedpact.data.preprocess.columns import Columns, with_columns
from fedpact.data.preprocess.document_counts import DocumentCounts, Documents
from fedpact.data.preprocess.estimate import Estimate
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

Vocabulary = Literal["hashed", "agreed"] | tuple[str, ...]


@dataclass(frozen=True)
class TfIdf:
    """Replace a column of texts by how often it has each word, times the word's inverse document frequency.

    As scikit-learn's TfidfTransformer on the same counts: of n training rows with a text, over all clients, a word
    that is in d of them weighs ln((1 + n)/(1 + d)) + 1, or ln(n/d) + 1 without `smooth_idf`, and each row is divided by
    its norm. A missing text is a row of zeros.

    Words are hashed by default (`words.hashed`): then nothing but the numbers of rows leaves a client, as sums, in one
    round, and no word is saved with the model. An agreed vocabulary takes a round more, in which each client names all
    of its words to the server, which sends them to all; it has scikit-learn's TfidfVectorizer as its pooled form, in
    the order of code points. Declared words are counted without that.

    Args:
        columns: the columns of texts.
        vocabulary: "hashed", "agreed", or the words, in small letters where `lowercase` is.
        n_features: the number of buckets that words are hashed into; or how many words of an agreed vocabulary are
            kept at most: those in most rows, and of equally frequent ones the first.
        min_documents: a word, or bucket, of fewer training rows over all clients has no column.
        unit: whether "word"s are counted, of two letters or more, or "char"acters.
        ngrams: the lengths of the shortest and the longest run of words, or characters, that counts as one.
        lowercase: count capitals as small letters.
        smooth_idf: whether to add one text that has every word.
        sublinear_tf: count 1 + ln(count) for a word.
        norm: divide each row by its "l2" norm, by its "l1" norm, or (None) not.

    Raises:
        ConfigError: a setting that cannot be.
    """

    columns: tuple[str, ...]
    vocabulary: Vocabulary = "hashed"
    n_features: int = 256
    min_documents: int = 1
    unit: Unit = "word"
    ngrams: tuple[int, int] = (1, 1)
    lowercase: bool = True
    smooth_idf: bool = True
    sublinear_tf: bool = False
    norm: Norm | None = "l2"

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", as_texts(self))
        check_counts(self, "n_features", "min_documents")
        check_norm(self)
        splitting_of(self)
        if isinstance(self.vocabulary, str):
            check_choice(self, "vocabulary", ("hashed", "agreed"))
            return
        words = tuple(self.vocabulary)
        if not words or len(set(words)) < len(words) or not all(isinstance(word, str) for word in words):
            raise ConfigError('TfIdf: vocabulary must be "hashed", "agreed", or a list of words, each once.')
        object.__setattr__(self, "vocabulary", words)

    def estimate(self, columns: Columns) -> Estimate:
        """Return what counts the texts and in how many of them each word is."""
        names = text_names("TfIdf", columns, self.columns)
        declared = () if isinstance(self.vocabulary, str) else self.vocabulary
        return DocumentCounts(names, splitting_of(self), declared, self._buckets)

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> FittedTfIdf:
        """Return the step with the words' weights.

        Raises:
            DataError: no word is in enough rows.
        """
        weights = {name: self._weights(name, found) for name, found in estimates.items()}
        return FittedTfIdf(weights, self._buckets, splitting_of(self), self.sublinear_tf, self.norm)

    @property
    def _buckets(self) -> int:
        return self.n_features if self.vocabulary == "hashed" else 0

    def _weights(self, name: str, found: Documents) -> Weights:
        kept = {word: d for word, d in found.words.items() if d >= self.min_documents}
        if not kept:
            raise DataError(
                f'no word of column "{name}" is in {self.min_documents} row(s); leave the column out, or set '
                "min_documents lower."
            )
        if self.vocabulary == "agreed":
            most = set(sorted(kept, key=lambda word: -kept[word])[: self.n_features])
            kept = {word: d for word, d in kept.items() if word in most}
        more = int(self.smooth_idf)
        idf = tuple(math.log((found.texts + more) / (d + more)) + 1 for d in kept.values())
        return Weights(tuple(kept), idf)


class Weights(NamedTuple):
    """What a column's words weigh.

    Args:
        words: the words, or the numbers of the buckets that they are hashed into.
        idf: the inverse document frequency of each.
    """

    words: tuple[str | int, ...]
    idf: tuple[float, ...]


@dataclass(frozen=True)
class FittedTfIdf:
    """The words of columns and their weights.

    Args:
        weights: column → what its words weigh.
        buckets: how many buckets words are hashed into; 0 where they are not.
        splitting: how texts are split.
        sublinear_tf: whether a word counts 1 + ln(count).
        norm: what each row is divided by.
    """

    weights: Mapping[str, Weights]
    buckets: int
    splitting: Splitting
    sublinear_tf: bool = False
    norm: Norm | None = "l2"

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the table with each of these columns replaced by those of its words, float64.

        Raises:
            DataError: a column is missing, or a value is neither text nor a finite number.
        """
        changed = {}
        for name, (words, idf) in self.weights.items():
            counts, rows = word_counts(
                frame,
                name,
                self.splitting,
                self._place_of(words),
                len(words),
            )
            if self.sublinear_tf:
                counts[counts > 0] = 1 + np.log(counts[counts > 0])
            made = normed(counts * idf, self.norm)
            changed[name] = {f"{name}:{word}": made[rows, i] for i, word in enumerate(words)}
        return with_columns(frame, changed)

    def columns_out(self, columns: Columns) -> Columns:
        """Return the columns, those of words in the place of the texts.

        Raises:
            DataError: two columns would have one name.
        """
        return columns.replaced(
            "TfIdf",
            {
                name: [(f"{name}:{word}", "numeric") for word in each.words]
                for name, each in self.weights.items()
            },
        )

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain data."""
        return {
            "weights": {
                name: {"words": list(words), "idf": list(idf)} for name, (words, idf) in self.weights.items()
            },
            "buckets": self.buckets,
            "splitting": vars(self.splitting).copy(),
            "sublinear_tf": self.sublinear_tf,
            "norm": self.norm,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FittedTfIdf:
        """Return the step that `to_json` wrote down."""
        weights = {
            name: Weights(tuple(each["words"]), tuple(each["idf"])) for name, each in data["weights"].items()
        }
        splitting = Splitting(**data["splitting"])
        return cls(weights, data["buckets"], splitting, data["sublinear_tf"], data["norm"])

    def _place_of(self, words: Sequence[str | int]) -> Callable[[str], tuple[int, float] | None]:
        place: dict[str | int, tuple[int, float]] = {word: (i, 1.0) for i, word in enumerate(words)}
        if self.buckets:
            return lambda word: place.get(bucket(word, self.buckets)[0])
        return place.get
