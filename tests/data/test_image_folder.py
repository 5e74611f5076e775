import sys
import types
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fedpact as fp
from fedpact.core.errors import ConfigError, DataError, DependencyError

Image = pytest.importorskip("PIL.Image")
WHOSE = 'Client "lyon"'
NOISE = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 10), np.uint8)


def written(path: Path, image: NDArray[Any], **options: Any) -> Path:
    """Write an image [channels, height, width], or [height, width]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.moveaxis(image, 0, -1) if image.ndim == 3 else image).save(path, **options)
    return path


def scans(folder: Path) -> Path:
    for number, image in enumerate(NOISE):
        written(folder / ("benign", "malign")[number % 2] / f"{number}.png", image)
    return folder


def read(folder: Path, **settings: Any) -> NDArray[np.uint8]:
    return fp.ImageFolder(folder, labels=None, **settings).arrays(WHOSE)[0]


def test_images_and_folders_give_the_client_of_the_arrays_given_directly(tmp_path: Path) -> None:
    order = [0, 2, 4, 1, 3, 5]
    labels = np.array(["benign"] * 3 + ["malign"] * 3)
    own = fp.client("lyon", fp.ImageFolder(scans(tmp_path)), test=1 / 3)
    given = fp.client("lyon", (NOISE[order], labels), test=1 / 3)
    for rows, others in ((own.train, given.train), (own.test, given.test)):
        assert rows is not None
        assert others is not None
        assert rows.x.dtype == np.uint8
        assert np.array_equal(rows.x, others.x)
        assert np.array_equal(rows.y, others.y)


@pytest.mark.parametrize("ending", ["png", "PNG", "bmp", "ppm", "tif", "tiff", "webp"])
def test_every_format_without_loss_gives_the_same_bytes(tmp_path: Path, ending: str) -> None:
    written(tmp_path / f"0.{ending}", NOISE[0], **({"lossless": True} if ending == "webp" else {}))
    assert np.array_equal(read(tmp_path), NOISE[:1])


def test_grey_is_that_of_pillow(tmp_path: Path) -> None:
    scans(tmp_path)
    # ITU-R 601-2, in sixteenths of a thousandth as Pillow computes it: (19595 R + 38470 G + 7471 B + 2^15) / 2^16.
    weights = np.array([19595, 38470, 7471])[:, None, None]
    grey = ((NOISE[[0, 2, 4, 1, 3, 5]].astype(np.int64) * weights).sum(1, keepdims=True) + 2**15) >> 16
    assert np.array_equal(read(tmp_path, mode="L"), grey)
    assert read(tmp_path, mode="L").shape == (6, 1, 8, 10)


def test_images_are_resized_as_they_are_read(tmp_path: Path) -> None:
    written(tmp_path / "0.png", np.kron(NOISE[0], np.ones((1, 2, 2), np.uint8)))
    written(tmp_path / "1.png", NOISE[1])
    images = read(tmp_path, size=(4, 5))
    assert images.shape == (2, 3, 4, 5)
    small = np.asarray(
        Image.fromarray(np.moveaxis(NOISE[1], 0, -1)).resize((5, 4), Image.Resampling.BILINEAR)
    )
    assert np.array_equal(images[1], np.moveaxis(small, -1, 0))


def test_an_image_that_becomes_smaller_is_averaged_over_all_its_pixels(tmp_path: Path) -> None:
    stripes = np.full((3, 80, 100), 255, np.uint8)
    stripes[:, ::2] = 0
    written(tmp_path / "0.png", stripes)
    # The nearest pixels alone would all be 0, or all 255; at the edges the stripes weigh 124 : 131.
    assert np.abs(read(tmp_path, size=(8, 10)).astype(int) - 127).max() <= 4


def test_images_of_several_sizes_need_one(tmp_path: Path) -> None:
    written(tmp_path / "0.png", NOISE[0])
    written(tmp_path / "1.png", NOISE[1][:, :, :9])
    with pytest.raises(
        DataError, match=r"0\.png is 8 × 10 pixels high and wide, and .*1\.png is 8 × 9; give size"
    ):
        read(tmp_path)


def test_a_photo_is_turned_as_its_camera_was_held(tmp_path: Path) -> None:
    exif = Image.Exif()
    # Orientation 6: to be turned by 90° clockwise.
    exif[0x0112] = 6
    written(tmp_path / "0.png", NOISE[0], exif=exif)
    assert np.array_equal(read(tmp_path)[0], np.rot90(NOISE[0], -1, axes=(1, 2)))


def test_sixteen_bits_of_grey_keep_the_upper_eight(tmp_path: Path) -> None:
    deep = NOISE[0][0].astype(np.uint16) * 256 + NOISE[1][0]
    for ending in ("png", "tif"):
        written(tmp_path / ending / f"0.{ending}", deep)
        assert np.array_equal(read(tmp_path / ending, mode="L")[0], NOISE[0][:1])
        assert np.array_equal(read(tmp_path / ending)[0], NOISE[0][[0, 0, 0]])


def test_palettes_become_colours_and_what_is_transparent_black(tmp_path: Path) -> None:
    palette = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    (tmp_path / "palette").mkdir()
    palette.save(tmp_path / "palette" / "0.png")
    colours = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]])
    assert np.array_equal(read(tmp_path / "palette")[0], np.moveaxis(colours[[[0, 1], [2, 1]]], -1, 0))
    palette.save(tmp_path / "palette" / "0.png", transparency=1)
    assert np.array_equal(read(tmp_path / "palette")[0, :, :, 1], np.zeros((3, 2)))
    for alpha, share in ((0, 0), (255, 1)):
        clear = np.concatenate([NOISE[0], np.full((1, 8, 10), alpha, np.uint8)])
        written(tmp_path / "alpha" / "0.png", clear)
        assert np.array_equal(read(tmp_path / "alpha")[0], NOISE[0] * share)


def test_a_table_of_labels_says_which_images_are_read_in_its_order(tmp_path: Path) -> None:
    scans(tmp_path)
    (tmp_path / "labels.csv").write_text("file,label,ward\nmalign/5.png,1,a\nbenign/0.png,0,b\n")
    images, labels = fp.ImageFolder(tmp_path, labels="labels.csv").arrays(WHOSE)
    assert np.array_equal(images, NOISE[[5, 0]])
    assert labels is not None
    assert labels.tolist() == [1, 0]


def test_a_table_of_labels_may_name_links(tmp_path: Path) -> None:
    written(tmp_path / "disk" / "0.png", NOISE[0])
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "moved").symlink_to(tmp_path / "disk", target_is_directory=True)
    (tmp_path / "scans" / "labels.csv").write_text("file,label\nmoved/0.png,1\n")
    images, _ = fp.ImageFolder(tmp_path / "scans", labels="labels.csv").arrays(WHOSE)
    assert np.array_equal(images, NOISE[:1])


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("name,label\n0.png,1\n", 'has no column "file"'),
        ("file,label\n0.png,1\n1.png,\n", r"1 label\(s\) are missing in .*row 2"),
        ("file,label\n,1\n", "names no file in row 1"),
        ("file,label\n../other/0.png,1\n", "outside of its folder in row 1"),
        ("file,label\nbenign/7.png,1\n", r"there is no file .*7\.png"),
        ("file,label\n", "has no rows"),
    ],
)
def test_a_table_of_labels_that_is_not_as_it_should_be_is_refused(
    tmp_path: Path, table: str, said: str
) -> None:
    (scans(tmp_path) / "labels.csv").write_text(table)
    with pytest.raises(DataError, match=f'^Client "lyon".*{said}'):
        fp.client("lyon", fp.ImageFolder(tmp_path, labels="labels.csv"))


def test_files_that_are_no_images_are_left_out_by_name(tmp_path: Path) -> None:
    scans(tmp_path)
    (tmp_path / "benign" / "notes.txt").write_text("two of these are blurred")
    (tmp_path / "benign" / "._0.png").write_bytes(b"what a file system keeps beside a file")
    assert len(read(tmp_path)) == 6


def head_of_png(width: int, height: int) -> bytes:
    """The beginning of an image of so many pixels."""
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
    checked = b"\0\0\0\x0d" + header + zlib.crc32(header).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + checked + b"\0\0\0\x10IDAT"


@pytest.mark.parametrize("pixels", [10_000, 14_000])
def test_an_image_that_would_fill_the_memory_is_refused(tmp_path: Path, pixels: int) -> None:
    (tmp_path / "0.png").write_bytes(head_of_png(pixels, pixels))
    with pytest.raises(DataError, match=r'^Client "lyon": .*0\.png has more than 89,478,485 pixels'):
        read(tmp_path)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    scans(tmp_path)
    whole = (tmp_path / "benign" / "4.png").read_bytes()
    for content in (b"", b"no image", whole[:-90], whole[:40], whole[:60] + b"\0" * 40 + whole[100:]):
        (tmp_path / "benign" / "4.png").write_bytes(content)
        with pytest.raises(DataError, match=r'^Client "lyon": .*4\.png cannot be read as an image'):
            read(tmp_path)


def test_several_pictures_and_pixels_of_32_bits_are_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.moveaxis(image, 0, -1)) for image in NOISE[:2]]
    pages[0].save(tmp_path / "0.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match=r"0\.tif holds several pictures"):
        read(tmp_path)
    for dtype in (np.float32, np.int32):
        written(tmp_path / "0.tif", NOISE[0][0].astype(dtype))
        with pytest.raises(DataError, match=r"0\.tif has pixels of 32 bits"):
            read(tmp_path)


def test_what_cannot_be_read_is_said_of_the_client(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'^Client "lyon": there is no folder .*scans'):
        fp.client("lyon", fp.ImageFolder(tmp_path / "scans"))
    with pytest.raises(DataError, match=r'^Client "lyon" has no rows: there are no images in '):
        fp.client("lyon", fp.ImageFolder(tmp_path))
    written(tmp_path / "0.png", NOISE[0])
    with pytest.raises(DataError, match=r'^Client "lyon": .*0\.png lies in no folder of a class'):
        fp.client("lyon", fp.ImageFolder(tmp_path))
    with pytest.raises(ConfigError, match="label='ward' is for a table"):
        fp.client("lyon", fp.ImageFolder(tmp_path, labels=None), "ward")


@pytest.mark.parametrize("size", [(0, 4), (4,), 4, (4.0, 4), (True, 4), "4x4"])
def test_a_size_that_cannot_be_is_refused(size: Any) -> None:
    with pytest.raises(ConfigError, match="it must be \\(height, width\\) in pixels"):
        fp.ImageFolder("scans", size)


def test_a_mode_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="mode"):
        fp.ImageFolder("scans", mode="CMYK")  # type: ignore[arg-type]


def network() -> Any:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(16, 2),
    )


def test_two_clients_folders_train_a_small_network_from_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    factory = types.ModuleType("networks_of_this_test")
    factory.network = network  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, factory.__name__, factory)
    random = np.random.default_rng(1)
    for town in ("lyon", "nice"):
        for number in range(24):
            image = random.integers(0, 120, (3, 20, 16), np.uint8)
            # A bright spot, in the upper half of what is malign and in the lower of what is benign.
            image[:, slice(2, 8) if number % 2 else slice(12, 18), 4:12] += 130
            written(tmp_path / town / ("benign", "malign")[number % 2] / f"{number:02d}.png", image)
    folder = {
        town: {"name": "ImageFolder", "folder": str(tmp_path / town), "size": [10, 8]}
        for town in ("lyon", "nice")
    }
    job = fp.Job.of(
        {
            "model": {"name": "Torch", "module": "networks_of_this_test:network", "loss": "cross_entropy"},
            "algorithm": {
                "name": "FedAvg",
                "lr": 0.05,
                "batch_size": 6,
                "local_epochs": 2,
                "optimizer": "Adam",
            },
            "preprocess": [{"name": "NormalizeImages"}],
            "rounds": 5,
            "data": {"clients": folder, "test": 0.25},
        }
    )
    result = fp.run(job, progress=False, engine="in_process")
    assert result.evaluation.metrics["accuracy"] >= 0.9


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DependencyError, match=r'ImageFolder needs Pillow: pip install "fedpact\[images\]"'):
        fp.ImageFolder("scans")
