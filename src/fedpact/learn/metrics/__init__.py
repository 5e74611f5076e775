"""Evaluation from sums: a client releases counts and sums, never a score, and the server computes the metric.

Every statistic adds up over clients by plain addition, so a metric over all rows of a federation is the
metric of pooled rows: exactly for those that are ratios of sums, and within a stated bound for the two that
rank rows (AUC and average precision), which are read off a histogram of scores.
"""

from fedpact.learn.metrics.kinds import (
    COUNTS,
    LARGER_IS_BETTER,
    check_name,
    metrics,
    names,
    shapes,
    statistics,
)
from fedpact.learn.metrics.probability import CalibrationCurve, calibration_curve
from fedpact.learn.metrics.ranking import RocCurve, roc_curve
from fedpact.learn.metrics.summary import ClientSummary, summarise

__all__ = [
    "COUNTS",
    "LARGER_IS_BETTER",
    "CalibrationCurve",
    "ClientSummary",
    "RocCurve",
    "calibration_curve",
    "check_name",
    "metrics",
    "names",
    "roc_curve",
    "shapes",
    "statistics",
    "summarise",
]
