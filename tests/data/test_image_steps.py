"""Claims about images brought to one size, and normalised by what all clients share."""

import json
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fedpact as fp
from fedpact.core import ClientData, Rows, Seed
from fedpact.core.errors import ConfigError, DataError, ModelError
from fedpact.data import STEPS
from fedpact.data.preprocess.image_fit import FitImages
from fedpact.data.preprocess.image_pipeline import ImagePipeline
from fedpact.data.preprocess.image_steps import ImageStep, are_image_steps, check_images
from tests.data.test_preprocess import fit
from tests.data.test_preprocess_errors import message
from tests.engine.runs import same_bits

SIZES = st.integers(1, 40)


def pictures(count: int = 60, channels: int = 3, size: tuple[int, int] = (9, 7)) -> NDArray[np.uint8]:
    """Return images whose last channel is constant."""
    images = np.random.default_rng(0).integers(0, 256, (count, channels, *size)).astype(np.uint8)
    images[:, -1] = 7
    return images


def as_floats(images: NDArray[Any]) -> NDArray[np.float64]:
    """Return numbers of very different sizes."""
    return images * 10.0 ** (np.arange(images.shape[1])[:, None, None] * 9 - 9)


def fit_images(steps: Sequence[ImageStep], *arrays: NDArray[Any], test: Any = None) -> ImagePipeline:
    clients = [
        ClientData(f"client {i}", Rows(x), None if test is None else Rows(test)) for i, x in enumerate(arrays)
    ]
    shape = arrays[0].shape[1:]
    if isinstance(steps[0], fp.Resize):
        shape = (*shape[:-2], *steps[0].height_and_width)
    pipeline = fit(FitImages(tuple(steps), shape), clients)
    assert isinstance(pipeline, ImagePipeline)
    return pipeline


def resized(images: NDArray[Any], size: Any, interpolation: Any = "bilinear") -> NDArray[Any]:
    return fit_images([fp.Resize(size, interpolation)], images).transform(images)


def by_pillow(images: NDArray[Any], width: int, height: int) -> NDArray[Any]:
    image = pytest.importorskip("PIL.Image")
    return np.stack([np.asarray(image.fromarray(x).resize((width, height), 2)) for x in images])


@settings(max_examples=60, deadline=None)
@given(SIZES, SIZES, SIZES, SIZES, st.integers(0, 2**32 - 1))
def test_resized_bytes_are_pillows_to_the_bit_rows_first(
    before: int, wide: int, height: int, width: int, seed: int
) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (2, before, wide)).astype(np.uint8)
    images[1] = np.where(images[1] > 127, 255, 0)
    ours = resized(images, (height, width))
    assert same_bits(ours, by_pillow(by_pillow(images, width, before), width, height))
    # Some versions of Pillow take columns first: either way two roundings are less than 1 from the unrounded byte.
    assert abs(ours.astype(int) - by_pillow(images, width, height)).max() <= 2


@settings(max_examples=40, deadline=None)
@given(SIZES, SIZES, SIZES, SIZES)
def test_resized_numbers_are_those_of_pillow_and_of_torch(
    before: int, wide: int, height: int, width: int
) -> None:
    torch = pytest.importorskip("torch")
    images = np.random.default_rng(before).normal(size=(2, before, wide)).astype(np.float32)
    ours = resized(images, (height, width))
    assert ours.dtype == np.float32
    assert ours == pytest.approx(by_pillow(images, width, height), abs=1e-5)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(images)[None], (height, width), mode="bilinear", antialias=True
    )
    assert ours == pytest.approx(theirs[0].numpy(), abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(SIZES, SIZES)
def test_nearest_pixel_is_the_one_that_the_middle_lies_in(before: int, after: int) -> None:
    images = np.arange(before)[None, None, :] + 1000 * np.arange(3)[None, :, None]
    # The middle of pixel i lies at (i + 1/2)·before/after, counted in pixels of the image before.
    places = [int(Fraction(2 * i + 1, 2) * before / after) for i in range(after)]
    found = resized(images, (3, after), "nearest")
    assert found.tolist() == images[:, :, places].tolist()
    assert found.dtype == images.dtype


def test_nearest_pixels_are_torchs() -> None:
    torch = pytest.importorskip("torch")
    images = np.random.default_rng(0).normal(size=(2, 3, 28, 20))
    theirs = torch.nn.functional.interpolate(torch.from_numpy(images), (13, 47), mode="nearest-exact")
    assert same_bits(resized(images, (13, 47), "nearest"), theirs.numpy())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 300), st.sampled_from(["uint8", "float32", "float64", "int64"]))
def test_a_resized_image_is_the_same_bits_whatever_lies_beside_it(place: int, dtype: str) -> None:
    images = np.random.default_rng(1).uniform(0, 255, (301, 40, 33)).astype(dtype)
    alone = resized(images[place : place + 1], (16, 21))
    assert same_bits(resized(images, (16, 21))[place], alone[0])


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_white_stays_white_and_an_image_of_the_size_stays_as_it_is(interpolation: str) -> None:
    white = np.full((1, 3, 37, 11), 255, np.uint8)
    for size in range(1, 60):
        assert (resized(white, (size, 61 - size), interpolation) == 255).all()
    images = pictures()
    same = resized(images, (9, 7), interpolation)
    assert same_bits(same, images)
    assert not np.shares_memory(same, images)


def test_one_number_is_a_square_and_other_whole_numbers_become_floats() -> None:
    assert resized(pictures(), 4).shape == (60, 3, 4, 4)
    assert resized(pictures(channels=1)[:, 0], 4).shape == (60, 4, 4)
    assert fp.Resize(4) == fp.Resize((4, 4))
    assert resized(pictures().astype(np.int64), 4).dtype == np.float32
    assert resized(pictures()[:0], 4).shape == (0, 3, 4, 4)


STEPS_FITTED: tuple[tuple[ImageStep, ...], ...] = (
    (fp.NormalizeImages(),),
    (fp.Resize((5, 6)), fp.NormalizeImages()),
    (fp.NormalizeImages(), fp.Resize(4), fp.NormalizeImages()),
)


@cache
def pooled_fit(place: int, floats: bool) -> str:
    images = as_floats(pictures()) if floats else pictures()
    return json.dumps(fit_images(STEPS_FITTED[place], images).to_json())


@pytest.mark.parametrize("floats", [False, True])
@pytest.mark.parametrize("place", range(len(STEPS_FITTED)))
@settings(max_examples=8, deadline=None)
@given(owners=st.lists(st.integers(0, 5), min_size=60, max_size=60))
def test_fitted_state_is_the_same_bits_for_any_partition_of_the_images(
    place: int, floats: bool, owners: list[int]
) -> None:
    images = as_floats(pictures()) if floats else pictures()
    parts = [images[np.array(owners) == owner] for owner in range(6)]
    assert json.dumps(fit_images(STEPS_FITTED[place], *parts).to_json()) == pooled_fit(place, floats)


def test_clients_of_one_image_fit_the_same_state() -> None:
    parts = [each[None] for each in pictures()]
    assert json.dumps(fit_images(STEPS_FITTED[1], *parts).to_json()) == pooled_fit(1, False)


def test_bytes_are_normalised_as_numpy_does_with_all_of_them_between_0_and_1() -> None:
    images = pictures()
    found = fit_images([fp.NormalizeImages()], images[:13], images[13:]).transform(images)
    # As ToTensor and Normalize of torchvision.
    unit = images / 255
    deviation = unit.std(axis=(0, 2, 3), keepdims=True)
    deviation[:, 2] = 1
    expected = (unit - unit.mean(axis=(0, 2, 3), keepdims=True)) / deviation
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, rel=1e-7, abs=1e-7)


def test_means_and_deviations_are_right_to_the_last_bit() -> None:
    images = np.random.default_rng(4).normal(1e6, 1e-3, (5, 2, 3, 3))
    step = fit_images([fp.NormalizeImages()], images[:1], images[1:]).to_json()["steps"][0]
    for channel in range(2):
        pixels = [Fraction(value) for value in images[:, channel].reshape(-1).tolist()]
        mean = sum(pixels) / len(pixels)
        assert step["mean"][channel] == float(mean)
        variance = sum((pixel - mean) ** 2 for pixel in pixels) / len(pixels)
        assert step["scale"][channel] == pytest.approx(float(variance) ** 0.5, rel=1e-15)


def test_bytes_at_one_client_and_their_255ths_at_another_are_alike() -> None:
    images = pictures()
    mixed = fit_images([fp.NormalizeImages()], images[:20], images[20:] / 255)
    step, exact = (p.to_json()["steps"][0] for p in (mixed, fit_images([fp.NormalizeImages()], images)))
    assert step["mean"] == pytest.approx(exact["mean"], rel=1e-15)
    assert step["scale"][:2] == pytest.approx(exact["scale"][:2], rel=1e-14)
    assert mixed.transform(images / 255) == pytest.approx(mixed.transform(images), abs=1e-6)


def test_images_without_a_channel_axis_have_one_channel() -> None:
    images = pictures(channels=2)[:, 0]
    alone = fit_images([fp.NormalizeImages()], images)
    beside = fit_images([fp.NormalizeImages()], images[:, None])
    assert alone.to_json()["steps"] == beside.to_json()["steps"]
    assert same_bits(alone.transform(images), beside.transform(images[:, None])[:, 0])


def test_constant_channel_is_shifted_and_not_scaled() -> None:
    pipeline = fit_images([fp.NormalizeImages()], pictures())
    assert pipeline.to_json()["steps"][0]["scale"][2] == 1
    assert (pipeline.transform(pictures())[:, 2] == 0).all()


def test_given_numbers_ask_no_client() -> None:
    fitting = FitImages((fp.Resize(5), fp.NormalizeImages(mean=0, std=1)), (3, 5, 5))
    state = fitting.init(None, Seed.of(0))
    assert fitting.task(state) is None
    found = fitting.fitted(state).transform(pictures())
    assert same_bits(found, (resized(pictures(), 5) / 255).astype(np.float32))


def test_given_numbers_are_those_of_each_channel() -> None:
    step = fp.NormalizeImages(mean=(0.5, -1, 0), std=[1, 2, 4])
    found = fit_images([step], pictures()).transform(pictures() / 255)
    expected = (pictures() / 255 - np.array([0.5, -1, 0])[:, None, None]) / np.array([1, 2, 4])[:, None, None]
    assert found.dtype == np.float64
    assert same_bits(found, expected)


def test_test_images_change_nothing() -> None:
    wild = np.full((4, 3, 9, 7), 1e30)
    fitted = fit_images(STEPS_FITTED[1], pictures(), test=wild)
    assert json.dumps(fitted.to_json()) == pooled_fit(1, False)


def test_pipeline_survives_being_written_down() -> None:
    pipeline = fit_images(STEPS_FITTED[2], pictures())
    read = ImagePipeline.from_json(json.loads(json.dumps(pipeline.to_json())))
    assert read == pipeline
    assert read.shape_out == (3, 4, 4)
    assert same_bits(read.transform(pictures()), pipeline.transform(pictures()))
    unknown = {"shape": [3, 4, 4], "steps": [{"name": "Blur"}]}
    assert 'knows no step "Blur"' in message(ModelError, ImagePipeline.from_json, unknown)
    assert "cannot be read" in message(ModelError, ImagePipeline.from_json, {"shape": [3]})


@pytest.mark.parametrize(
    "step", [fp.Resize((3, 4), "nearest"), fp.NormalizeImages(), fp.NormalizeImages((0.1, 0.2), (1, 2))]
)
def test_steps_survive_being_written_down(step: ImageStep) -> None:
    assert STEPS.build(json.loads(json.dumps(STEPS.describe(step)))) == step


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        ("Resize", {"size": 0}, "size is 0; it must be (height, width) in pixels"),
        ("Resize", {"size": [3, 4, 5]}, "size is (3, 4, 5); it must be (height, width) in pixels"),
        ("Resize", {"size": 3, "interpolation": "biliner"}, "it must be 'bilinear' or 'nearest'"),
        ("NormalizeImages", {"mean": 0.5}, "mean is given and std is not; give both, or neither."),
        ("NormalizeImages", {"std": 0.5}, "std is given and mean is not; give both, or neither."),
        ("NormalizeImages", {"mean": 0.0, "std": 0.0}, "std is 0.0; it must be above 0."),
        ("NormalizeImages", {"mean": [0.0, float("nan")], "std": 1.0}, "it must be a finite number"),
        ("NormalizeImages", {"mean": [], "std": 1.0}, "mean is (); it must be a finite number"),
    ],
)
def test_settings_that_cannot_be_are_refused(kind: str, given: dict[str, Any], said: str) -> None:
    assert said in message(ConfigError, STEPS.build, {"name": kind, **given})


def test_as_many_numbers_as_channels_are_needed() -> None:
    step = fp.NormalizeImages((0.1, 0.2), (1, 1))
    said = message(ConfigError, fit_images, [step], pictures())
    assert said == "NormalizeImages: mean has 2 numbers, but the images have 3 channels."


def test_a_pixel_that_is_not_finite_is_named_by_client_and_row() -> None:
    images = pictures().astype(np.float32)
    images[3, 1, 2, 2] = np.nan
    images[5, 0, 0, 0] = np.inf
    for steps in STEPS_FITTED:
        said = message(DataError, fit_images, steps, pictures(), images)
        assert 'client "client 1": a pixel is missing or infinite in 2 image(s), first in row 4' in said


def test_normalising_by_no_image_at_all_is_refused() -> None:
    said = message(DataError, fit_images, [fp.NormalizeImages()], pictures()[:0])
    assert said == "no client has a training image, so there is nothing to normalise by."


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (np.zeros((2, 3, 9, 8)), "the images have shape [3, 9, 8]; the model is made for [3, 9, 7]."),
        (np.zeros((2, 9, 7)), "the images have shape [9, 7]"),
        (np.full((2, 3, 9, 7), "a"), "the images are an array of dtype <U1; give numbers"),
        (pd.DataFrame({"a": [1]}), "the examples are the rows of a table; the model takes images."),
    ],
)
def test_what_is_no_such_image_cannot_be_prepared(x: Any, said: str) -> None:
    pipeline = fit_images([fp.NormalizeImages()], pictures())
    assert said in message(DataError, pipeline.transform, x)


def test_images_of_other_channels_cannot_be_resized() -> None:
    pipeline = fit_images([fp.Resize(4)], pictures())
    assert pipeline.transform(np.zeros((1, 3, 50, 2))).shape == (1, 3, 4, 4)
    for x in (np.zeros((1, 1, 9, 7)), np.zeros((1, 9, 7)), np.zeros((1, 3, 0, 7))):
        assert "the model is made for [3, height, width]." in message(DataError, pipeline.transform, x)


def test_steps_for_images_and_for_tables_do_not_go_together() -> None:
    said = message(ConfigError, are_image_steps, [fp.Standardize(), fp.Resize(4)])
    assert "Resize prepares images and Standardize the columns of a table" in said
    assert are_image_steps([fp.Resize(4)])
    assert not are_image_steps([fp.Standardize()])
    assert not are_image_steps([])


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (None, "these examples are rows of a table; leave it out."),
        ((8,), "these examples are arrays of shape (8,); leave it out."),
        ((), "these examples are arrays of shape ()"),
        ((32, 32, 3), "3 channels last; Resize takes them first, as torch does: np.moveaxis(x, -1, 1)."),
    ],
)
def test_examples_that_are_no_images_are_refused(shape: Any, said: str) -> None:
    assert said in message(ConfigError, check_images, [fp.Resize(4)], shape)


@pytest.mark.parametrize("shape", [(28, 28), (1, 28, 28), (3, 8, 4), (12, 16, 16), (4, 4, 4)])
def test_examples_that_are_images_are_taken(shape: tuple[int, ...]) -> None:
    assert check_images([fp.Resize(4)], shape) == shape
