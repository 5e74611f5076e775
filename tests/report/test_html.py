import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import fedpact as fp
from fedpact.core.rows import ClientData
from fedpact.report.html import run_page, verdict
from fedpact.report.source import load_run
from tests.report.runs import HOSTILE, clients, trained

VOID = {"meta", "br", "img", "input", "hr", "link"}


class Reader(HTMLParser):
    """Reads a page: its tags and attributes, its text, and whether every tag is closed in its turn."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_page_of_every_kind_of_model_is_whole(kind: str) -> None:
    page = Reader(run_page(trained(kind)))
    for words in ("Training loss", "Clients", "On held-out rows", "The job", "SHA-256"):
        assert words in page.text
    assert ("Calibration" in page.text) == (kind != "regression")
    assert ("ROC" in page.text) == (kind != "regression")


def test_page_needs_nothing_but_itself() -> None:
    html = run_page(trained("binary"))
    page = Reader(html)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "xlink:href", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in html
    assert "@import" not in html
    policy = next(a for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in (policy["content"] or "")


def test_everything_from_outside_is_escaped() -> None:
    given = [replace(each, id=f"{HOSTILE} {i}") for i, each in enumerate(clients("binary"))]
    result = trained("binary", given, name=HOSTILE)
    failures = pd.DataFrame([{"round": 1, "client": HOSTILE, "reason": HOSTILE}])
    assert result.evaluation is not None
    evaluation = replace(result.evaluation, failures={HOSTILE: HOSTILE})
    labels = pd.DataFrame({f"label {HOSTILE}": [3, 4, 5]}, index=[each.id for each in given])
    html = run_page(replace(result, failures=failures, evaluation=evaluation, stopped=HOSTILE), labels)
    page = Reader(html)
    assert "<script" not in html
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count("<script>alert(1)</script>") > 8


def test_verdict_is_what_the_evaluation_says() -> None:
    given = clients("binary")
    result = trained("binary", given)
    assert result.evaluation is not None
    y = np.concatenate([each.test.y for each in given if each.test is not None and each.test.y is not None])
    right = np.concatenate([result.predict(each.test.x) for each in given if each.test is not None]) == y
    commonest = max(y.mean(), 1 - y.mean())
    text = verdict(result)
    assert f"right on {100 * right.mean():.1f} % of 24 held-out rows" in text
    assert f"commonest class would be right on {100 * commonest:.1f} %" in text


def test_verdict_of_a_regression_says_by_how_much_it_is_off() -> None:
    result = trained("regression")
    assert result.evaluation is not None
    assert f"off by {result.evaluation.metrics['rmse']:.3f}" in verdict(result)
    assert f"{100 * result.evaluation.metrics['r2']:.1f} % of the label's variance" in verdict(result)


def test_area_under_the_roc_curve_drawn_is_scikit_learns() -> None:
    given = clients("binary", rows=40, held_out=40)
    result = trained("binary", given)
    svg = re.search(r"<svg[^>]*><title>ROC.*?</svg>", run_page(result))
    assert svg is not None
    diagonal, curve = re.findall(r'points="([^"]*)"', svg[0])
    (left, bottom), (right, top) = ([float(c) for c in point.split(",")] for point in diagonal.split())
    x, y = np.array([[float(c) for c in point.split(",")] for point in curve.split()]).T
    area = np.trapezoid((y - bottom) / (top - bottom), (x - left) / (right - left))
    truth = np.concatenate(
        [each.test.y for each in given if each.test is not None and each.test.y is not None]
    )
    scores = np.concatenate(
        [result.predict_proba(each.test.x)[:, 1] for each in given if each.test is not None]
    )
    assert area == pytest.approx(roc_auc_score(truth, scores), abs=0.003)


def test_run_without_held_out_rows_says_so() -> None:
    result = trained("binary", clients("binary", held_out=0))
    page = Reader(run_page(result))
    assert "no client holds rows aside" in page.text
    assert "On held-out rows" not in page.text


class Closing(fp.InMemory):
    """Clients of which one can no longer be read once it is closed."""

    closed = ""

    def load(self, id: str) -> ClientData:
        if id == self.closed:
            raise OSError(f"the disk of {id} is gone")
        return super().load(id)


def test_failures_stand_with_their_reasons() -> None:
    population = Closing(clients("binary"))

    def after_round(record: Any) -> None:
        population.closed = "client 1"

    result = trained("binary", population, on_round=after_round)
    page = Reader(run_page(result))
    assert "Failures" in page.text
    assert "the disk of client 1 is gone" in page.text
    assert "could not judge the model" in page.text


def test_run_that_nobody_could_judge_has_a_report() -> None:
    result = trained("binary")
    assert result.evaluation is not None
    empty = {name: np.zeros_like(array) for name, array in result.evaluation.sums.items()}
    nobody = replace(result.evaluation, rows={}, clients={}, sums=empty, failures={"client 0": "gone"})
    assert "no client could judge it" in Reader(run_page(replace(result, evaluation=nobody))).text


def test_one_round_and_one_client_are_enough() -> None:
    page = Reader(run_page(trained("multiclass", clients("multiclass", count=1), rounds=1)))
    assert "After 1 round with 1 client " in page.text


def test_rounds_without_an_evaluation_leave_no_hole() -> None:
    lines = re.findall(r'points="([^"]*)"', run_page(trained("binary", rounds=5, evaluate_every=2)))
    # The loss of five rounds; accuracy after rounds 2 and 4, and after the last.
    assert [len(line.split()) for line in lines[:4]] == [5, 3, 3, 3]
    assert "nan" not in "".join(lines)


def test_of_many_clients_the_worst_served_are_listed_and_all_are_counted() -> None:
    result = trained("binary", clients("binary", count=60, rows=6, held_out=4), rounds=1)
    page = Reader(run_page(result))
    assert "The 25 worst served of 60 clients" in page.text
    worst = result.clients["accuracy"].idxmin()
    assert str(worst) in page.text
    assert "Clients by accuracy" in page.text


def test_page_stays_small_after_many_rounds() -> None:
    result = trained("binary")
    long = pd.concat([result.history] * 5_000, ignore_index=True)
    long.index = pd.RangeIndex(1, len(long) + 1, name="round")
    assert len(run_page(replace(result, history=long))) < 200_000


def test_labels_of_clients_are_drawn_where_they_are_known() -> None:
    given = fp.Federation(tuple(clients("binary")))
    page = Reader(run_page(trained("binary", given), given.describe()))
    assert "Labels of each client" in page.text


def test_report_of_a_saved_run_is_that_of_the_run(tmp_path: Path) -> None:
    result = trained("binary", folder=tmp_path / "run")
    assert run_page(load_run(tmp_path / "run")) == run_page(result)


def test_torch_module_given_in_python_has_a_report_without_its_code(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    fp.train(module, clients("binary"), rounds=2, folder=tmp_path / "run")
    # 4·3 + 3 and 3·2 + 2.
    assert "23 parameters" in Reader(run_page(load_run(tmp_path / "run"))).text
