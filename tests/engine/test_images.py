"""Claims about whole runs on images: prepared by all clients together, and augmented while they train."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import fedpact as fp
from fedpact.core.errors import ConfigError, DataError
from fedpact.core.seeds import Seed
from fedpact.engine.in_process import InProcess
from fedpact.engine.population import InMemory
from fedpact.engine.preparation import Preparation
from fedpact.engine.preparing import prepare
from fedpact.engine.train import complete
from fedpact.engine.work import Rules
from fedpact.report.html import run_page
from fedpact.report.source import load_run
from fedpact.report.toml import job_toml
from tests.engine.runs import outcome, same_bits

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

DATA = Path(os.environ.get("FEDPACT_DATA", "/nonexistent"))
GLYPHS = np.random.default_rng(5).random((4, 6, 6)) < 0.4
FACTORY = "tests.engine.test_images:network"


def glyphs(n: int, seed: int, shift: int = 0, size: int = 12) -> fp.Rows:
    """Return faint noisy images (uint8) of four drawings of 6 × 6 pixels, in the middle but for shifts."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 4, n)
    x = random.normal(100, 4, (n, 1, size, size))
    for image, label in zip(x, y, strict=True):
        top, left = (size - 6) // 2 + random.integers(-shift, shift + 1, 2)
        image[0, top : top + 6, left : left + 6] += 12 * GLYPHS[label]
    return fp.Rows(x.clip(0, 255).astype(np.uint8), y)


def clients(shift: int = 0) -> list[fp.ClientData]:
    return [
        fp.ClientData(id, glyphs(60 + 20 * place, place), glyphs(100, 10 + place, shift))
        for place, id in enumerate("abc")
    ]


def network(size: int = 12) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(size * size, 32), nn.ReLU(), nn.Linear(32, 4))


STEPS = (fp.NormalizeImages(),)
AUGMENT = (fp.RandomFlip(), fp.RandomCrop(2), fp.RandomErasing())


def train(*augment: Any, **changed: Any) -> fp.Result:
    settings: dict[str, Any] = {
        "model": fp.models.Torch(network(), augment=augment),
        "clients": clients(),
        "preprocess": STEPS,
        "algorithm": fp.FedAvg(lr=0.1, local_epochs=2, batch_size=16),
        "rounds": 3,
        "engine": "in_process",
        **changed,
    }
    return fp.train(settings.pop("model"), settings.pop("clients"), **settings)


def prepared(members: list[fp.ClientData], *steps: Any) -> Preparation:
    return prepare(None, steps, InMemory(members), InProcess(), Rules(fatal=(DataError,)), Seed.of(0))


def of_sizes(*sizes: tuple[int, int]) -> list[fp.ClientData]:
    random = np.random.default_rng(0)
    return [
        fp.ClientData(
            f"client {place}",
            fp.Rows(random.integers(0, 256, (9, 3, *size)).astype(np.uint8), np.arange(9) % 2),
            fp.Rows(random.integers(0, 256, (4, 3, *size[::-1])).astype(np.uint8), np.arange(4) % 2),
        )
        for place, size in enumerate(sizes)
    ]


def test_images_of_different_sizes_are_brought_to_one_and_normalised_by_all_of_them() -> None:
    members = of_sizes((10, 7), (20, 20), (5, 9))
    preparation = prepared(members, fp.Resize((8, 6)), fp.NormalizeImages())
    assert preparation.schema.shape == (3, 8, 6)
    ready = [preparation.client(member, "float32") for member in members]
    pixels = np.concatenate([each.train.x for each in ready]).astype(np.float64)
    assert pixels.mean((0, 2, 3)) == pytest.approx(0, abs=1e-6)
    assert pixels.std((0, 2, 3)) == pytest.approx(1, abs=1e-6)
    for each in ready:
        assert each.test is not None
        assert each.test.x.shape == (4, 3, 8, 6)
        assert each.test.x.dtype == np.float32


def test_without_resize_in_front_images_of_different_sizes_are_refused() -> None:
    members = of_sizes((10, 7), (20, 20))
    for steps in ((), (fp.NormalizeImages(),), (fp.NormalizeImages(), fp.Resize(8))):
        with pytest.raises(
            DataError, match=r'of client "client 0" are arrays of shape \(3, 10, 7\).* with Resize\.$'
        ):
            prepared(members, *steps)
    grey = fp.ClientData("client 1", fp.Rows(np.zeros((2, 1, 5, 5)), np.array([0, 1])))
    with pytest.raises(DataError, match=r'those of client "client 1" arrays of shape \(1, 8, 8\).* shape\.$'):
        prepared([members[0], grey], fp.Resize(8))


def test_resized_bytes_that_nobody_normalises_stay_bytes() -> None:
    members = of_sizes((10, 7), (20, 20))
    ready = prepared(members, fp.Resize(8)).client(members[0], "float32")
    assert ready.train.x.dtype == np.uint8


def test_test_images_cannot_change_the_preparation() -> None:
    members = of_sizes((10, 7), (20, 20))
    white = [
        fp.ClientData(m.id, m.train, fp.Rows(np.full((4, 3, 30, 3), 255, np.uint8), np.arange(4) % 2))
        for m in members
    ]
    steps = (fp.Resize(8), fp.NormalizeImages())
    assert prepared(white, *steps).to_json() == prepared(members, *steps).to_json()


def test_steps_of_the_other_kind_are_refused_in_a_sentence() -> None:
    with pytest.raises(ConfigError, match="Resize prepares images and Standardize the columns of a table"):
        prepared(of_sizes((8, 8)), fp.Resize(4), fp.Standardize())
    with pytest.raises(ConfigError, match=r"preprocess prepares tables, .* arrays of shape \(3, 8, 8\)"):
        prepared(of_sizes((8, 8)), fp.Standardize())
    with pytest.raises(ConfigError, match=r"NormalizeImages prepares images .* are rows of a table"):
        prepared(
            [fp.ClientData("a", fp.Rows(pd.DataFrame({"a": [1.0, 2.0]}), np.array([0, 1])))],
            fp.NormalizeImages(),
        )


def test_an_image_that_cannot_be_read_is_named_by_client_rows_and_row() -> None:
    broken = np.full((3, 3, 8, 8), 0.5)
    broken[1, 0, 0, 0] = np.nan
    sound = fp.Rows(np.full((2, 3, 8, 8), 0.5), np.array([0, 1]))
    member = fp.ClientData("lyon", sound, fp.Rows(broken, np.array([0, 1, 1])))
    preparation = prepared([member], fp.Resize(4), fp.NormalizeImages())
    with pytest.raises(DataError, match=r'client "lyon", test rows: .* in 1 row\(s\), first in row 2'):
        preparation.client(member, "float32")


def test_the_preparation_of_images_survives_being_written_down() -> None:
    members = of_sizes((10, 7), (20, 20))
    preparation = prepared(members, fp.Resize(8), fp.NormalizeImages())
    written = json.loads(json.dumps(preparation.to_json()))
    read = Preparation.from_json(written)
    assert read == preparation
    # Files of before there was one do not say that there is none.
    del written["images"]
    assert Preparation.from_json(written).images is None


def test_a_saved_model_prepares_raw_images_and_predicts_the_same(tmp_path: Path) -> None:
    result = train(*AUGMENT, preprocess=[fp.Resize(10), *STEPS], model=network(10), folder=tmp_path)
    raw = glyphs(20, 99).x
    loaded = fp.Fitted.load(tmp_path, network(10))
    assert same_bits(loaded.predict_proba(raw), result.fitted.predict_proba(raw))
    by_hand = result.fitted.export()(torch.from_numpy(result.fitted.preparation.examples(raw, "float32")))
    assert result.fitted.predict_proba(raw) == pytest.approx(by_hand.softmax(1).detach().numpy(), abs=1e-6)
    # Of another size, as the first step resizes.
    assert len(result.fitted.predict(glyphs(5, 7, size=30).x)) == 5


def test_a_job_file_says_the_same_as_python(tmp_path: Path) -> None:
    toml = f"""
    rounds = 3
    preprocess = [{{ name = "Resize", size = 10 }}, "NormalizeImages"]

    [model]
    name = "Torch"
    module = "{FACTORY}"
    options = {{ size = 10 }}
    augment = ["RandomFlip", {{ name = "RandomCrop", padding = 2 }}, "RandomErasing"]

    [algorithm]
    name = "FedAvg"
    lr = 0.1
    local_epochs = 2
    batch_size = 16
    """
    (tmp_path / "job.toml").write_text(toml)
    job = fp.Job.from_toml(tmp_path / "job.toml")
    ran = fp.run(job, clients(), engine="in_process")
    model = fp.models.Torch(FACTORY, options={"size": 10}, augment=AUGMENT)
    made = train(model=model, preprocess=[fp.Resize(10), *STEPS])
    assert ran.job.digest == made.job.digest == complete(job).digest
    assert same_bits(outcome(ran), outcome(made))
    written = job_toml(made.job)
    assert '{ name = "RandomCrop", padding = 2 }' in written
    (tmp_path / "again.toml").write_text(written)
    assert complete(fp.Job.from_toml(tmp_path / "again.toml")).digest == made.job.digest


def test_the_report_says_how_images_were_prepared_and_augmented(tmp_path: Path) -> None:
    train(*AUGMENT, model=fp.models.Torch(FACTORY, augment=AUGMENT), folder=tmp_path)
    page = run_page(load_run(tmp_path), None)
    for name in ("NormalizeImages", "RandomCrop"):
        assert name in page


def test_workers_give_the_bits_of_one_process_with_augmentation() -> None:
    model = fp.models.Torch(FACTORY, augment=AUGMENT)
    alone = outcome(train(model=model))
    assert same_bits(outcome(train(model=model, engine="workers", workers=2)), alone)


def test_a_resumed_run_gives_the_bits_of_one_that_was_not_stopped(tmp_path: Path) -> None:
    whole = outcome(train(*AUGMENT))
    train(*AUGMENT, rounds=2, folder=tmp_path)
    assert same_bits(outcome(train(*AUGMENT, folder=tmp_path, resume=True)), whole)


def test_the_batched_engine_trains_one_client_after_the_other_and_says_why() -> None:
    engine = fp.Batched()
    assert same_bits(outcome(train(*AUGMENT, engine=engine)), outcome(train(*AUGMENT)))
    assert "not batched: images are augmented client by client" in engine.describe()


@cache
def accuracy_on_shifted(*augment: Any) -> float:
    result = train(*augment, clients=clients(shift=3), rounds=40)
    assert result.evaluation is not None
    return result.evaluation.metrics["accuracy"]


def test_shifts_in_training_make_shifted_test_images_known() -> None:
    # Found: 0.27 without and 0.74 with them.
    assert accuracy_on_shifted(fp.RandomCrop(3)) > accuracy_on_shifted() + 0.25


def test_normalised_images_are_learnt_in_rounds_in_which_bytes_between_0_and_1_are_not() -> None:
    found = {}
    for name, step in (("normalised", fp.NormalizeImages()), ("unit", fp.NormalizeImages(0.0, 1.0))):
        result = train(preprocess=[step])
        assert result.evaluation is not None
        found[name] = result.evaluation.metrics["accuracy"]
    assert found["normalised"] > 0.95
    assert found["unit"] < 0.6


def shifted(x: NDArray[Any], pixels: int, seed: int) -> NDArray[Any]:
    random = np.random.default_rng(seed)
    moved = [np.roll(image, random.integers(-pixels, pixels + 1, 2), (1, 2)) for image in x]
    return np.stack(moved)


@pytest.mark.skipif(
    not (DATA / "fashion_mnist_pfllib_dir_50clients").is_dir(), reason="FEDPACT_DATA holds no fashion_mnist"
)
def test_shifted_clothes_are_known_after_training_with_shifts() -> None:
    rows, random = fp.datasets.fashion_mnist().pooled(), np.random.default_rng(0)
    assert rows.test is not None
    train = rows.train.take(random.permutation(len(rows.train))[:2000])
    test = rows.test.take(random.permutation(len(rows.test))[:1000])
    moved = fp.Rows(shifted(test.x, 4, seed=1), test.y)
    places = [(np.arange(i, 2000, 4), np.arange(i, 1000, 4)) for i in range(4)]
    members = [fp.ClientData(f"client {i}", train.take(a), moved.take(b)) for i, (a, b) in enumerate(places)]
    found = []
    for augment in ((), (fp.RandomCrop(4),)):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
        result = fp.train(
            fp.models.Torch(module, augment=augment),
            members,
            preprocess=[fp.NormalizeImages()],
            algorithm=fp.FedAvg(lr=0.1, local_epochs=2, batch_size=25),
            rounds=10,
            engine="in_process",
            evaluate_every=0,
        )
        assert result.evaluation is not None
        found.append(result.evaluation.metrics["accuracy"])
    # Found: 0.42 and 0.66.
    assert found[1] > found[0] + 0.15
