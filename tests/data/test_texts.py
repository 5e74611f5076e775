from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.utils import murmurhash3_32

from fedpact.core import Accumulator, ClientData, Rows, Seed
from fedpact.core.errors import ConfigError, DataError
from fedpact.data.preprocess import FitPipeline
from fedpact.data.preprocess.hash_text import HashText
from fedpact.data.preprocess.tf_idf import TfIdf
from fedpact.data.preprocess.words import hashed
from tests.data.test_preprocess import fit_steps, spread
from tests.data.test_preprocess_errors import message

TEXTS = [
    "No fever, no cough; mild pain.",
    "Severe cough and FEVER since Monday",
    "no pain",
    "",
    "Schwäche, Müdigkeit; a b c",
    "咳嗽 发烧, severe pain",
    "pain pain  pain\tcough",
]
TABLE = pd.DataFrame({"note": TEXTS})
SPLITS: list[dict[str, Any]] = [
    {},
    {"ngrams": (1, 2)},
    {"ngrams": (1, 3), "lowercase": False},
    {"unit": "char", "ngrams": (1, 3)},
]


def scikit(settings: dict[str, Any]) -> dict[str, Any]:
    names = {"unit": "analyzer", "ngrams": "ngram_range"}
    return {names.get(name, name): value for name, value in settings.items()}


@given(st.text())
def test_words_are_hashed_as_scikit_learn_hashes_them(word: str) -> None:
    encodable = word.encode("utf-8", "ignore").decode()
    assert hashed(encodable) == murmurhash3_32(encodable, 0)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("norm", ["l1", "l2", None])
@pytest.mark.parametrize("signed", [True, False])
def test_hashed_texts_equal_scikit_learns(split: dict[str, Any], norm: Any, signed: bool) -> None:
    step = HashText(("note",), 11, signed=signed, norm=norm, **split)
    pipeline = fit_steps([step], *spread(TABLE, np.arange(7) % 3))
    expected = HashingVectorizer(n_features=11, norm=norm, alternate_sign=signed, **scikit(split))
    np.testing.assert_allclose(pipeline.matrix(TABLE), expected.transform(TEXTS).toarray(), atol=1e-12)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("least", [1, 2])
@pytest.mark.parametrize("weighting", [{}, {"smooth_idf": False, "sublinear_tf": True, "norm": "l1"}])
def test_agreed_vocabulary_gives_scikit_learns_tf_idf_of_the_pooled_texts(
    split: dict[str, Any], least: int, weighting: dict[str, Any]
) -> None:
    step = TfIdf(("note",), "agreed", 10_000, least, **split, **weighting)
    pipeline = fit_steps([step], *spread(TABLE, np.arange(7) % 3))
    expected = TfidfVectorizer(min_df=least, **scikit(split), **weighting).fit(TEXTS)
    assert [
        name.removeprefix("note:") for name in pipeline.feature_names_out
    ] == expected.get_feature_names_out().tolist()
    np.testing.assert_allclose(pipeline.matrix(TABLE), expected.transform(TEXTS).toarray(), atol=1e-12)


@pytest.mark.parametrize("smooth", [True, False])
def test_hashed_tf_idf_is_scikit_learns_of_the_hashed_counts(smooth: bool) -> None:
    pipeline = fit_steps(
        [TfIdf(("note",), n_features=13, smooth_idf=smooth)], *spread(TABLE, np.arange(7) % 3)
    )
    counts = HashingVectorizer(n_features=13, norm=None, alternate_sign=False).transform(TEXTS).toarray()
    used = counts.any(axis=0)
    expected = TfidfTransformer(smooth_idf=smooth).fit_transform(counts[:, used]).toarray()
    assert pipeline.feature_names_out == tuple(f"note:{i}" for i in np.flatnonzero(used))
    np.testing.assert_allclose(pipeline.matrix(TABLE), expected, atol=1e-12)


def test_rare_buckets_have_no_column() -> None:
    counts = HashingVectorizer(n_features=13, norm=None, alternate_sign=False).transform(TEXTS).toarray()
    common = np.flatnonzero((counts > 0).sum(axis=0) >= 3)
    pipeline = fit_steps([TfIdf(("note",), n_features=13, min_documents=3)], TABLE)
    assert pipeline.feature_names_out == tuple(f"note:{i}" for i in common)


def test_most_frequent_words_of_an_agreed_vocabulary_are_kept() -> None:
    # pain is in four texts; cough, fever, no and severe are in two or more, cough in three.
    pipeline = fit_steps([TfIdf(("note",), "agreed", n_features=2)], TABLE)
    assert pipeline.feature_names_out == ("note:cough", "note:pain")


def test_declared_words_are_counted_and_others_are_not() -> None:
    pipeline = fit_steps([TfIdf(("note",), ("pain", "fever"))], TABLE)
    expected = TfidfVectorizer(vocabulary=["pain", "fever"]).fit(TEXTS).transform(TEXTS).toarray()
    np.testing.assert_allclose(pipeline.matrix(TABLE), expected, atol=1e-12)


def test_missing_text_is_no_document_and_a_row_of_zeros() -> None:
    gaps = pd.DataFrame({"note": [*TEXTS, None, None]})
    for step in (HashText(("note",), 4), TfIdf(("note",), n_features=4)):
        pipeline = fit_steps([step], gaps)
        assert pipeline.to_json() == fit_steps([step], TABLE).to_json()
        assert not pipeline.matrix(gaps)[-2:].any()


def test_hashed_texts_send_numbers_of_rows_alone() -> None:
    algorithm = FitPipeline((TfIdf(("note",), n_features=4),))
    client, state, kinds = ClientData("a", Rows(TABLE)), algorithm.init(None, Seed.of(0)), []
    while (task := algorithm.task(state)) is not None:
        update, _ = algorithm.client(None, task, client, {}, Seed.of(0))
        kinds.append((task.answers, sorted(update.summed), update.answer))
        total = Accumulator(task, limit=65536, total_weight=1, population=1)
        total.add(update)
        state = algorithm.server(None, state, total.aggregate())
    assert kinds[1:] == [("sum", ["texts", "words"], None)]


@pytest.mark.parametrize(
    ("make", "settings", "said"),
    [
        (HashText, {"columns": ()}, "name the columns"),
        (HashText, {"columns": ("a",), "ngrams": (2, 1)}, "ngrams is (2, 1)"),
        (HashText, {"columns": ("a",), "unit": "words"}, 'Did you mean "word"?'),
        (HashText, {"columns": ("a",), "norm": "l3"}, "norm is"),
        (TfIdf, {"columns": ("a",), "vocabulary": "hashd"}, 'Did you mean "hashed"?'),
        (TfIdf, {"columns": ("a",), "vocabulary": ("b", "b")}, "each once"),
        (TfIdf, {"columns": ("a",), "min_documents": 0}, "min_documents is 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(make: Any, settings: dict[str, Any], said: str) -> None:
    assert said in message(ConfigError, make, **settings)


def test_texts_of_too_rare_words_are_refused() -> None:
    said = message(DataError, fit_steps, [TfIdf(("note",), "agreed", min_documents=99)], TABLE)
    assert 'no word of column "note" is in 99 row(s)' in said


def test_column_without_any_text_is_refused() -> None:
    empty = pd.DataFrame({"note": ["", ""]})
    assert 'column "note" has no value' in message(DataError, fit_steps, [TfIdf(("note",), "agreed")], empty)


def test_vocabulary_of_too_many_words_asks_for_hashing() -> None:
    book = pd.DataFrame({"note": [" ".join(f"w{i}" for i in range(100_001))]})
    said = message(DataError, fit_steps, [TfIdf(("note",), "agreed")], book)
    assert 'client "client 0": column "note" has 100,001 different words' in said
    assert 'vocabulary="hashed"' in said


def test_numbers_are_no_texts() -> None:
    said = message(ConfigError, fit_steps, [HashText(("x",))], pd.DataFrame({"x": [1, 2]}))
    assert 'HashText is for category columns, and column "x" is of kind "numeric"' in said
