import sys

import numpy as np
import pandas as pd
import pytest

from fedpact.core.errors import ConfigError, DependencyError
from fedpact.engine import words
from fedpact.engine.picture import draw_history
from tests.report.runs import clients, trained

pytest.importorskip("matplotlib")


def test_lines_are_the_columns_of_the_history() -> None:
    result = trained("binary", rounds=4)
    loss, accuracy = result.plot().axes
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), result.history["train_loss"])
    for line, column in zip(accuracy.lines, ["accuracy", "accuracy_mean", "accuracy_worst"], strict=True):
        np.testing.assert_array_equal(line.get_xdata(), result.history.index)
        np.testing.assert_array_equal(line.get_ydata(), result.history[column])


def test_metric_can_be_chosen() -> None:
    result = trained("binary")
    assert [axes.get_title(loc="left") for axes in result.plot("auc").axes] == [
        "Training loss",
        "AUC on held-out rows",
    ]
    assert len(result.plot("train_loss").axes) == 1


def test_regression_shows_its_rmse() -> None:
    assert trained("regression").plot().axes[1].get_ylabel() == "RMSE"


def test_axes_are_labelled_and_lines_named() -> None:
    loss, accuracy = trained("binary").plot().axes
    assert (loss.get_xlabel(), loss.get_ylabel()) == ("round", "training loss")
    assert (accuracy.get_xlabel(), accuracy.get_ylabel()) == ("round", "accuracy")
    assert {text.get_text() for text in accuracy.texts} == {"all rows", "mean of clients", "worst client"}


@pytest.mark.parametrize(
    ("metric", "name"),
    [("ece", "Calibration error"), ("brier", "Brier score"), ("f1_weighted", "Weighted F1")],
)
def test_metric_is_called_what_the_report_calls_it(metric: str, name: str) -> None:
    assert words.capital(words.label(metric)) == name
    figure = draw_history(pd.DataFrame({metric: [0.5], f"{metric}_mean": [0.5]}, index=[1]), metric)
    assert figure.axes[0].get_title(loc="left") == f"{name} on held-out rows"


def test_run_without_held_out_rows_shows_its_loss_alone() -> None:
    assert len(trained("binary", clients("binary", held_out=0)).plot().axes) == 1


def test_misspelt_metric_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match='Did you mean "accuracy"'):
        trained("binary").plot("acuracy")


def test_history_with_nothing_to_show_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to plot"):
        draw_history(pd.DataFrame({"seconds": [1.0]}, index=pd.Index([1], name="round")))


def test_global_settings_of_matplotlib_stay_as_they_are() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    trained("binary").plot()
    assert dict(matplotlib.rcParams) == before


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    result = trained("binary")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(DependencyError, match=r'pip install "fedpact\[plot\]"'):
        result.plot()
