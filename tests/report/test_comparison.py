import math
import os
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

import fedpact as fp
from fedpact.core.errors import ConfigError
from fedpact.engine.evaluation import Evaluation
from fedpact.learn.linear import RegressionSession
from fedpact.report.comparison import STUDIES, Candidate, Comparison, compare, study
from fedpact.report.comparison_page import comparison_page
from fedpact.report.pictures import draw_comparison
from tests.report.test_html import Reader


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare(study("breast_cancer"), rounds=3, seed=0, repeats=2)


def test_every_model_is_judged_on_the_same_rows(comparison: Comparison) -> None:
    for repeat in range(2):
        rows = [each.evaluations[repeat].rows for each in comparison.candidates]
        assert all(each == rows[0] for each in rows)
        assert sum(rows[0].values()) == sum(
            len(client.test or ()) for client in fp.datasets.breast_cancer(seed=repeat)
        )


def test_hospital_alone_is_a_federation_of_one(comparison: Comparison) -> None:
    clients = fp.datasets.breast_cancer(seed=0)
    alone = fp.train(
        fp.models.Logistic(),
        [clients["Eastfield General"]],
        preprocess=[fp.Standardize()],
        algorithm=fp.FedAvg(lr=0.1, local_steps=10, batch_size=16),
        rounds=3,
    )
    (candidate,) = [each for each in comparison.candidates if each.name == "Eastfield General"]
    assert candidate.evaluations[0].to_json() == alone.evaluate(clients).to_json()


def test_federation_is_the_job_that_is_handed_on(comparison: Comparison) -> None:
    clients = fp.datasets.breast_cancer(seed=0)
    again = fp.run(comparison.job)
    assert comparison.result.weights == again.weights
    assert comparison.federated.evaluations[0].to_json() == again.evaluate(clients).to_json()


def test_table_holds_means_over_repetitions(comparison: Comparison) -> None:
    federated = comparison.federated
    expected = np.mean([each.metrics["accuracy"] for each in federated.evaluations])
    assert federated.mean("accuracy") == pytest.approx(expected)
    assert federated.at("Westbrook General", "accuracy") == pytest.approx(
        np.mean([each.clients["Westbrook General"]["accuracy"] for each in federated.evaluations])
    )
    assert comparison.to_json()["models"][4]["metrics"]["accuracy"] == pytest.approx(expected)


IDS = fp.datasets.breast_cancer().ids


def candidate(name: str, kind: str, *accuracies: float) -> Candidate:
    evaluations = tuple(
        Evaluation({"accuracy": a}, {id: {"accuracy": a} for id in IDS}, dict.fromkeys(IDS, 25), {}, {})
        for a in accuracies
    )
    return Candidate(name, kind, "nothing", evaluations)  # type: ignore[arg-type]


def outcome(comparison: Comparison, *candidates: Candidate) -> Comparison:
    return Comparison(comparison.study, comparison.job, comparison.federation, comparison.result, candidates)


def test_sentences_say_what_the_numbers_say_when_the_federation_is_better(comparison: Comparison) -> None:
    text = " ".join(
        outcome(
            comparison,
            candidate("a", "alone", 0.80, 0.70),
            candidate("b", "alone", 0.90, 0.80),
            candidate("Federation", "federation", 0.89, 0.95),
            candidate("All rows pooled", "pooled", 0.95, 0.95),
        ).sentences()
    )
    assert "right on 75.0 % (a) to 85.0 % (b)" in text
    assert "right on 92.0 %, 7.0 points above the best hospital alone" in text
    assert "in 1 of 2 repetitions it beat every one of them" in text
    assert "right on 95.0 %: the federation is 3.0 points below that" in text


def test_sentences_say_what_the_numbers_say_when_the_federation_is_worse(comparison: Comparison) -> None:
    text = " ".join(
        outcome(
            comparison,
            candidate("a", "alone", 0.90),
            candidate("Federation", "federation", 0.80),
            candidate("All rows pooled", "pooled", 0.80),
        ).sentences()
    )
    assert "10.0 points below the best hospital alone" in text
    assert "the federation is as accurate as that" in text


def test_metric_that_is_never_defined_is_null(comparison: Comparison) -> None:
    nowhere = candidate("a", "alone", math.nan)
    data = outcome(comparison, nowhere, candidate("f", "federation", 0.5)).to_json()
    assert data["models"][0]["metrics"] == {"accuracy": None}
    assert data["models"][0]["accuracy_of_clients"] == dict.fromkeys(IDS)
    assert data["models"][1]["metrics"] == {"accuracy": 0.5}


def test_unknown_study_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match='Did you mean "heart"'):
        study("hart")


@pytest.mark.parametrize("name", STUDIES)
def test_each_client_of_every_model_takes_equally_many_steps(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "heart" and "FEDPACT_DATA" not in os.environ:
        pytest.skip("the four centres' files are not here")
    begun: list[str] = []
    steps: list[str] = []
    gradient = RegressionSession.gradient

    def counted(session: RegressionSession, index: NDArray[np.int64] | None) -> float:
        steps.append(begun[-1])
        return gradient(session, index)

    monkeypatch.setattr(RegressionSession, "gradient", counted)
    compared = compare(study(name), rounds=3, seed=0, repeats=1, on_training=begun.append)
    # 3 rounds of 10 steps; in the federation at each of four hospitals.
    assert Counter(steps) == {
        each.name: 4 * 30 if each.kind == "federation" else 30 for each in compared.candidates
    }
    assert "after 30 steps of 16 rows" in compared.method()


def test_page_has_every_number_of_the_table(comparison: Comparison) -> None:
    page = Reader(comparison_page(comparison))
    for each in comparison.candidates:
        assert each.name in page.text
        assert f"{100 * each.mean('accuracy'):.1f} %" in page.text
        assert each.left in page.text
    assert comparison.federation.source in page.text
    for sentence in comparison.sentences():
        assert sentence in page.text


def test_picture_names_every_model_and_its_accuracy(comparison: Comparison) -> None:
    pytest.importorskip("matplotlib")
    figure = draw_comparison(comparison)
    strip, grid = figure.axes
    assert [text.get_text().removesuffix(" alone") for text in strip.get_yticklabels()] == [
        each.name for each in comparison.candidates
    ]
    shown = {text.get_text() for text in [*strip.texts, *grid.texts]}
    for each in comparison.candidates:
        assert f"{100 * each.mean('accuracy'):.1f} %" in shown
        for id in comparison.federation.ids:
            assert f"{100 * each.at(id, 'accuracy'):.1f}" in shown
