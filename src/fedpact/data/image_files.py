"""The pixels of an image file, as Pillow reads it."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import DataError, DependencyError
from fedpact.data.wording import missing_file

if TYPE_CHECKING:
    from PIL import Image

Mode: TypeAlias = Literal["RGB", "L"]

# What Pillow raises for files that are not what they should be, one format or another.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    struct.error,
    zlib.error,
)


def check_pillow() -> None:
    """Make sure that images can be read.

    Raises:
        DependencyError: Pillow is not installed.
    """
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise DependencyError('ImageFolder needs Pillow: pip install "fedpact[images]".') from None


def pixels(whose: str, path: Path, mode: Mode, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Return an image [channels, height, width], turned upright.

    Args:
        whose: in whose name errors speak.
        path: the file.
        mode: "RGB" for three channels, "L" for one.
        size: (height, width) to bring it to; None for its own.

    Raises:
        DataError: no such file, one that is no image or broken, of several pictures or pixels of 32 bits, or so
            large that it may be meant to fill the memory.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                _check(whose, path, opened)
                image = _of_bytes(ImageOps.exif_transpose(opened), mode)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise DataError(
            f"{whose}: {path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels, as a file made to fill the memory has. "
            "Make it smaller, or set PIL.Image.MAX_IMAGE_PIXELS if you know it."
        ) from None
    except FileNotFoundError:
        raise DataError(f"{whose}: {missing_file(path)}") from None
    except _BROKEN as error:
        raise DataError(f"{whose}: {path} cannot be read as an image; replace it or leave it out.") from error
    if size is not None and image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return array[None] if mode == "L" else np.moveaxis(array, -1, 0)


def _check(whose: str, path: Path, image: Image.Image) -> None:
    # A camera's MPO is a photo, and the same again for other uses.
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise DataError(f"{whose}: {path} holds several pictures; save each in a file of its own.")
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        raise DataError(f"{whose}: {path} has pixels of 32 bits; save it with 8 or 16.")


def _of_bytes(image: Image.Image, mode: Mode) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I"):
        # Of 16 bits, for which Pillow's own conversion keeps the lower ones.
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)).convert(mode)
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", coloured.size, (0, 0, 0, 255)), coloured).convert(mode)
    return image.convert(mode)
