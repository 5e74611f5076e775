"""Images that are changed at random each time that training takes them, by draws of the client's own stream."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import fedpact as fp
from fedpact.core import Rows, Schema, Seed
from fedpact.core.errors import ConfigError
from fedpact.core.model import stacks
from fedpact.learn import AUGMENTATIONS, MODELS

torch = pytest.importorskip("torch")

from scipy import ndimage  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from fedpact.learn.torch import Torch, TorchModel  # noqa: E402
from fedpact.learn.torch_augmenting import Augmentation  # noqa: E402
from fedpact.learn.torch_scaled import ScaledSession  # noqa: E402
from fedpact.learn.torch_session import TorchSession  # noqa: E402

ALL: tuple[Any, ...] = (
    fp.RandomFlip(vertical=True),
    fp.RandomCrop(3),
    fp.RandomRotation(30),
    fp.ColorJitter(0.2, 0.3, 0.4),
    fp.RandomErasing(),
)
SCHEMA = Schema("multiclass", (2, 6, 5), (0, 1, 2))


def images(n: int = 400, channels: int = 2, height: int = 6, width: int = 5) -> Tensor:
    """Return images of which no two pixels are equal, and none is 0."""
    return 1 + torch.arange(n * channels * height * width, dtype=torch.float64).view(
        n, channels, height, width
    )


def augmented(step: Augmentation, given: Tensor, seed: int = 0) -> Tensor:
    return step.augment(given, np.random.default_rng(seed))


DATA = Rows(
    np.random.default_rng(0).normal(size=(24, 2, 6, 5)).astype(np.float32),
    np.random.default_rng(1).integers(0, 3, 24),
)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))


def model_of(*augment: Any, module: nn.Module | None = None) -> TorchModel:
    return Torch(module or network(), augment=augment).build(SCHEMA)


def begin(model: TorchModel, seed: int = 1, session: TorchSession | None = None) -> TorchSession:
    session = session or model.session()
    session.load(model.initial(Seed.of(0)))
    session.bind(DATA, Seed.of(seed))
    return session


def gradient(session: TorchSession, index: Any = None) -> Tensor:
    session.gradient(index)
    return session.gradients[0].clone()


@pytest.mark.parametrize("step", ALL, ids=lambda step: type(step).__name__)
def test_what_becomes_of_an_image_depends_on_it_and_the_draws_alone(step: Augmentation) -> None:
    given = images(40) / 1000
    before = given.clone()
    found = augmented(step, given)
    assert torch.equal(given, before)
    assert found.shape == given.shape
    assert not torch.equal(found, given)
    others = torch.rand(given.shape, dtype=given.dtype, generator=torch.Generator().manual_seed(1))
    others[17] = given[17]
    torch.testing.assert_close(augmented(step, others)[17], found[17], rtol=1e-12, atol=0)
    assert torch.equal(augmented(step, given), found)
    assert not torch.equal(augmented(step, given, seed=1), found)


def test_about_half_of_the_images_are_mirrored_each_way() -> None:
    given = images()
    found = augmented(fp.RandomFlip(horizontal=True, vertical=True), given)
    ways = [given, given.flip(3), given.flip(2), given.flip(2, 3)]
    counts = [int((found == way).all(3).all(2).all(1).sum()) for way in ways]
    # Each of the four is of Binomial(400, 1/4), whose standard deviation is 8.7.
    assert sum(counts) == 400
    assert all(abs(count - 100) < 5 * 8.7 for count in counts)


def test_images_are_shifted_by_every_number_of_pixels_alike_and_filled_with_zeros() -> None:
    given = images(2000, 1)
    found = augmented(fp.RandomCrop(1), given)
    padded = nn.functional.pad(given, [1] * 4)
    counts = []
    for top in range(3):
        for left in range(3):
            window = padded[:, :, top : top + 6, left : left + 5]
            counts.append(int((found == window).all(3).all(2).all(1).sum()))
    # Each of the nine is of Binomial(2000, 1/9), whose standard deviation is 14.
    assert sum(counts) == 2000
    assert all(abs(count - 2000 / 9) < 5 * 14 for count in counts)


def test_images_are_turned_about_their_middle_by_as_much_as_scipy_turns_them() -> None:
    given = images(5, 1, 9, 14)
    found = augmented(fp.RandomRotation(40), given, seed=3)
    angles = np.random.default_rng(3).uniform(-40, 40, 5)
    for image, turned, angle in zip(given[:, 0].numpy(), found[:, 0].numpy(), angles, strict=True):
        expected = ndimage.rotate(image, angle, reshape=False, order=1, mode="grid-constant")
        assert turned == pytest.approx(expected, abs=1e-8 * image.max())


def test_colours_change_by_offsets_and_factors() -> None:
    given = images(300) / 1000
    mean = given.mean((1, 2, 3), keepdim=True)
    bright = augmented(fp.ColorJitter(brightness=0.2), given) - given
    assert bright.amax((1, 2, 3)) == pytest.approx(bright.amin((1, 2, 3)), abs=1e-12)
    assert 0.18 < bright.max() <= 0.2
    assert -0.2 <= bright.min() < -0.18

    contrast = augmented(fp.ColorJitter(contrast=0.5), given)
    factors = (contrast - mean) / (given - mean)
    assert factors.amax((1, 2, 3)) == pytest.approx(factors.amin((1, 2, 3)), abs=1e-9)
    assert 0.5 <= factors.min() < 0.55
    assert 1.45 < factors.max() <= 1.5

    grey = given.mean(1, keepdim=True)
    saturated = augmented(fp.ColorJitter(saturation=1.0), given)
    assert saturated.mean(1, keepdim=True) == pytest.approx(grey, abs=1e-12)
    factors = (saturated - grey) / (given - grey)
    assert factors.amax((1, 2, 3)) == pytest.approx(factors.amin((1, 2, 3)), abs=1e-9)
    assert 0 <= factors.min() < 0.05
    assert 1.95 < factors.max() <= 2


def test_a_rectangle_of_the_area_and_proportions_asked_for_is_erased() -> None:
    given = images(1000, 2, 40, 30)
    found = augmented(fp.RandomErasing(p=0.3, scale=(0.1, 0.2), ratio=(0.5, 2)), given)
    erased = (found == 0).all(1)
    assert torch.equal(found, given.masked_fill(erased[:, None], 0))
    some = erased.any(2).any(1)
    # Of Binomial(1000, 0.3), whose standard deviation is 14.5.
    assert abs(int(some.sum()) - 300) < 5 * 14.5
    highs, wides = erased.any(2).sum(1)[some], erased.any(1).sum(1)[some]
    areas, ratios = erased.sum((1, 2))[some], highs / wides
    assert torch.equal(areas, highs * wides)
    # Sides are rounded to whole pixels, of which they have seven and more.
    assert 0.09 < areas.min() / 1200 < 0.11
    assert 0.19 < areas.max() / 1200 < 0.22
    assert 0.45 < ratios.min() < 0.6
    assert 1.7 < ratios.max() < 2.2
    assert erased.any(2).any(0).all()
    assert erased.any(1).any(0).all()


def test_an_image_that_no_rectangle_fits_into_stays_whole() -> None:
    given = images(50, 1, 2, 60)
    step = fp.RandomErasing(p=1.0, scale=(0.9, 0.9), ratio=(1.0, 1.0))
    assert torch.equal(augmented(step, given), given)


def test_a_session_trains_on_what_the_draws_of_its_stream_make_of_the_rows() -> None:
    augment = (fp.RandomFlip(), fp.RandomCrop(2))
    session, plain = begin(model_of(*augment), seed=7), begin(model_of())
    random = Seed.of(7).child("augment").generator()
    for index in (np.arange(8), np.arange(8, 24)):
        batch = torch.from_numpy(DATA.x[index])
        for step in augment:
            batch = step.augment(batch, random)
        plain.bind(Rows(batch.numpy(), DATA.y[index]), Seed.of(0))
        assert torch.equal(gradient(session, index), gradient(plain))


def test_draws_are_those_of_the_stream_and_others_each_time_that_a_row_is_taken() -> None:
    model = model_of(*ALL)
    session = begin(model)
    first, second = gradient(session), gradient(session)
    assert not torch.equal(first, second)
    begin(model)
    assert torch.equal(gradient(session), first)
    assert torch.equal(gradient(session), second)
    begin(model, seed=2)
    assert not torch.equal(gradient(session), first)


def test_a_step_is_the_same_however_its_rows_are_taken() -> None:
    model = model_of(*ALL)
    order = np.random.default_rng(0).permutation(24)
    session = begin(model)
    by_index = [gradient(session, order[start : start + 8]) for start in (0, 8, 16)]
    begin(model)
    session.arrange(order)
    by_slice = [gradient(session, slice(start, start + 8)) for start in (0, 8, 16)]
    assert all(map(torch.equal, by_index, by_slice))
    begin(model)
    session.descend(order[:8], 0.5)
    torch.testing.assert_close(session.weights[0], model_start(model) - 0.5 * by_index[0])


def model_start(model: TorchModel) -> Tensor:
    return torch.from_numpy(model.initial(Seed.of(0)).flats[0])


def test_rows_themselves_and_predictions_stay_as_they_are() -> None:
    model, plain = model_of(*ALL), model_of()
    weights, before = plain.initial(Seed.of(0)), DATA.x.copy()
    session = begin(model)
    session.gradient(None)
    session.arrange(np.arange(24))
    session.gradient(slice(0, 24))
    assert np.array_equal(DATA.x, before)
    assert np.array_equal(model.predict(weights, DATA.x), plain.predict(weights, DATA.x))


def test_images_without_a_channel_axis_and_bytes_are_augmented_too() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(30, 3))
    schema = Schema("multiclass", (6, 5), (0, 1, 2))
    model = Torch(flat, augment=[fp.RandomCrop(2)]).build(schema)
    session = model.session()
    session.load(model.initial(Seed.of(0)))
    found = []
    for dtype in (np.uint8, np.float32):
        x = np.random.default_rng(0).integers(0, 256, (24, 6, 5)).astype(dtype)
        session.bind(Rows(x, DATA.y), Seed.of(1))
        found.append(gradient(session))
    assert torch.equal(*found)


class Whole(nn.Module):
    """Reads whole numbers and floating-point ones alike."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.float())


def test_bytes_are_augmented_where_a_module_reads_whole_numbers() -> None:
    rows = Rows(np.random.default_rng(0).integers(0, 9, (24, 2, 6, 5)).astype(np.uint8), DATA.y)
    found = []
    for module in (Whole(), network()):
        session = begin(model_of(fp.RandomCrop(2), module=module))
        session.bind(rows, Seed.of(3))
        found.append(gradient(session))
    assert torch.equal(*found)


def test_without_augmentation_nothing_is_drawn_and_jobs_keep_their_digest() -> None:
    assert "augment" not in Torch(network()).describe()
    assert begin(model_of())._augmenting is None
    assert Torch(network(), augment=[]).describe() == Torch(network()).describe()
    assert Torch(network(), augment=[fp.RandomFlip()]).describe() != Torch(network()).describe()


def test_the_clipped_gradient_of_a_row_is_bounded_by_the_norm_whatever_is_drawn() -> None:
    session = begin(model_of(*ALL))
    sums = session.clipped(np.arange(24), 1e-3)
    assert np.linalg.norm(sums[0]) <= 24e-3
    for row in range(24):
        (alone,) = session.clipped(np.array([row]), 1e-3)
        assert np.linalg.norm(alone) == pytest.approx(1e-3, rel=1e-4)
    assert not np.any(session.clipped(np.arange(0), 1e-3)[0])


def test_clipped_rows_are_augmented_by_the_draws_of_the_stream() -> None:
    augment = fp.RandomCrop(2)
    session, plain = begin(model_of(augment), seed=5), begin(model_of())
    batch = augment.augment(torch.from_numpy(DATA.x), Seed.of(5).child("augment").generator())
    plain.bind(Rows(batch.numpy(), DATA.y), Seed.of(0))
    index = np.arange(24)
    assert np.array_equal(session.clipped(index, 0.1)[0], plain.clipped(index, 0.1)[0])


class Overflowing(nn.Module):
    """Outputs whose scaled gradients overflow float16 at first."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) * 300


def test_in_float16_a_step_is_done_again_with_the_same_draws() -> None:
    model = model_of(fp.RandomCrop(2), module=Overflowing())
    session = ScaledSession(model)
    begin(model, session=session)
    session.gradient(None)
    assert session.scale < 2**16
    after = session._augmenting.position()
    once = Seed.of(1).child("augment").generator()
    fp.RandomCrop(2).augment(torch.from_numpy(DATA.x), once)
    assert after == once.bit_generator.state


def test_a_student_learns_from_the_rows_that_its_teachers_saw() -> None:
    model, plain = model_of(*ALL), model_of()
    rows = Rows(DATA.x, np.full((24, 3), 1 / 3, np.float32))
    found = []
    for each in (model, plain):
        session = each.taught(2.0).session()
        session.load(plain.initial(Seed.of(0)))
        session.bind(rows, Seed.of(0))
        found.append(gradient(session))
    assert torch.equal(*found)


def test_clients_are_not_trained_side_by_side_and_why_is_said() -> None:
    model = model_of(fp.RandomFlip())
    assert stacks(model)
    assert model.unstackable() == "images are augmented client by client"
    assert model_of().unstackable() is None


@pytest.mark.parametrize("step", ALL, ids=lambda step: type(step).__name__)
def test_augmentations_survive_being_written_down(step: Augmentation) -> None:
    spec = json.loads(json.dumps(AUGMENTATIONS.describe(step)))
    assert AUGMENTATIONS.build(spec) == step


def test_every_augmentation_that_can_be_named_is_tested_here() -> None:
    assert [type(step).__name__ for step in ALL] == list(AUGMENTATIONS)


def test_a_job_names_augmentations_and_their_settings() -> None:
    spec = {
        "name": "Torch",
        "module": "torch.nn:Flatten",
        "augment": ["RandomFlip", {"name": "RandomCrop", "padding": 2}],
    }
    model = MODELS.build(spec)
    assert model.augment == (fp.RandomFlip(), fp.RandomCrop(2))
    assert MODELS.build(json.loads(json.dumps(model.describe()))) == model
    assert Torch(network(), augment=fp.RandomFlip()).augment == (fp.RandomFlip(),)


@dataclass(frozen=True)
class Negative:
    """An augmentation of a user's own."""

    def augment(self, images: Tensor, random: np.random.Generator) -> Tensor:
        return -images


def test_an_augmentation_may_be_ones_own() -> None:
    plain = begin(model_of())
    plain.bind(Rows(-DATA.x, DATA.y), Seed.of(0))
    assert torch.equal(gradient(begin(model_of(Negative()))), gradient(plain))
    described = model_of(Negative()).spec.describe()["augment"]
    assert described == [{"name": f"{__name__}:Negative"}]


@pytest.mark.parametrize(
    ("augment", "said"),
    [
        (["RandomFlipp"], 'there is no augmentation "RandomFlipp". Did you mean "RandomFlip"?'),
        ([{"name": "RandomCrop", "pading": 2}], 'Did you mean "padding"?'),
        ([fp.RandomFlip], "augment has <class"),
        ([lambda images: images], "or a frozen dataclass of your own with a method augment."),
        ([{"name": "RandomCrop", "padding": 0}], "RandomCrop: padding is 0"),
        ([{"name": "RandomRotation", "degrees": 200}], "RandomRotation: degrees is 200"),
        ([{"name": "RandomFlip", "horizontal": False}], "nothing is left to do"),
        (["ColorJitter"], "nothing is left to do"),
        ([{"name": "ColorJitter", "contrast": 1.5}], "ColorJitter: contrast is 1.5"),
        ([{"name": "RandomErasing", "p": 0.0}], "RandomErasing: p is 0"),
        ([{"name": "RandomErasing", "scale": [0.4, 0.1]}], "the smaller first"),
        ([{"name": "RandomErasing", "scale": [0.4, 1.5]}], "RandomErasing: scale is 1.5"),
        ([{"name": "RandomErasing", "ratio": ["wide", 1.5]}], 'RandomErasing: ratio is "wide"; it must be'),
    ],
)
def test_what_is_no_augmentation_is_refused(augment: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Torch(network(), augment=augment)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("module", "schema", "said"),
    [
        (nn.Linear(5, 3), Schema("multiclass", (5,), (0, 1, 2)), "the examples have the shape (5,)"),
        (
            nn.Conv2d(2, 1, 1),
            Schema("binary", (2, 6, 5), (0, 1), positions=(6, 5)),
            "not their labels of shape (6, 5)",
        ),
        (
            nn.Sequential(nn.Embedding(9, 2), nn.Flatten(), nn.Linear(60, 3)),
            Schema("multiclass", (6, 5), (0, 1, 2)),
            "the module takes whole ones alone",
        ),
    ],
)
def test_examples_that_cannot_be_augmented_are_refused(module: nn.Module, schema: Schema, said: str) -> None:
    class Squeezed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = module

        def forward(self, x: Tensor) -> Tensor:
            outputs = self.body(x)
            return outputs.squeeze(1) if outputs.ndim == 4 else outputs

    with pytest.raises(ConfigError) as caught:
        Torch(Squeezed(), augment=[fp.RandomFlip()]).build(schema)
    assert said in str(caught.value)
