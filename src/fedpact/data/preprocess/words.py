"""Texts as counts of their words: how they are split, and which column each word counts in."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError
from fedpact.core.settings import check_choice
from fedpact.data.preprocess.columns import Columns, as_categories
from fedpact.data.preprocess.steps import as_names

if TYPE_CHECKING:
    import pandas as pd

Unit = Literal["word", "char"]
Norm = Literal["l2", "l1"]

_WORD = re.compile(r"\b\w\w+\b")
_SPACES = re.compile(r"\s\s+")
_MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class Splitting:
    """How a text is split: into runs of words or of characters, as scikit-learn's vectorizers do.

    Args:
        unit: "word" for words of two letters, digits or underscores and more; "char" for single characters, for
            languages that do not write spaces between words.
        shortest: of how many words or characters the shortest runs are.
        longest: of how many the longest are.
        lowercase: whether capitals count as small letters.
    """

    unit: Unit = "word"
    shortest: int = 1
    longest: int = 1
    lowercase: bool = True

    def __call__(self, text: str) -> list[str]:
        """Return the runs in a text, each as often as it is there."""
        text = text.lower() if self.lowercase else text
        if self.unit == "char":
            text = _SPACES.sub(" ", text)
            return [
                text[i : i + n]
                for n in range(self.shortest, self.longest + 1)
                for i in range(len(text) - n + 1)
            ]
        words = _WORD.findall(text)
        return [
            " ".join(words[i : i + n])
            for n in range(self.shortest, self.longest + 1)
            for i in range(len(words) - n + 1)
        ]


def splitting_of(part: Any) -> Splitting:
    """Return how a step with the settings `unit`, `ngrams` and `lowercase` splits texts.

    Raises:
        ConfigError: a setting that cannot be.
    """
    check_choice(part, "unit", get_args(Unit))
    try:
        shortest, longest = part.ngrams
    except (TypeError, ValueError):
        shortest, longest = 0, 0
    if not (type(shortest) is type(longest) is int and 1 <= shortest <= longest):
        raise ConfigError(
            f"{type(part).__name__}: ngrams is {part.ngrams!r}; give the lengths of the shortest and the longest "
            "run of words, such as (1, 2)."
        )
    object.__setattr__(part, "ngrams", (shortest, longest))
    return Splitting(part.unit, shortest, longest, part.lowercase)


def check_norm(part: Any) -> None:
    """Raise ConfigError if a step's setting `norm` is none of the norms, nor None."""
    if part.norm is not None:
        check_choice(part, "norm", get_args(Norm))


def as_texts(part: Any) -> tuple[str, ...]:
    """Return the setting `columns` of a step for texts, which nothing tells from categories, as a tuple.

    Raises:
        ConfigError: it is no list of names.
    """
    names = as_names(type(part).__name__, part.columns)
    if not names:
        raise ConfigError(f"{type(part).__name__}: name the columns of texts.")
    return names


def text_names(step: str, columns: Columns, names: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of texts in the order of the columns.

    Raises:
        ConfigError: there is no such column, or it holds something else.
    """
    return columns.check(step, names, "category")


def word_counts(
    frame: pd.DataFrame,
    name: str,
    split: Splitting,
    place_of: Callable[[str], tuple[int, float] | None],
    columns: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return how often each distinct text has each word [texts + 1, columns], and which text each row has [n].

    The last text is empty: missing ones are.

    Args:
        frame: the table.
        name: the column of texts.
        split: how they are split.
        place_of: the column of a word, and what it counts there; None where it counts in none.
        columns: how many columns there are.

    Raises:
        DataError: there is no such column, or a value is neither text nor a finite number; its row is named.
    """
    codes, texts = as_categories(frame, name)
    words = [split(str(text)) for text in texts]
    known = {word: place_of(word) for word in set(chain.from_iterable(words))}
    counts = np.zeros((len(texts) + 1, columns))
    for row, found in enumerate(words):
        for word in found:
            if (place := known[word]) is not None:
                counts[row, place[0]] += place[1]
    return counts, np.where(codes < 0, len(texts), codes)


def normed(rows: NDArray[np.float64], norm: Norm | None) -> NDArray[np.float64]:
    """Return rows [n, columns] divided by their norm, as they are for None; rows of zeros stay."""
    if norm is None:
        return rows
    size = np.abs(rows).sum(axis=1) if norm == "l1" else np.sqrt((rows * rows).sum(axis=1))
    return rows / np.where(size > 0, size, 1.0)[:, None]


def bucket(word: str, n_features: int, signed: bool = False) -> tuple[int, float]:
    """Return the column that a word is hashed to, and what it counts there: 1 or, with signs, maybe −1."""
    h = hashed(word)
    return abs(h) % n_features, -1.0 if signed and h < 0 else 1.0


def hashed(word: str) -> int:
    """Return a word's hash, MurmurHash3 for 32 bits (x86) of its UTF-8 bytes with the seed 0, as a signed integer.

    Appleby, https://github.com/aappleby/smhasher. It is the same in every process and on every machine, and the one
    that scikit-learn hashes words by.

    >>> hashed("hello")
    613153351
    """
    data = word.encode()
    h, whole = 0, len(data) & ~3
    for start in range(0, whole, 4):
        h ^= _scrambled(int.from_bytes(data[start : start + 4], "little"))
        h = (h << 13 | h >> 19) & _MASK
        h = (h * 5 + 0xE6546B64) & _MASK
    h ^= _scrambled(int.from_bytes(data[whole:], "little"))
    h ^= len(data)
    h = ((h ^ h >> 16) * 0x85EBCA6B) & _MASK
    h = ((h ^ h >> 13) * 0xC2B2AE35) & _MASK
    h ^= h >> 16
    return h - (1 << 32) if h >> 31 else h


def _scrambled(k: int) -> int:
    k = (k * 0xCC9E2D51) & _MASK
    k = (k << 15 | k >> 17) & _MASK
    return (k * 0x1B873593) & _MASK
