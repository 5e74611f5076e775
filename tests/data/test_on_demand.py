import numpy as np
import pandas as pd
import pytest

import fedpact as fp
from fedpact.core import ClientData, Rows
from fedpact.core.errors import DataError
from fedpact.core.seeds import Seed
from fedpact.data.preprocess import Pipeline
from fedpact.data.preprocess.categories import Categories
from fedpact.data.preprocess.columns import as_categories, as_frame, coded
from fedpact.data.preprocess.estimate import Estimating, ask
from fedpact.data.preprocess.on_demand import PreparedRows
from fedpact.data.preprocess.schema import FitSchema
from tests.data.test_preprocess import fit_steps

# More rows than are made into a matrix at once, and more values than an estimate prepares at once.
ROWS = 70_000
STEPS = (
    fp.Impute("mean", columns=("size", "code"), indicator=True),
    fp.Impute("most_frequent"),
    fp.ClipRange(lower=-2.0, columns=("size",)),
    fp.Standardize(columns=("size", "code missing")),
    fp.OneHot(drop_first=True),
)


def parcels(rows: int = ROWS) -> pd.DataFrame:
    draw = np.random.default_rng(5)
    kinds = np.array(["flat", "round", "long", None], object)
    table = {
        "size": np.where(draw.random(rows) < 0.1, np.nan, draw.normal(3, 4, rows)),
        "kind": kinds[draw.integers(4, size=rows)],
        "code": pd.array(draw.integers(9, size=rows), dtype="Int64"),
        "grade": pd.Categorical(kinds[draw.integers(1, 3, size=rows)], categories=["long", "none", "round"]),
    }
    frame = pd.DataFrame(table)
    frame.loc[draw.random(rows) < 0.1, "code"] = pd.NA
    return frame


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return fit_steps(STEPS, parcels())


def prepared(pipeline: Pipeline, table: pd.DataFrame) -> PreparedRows:
    rows, _ = pipeline.selected(table)
    assert isinstance(rows, PreparedRows)
    return rows


def test_a_column_on_demand_is_the_same_bits_as_in_the_whole_table(pipeline: Pipeline) -> None:
    whole, rows = pipeline.transform(parcels()), prepared(pipeline, parcels())
    for name in pipeline.feature_names_out:
        assert as_frame(rows, [name])[name].to_numpy().tobytes() == whole[name].to_numpy().tobytes()
    pd.testing.assert_frame_equal(as_frame(rows), whole, check_exact=True)


def test_what_is_not_asked_for_is_not_made(pipeline: Pipeline) -> None:
    rows = prepared(pipeline, parcels(50))
    assert list(as_frame(rows, ["size"]).columns) == ["size"]
    assert list(as_frame(rows, ["code missing"]).columns) == ["code", "code missing"]
    assert list(as_frame(rows, ["kind=long"]).columns) == ["kind=long", "kind=round"]


def test_what_does_not_fit_is_found_although_it_is_not_asked_for() -> None:
    tables = [pd.DataFrame({"a": [1.0, np.nan], "b": [1.0, last]}) for last in (2.0, np.inf)]
    with pytest.raises(DataError, match=r'client "client 1".*column "b" is infinite in 1 row'):
        fit_steps([fp.Impute("mean", columns=("a",))], *tables)


def test_a_column_is_of_the_kind_of_its_last_value_where_it_has_no_other() -> None:
    gaps = np.full(999, np.nan)
    table = pd.DataFrame(
        {
            "number": [*gaps, 1.0],
            "text": pd.Series([*gaps, "x"], dtype="str"),
            "object": pd.Series([*gaps, "x"], dtype=object),
            "grade": pd.Categorical([*gaps, "x"]),
            "none": [*gaps, np.nan],
        }
    )
    kinds = FitSchema().client(
        None, ask(Estimating(), "collect"), ClientData("a", Rows(table)), {}, Seed.of(0)
    )
    assert [kind for _, kind, _ in kinds[0].answer] == ["numeric", "category", "category", "category", None]


def test_rows_that_steps_choose_among_are_a_table() -> None:
    table = pd.DataFrame({"a": [1.0, 1.0, 2.0]})
    rows, places = fit_steps([fp.DropDuplicates(by=("a",)), fp.Standardize()], table).selected(table)
    assert isinstance(rows, pd.DataFrame)
    assert places.tolist() == [0, 2]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_matrix_made_in_parts_is_the_whole_tables(pipeline: Pipeline, dtype: type) -> None:
    matrix = pipeline.matrix(parcels(), dtype)
    assert matrix.dtype == dtype
    assert matrix.tobytes() == pipeline.transform(parcels()).to_numpy().astype(dtype).tobytes()


def test_a_part_of_the_rows_is_counted_from_the_first_of_all() -> None:
    table = parcels()[["kind"]].fillna("flat")
    table.loc[ROWS - 10, "kind"] = "square"
    pipeline = fit_steps([fp.OneHot(categories={"kind": ["flat", "round", "long"]}, unknown="error")], table)
    with pytest.raises(DataError, match=f'column "kind" has an unknown category in row {ROWS - 9}'):
        pipeline.matrix(table)


def test_missing_values_are_counted_over_all_parts() -> None:
    table = pd.DataFrame({"a": np.where(np.arange(ROWS) % 1000 == 0, np.nan, 1.0)})
    with pytest.raises(DataError, match='column "a" still has 70 missing value'):
        fit_steps([fp.ClipRange(lower=0.0)], table).matrix(table)


def test_categories_that_no_row_is_of_are_none() -> None:
    frame = pd.DataFrame({"a": pd.Categorical(["y", None, "x", "y"], categories=["w", "x", "y", "z"])})
    codes, own = as_categories(frame, "a")
    assert (codes.tolist(), own) == ([1, -1, 0, 1], ["x", "y"])
    data = ClientData("a", Rows(frame))
    task = Categories(("a",)).task(Estimating())
    assert task is not None
    answer = Categories(("a",)).client(None, task, data, {}, None)[0].answer  # type: ignore[arg-type]
    assert answer == [["x", "y"]]


def test_numbers_and_text_among_categories_stay_what_they_are() -> None:
    frame = pd.DataFrame({"a": coded(np.array([2, -1, 0, 1]), [1, "1", 0.5])})
    codes, own = as_categories(frame, "a")
    assert (codes.tolist(), own) == ([2, -1, 0, 1], [1, "1", 0.5])
    assert frame["a"].astype(object).where(frame["a"].notna(), None).tolist() == [0.5, None, 1, "1"]
