"""Vectors and layouts: one buffer, views into it, and what differences and means do to each dtype."""

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpact.core.errors import ModelError
from fedpact.core.vector import STORAGE, Entry, Layout, Vector

MIXED = Layout(
    [
        Entry("conv.weight", (2, 3)),
        Entry("steps", (), "int64", "buffer"),
        Entry("conv.bias", (2,)),
        Entry("embedding", (3, 2), "bfloat16", aliases=("head",)),
        Entry("scale", (), "float64"),
        Entry("mask", (5,), "bool", "buffer"),
        Entry("half", (3,), "float16"),
        Entry("nothing", (0, 4)),
        Entry("running_mean", (2,), "float32", "buffer"),
    ]
)
INTEGERS = ["int64", "int32", "int16", "int8", "uint8"]

dtypes = st.sampled_from(sorted(STORAGE))
shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    count = draw(st.integers(0, 6))
    return Layout(
        Entry(f"p{i}", draw(shapes), draw(dtypes), draw(st.sampled_from(["parameter", "buffer"])), aliases)
        for i in range(count)
        for aliases in [draw(st.sampled_from([(), (f"alias{i}",)]))]
    )


def of(dtype, values):
    """Return a vector of one array "x" of this dtype."""
    layout = Layout([Entry("x", np.shape(values), dtype)])
    return Vector.from_arrays({"x": np.asarray(values)}, layout)


def bfloat16_numbers(bits):
    return (np.asarray(bits, np.uint16).astype(np.uint32) << 16).view(np.float32)


def test_segments_are_parameters_first_and_one_for_each_dtype():
    assert [(s.role, s.dtype, [e.name for e in s.entries]) for s in MIXED.segments] == [
        ("parameter", "float32", ["conv.weight", "conv.bias", "nothing"]),
        ("parameter", "bfloat16", ["embedding"]),
        ("parameter", "float64", ["scale"]),
        ("parameter", "float16", ["half"]),
        ("buffer", "int64", ["steps"]),
        ("buffer", "bool", ["mask"]),
        ("buffer", "float32", ["running_mean"]),
    ]


@given(layouts())
def test_segments_start_on_cache_lines_and_hold_all_elements(layout):
    assert all(segment.start % 64 == 0 for segment in layout.segments)
    assert layout.size == sum(math.prod(entry.shape) for entry in layout.entries)
    vector = Vector.zeros(layout)
    assert [flat.size for flat in vector.flats] == [segment.size for segment in layout.segments]
    assert all(flat.ctypes.data % 64 == 0 for flat in vector.flats if flat.size)


def test_views_share_the_buffer():
    vector = Vector.zeros(MIXED)
    vector["conv.bias"][1] = 7
    vector["conv.weight"] = 3
    vector["scale"][...] = 5
    vector.flats[4][0] = 11
    np.testing.assert_array_equal(vector.flats[0], [3, 3, 3, 3, 3, 3, 0, 7])
    assert vector["scale"] == 5
    assert vector["scale"].shape == ()
    assert vector["steps"] == 11
    assert Vector(MIXED, vector.buffer)["conv.bias"][1] == 7


@given(layouts(), st.integers(0, 2**32))
def test_no_two_views_overlap_and_together_they_are_the_flats(layout, seed):
    vector = Vector.zeros(layout)
    vector.buffer[:] = np.random.default_rng(seed).integers(0, 2, vector.buffer.size)
    joined = b"".join(view.tobytes() for _, view in vector.items())
    assert joined == b"".join(flat.tobytes() for flat in vector.flats)


def test_an_alias_is_the_same_array():
    vector = Vector.zeros(MIXED)
    vector["head"][0, 0] = 9
    assert np.shares_memory(vector["head"], vector["embedding"])
    assert vector["embedding"][0, 0] == 9
    assert [name for name, _ in vector.items()].count("embedding") == 1


def test_a_scalar_and_an_empty_array_have_places():
    vector = Vector.zeros(MIXED)
    assert vector["nothing"].shape == (0, 4)
    assert vector["steps"].shape == ()
    assert Vector.zeros(Layout(())).flats == ()


@pytest.mark.parametrize(
    "entries",
    [
        [Entry("a", (1,)), Entry("a", (2,))],
        [Entry("a", (1,)), Entry("b", (2,), "int64", aliases=("a",))],
        [Entry("b", (1,), aliases=("a", "a"))],
    ],
)
def test_two_arrays_of_one_name_are_refused(entries):
    with pytest.raises(ModelError, match='two parameters are called "a"'):
        Layout(entries)


def test_an_unknown_dtype_is_refused_and_the_nearest_is_named():
    with pytest.raises(ModelError, match=r'"w" has dtype float23.*Did you mean "float32"\?'):
        Layout([Entry("w", (1,), "float23")])


def test_a_misspelt_name_names_the_nearest():
    with pytest.raises(ModelError, match=r'no parameter "conv.wieght"\. Did you mean "conv.weight"\?'):
        Vector.zeros(MIXED)["conv.wieght"]


def test_a_buffer_of_another_size_is_refused():
    with pytest.raises(ModelError, match=f"has 3 bytes; its layout needs {MIXED.nbytes}"):
        Vector(MIXED, np.zeros(3, np.uint8))


@given(layouts())
def test_locate_names_the_element_that_an_index_among_all_means(layout):
    places = [
        entry.name + (f"[{', '.join(map(str, place))}]" if place else "")
        for entry in layout.entries
        for place in np.ndindex(entry.shape)
    ]
    assert [layout.locate(i) for i in range(layout.size)] == places
    with pytest.raises(IndexError):
        layout.locate(layout.size)


@given(layouts())
def test_a_layout_survives_json(layout):
    read = Layout.from_json(json.loads(json.dumps(layout.to_json())))
    assert read == layout
    assert read.digest == layout.digest
    assert (read.segments, read.nbytes) == (layout.segments, layout.nbytes)


def test_layouts_that_differ_in_anything_are_unequal():
    base = [Entry("a", (2,)), Entry("b", (2,))]
    others = [
        [Entry("a", (2,))],
        [Entry("b", (2,)), Entry("a", (2,))],
        [Entry("a", (2, 1)), Entry("b", (2,))],
        [Entry("a", (2,), "float64"), Entry("b", (2,))],
        [Entry("a", (2,), role="buffer"), Entry("b", (2,))],
        [Entry("a", (2,), aliases=("c",)), Entry("b", (2,))],
    ]
    for other in others:
        assert Layout(other) != Layout(base)
        assert Layout(other).digest != Layout(base).digest
    assert Layout(base) == Layout(base)
    assert hash(Layout(base)) == hash(Layout(base))


def test_layouts_with_the_same_entries_in_other_segments_are_unequal():
    # The wide layout of float32 and bfloat16 keeps two segments of float32, each on its own cache line.
    wide = Layout([Entry("a", (3,)), Entry("b", (3,), "bfloat16")]).wide
    together = Layout([Entry("a", (3,)), Entry("b", (3,))])
    assert wide.entries == together.entries
    assert wide != together
    with pytest.raises(ModelError, match="another order"):
        Vector.zeros(wide).copy_from(Vector.zeros(together))


@given(layouts())
def test_the_wide_layouts_segments_match_one_to_one(layout):
    assert len(layout.wide.segments) == len(layout.segments)
    for wide, narrow in zip(layout.wide.segments, layout.segments, strict=True):
        assert wide.dtype == ("float32" if narrow.dtype in ("float32", "float16", "bfloat16") else "float64")
        assert wide.role == narrow.role
        assert [(e.name, e.shape, e.aliases) for e in wide.entries] == [
            (e.name, e.shape, e.aliases) for e in narrow.entries
        ]
    assert layout.wide.wide == layout.wide


def test_two_models_that_do_not_fit_are_refused_by_the_array_that_differs():
    ours = Vector.zeros(Layout([Entry("weight", (2, 3)), Entry("bias", (3,))]))
    others = {
        '"bias" is missing': [Entry("weight", (2, 3))],
        r'"weight" is a parameter of float32 \(3, 2\) instead of a parameter of float32 \(2, 3\)': [
            Entry("weight", (3, 2)),
            Entry("bias", (3,)),
        ],
        '"more" is one too many': [Entry("weight", (2, 3)), Entry("bias", (3,)), Entry("more", ())],
    }
    for sentence, entries in others.items():
        with pytest.raises(ModelError, match=sentence):
            ours.minus(Vector.zeros(Layout(entries)))


# The largest float32 that is not rounded to an infinite bfloat16.
BFLOAT16_MAX = float(np.array([0x7F7F7FFF], np.uint32).view(np.float32)[0])


@given(
    hnp.arrays(
        np.float32,
        50,
        elements=st.one_of(
            st.floats(-BFLOAT16_MAX, BFLOAT16_MAX, width=32), st.sampled_from([math.nan, math.inf, -math.inf])
        ),
    )
)
def test_bfloat16_is_rounded_as_torch_rounds_it(values):
    torch = pytest.importorskip("torch")
    ours = bfloat16_numbers(of("bfloat16", values)["x"])
    theirs = torch.from_numpy(values).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(np.signbit(ours[~np.isnan(values)]), np.signbit(values[~np.isnan(values)]))


def test_bfloat16_ties_subnormals_infinities_and_nans_are_those_of_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    upper = rng.integers(0, 2**16, 20_000, dtype=np.uint32) << 16
    # All 16 bits cut off but the first are zero: half way between two neighbours.
    ties = upper | 0x8000
    special = [0x0, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFFFFFFF, 0x7F800001, 0x7F7FFFFF, 0x1]
    bits = np.concatenate([upper, ties, ties + 1, ties - 1, np.array(special, np.uint32)])
    values = bits.view(np.float32)
    # What torch makes infinite is refused here.
    values = values[~(np.isfinite(values) & (np.abs(values) > BFLOAT16_MAX))]
    theirs = torch.from_numpy(values).to(torch.bfloat16)
    ours = of("bfloat16", values)["x"]
    numbers = ~np.isnan(values)
    np.testing.assert_array_equal(ours[numbers], theirs.view(torch.uint16).numpy()[numbers])
    assert np.isnan(bfloat16_numbers(ours[~numbers])).all()


def test_bfloat16_bits_go_in_and_out_unchanged():
    bits = np.arange(2**16, dtype=np.uint16)
    assert of("bfloat16", bits)["x"].tobytes() == bits.tobytes()
    quiet = ~np.isnan(bfloat16_numbers(bits)) | (bits & 0x40 > 0)
    vector = of("bfloat16", bits[quiet])
    assert vector.widened().narrowed(vector.layout) == vector


@given(
    hnp.arrays(np.float32, 20, elements=st.floats(-1e6, 1e6, width=32)),
    hnp.arrays(np.float32, 20, elements=st.floats(-1e6, 1e6, width=32)),
)
def test_plus_undoes_minus_to_within_an_ulp_of_the_larger_in_float32(start, new):
    a, b = of("float32", start), of("float32", new)
    back = a.plus(b.minus(a))["x"]
    ulp = np.spacing(np.maximum(np.abs(start), np.abs(new)))
    assert np.all(np.abs(back.astype(np.float64) - new) <= ulp)


@pytest.mark.parametrize("dtype", INTEGERS)
@given(data=st.data())
def test_plus_undoes_minus_exactly_for_integers(dtype, data):
    info = np.iinfo(dtype)
    # Beyond 2^52 a difference of two does not fit the 53 bits of a float64.
    elements = st.integers(max(info.min, -(2**52)), min(info.max, 2**52))
    start, new = (of(dtype, data.draw(hnp.arrays(dtype, 10, elements=elements))) for _ in range(2))
    assert start.plus(new.minus(start)) == new
    np.testing.assert_array_equal(
        new.minus(start)["x"], new["x"].astype(np.float64) - start["x"].astype(np.float64)
    )


@given(hnp.arrays(np.bool_, 20), hnp.arrays(np.bool_, 20))
def test_plus_undoes_minus_exactly_for_bools(start, new):
    a, b = of("bool", start), of("bool", new)
    assert a.plus(b.minus(a)) == b


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_plus_undoes_minus_exactly_for_half_precision_numbers_of_like_size(dtype):
    # 11 and 8 bits of precision within a factor of 2^8 of each other: differences fit float32's 24 bits.
    rng = np.random.default_rng(1)
    start, new = (of(dtype, rng.choice([-1, 1], 5000) * 2 ** rng.uniform(-4, 4, 5000)) for _ in range(2))
    assert start.plus(new.minus(start)) == new


def test_differences_of_bfloat16_and_float16_are_exact_float32():
    a, b = of("bfloat16", [1.5, -3.0]), of("bfloat16", [0.25, 1.0])
    np.testing.assert_array_equal(a.minus(b)["x"], np.float32([1.25, -4.0]))
    assert a.minus(b)["x"].dtype == np.float32
    # 1 + 2^-10 is a float16; its distance to 2^-10 is not.
    halves = of("float16", [1 + 2**-10]).minus(of("float16", [2**-24]))["x"]
    assert halves[0] == np.float32(1 + 2**-10 - 2**-24)


def test_means_of_integers_are_rounded_half_to_even_and_bools_at_one_half():
    layout = Layout([Entry("n", (4,), "int64", "buffer"), Entry("b", (3,), "bool", "buffer")])
    wide = Vector.from_arrays(
        {"n": np.array([0.5, 1.5, 2.4, -2.6]), "b": np.array([0.4, 0.5, 0.6])}, layout.wide
    )
    narrow = wide.narrowed(layout)
    np.testing.assert_array_equal(narrow["n"], [0, 2, 2, -3])
    np.testing.assert_array_equal(narrow["b"], [False, True, True])


@pytest.mark.parametrize(
    ("dtype", "value"), [("int8", 128.0), ("uint8", -1.0), ("int64", 2.0**63), ("int32", math.nan)]
)
def test_an_integer_that_does_not_fit_is_refused_by_name(dtype, value):
    layout = Layout([Entry("a", (2,), dtype, "buffer"), Entry("b", (2, 2), dtype, "buffer")])
    wide = Vector.zeros(layout.wide)
    wide["b"][1, 0] = value
    with pytest.raises(ModelError, match=rf"b\[1, 0\] would be .*, which {dtype} cannot hold"):
        wide.narrowed(layout)
    with pytest.raises(ModelError, match=r"b\[1, 0\]"):
        Vector.zeros(layout).plus(wide)


@pytest.mark.parametrize(
    ("dtype", "largest", "beyond"),
    [
        # Half way from the largest number to the next power of two is where rounding goes to infinity.
        ("float16", 65519.0, 65520.0),
        ("bfloat16", BFLOAT16_MAX, 3.3962e38),
        ("float32", 3.4028235e38, 3.5e38),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_float_that_does_not_fit_is_refused_by_name(dtype, largest, beyond, sign):
    layout = Layout([Entry("a", (2,), dtype), Entry("b", (2, 2), dtype)])
    numbers = {"a": np.array([math.inf, math.nan]), "b": np.array([[0, sign * largest], [0, 0]])}
    kept = Vector.from_arrays(numbers, layout)
    held = kept.widened()["b"][0, 1]
    assert np.isfinite(held)
    assert np.sign(held) == sign
    assert np.isinf(kept.widened()["a"][0])
    numbers["b"][1, 0] = sign * beyond
    sentence = re.escape(f"b[1, 0] would be {sign * beyond:g}, which {dtype} cannot hold; lower")
    with pytest.raises(ModelError, match=sentence):
        Vector.from_arrays(numbers, layout)


@pytest.mark.parametrize(
    ("dtype", "value", "change", "sum"),
    [
        ("float16", 60000.0, 10000.0, "70000"),
        ("bfloat16", 2.0**127, 2.0**127, "3.40282e+38"),
        ("float32", 3e38, 3e38, "6e+38"),
        ("float64", 1e308, 1e308, "inf"),
    ],
)
def test_a_sum_that_does_not_fit_is_refused_by_name(dtype, value, change, sum):
    layout = Layout([Entry("a", (70_000,), dtype), Entry("b", (2,), dtype)])
    base, delta = Vector.zeros(layout), Vector.zeros(layout.wide)
    start, step = of(dtype, [value])["x"], of(layout.wide.entries[1].dtype, [change])["x"]
    base["b"][1], delta["b"][1] = start[0], step[0]
    delta["a"][:2] = [math.nan, math.inf]
    with pytest.raises(ModelError, match=rf"b\[1\] would be {re.escape(sum)}, which {dtype} cannot hold"):
        base.plus(delta)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_what_is_infinite_or_nan_already_stays_so(dtype):
    layout = Layout([Entry("a", (3,), dtype)])
    delta = Vector.from_arrays({"a": np.array([math.inf, -math.inf, math.nan])}, layout.wide)
    np.testing.assert_array_equal(
        Vector.zeros(layout).plus(delta).widened()["a"], [math.inf, -math.inf, math.nan]
    )


def test_equality_is_of_bits():
    def vector(values):
        return of("float32", np.array(values, np.float32))

    assert vector([0.0, math.nan]) == vector([0.0, math.nan])
    assert vector([0.0]) != vector([-0.0])
    assert vector([1.0]) != vector([np.nextafter(np.float32(1), np.float32(2))])
    assert vector([1.0]) != of("float64", [1.0])
    quiet, other = np.array([0x7FC00000], np.uint32), np.array([0x7FC00001], np.uint32)
    assert vector(quiet.view(np.float32)) != vector(other.view(np.float32))


def test_equality_ignores_the_gaps_between_segments():
    layout = Layout([Entry("a", (1,)), Entry("b", (1,), "float64")])
    a, b = Vector.zeros(layout), Vector.zeros(layout)
    a.buffer[10] = 1
    assert a == b


def test_a_copy_has_its_own_buffer():
    vector = of("float32", [1.0, 2.0])
    copy = vector.copy()
    copy["x"][0] = 9
    assert vector["x"][0] == 1
    vector.copy_from(copy)
    assert vector == copy


def test_the_norm_is_that_of_all_elements_in_float64():
    vector = Vector.zeros(MIXED)
    rng = np.random.default_rng(2)
    vector["conv.weight"] = rng.normal(size=(2, 3))
    vector["steps"] = 4
    vector["scale"] = 1e8
    vector["mask"] = [True, False, True, False, False]
    numbers = [vector["conv.weight"].astype(np.float64).ravel(), [4.0, 1e8, 1.0, 1.0]]
    assert vector.norm() == pytest.approx(math.sqrt(math.fsum(np.concatenate(numbers) ** 2)), rel=1e-14)
    assert of("bfloat16", [3.0, 4.0]).norm() == 5.0
    assert Vector.zeros(Layout(())).norm() == 0.0


def test_the_norm_may_be_of_one_role_alone():
    vector = Vector.zeros(MIXED)
    vector["conv.bias"], vector["scale"] = [2.0, 3.0], 6.0
    vector["steps"], vector["running_mean"] = 1000, [3.0, 4.0]
    assert vector.norm("parameter") == 7.0
    assert vector.norm("buffer") == math.hypot(1000, 5)


def test_the_norm_of_many_float32_is_not_summed_in_float32():
    values = np.random.default_rng(3).normal(size=300_000).astype(np.float32)
    exact = math.sqrt(math.fsum(values.astype(np.float64) ** 2))
    assert of("float32", values).norm() == pytest.approx(exact, rel=1e-13)
    assert of("float64", [1e200]).norm() == math.inf


def test_arrays_come_back_as_they_were_given():
    arrays = {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "n": np.array(2**62 + 1),
        "t": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "b": np.array([True, False]),
    }
    vector = Vector.from_arrays(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(vector[name], array)
        assert vector[name].dtype == array.dtype
        assert not np.shares_memory(vector[name], array)


def test_arrays_of_another_dtype_are_rounded_to_the_layouts():
    layout = Layout([Entry("half", (2,), "bfloat16"), Entry("n", (), "int64"), Entry("w", (1,))])
    vector = Vector.from_arrays({"half": [1.5, -2.0], "n": 2.7, "w": [0.1]}, layout)
    np.testing.assert_array_equal(bfloat16_numbers(vector["half"]), [1.5, -2.0])
    assert vector["n"] == 3
    assert vector["w"][0] == np.float32(0.1)


def test_an_array_may_be_given_under_an_alias():
    layout = Layout([Entry("embedding", (2,), aliases=("head",))])
    np.testing.assert_array_equal(Vector.from_arrays({"head": np.ones(2)}, layout)["embedding"], [1, 1])


def test_arrays_that_do_not_fit_a_layout_are_refused_by_name():
    layout = Layout([Entry("weight", (2, 3)), Entry("bias", (3,))])
    weight, bias = np.zeros((2, 3)), np.zeros(3)
    with pytest.raises(ModelError, match=r'no parameter "wieght" in this model\. Did you mean "weight"\?'):
        Vector.from_arrays({"wieght": weight, "bias": bias}, layout)
    with pytest.raises(ModelError, match='parameter "bias" is missing'):
        Vector.from_arrays({"weight": weight}, layout)
    with pytest.raises(ModelError, match=r'"bias" has shape \(4,\); the model needs \(3,\)'):
        Vector.from_arrays({"weight": weight, "bias": np.zeros(4)}, layout)


def test_arrays_of_a_dtype_that_cannot_travel_are_refused():
    with pytest.raises(ModelError, match='"w" has dtype complex128, which cannot travel'):
        Vector.from_arrays({"w": np.zeros(2, complex)})
