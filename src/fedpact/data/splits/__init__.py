"""Splits of every client's rows: to train on, to choose by, to be judged on; by class, by group, by time; in folds.

Each client splits its own rows by its own stream of one seed, so that no other client, nor their order, changes what
it does.
"""

from fedpact.data.splits.folds import LeftOut, folds, leave_one_client_out
from fedpact.data.splits.three_way import Split, train_validation_test

__all__ = ["LeftOut", "Split", "folds", "leave_one_client_out", "train_validation_test"]
