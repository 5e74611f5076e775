"""A run says how far it is, where somebody may be looking."""

import fedpact as fp


def test_rounds_are_shown_on_standard_error_when_asked_for(capsys):
    fp.train(
        fp.models.Logistic(),
        fp.datasets.breast_cancer(),
        preprocess=[fp.Standardize()],
        rounds=2,
        stop=fp.Target("auc", 1.0),
        progress=True,
    )
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "round 1/2: loss " in shown.err
    assert "AUC 0." in shown.err
    assert "4 of 4 clients" in shown.err


def test_nothing_is_shown_where_there_is_no_terminal(capsys):
    fp.train(fp.models.Logistic(), fp.datasets.breast_cancer(), preprocess=[fp.Standardize()], rounds=1)
    assert capsys.readouterr().err == ""
