"""Stop rules on histories written by hand."""

import math

import pytest

from fedpact.core.errors import ConfigError
from fedpact.engine.stop import STOP_RULES, NoImprovement, Target, TimeLimit


def history(metric, values):
    """Return a history in which None stands for a round without an evaluation."""
    return [
        {"round": i + 1, "seconds": 1.5, **({} if value is None else {metric: value})}
        for i, value in enumerate(values)
    ]


def stops_after(rule, metric, values):
    """Return the number of rounds after which a run with these values ends, or None if it goes on."""
    rounds = range(1, len(values) + 1)
    return next((n for n in rounds if rule.reached(history(metric, values)[:n])), None)


@pytest.mark.parametrize(
    ("metric", "target", "values", "after"),
    [
        ("accuracy", 0.85, [0.5, 0.8, 0.85, 0.9], 3),
        ("accuracy", 0.85, [0.5, 0.84], None),
        ("log_loss", 0.3, [0.9, 0.31, 0.3, 0.2], 3),
        ("train_loss", 0.3, [0.9, 0.1], 2),
        ("r2", 0.0, [-1.0, -0.1, 0.0], 3),
        ("accuracy", 0.85, [math.nan, None, 0.9], 3),
        ("log_loss", 0.3, [math.nan, None], None),
        ("accuracy", 0.85, [0.9, None], 1),
        # A bias is good when it is small, whichever its sign.
        ("bias", 0.1, [-2.0, 0.2, -0.05], 3),
        ("bias", -0.1, [-2.0, 0.05], 2),
    ],
)
def test_a_target_ends_the_run_once_the_metric_is_as_good(metric, target, values, after):
    assert stops_after(Target(metric, target), metric, values) == after


def test_a_target_looks_at_the_last_round_alone():
    assert Target("accuracy", 0.8).reached(history("accuracy", [0.9, 0.7])) is None
    assert Target("accuracy", 0.8).reached(history("accuracy", [0.9, None])) is None


def test_a_target_says_what_was_reached():
    assert Target("auc", 0.85).reached(history("auc", [0.8612345])) == "auc reached 0.8612 (target 0.85)"


@pytest.mark.parametrize(
    ("rule", "values", "after"),
    [
        (NoImprovement("accuracy", 2), [0.5, 0.6, 0.6, 0.6], 4),
        (NoImprovement("accuracy", 2), [0.5, 0.6, 0.55, 0.7, 0.6, 0.65, 0.7], 6),
        (NoImprovement("accuracy", 3), [0.5, 0.6, 0.55, 0.58], None),
        (NoImprovement("log_loss", 2), [0.9, 0.8, 0.85, 0.7, 0.75, 0.72], 6),
        (NoImprovement("train_loss", 1), [0.9, 0.8, 0.8], 3),
        # Rounds without an evaluation do not count.
        (NoImprovement("accuracy", 2), [0.6, None, None, 0.5, None, 0.5, None], 6),
        (NoImprovement("accuracy", 2), [None, None, None], None),
        # A NaN is no improvement: not on a number, and not on a NaN.
        (NoImprovement("log_loss", 2), [0.9, math.nan, math.nan], 3),
        (NoImprovement("log_loss", 2), [math.nan, math.nan, 0.5], 2),
        (NoImprovement("log_loss", 2), [math.nan, 0.5, 0.6, 0.4, math.nan, 0.4], 6),
        (NoImprovement("log_loss", 2), [math.inf, 3.0, 2.0, 1.0], None),
        # What is better by no more than min_delta is not better.
        (NoImprovement("accuracy", 2, min_delta=0.125), [0.5, 0.625, 0.625], 3),
        (NoImprovement("accuracy", 2, min_delta=0.125), [0.5, 0.625, 0.75, 0.875], None),
        (NoImprovement("bias", 2), [3.0, -2.0, 1.0, -1.5, 2.0], 5),
    ],
)
def test_no_improvement_ends_the_run_after_patience(rule, values, after):
    assert stops_after(rule, rule.metric, values) == after


def test_no_improvement_says_on_what():
    reason = NoImprovement("log_loss", 2).reached(history("log_loss", [0.9, 0.4, None, 0.5, 0.6]))
    assert reason == "log_loss has not improved on 0.4 in 2 evaluated rounds"
    reason = NoImprovement("bias", 1).reached(history("bias", [-0.5, 0.75]))
    assert reason == "bias has not improved on -0.5 in 1 evaluated rounds"


@pytest.mark.parametrize(("seconds", "after"), [(0.1, 1), (3.0, 2), (3.1, 3), (100, None)])
def test_a_time_limit_is_over_all_rounds(seconds, after):
    assert stops_after(TimeLimit(seconds), "accuracy", [None] * 4) == after


def test_a_time_limit_says_how_long_it_took():
    assert TimeLimit(3).reached(history("auc", [None] * 2)) == "3.0 s spent (limit 3 s)"


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Target("acuracy", 0.9), r'"acuracy" is not a metric\. Did you mean "accuracy"'),
        (lambda: NoImprovement("los"), '"los" is not a metric'),
        (lambda: NoImprovement("auc", patience=0), "NoImprovement: patience is 0; it must be 1 or more"),
        (lambda: TimeLimit(0), "TimeLimit: seconds is 0; it must be greater than 0"),
        (lambda: TimeLimit(math.nan), "TimeLimit: seconds is nan"),
        (lambda: STOP_RULES.build({"name": "Target", "metric": "auc"}), 'stop rule Target needs "value"'),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused(build, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build()
