"""Claims about the plain serialisation of states."""

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass, replace
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpact.core import Cohort, Cycle, Entry, Everyone, Layout, Named, Recipients, Seed, Task, Vector, Wide
from fedpact.core.errors import CheckpointError
from fedpact.core.vector import STORAGE
from fedpact.store.tree import pack, unpack


@dataclass(frozen=True)
class Slots:
    exp_avg: Vector
    step: int = 0


@dataclass(frozen=True)
class Leaf:
    split: float
    below: "tuple[Leaf, ...]" = ()


@dataclass(frozen=True, slots=True)
class State:
    model: Vector
    slots: Slots | None = None
    counts: Any = None
    trees: list[Leaf] = field(default_factory=list)
    by_client: Mapping[str, Slots] = field(default_factory=dict)
    to: Recipients = field(default_factory=Cohort)
    pending: Task | None = None


@dataclass(frozen=True)
class Halved:
    """What its constructor is given is not what it keeps."""

    value: float
    kept: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", self.value / 2)


NUMBERS = ["float64", "float32", "float16", "bool", "int64", "int8", "uint8", "uint16", "uint64"]
entries = st.builds(
    Entry,
    st.text(max_size=4),
    hnp.array_shapes(min_dims=0, min_side=0, max_side=3),
    st.sampled_from(sorted(STORAGE)),
    st.sampled_from(["parameter", "buffer"]),
)
layouts = st.lists(entries, max_size=4, unique_by=lambda entry: entry.name).map(Layout)
layouts = layouts | layouts.map(lambda layout: layout.wide)


@st.composite
def vectors(draw: st.DrawFn) -> Vector:
    vector = Vector.zeros(draw(layouts))
    vector.buffer[:] = draw(hnp.arrays(np.uint8, vector.buffer.shape, elements=st.integers(0, 1)))
    return vector


arrays = hnp.arrays(st.sampled_from(NUMBERS), hnp.array_shapes(min_dims=0, min_side=0, max_side=3))
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | st.binary(max_size=5)
    | arrays
    | arrays.map(lambda array: array.T)
    | arrays.filter(lambda array: array.size > 0).map(lambda array: array.reshape(-1)[0])
    | vectors()
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


def through_json(value: Any, like: Any = None) -> Any:
    tree, arrays = pack(value)
    return unpack(json.loads(json.dumps(tree, allow_nan=False)), arrays, like)


def same(a: Any, b: Any) -> bool:
    """Compare types and bits, where == compares numbers."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray | np.generic):
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, Vector):
        return bool(a == b)
    if isinstance(a, float):
        return repr(a) == repr(b)
    if is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return bool(a == b)


def vector(**shapes: int) -> Vector:
    made = Vector.zeros(Layout(Entry(name, (size,)) for name, size in shapes.items()))
    made.flats[0][:] = np.arange(made.layout.size)
    return made


@given(values)
def test_any_nested_value_comes_back_in_every_bit(value: Any) -> None:
    assert same(through_json(value), value)


@given(values)
def test_any_nested_value_is_like_itself(value: Any) -> None:
    assert same(through_json(value, like=value), value)


@given(vectors(), st.integers(), values)
def test_state_of_dataclasses_comes_back_in_every_bit(model: Vector, step: int, counts: Any) -> None:
    state = State(model, Slots(model, step), counts, [Leaf(0.5, (Leaf(math.inf),))], {"lyon": Slots(model)})
    assert same(through_json(state, like=State(model)), state)


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, -0.0, 5e-324, 0.1, 1e22, 1.7976931348623157e308]
)
def test_float_comes_back_exactly(value: float) -> None:
    assert repr(through_json(value)) == repr(value)


def test_text_that_is_no_unicode_comes_back() -> None:
    assert through_json("\ud800") == "\ud800"


def test_tree_is_strict_json() -> None:
    tree, _ = pack({"loss": math.nan, "best": -math.inf})
    assert "NaN" not in json.dumps(tree, allow_nan=False)


def test_array_in_fortran_order_stays_in_it() -> None:
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    assert through_json(array).flags.f_contiguous
    assert not through_json(array).flags.c_contiguous


def test_unpacked_arrays_are_copies_that_can_be_written_to() -> None:
    state: dict[str, Any] = {"counts": np.zeros(2), "model": vector(w=2)}
    tree, arrays = pack(state)
    unpacked = unpack(tree, arrays)
    unpacked["counts"] += 1
    unpacked["model"]["w"] += 1
    assert state["counts"].tolist() == [0, 0]
    assert state["model"]["w"].tolist() == [0, 1]


def test_arrays_are_named_by_where_they_stand() -> None:
    _, arrays = pack({"state": State(vector(w=2), Slots(vector(w=2)), [np.zeros(1)])})
    assert list(arrays) == ["state.model", "state.slots.exp_avg", "state.counts.0"]


def test_keys_that_spell_the_same_path_do_not_collide() -> None:
    value = {"a.b": np.array([1]), "a": {"b": np.array([2])}, "__metadata__": np.array([3])}
    assert same(through_json(value), value)
    assert "__metadata__" not in pack(value)[1]


def test_layout_of_a_thousand_vectors_is_written_once() -> None:
    layout = Layout([Entry("w", (1,))])
    tree, arrays = pack([Vector.zeros(Layout(layout.entries)) for _ in range(1000)])
    assert len(tree["layouts"]) == 1
    assert len(arrays) == 1000


def test_mapping_that_makes_its_vectors_when_asked_is_packed_with_each_ones_layout() -> None:
    class Lazy(Mapping[str, Vector]):
        def __getitem__(self, key: str) -> Vector:
            return vector(**{key[0]: 2})

        def __iter__(self) -> Any:
            return (name + copy for name in "abcdefgh" for copy in "01234567")

        def __len__(self) -> int:
            return 64

    # Once a vector is packed, Python may give the next one's layout the id of its own.
    unpacked = through_json(Lazy())
    assert [(key, value.layout.entries[0].name) for key, value in unpacked.items()] == [
        (k, k[0]) for k in Lazy()
    ]


def test_wide_layout_with_two_segments_of_one_dtype_keeps_them() -> None:
    # float32 and bfloat16 parameters both widen to float32, and stay two segments.
    wide = Layout([Entry("a", (3,)), Entry("b", (5,), "bfloat16")]).wide
    assert [segment.size for segment in through_json(Vector.zeros(wide)).layout.segments] == [3, 5]


def test_any_mapping_comes_back_as_a_dict() -> None:
    assert same(through_json(MappingProxyType({"a": 1})), {"a": 1})


def test_wide_statistics_and_seeds_are_dataclasses_like_any_other() -> None:
    value = {"sums": Wide.of([1e20, 0.1]), "seed": Seed.of(7)}
    assert same(through_json(value, like=value), value)


def test_field_comes_back_as_it_was_not_as_its_constructor_makes_it() -> None:
    value = Halved(8.0)
    assert through_json(value, like=Halved(1.0)).value == 4.0


@pytest.mark.parametrize("to", [Cohort(), Everyone(), Cycle(shuffle=True), Named(("lyon",))])
def test_one_of_several_dataclasses_comes_back_as_itself(to: Recipients) -> None:
    state = State(vector(w=1), to=to, pending=Task("train", to=to))
    assert same(through_json(state, like=State(vector(w=1))), state)


def test_value_without_dataclasses_needs_no_template() -> None:
    value = {"clients": {"lyon": {"control": vector(w=3)}}, "history": [{"loss": 0.5}], "order": (1, 2)}
    assert same(through_json(value), value)


def test_keys_of_a_dict_may_differ_from_those_of_the_template() -> None:
    like = {"clients": {"lyon": vector(w=1)}}
    value = {"clients": {"nice": vector(w=9), "metz": np.zeros(2)}}
    assert same(through_json(value, like), value)


def test_list_may_be_longer_than_in_the_template() -> None:
    assert same(through_json([np.zeros(1), np.zeros(2)], [np.zeros(1)]), [np.zeros(1), np.zeros(2)])


def test_axis_that_is_empty_in_the_template_may_have_grown() -> None:
    like = np.zeros((0, 3))
    assert through_json(np.ones((5, 3)), like).shape == (5, 3)
    with pytest.raises(CheckpointError, match=r"float64 \(5, 2\) was saved; this job has float64 \(0, 3\)"):
        through_json(np.ones((5, 2)), like)


def test_none_and_a_value_may_stand_for_each_other() -> None:
    assert through_json(None, like=vector(w=1)) is None
    assert same(through_json(vector(w=1), like=None), vector(w=1))


def test_number_may_be_whole_in_the_template() -> None:
    assert same(through_json(0.5, like=0), 0.5)


def test_dataclass_without_a_template_is_refused() -> None:
    with pytest.raises(
        CheckpointError, match=r"^state: a State was saved, and what that is is not known here"
    ):
        through_json({"state": State(vector(w=1))})


STATE = State(vector(w=2, b=1), Slots(vector(w=2, b=1), 3), np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("like", "sentence"),
    [
        (
            replace(STATE, model=vector(w=3, b=1)),
            'model: as saved, "w" is a parameter of float32 (2,) instead of a parameter of float32 (3,).',
        ),
        (replace(STATE, model=vector(w=2, bb=1)), 'model: as saved, "bb" is missing.'),
        (replace(STATE, model=vector(w=2)), 'model: as saved, "b" is one too many.'),
        (replace(STATE, model=vector(b=1, w=2)), "model: as saved, the arrays are in another order."),
        (
            replace(STATE, model=cast(Any, np.zeros(3))),
            "model: a vector was saved; this job has an array there.",
        ),
        (replace(STATE, counts=Leaf(0.5)), "counts: an array was saved; this job has a Leaf there."),
        (
            replace(STATE, slots=Slots(vector(w=2, b=1), cast(Any, "3"))),
            "slots.step: a number was saved; this job has text",
        ),
        (
            replace(STATE, slots=Slots(vector(w=1, b=1), 3)),
            'slots.exp_avg: as saved, "w" is a parameter of float32 (2,)',
        ),
        (
            replace(STATE, counts=np.zeros((2, 4))),
            "counts: float64 (2, 3) was saved; this job has float64 (2, 4)",
        ),
        (replace(STATE, counts=np.zeros(6)), "counts: float64 (2, 3) was saved; this job has float64 (6,)"),
        (
            replace(STATE, counts=np.zeros((2, 3), int)),
            "counts: float64 (2, 3) was saved; this job has int64",
        ),
        (replace(STATE, counts=[1]), "counts: an array was saved; this job has a list there."),
        (replace(STATE, trees=cast(Any, ())), "trees: a list was saved; this job has a tuple there."),
        (Leaf(0.5), "the value: a State was saved; this job has a Leaf there."),
        ({"model": 1}, "the value: a State was saved; this job has a dict there."),
    ],
)
def test_value_unlike_the_template_is_refused_with_its_path(like: Any, sentence: str) -> None:
    with pytest.raises(CheckpointError, match=f"^{re.escape(sentence)}"):
        through_json(STATE, like)


def test_field_that_the_code_no_longer_has_is_named() -> None:
    tree, arrays = pack(Leaf(0.5))
    saved = tree["value"]["dataclass"][1]
    saved["splitt"] = saved.pop("split")
    with pytest.raises(
        CheckpointError, match=r'^splitt: Leaf has no field "splitt" here. Did you mean "split"\?'
    ):
        unpack(tree, arrays, Leaf(0.5))


def test_field_that_was_not_saved_is_named() -> None:
    tree, arrays = pack({"root": Leaf(0.5)})
    del tree["value"]["dict"]["root"]["dataclass"][1]["split"]
    with pytest.raises(CheckpointError, match=r"^root.split: this field of Leaf was not saved"):
        unpack(tree, arrays, {"root": Leaf(0.5)})


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"a": {1, 2}}, "a: a set cannot be saved"),
        ({"a": [0, object()]}, "a.1: a object cannot be saved"),
        ({"a": {1: 2}}, "a: the key 1 cannot be saved; use text"),
        ({"a": np.array(["x"])}, "a: an array of dtype <U1 cannot be saved"),
        ({"a": np.array([None])}, "a: an array of dtype object cannot be saved"),
        ({"a": np.ma.masked_array([1])}, "a: a MaskedArray cannot be saved"),
        ({"a": State}, "a: a type cannot be saved"),
        (1j, "the value: a complex cannot be saved"),
    ],
)
def test_what_cannot_be_saved_is_refused_with_its_path(value: Any, sentence: str) -> None:
    with pytest.raises(CheckpointError, match=f"^{re.escape(sentence)}"):
        pack(value)


TAGS = ["float", "bytes", "tuple", "dict", "array", "transposed", "number", "layout", "vector", "dataclass"]
forged = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 2)
    | st.floats()
    | st.sampled_from(["a", "float64", "nan", "00"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(TAGS) | st.text(max_size=2), inner, min_size=1, max_size=2)
    ),
)


@given(forged, st.none() | forged)
def test_forged_tree_is_refused_or_unpacked_and_nothing_else(node: Any, like: Any) -> None:
    tree, _ = pack(vector(w=2))
    for forgery in (node, {"layouts": node, "value": node}, {"layouts": tree["layouts"], "value": node}):
        with suppress(CheckpointError):
            unpack(forgery, {"a": np.zeros(2)}, like)
