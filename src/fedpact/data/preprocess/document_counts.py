"""In how many texts each word is, over all clients' rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from fedpact.core.algorithm import ClientState
from fedpact.core.errors import DataError
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.data.preprocess.columns import as_categories, as_frame
from fedpact.data.preprocess.estimate import Columnwise, Estimating, ask, check_counts, reply
from fedpact.data.preprocess.words import Splitting, bucket, word_counts
from fedpact.data.wording import at_client

# A client of more different words than this has texts that want a hash in the place of a vocabulary.
MOST_WORDS = 100_000


class Documents(NamedTuple):
    """How many texts a column has, and how many of them each word is in.

    Args:
        texts: rows with a text.
        words: word, or number of a bucket of words → rows with it.
    """

    texts: int
    words: dict[str | int, int]


@dataclass(frozen=True)
class DocumentCounts(Columnwise):
    """The texts of each column, and in how many each word is: in one round, after one in which words are named.

    Args:
        names: columns of texts.
        splitting: how texts are split.
        vocabulary: the words that count, if they are declared; else none.
        buckets: how many buckets words are hashed into; 0 where words are not hashed. Where they are neither hashed
            nor declared, each client names its own, and the server sees who has which.
    """

    splitting: Splitting = field(default_factory=Splitting)
    vocabulary: tuple[str, ...] = ()
    buckets: int = 0

    @property
    def told(self) -> tuple[str, ...]:
        """The words, where they are neither hashed nor declared."""
        named = self.names and not (self.vocabulary or self.buckets)
        return ("the words in each client's texts",) if named else ()

    def init(self, model: Any, seed: Seed) -> Estimating:
        """Return the state before the first round, which is the second where no words have to be named."""
        known = bool(self.vocabulary or self.buckets)
        return Estimating(int(known), [list(self.vocabulary) for _ in self.names] if known else None)

    def task(self, state: Estimating) -> Task | None:
        """Ask for the words, then for the number of texts of each."""
        if not self.names or state.round >= 2:
            return None
        return ask(state, "collect") if state.round == 0 else ask(state, words=state.found)

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return each column's words; or its number of texts, "texts" [columns], and those with each word, "words".

        Raises:
            DataError: there are more words than a vocabulary can have.
        """
        if task.answers == "collect":
            answer = [self._words(data, name) for name in self.names]
            return reply(task, data, answer=answer), kept
        texts, words = [], []
        for name, vocabulary in zip(self.names, task.parameters["words"], strict=True):
            with at_client(data.id):
                counts, rows = word_counts(
                    as_frame(data.train.x),
                    name,
                    self.splitting,
                    self.place_of(vocabulary),
                    self.buckets or len(vocabulary),
                )
            rows_of = np.bincount(rows, minlength=len(counts))[:-1]
            texts.append(int(rows_of.sum()))
            words.append(rows_of @ (counts[:-1] > 0))
        return reply(task, data, {"texts": np.array(texts), "words": np.concatenate(words)}), kept

    def server(self, model: Any, state: Estimating, aggregate: Aggregate) -> Estimating:
        """Unite the clients' words, then add up their texts.

        Raises:
            DataError: a column has no text at any client, or no words.
        """
        if state.round == 0:
            united = [sorted(set().union(*lists)) for lists in zip(*aggregate.answers.values(), strict=True)]
            check_counts(self.names, [len(words) for words in united])
            return Estimating(1, united)
        texts = aggregate.sum("texts")
        check_counts(self.names, texts)
        words: Iterator[int] = iter(aggregate.sum("words").tolist())
        found = []
        for n, vocabulary in zip(texts.tolist(), state.found, strict=True):
            counted: Sequence[str | int] = range(self.buckets) if self.buckets else vocabulary
            found.append(Documents(n, {word: next(words) for word in counted}))
        return Estimating(2, found)

    def fitted(self, state: Estimating) -> Mapping[str, Documents]:
        """Return column → its documents."""
        return dict(zip(self.names, state.found or (), strict=True))

    def place_of(self, vocabulary: Sequence[str]) -> Callable[[str], tuple[int, float] | None]:
        """Return what tells the column of a word, and that it counts 1; None where it counts in none."""
        if self.buckets:
            return lambda word: bucket(word, self.buckets)
        place = {word: (i, 1.0) for i, word in enumerate(vocabulary)}
        return place.get

    def _words(self, data: ClientData, name: str) -> list[str]:
        with at_client(data.id):
            _, texts = as_categories(as_frame(data.train.x), name)
            words = set(chain.from_iterable(self.splitting(str(text)) for text in texts))
            if len(words) > MOST_WORDS:
                raise DataError(
                    f'column "{name}" has {len(words):,} different words, and a vocabulary {MOST_WORDS:,} at most; '
                    'hash them (vocabulary="hashed"), or declare the words that count.'
                )
        return sorted(words)
