"""Claims about model files and initial weights."""

import io
import pickle
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file

from fedpact.core import Entry, Layout, Vector
from fedpact.core.errors import ModelError
from fedpact.core.vector import STORAGE
from fedpact.store.checkpoint import Checkpoints
from fedpact.store.modelfile import load_model, read_metadata, read_weights, save_model

METADATA = {"model": {"name": "Logistic", "l2": 0.1}, "classes": ["no", "yes"], "means": [0.1, 1e-300]}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models") / "model.safetensors"


def one(dtype: str, values: Any, role: Any = "parameter") -> Vector:
    bits = np.asarray(values, STORAGE[dtype])
    vector = Vector.zeros(Layout([Entry("w", bits.shape, dtype, role)]))
    vector["w"] = bits
    return vector


@st.composite
def vectors(draw: st.DrawFn) -> Vector:
    shapes = hnp.array_shapes(min_dims=0, min_side=0, max_side=3)
    layout = Layout(
        Entry(f"{role}.{dtype}", draw(shapes), dtype, role)
        for role in ("parameter", "buffer")
        for dtype in draw(st.lists(st.sampled_from(sorted(STORAGE)), unique=True))
    )
    vector = Vector.zeros(layout)
    for entry in layout.entries:
        if entry.dtype == "bool":
            vector[entry.name] = draw(hnp.arrays(bool, entry.shape))
        else:
            # Any bits at all, NaN payloads too; in parameters of floats the exponent is not all ones.
            bits = hnp.arrays(f"uint{8 * STORAGE[entry.dtype].itemsize}", entry.shape)
            array = draw(bits).view(STORAGE[entry.dtype])
            if entry.role == "parameter" and entry.dtype == "bfloat16":
                array = array & 0xBFFF
            elif entry.role == "parameter" and array.dtype.kind == "f":
                array = np.where(np.isfinite(array), array, 0)
            vector[entry.name] = array
    return vector


@given(vectors())
def test_weights_come_back_in_every_bit_whatever_their_dtype(path: Path, vector: Vector) -> None:
    save_model(path, vector, METADATA)
    assert read_weights(path, vector.layout) == vector


@given(vectors())
def test_model_file_gives_the_arrays_with_their_dtypes_and_the_metadata(path: Path, vector: Vector) -> None:
    save_model(path, vector, METADATA)
    arrays, metadata = load_model(path)
    assert metadata == METADATA == read_metadata(path)
    assert arrays.keys() == {entry.name for entry in vector.layout.entries}
    for entry in vector.layout.entries:
        dtype, array = arrays[entry.name]
        assert (dtype, array.shape) == (entry.dtype, entry.shape)
        assert array.tobytes() == vector[entry.name].tobytes()


@pytest.mark.parametrize("dtype", sorted(STORAGE))
def test_torch_reads_a_model_file_with_its_true_dtypes(path: Path, dtype: str) -> None:
    # 1 is the same in every dtype; bfloat16's 1 is the upper half of float32's, 0x3F800000.
    save_model(path, one(dtype, 0x3F80 if dtype == "bfloat16" else 1), {})
    assert torch.equal(safetensors.torch.load_file(path)["w"], torch.tensor(1, dtype=getattr(torch, dtype)))


def test_array_with_aliases_is_written_once_and_they_are_recorded(path: Path) -> None:
    vector = Vector.zeros(Layout([Entry("embed.weight", (2,), aliases=("head.weight",))]))
    save_model(path, vector, {})
    with safetensors.safe_open(path, "numpy") as file:
        assert list(file.keys()) == ["embed.weight"]
        assert "head.weight" in file.metadata()["fedpact"]


def test_trained_and_frozen_parts_go_into_one_file(path: Path) -> None:
    frozen = Vector.from_arrays({"body": np.ones(2)})
    save_model(path, {"trained": one("float32", [1, 2]), "frozen": frozen}, {})
    assert {name: array.tolist() for name, (_, array) in load_model(path)[0].items()} == {
        "w": [1, 2],
        "body": [1, 1],
    }


def frozen_part(values: Any = (1, np.nan, np.inf)) -> Vector:
    vector = Vector.zeros(Layout([Entry("body", (3,), aliases=("twin",))]))
    vector["body"] = values
    return vector


@pytest.mark.parametrize("also", [(), ("body",), ("twin",), ("body", "twin")])
def test_weights_are_read_with_the_frozen_parameters_in_the_file_or_without(
    path: Path, also: tuple[str, ...]
) -> None:
    trained, frozen = one("float32", [1, 2]), frozen_part()
    state = {"w": trained["w"], **dict.fromkeys(also, frozen["body"])}
    save_file(state, path)
    assert read_weights(path, trained.layout, frozen) == trained
    torch.save({name: torch.from_numpy(array) for name, array in state.items()}, path)
    assert read_weights(path, trained.layout, frozen) == trained


def test_weights_with_other_values_for_a_frozen_parameter_are_refused(path: Path) -> None:
    trained, frozen = one("float32", [1, 2]), frozen_part()
    refusal = (
        r'has other values for "body", which is frozen in this model; build the model from a module that has'
    )
    for values in ((1, np.nan, 2), (1, -np.nan, np.inf), (1, np.nan, -np.inf)):
        save_model(path, {"trained": trained, "frozen": frozen_part(values)}, {})
        with pytest.raises(ModelError, match=refusal):
            read_weights(path, trained.layout, frozen)


def test_a_frozen_parameter_is_compared_as_the_model_would_hold_it(path: Path) -> None:
    trained, frozen = one("float32", [1, 2]), frozen_part((0.1, 2, 3))
    save_file({"w": trained["w"], "body": np.array([0.1, 2, 3])}, path)
    assert read_weights(path, trained.layout, frozen) == trained
    save_file({"w": trained["w"], "body": np.zeros(4)}, path)
    with pytest.raises(ModelError, match=r'has "body" \(4,\); the model needs \(3,\)'):
        read_weights(path, trained.layout, frozen)


def test_a_model_file_is_whole_and_must_hold_the_frozen_parameters(path: Path) -> None:
    trained = one("float32", [1, 2])
    save_model(path, trained, {})
    with pytest.raises(ModelError, match=r'does not fit this model: it lacks "body" \(3,\)'):
        read_weights(path, trained.layout, frozen_part())


def test_parts_that_share_a_name_are_refused(path: Path) -> None:
    with pytest.raises(ModelError, match='"w" is in "frozen" and in another part of the model'):
        save_model(path, {"trained": one("float32", 1), "frozen": one("float32", 1)}, {})


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), np.zeros(1)])
def test_metadata_that_json_cannot_hold_are_refused(path: Path, value: Any) -> None:
    with pytest.raises(ModelError, match=r"the metadata of .* cannot be written as JSON"):
        save_model(path, one("float32", 1), {"a": value})


def test_model_file_of_a_newer_format_is_refused(path: Path) -> None:
    save_file({"a": np.zeros(1)}, path, {"fedpact": '{"format": 2, "written_by": "9.0"}'})
    for read in (load_model, read_metadata):
        with pytest.raises(ModelError, match=r"was written by Fedpact 9.0 in a newer format"):
            read(path)


def test_any_other_safetensors_file_is_no_model_file_but_gives_weights(path: Path) -> None:
    save_file({"w": np.arange(3, dtype=np.float32)}, path)
    with pytest.raises(ModelError, match="no model file of Fedpact; it can serve as initial weights"):
        load_model(path)
    assert read_weights(path, Layout([Entry("w", (3,))]))["w"].tolist() == [0, 1, 2]


def network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).to(torch.bfloat16)


def layout_of(state: dict[str, torch.Tensor]) -> Layout:
    return Layout(Entry(n, tuple(t.shape), str(t.dtype).removeprefix("torch.")) for n, t in state.items())


@pytest.mark.parametrize("new", [True, False])
def test_torch_state_dict_gives_weights(tmp_path: Path, new: bool) -> None:
    state = network().state_dict()
    torch.save(state, tmp_path / "weights.pt", _use_new_zipfile_serialization=new)
    weights = read_weights(tmp_path / "weights.pt", layout_of(state))
    for name, tensor in state.items():
        bits = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
        assert weights[name].tobytes() == bits.numpy().tobytes()


@pytest.mark.parametrize("new", [True, False])
def test_torch_state_dict_is_known_by_its_bytes_whatever_it_is_called(path: Path, new: bool) -> None:
    torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=new)
    assert path.suffix == ".safetensors"
    assert read_weights(path, Layout([Entry("w", (2,))]))["w"].tolist() == [1, 1]


def test_state_dict_with_tied_weights_is_read_by_either_name(tmp_path: Path) -> None:
    tied = torch.arange(3.0)
    torch.save({"embed": tied, "head": tied}, tmp_path / "both.pt")
    torch.save({"head": tied}, tmp_path / "alias.pt")
    layout = Layout([Entry("embed", (3,), aliases=("head",))])
    for name in ("both.pt", "alias.pt"):
        assert read_weights(tmp_path / name, layout)["embed"].tolist() == [0, 1, 2]


def test_tied_weights_that_differ_are_refused(path: Path) -> None:
    save_file({"embed": np.zeros(3), "head": np.ones(3)}, path)
    with pytest.raises(ModelError, match='different values for "embed" and "head"'):
        read_weights(path, Layout([Entry("embed", (3,), "float64", aliases=("head",))]))


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("new", [True, False])
def test_object_in_a_torch_file_is_refused_and_does_not_run(tmp_path: Path, new: bool) -> None:
    torch.save({"w": Evil(tmp_path / "ran")}, tmp_path / "evil.pt", _use_new_zipfile_serialization=new)
    with pytest.raises(ModelError, match="holds Python objects, which can run code when read"):
        read_weights(tmp_path / "evil.pt", Layout([Entry("w", (1,))]))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_is_refused_and_does_not_run(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Evil(tmp_path / "ran"), protocol))
    with pytest.raises(ModelError, match="is a pickle of Python objects, which can run code when read"):
        read_weights(tmp_path / "evil.pkl", Layout([Entry("w", (1,))]))
    assert not (tmp_path / "ran").exists()


def test_whole_torch_module_is_refused(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "model.pt")
    with pytest.raises(ModelError, match=r"Save the weights alone, with torch.save\(model.state_dict"):
        read_weights(tmp_path / "model.pt", Layout([Entry("w", (1,))]))


def test_training_state_beside_the_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {"w": torch.zeros(1)}}, tmp_path / "run.pt")
    with pytest.raises(ModelError, match=r'"epoch" is a int, no tensor; save model.state_dict'):
        read_weights(tmp_path / "run.pt", Layout([Entry("w", (1,))]))


@pytest.mark.parametrize("tensor", [torch.zeros(1, dtype=torch.complex64), torch.zeros(2).to_sparse()])
def test_tensor_of_another_kind_is_refused(tmp_path: Path, tensor: torch.Tensor) -> None:
    torch.save({"w": tensor}, tmp_path / "weights.pt")
    with pytest.raises(ModelError, match=r'"w" is a torch.* tensor of .*, which cannot be read here'):
        read_weights(tmp_path / "weights.pt", Layout([Entry("w", (1,))]))


def test_list_of_tensors_is_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "weights.pt")
    with pytest.raises(ModelError, match="holds a list, not a state dict"):
        read_weights(tmp_path / "weights.pt", Layout([Entry("w", (1,))]))


def test_archive_of_anything_else_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "weights.npz", w=np.zeros(1))
    with zipfile.ZipFile(tmp_path / "notes.zip", "w") as archive:
        archive.writestr("notes.txt", "w")
    for name in ("weights.npz", "notes.zip"):
        with pytest.raises(ModelError, match="cannot be read as a torch state dict"):
            read_weights(tmp_path / name, Layout([Entry("w", (1,))]))


def test_torch_file_without_torch_is_a_sentence(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1)}, tmp_path / "weights.pt")
    code = f"""
import sys
sys.modules["torch"] = None
from fedpact.core import Entry, Layout
from fedpact.core.errors import DependencyError
from fedpact.store.modelfile import read_weights
try:
    read_weights({str(tmp_path / "weights.pt")!r}, Layout([Entry("w", (1,))]))
except DependencyError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 'needs torch: pip install "fedpact[torch]", or save the weights as safetensors' in said


def test_names_that_do_not_match_are_told_with_the_nearest_and_shapes(path: Path) -> None:
    save_file({"fc.weights": np.zeros((2, 3)), "extra": np.zeros(1)}, path)
    with pytest.raises(ModelError) as caught:
        read_weights(path, Layout([Entry("fc.weight", (2, 3)), Entry("bias", ())]))
    assert str(caught.value) == (
        f'"{path}" does not fit this model: it lacks "fc.weight" (2, 3) (nearest: "fc.weights" (2, 3)); '
        'it lacks "bias" (); the model has no "extra" (1,); the model has no "fc.weights" (2, 3).'
    )


def test_of_many_names_that_do_not_match_the_first_are_told(path: Path) -> None:
    save_file({f"a{i}": np.zeros(1) for i in range(9)}, path)
    with pytest.raises(ModelError, match=r"it lacks 6 more; .* nor 6 more that the file has"):
        read_weights(path, Layout(Entry(f"w{i}", (1,)) for i in range(9)))


def test_shape_that_does_not_match_is_told(path: Path) -> None:
    save_file({"w": np.zeros((2, 3))}, path)
    with pytest.raises(ModelError, match=r'has "w" \(2, 3\); the model needs \(3, 2\)'):
        read_weights(path, Layout([Entry("w", (3, 2))]))


@pytest.mark.parametrize(
    ("source", "values", "target", "expected"),
    [
        ("float64", [0.1, -3.0], "float32", [0.1, -3.0]),
        ("float32", [0.1, 65504.0], "float16", [0.1, 65504.0]),
        ("float16", [0.1, 6e-8], "float64", None),
        ("int32", [-3, 2**24], "float32", [-3, 2**24]),
        ("float64", [-3.0, 2.0**53], "int64", [-3, 2**53]),
        ("int64", [0, 1], "bool", [False, True]),
        ("bool", [False, True], "int8", [0, 1]),
        ("int64", [-128, 127], "int8", [-128, 127]),
    ],
)
def test_dtype_is_converted_where_values_stay_or_floats_round(
    path: Path, source: str, values: list[Any], target: str, expected: list[Any] | None
) -> None:
    save_file({"w": np.array(values, source)}, path)
    weights = read_weights(path, Layout([Entry("w", (2,), target)]))["w"]
    assert weights.tolist() == np.array(expected or np.array(values, source), target).tolist()


@given(hnp.arrays(np.float32, 5, elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_bfloat16_is_rounded_as_torch_rounds_it(path: Path, values: Any) -> None:
    save_file({"w": values}, path)
    weights = read_weights(path, Layout([Entry("w", (5,), "bfloat16")]))["w"]
    rounded = torch.from_numpy(values).to(torch.bfloat16)
    assert weights.tobytes() == rounded.view(torch.int16).numpy().tobytes()
    save_model(path, one("bfloat16", weights), {})
    assert read_weights(path, Layout([Entry("w", (5,), "float32")]))["w"].tolist() == rounded.float().tolist()


@pytest.mark.parametrize(
    ("source", "values", "target"),
    [
        ("float32", [0.5], "int64"),
        ("int64", [2**53 + 1], "float64"),
        ("int64", [2**63 - 1], "float32"),
        ("int64", [257], "bfloat16"),
        ("int64", [128], "int8"),
        ("int8", [-1], "uint8"),
        ("uint8", [255], "int8"),
        ("int64", [-1], "uint8"),
        ("int64", [2], "bool"),
        ("float32", [-1.0], "uint8"),
        ("uint64", [2**64 - 1], "int64"),
    ],
)
def test_conversion_that_changes_a_value_is_refused(
    path: Path, source: str, values: list[Any], target: str
) -> None:
    save_file({"w": np.array(values, source)}, path)
    with pytest.raises(
        ModelError, match=f'"w" is {source}, and its values cannot become {target} without a change'
    ):
        read_weights(path, Layout([Entry("w", (1,), target)]))


@pytest.mark.parametrize(("value", "target"), [(1e300, "float32"), (70000.0, "float16"), (1e39, "bfloat16")])
def test_float_too_large_for_its_dtype_is_refused(path: Path, value: float, target: str) -> None:
    save_file({"w": np.array([value])}, path)
    with pytest.raises(ModelError, match=f"holds values too large for {target}"):
        read_weights(path, Layout([Entry("w", (1,), target)]))


@pytest.mark.parametrize("bits", [0x7F80, 0xFF80, 0x7FC0])
def test_parameter_that_is_not_finite_is_refused_and_a_buffer_is_not(path: Path, bits: int) -> None:
    save_model(path, one("bfloat16", [bits]), {})
    with pytest.raises(ModelError, match='"w" holds NaN or infinite values; no model can compute with them'):
        read_weights(path, one("bfloat16", [bits]).layout)
    mask = one("bfloat16", [bits], "buffer")
    assert read_weights(path, mask.layout) == mask


def test_checkpoint_is_not_taken_for_a_model_file(tmp_path: Path) -> None:
    saved = Checkpoints(tmp_path).save(1, {"model": one("float32", 1)}, job="a" * 64)
    with pytest.raises(ModelError, match="is a checkpoint: resume from it, or name a model file"):
        read_weights(saved, one("float32", 1).layout)


def test_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r'weights file ".*none.pt" does not exist'):
        read_weights(tmp_path / "none.pt", Layout([Entry("w", (1,))]))
    for read in (load_model, read_metadata):
        with pytest.raises(ModelError, match=r'model file ".*none" does not exist'):
            read(tmp_path / "none")


def test_model_file_with_a_byte_changed_or_cut_is_refused_or_read_and_nothing_else(path: Path) -> None:
    save_model(path, one("float32", [1, 2]), METADATA)
    data = path.read_bytes()
    for i in range(len(data)):
        for damaged in (data[:i], data[:i] + bytes([data[i] ^ 0x80]) + data[i + 1 :]):
            path.write_bytes(damaged)
            for read in (load_model, lambda path: read_weights(path, one("float32", [1, 2]).layout)):
                with suppress(ModelError):
                    read(path)


def test_torch_file_cut_or_changed_is_refused_or_read_and_nothing_else(tmp_path: Path) -> None:
    for new in (True, False):
        buffer = io.BytesIO()
        torch.save({"w": torch.ones(2)}, buffer, _use_new_zipfile_serialization=new)
        data = buffer.getvalue()
        for i in range(0, len(data), 7):
            for damaged in (data[:i], data[:i] + bytes([data[i] ^ 0x11]) + data[i + 1 :]):
                (tmp_path / "weights.pt").write_bytes(damaged)
                with suppress(ModelError):
                    read_weights(tmp_path / "weights.pt", Layout([Entry("w", (2,))]))
