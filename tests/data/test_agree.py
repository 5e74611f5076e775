"""What clients agree on before anything is trained: classes, kinds of label, shapes of examples."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpact.channel.channel import Channel
from fedpact.core.errors import DataError
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.data.agree import MOST_CLASSES, Agreement, AgreeOnRows, Labels, classes_of, labels_of
from fedpact.engine.in_process import InProcess
from fedpact.engine.population import InMemory
from fedpact.engine.rounds import hold_to_end
from fedpact.engine.work import Rules, Setting


def client(id, labels, test=None, shape=(2,)):
    def rows(y):
        return Rows(np.zeros((len(y), *shape)), np.asarray(y))

    return ClientData(id, rows(labels), None if test is None else rows(test))


def agree(*clients, wanted=None):
    rules = Rules(quorum=1.0, fatal=(DataError,))
    algorithm = AgreeOnRows(wanted)
    setting = Setting(algorithm, None, InMemory(clients), Channel((), algorithm), rules, Seed.of(0))
    return hold_to_end(InProcess(), setting)


def labels(*clients, wanted=None):
    return agree(*clients, wanted=wanted).labels


def encoded(labels, values):
    return labels.encode(labels_of(Rows(np.zeros(len(values)), np.asarray(values))))


def test_classes_are_those_of_all_clients_in_order():
    assert labels(client("a", ["no", "yes"]), client("b", ["yes"])) == Labels("binary", ("no", "yes"))
    assert labels(client("a", [3, 1]), client("b", [2, 1])) == Labels("multiclass", (1, 2, 3))


def test_classes_may_occur_at_one_client_alone_or_in_test_rows_alone():
    assert labels(client("a", [0, 0]), client("b", [1, 1])).classes == (0, 1)
    assert labels(client("a", [0], test=[2]), client("b", [1])).classes == (0, 1, 2)


@pytest.mark.parametrize(
    "values",
    [
        np.array([0, 1], np.uint8),
        np.array([0.0, 1.0]),
        np.array([False, True]),
        np.array([0, 1.0, True], object),
    ],
    ids=lambda v: str(v.dtype),
)
def test_one_and_true_and_1_point_0_are_the_same_class(values):
    agreed = labels(client("a", values), client("b", [0, 1]))
    assert agreed == Labels("binary", (0, 1))
    assert all(type(label) is int for label in agreed.classes)
    np.testing.assert_array_equal(encoded(agreed, values), [0, 1, 1][: len(values)])


def test_text_that_looks_like_numbers_is_text():
    assert labels(client("a", ["1", "2"]), client("b", ["10"])).classes == ("1", "10", "2")


@given(st.lists(st.sampled_from(["α", "b", "C", "10", " "]), min_size=1, max_size=20))
def test_labels_are_indexes_of_classes_and_back(values):
    classes = (" ", "10", "C", "b", "α")
    known = Labels("multiclass", classes)
    index = encoded(known, values)
    assert index.dtype == np.int64
    np.testing.assert_array_equal(index, [classes.index(value) for value in values])
    np.testing.assert_array_equal(classes_of(known, np.eye(5)[index]), values)


def test_objects_are_labels_too():
    assert labels(client("a", np.array(["no", "yes"], object)), client("b", ["no"])).classes == ("no", "yes")
    assert labels(client("a", np.array([1, 2.0, np.int64(3)], object))).classes == (1, 2, 3)
    assert labels(client("a", pd.Series(["x", "y"]).to_numpy())).classes == ("x", "y")


def test_the_row_of_an_unknown_class_is_named_and_not_the_label():
    with pytest.raises(
        DataError, match=r"label in row 3 is of no class that the model knows \(no, yes\)"
    ) as caught:
        encoded(Labels("binary", ("no", "yes")), ["no", "yes", "yess"])
    assert "yess" not in str(caught.value)
    with pytest.raises(DataError, match=r"label in row 2 .*\(0, 1\)"):
        encoded(Labels("binary", (0, 1)), [1.0, 2.0])


def test_numbers_with_fractions_are_predicted_as_numbers():
    assert labels(client("a", [0.5, 1.5]), client("b", [2.0])) == Labels("regression")
    np.testing.assert_array_equal(encoded(Labels("regression"), [1, 2]), [1.0, 2.0])
    assert encoded(Labels("regression"), [1, 2]).dtype == np.float64


def test_very_many_whole_numbers_are_no_classes():
    assert labels(client("a", np.arange(MOST_CLASSES))).kind == "multiclass"
    assert labels(client("a", np.arange(MOST_CLASSES + 1))) == Labels("regression")


def test_few_whole_numbers_at_each_client_that_are_many_together_are_no_classes():
    apart = [client("a", np.arange(600)), client("b", np.arange(600, 1200))]
    assert labels(*apart) == Labels("regression")
    with pytest.raises(DataError, match="have 1,200 different labels, and classes are 1,000 at most"):
        agree(*apart, wanted="multiclass")


def test_the_62_classes_of_femnist_are_classes():
    assert len(labels(client("a", np.tile(np.arange(62), 2))).classes) == 62


def answer_of(data, wanted):
    algorithm = AgreeOnRows(wanted)
    return algorithm.client(None, algorithm.task(None), data, {}, Seed.of(0))[0].answer


@given(st.lists(st.integers(-(10**9), 10**9), min_size=1), st.lists(st.integers(-(10**9), 10**9)))
def test_no_label_leaves_a_client_where_numbers_are_predicted(train, test):
    described = {"numeric": True, "classes": None, "shape": [2], "positions": []}
    assert answer_of(client("a", train, test), "regression") == described
    assert answer_of(client("a", np.array(train) / 2 + 0.25, test), None) == described


def test_text_of_more_values_than_classes_can_have_stays_at_its_client():
    names = [f"patient {number}" for number in range(MOST_CLASSES + 1)]
    with pytest.raises(DataError, match='client "a": the labels are text of more than 1,000') as caught:
        answer_of(client("a", names), None)
    assert "patient" not in str(caught.value)


def test_whole_numbers_are_predicted_as_numbers_by_a_regression():
    assert labels(client("a", [1, 2, 3]), wanted="regression") == Labels("regression")


@pytest.mark.parametrize(
    ("clients", "wanted", "sentence"),
    [
        (
            [client("lyon", [0, 1]), client("nice", ["no", "yes"])],
            None,
            'labels of client "lyon" are numbers, those of client "nice" are not',
        ),
        ([client("lyon", ["no", "yes"])], "regression", 'labels of client "lyon" are no numbers'),
        (
            [client("lyon", [0.5, 1.5]), client("nice", [0, 1])],
            "binary",
            'labels of client "lyon" are continuous numbers, but classes are predicted',
        ),
        ([client("lyon", [1, 1]), client("nice", [1])], None, "all rows of all clients have the label 1"),
        ([client("lyon", ["x"], test=["x"])], "binary", "all rows of all clients have the label 'x'"),
        (
            [client("lyon", [0, 1]), client("nice", [0, 1], shape=(3,))],
            None,
            r'client "lyon" are arrays of shape \(2,\), those of client "nice" arrays of shape \(3,\)',
        ),
        ([client("lyon", [0.5, np.nan])], None, 'client "lyon", training rows: .* row 2'),
        ([client("lyon", [0.5, 1.5], test=[np.inf])], None, 'client "lyon", test rows: .* row 1'),
        ([client("lyon", np.array(["no", None], object))], None, 'client "lyon", training rows: .* row 2'),
        ([client("lyon", np.array(["no", np.nan], object))], None, 'client "lyon", training rows: .* row 2'),
        ([client("lyon", np.array([1, pd.NA], object))], None, 'client "lyon", training rows: .* row 2'),
        (
            [client("lyon", np.array([1, "no"], object))],
            None,
            "numbers and text: the first text is in row 2; give",
        ),
        ([client("lyon", ["no", "yes"], test=[0, 1])], None, 'client "lyon", test rows: .* are numbers'),
        (
            [client("lyon", np.array(["2020-01-01"], "M8[D]"))],
            None,
            r"dtype datetime64\[D\]; give numbers or text",
        ),
        ([ClientData("lyon", Rows(np.zeros((3, 2)), np.zeros(4)))], None, "3 rows and labels of shape"),
        (
            [client("lyon", np.zeros((3, 0)))],
            None,
            r"3 rows and labels of shape \[3, 0\]; give one label, or",
        ),
        (
            [client("lyon", [[0, 1], [1, 0]]), client("nice", [0, 1])],
            None,
            r'labels of client "lyon" are arrays of shape \(2,\), those of client "nice" one for each row; all',
        ),
        (
            [client("lyon", [[0, 1]], test=[[0, 1, 1]])],
            None,
            r'"lyon", test rows: the labels are arrays of shape \(3,\), those of the training rows are arrays of',
        ),
        (
            [client("lyon", [[0.5, 1.0], [1.0, np.nan], [0.1, np.inf]])],
            None,
            r"in 2 row\(s\), first in row 2",
        ),
        (
            [client("lyon", np.array([["a", "b"], ["c", 1]], object))],
            None,
            "numbers and text: the first text is in row 1; give",
        ),
        (
            [client("lyon", np.array([[0, 1], [0, 1, 1]], object))],
            None,
            "labels of different rows are arrays of different shapes",
        ),
        (
            [ClientData("lyon", Rows(np.zeros((2, 2))))],
            None,
            'client "lyon", training rows: there are no labels',
        ),
    ],
)
def test_what_clients_cannot_agree_on_is_said(clients, wanted, sentence):
    with pytest.raises(DataError, match=sentence):
        agree(*clients, wanted=wanted)


def test_text_is_no_number_to_a_model_that_predicts_numbers():
    with pytest.raises(DataError, match="text, but the model predicts numbers"):
        encoded(Labels("regression"), ["no"])


def test_shapes_are_those_of_one_example():
    assert agree(client("a", [0, 1], shape=(8, 8, 3))) == Agreement(Labels("binary", (0, 1)), (8, 8, 3))
    assert agree(client("a", [0, 1], shape=())).shape == ()


def test_rows_of_a_table_have_no_shape_of_their_own():
    def table(id):
        return ClientData(id, Rows(pd.DataFrame({"x": [1, 2]}), np.array([0, 1])))

    assert agree(table("a"), table("b")).shape is None
    with pytest.raises(
        DataError, match=r'"a" are rows of a table, those of client "b" arrays of shape \(2,\)'
    ):
        agree(table("a"), client("b", [0, 1]))


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, object, str])
def test_labels_may_be_an_array_for_each_example(dtype):
    y = np.array([[[3, 1, 3], [1, 1, 5]], [[5, 3, 1], [1, 3, 5]]]).astype(dtype)
    agreed = labels(client("a", y[:1], test=y[1:]), client("b", y[1:]))
    three = ("1", "3", "5") if dtype is str else (1, 3, 5)
    assert agreed == Labels("multiclass", three, (2, 3))
    index = encoded(agreed, y)
    np.testing.assert_array_equal(index, [[[1, 0, 1], [0, 0, 2]], [[2, 1, 0], [0, 1, 2]]])
    np.testing.assert_array_equal(classes_of(agreed, np.eye(3)[index]), np.array(three)[index])


def test_rows_of_equal_lists_are_labels_for_each_position():
    y = np.empty(2, object)
    y[:] = [[0, 1, 1], np.array([1, 0, 1])]
    assert labels(client("a", y)) == Labels("binary", (0, 1), (3,))


def test_numbers_at_every_position_are_predicted_as_numbers():
    y = np.array([[0.5, 1.5], [2.0, -1.0]])
    agreed = labels(client("a", y))
    assert agreed == Labels("regression", (), (2,))
    np.testing.assert_array_equal(encoded(agreed, y), y)
    np.testing.assert_array_equal(classes_of(agreed, y), y)


def test_labels_of_other_positions_than_agreed_are_refused():
    with pytest.raises(DataError, match=r"arrays of shape \(3,\); the model predicts arrays of shape \(2,\)"):
        encoded(Labels("binary", (0, 1), (2,)), [[0, 1, 1]])
    with pytest.raises(
        DataError, match=r"labels are one for each row; the model predicts arrays of shape \(2,\)"
    ):
        encoded(Labels("binary", (0, 1), (2,)), [0, 1])


def test_the_row_of_an_unknown_class_at_any_position_is_named():
    with pytest.raises(DataError, match="the label in row 2 is of no class"):
        encoded(Labels("binary", (0, 1), (2, 2)), [[[0, 1], [1, 0]], [[0, 0], [0, 7]]])


def test_predictions_stand_for_classes():
    binary = Labels("binary", ("no", "yes"))
    np.testing.assert_array_equal(classes_of(binary, np.array([0.2, 0.5, 0.51])), ["no", "no", "yes"])
    several = Labels("multiclass", (1, 5, 9))
    np.testing.assert_array_equal(classes_of(several, np.array([[0.1, 0.2, 0.7], [0.5, 0.5, 0]])), [9, 1])
    values = np.array([1.5, -2.0])
    np.testing.assert_array_equal(classes_of(Labels("regression"), values), values)


def test_a_new_client_is_held_to_what_was_agreed():
    agreed = labels(client("a", ["no", "yes"]))
    with pytest.raises(DataError, match="the label in row 1 is of no class"):
        encoded(agreed, ["maybe"])
    assert encoded(agreed, np.array([], "U3")).size == 0
