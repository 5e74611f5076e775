"""Rows of a folder of images: each file a row, its folder the label."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DataError
from fedpact.core.settings import check_choice
from fedpact.data.folders import class_of, files_in
from fedpact.data.image_files import Mode, check_pillow, pixels
from fedpact.data.tables import read_table, rows_of

_IMAGES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder: `fp.client("lyon", fp.ImageFolder("scans", size=(64, 64)))`.

    Examples are bytes, uint8 [n, channels, height, width]: `fp.NormalizeImages` makes numbers of them for a model.
    Labels are the names of folders, as of torchvision's ImageFolder: "benign" of scans/benign/2024/17.png; or those of
    a table. Rows are in order of their paths, on every system, or in that of the table. Files of other names than .jpg,
    .jpeg, .png, .ppm, .bmp, .pgm, .tif, .tiff and .webp are no images, names that begin with a dot are left out, and
    links are followed.

    A photo is turned as its camera says it was held. Of 16 bits for grey the upper 8 are kept, palettes become colours,
    and what is transparent black.

    Args:
        folder: where the images are, at any depth.
        size: (height, width) to bring each image to as it is read (bilinear, averaged where it becomes smaller), so
            that large photos need no more memory than the result; None where all are of one size.
        mode: "RGB" for three channels, or "L" for one of grey.
        labels: "folder" for the names of folders; the name of a table in the folder with the columns "file", a path
            in it, and "label", such as "labels.csv", by which no other images are read; or None where there are none.

    Raises:
        ConfigError: a setting that cannot be.
        DependencyError: Pillow is not installed.
    """

    folder: str | os.PathLike[str]
    size: tuple[int, int] | None = None
    mode: Mode = "RGB"
    labels: str | None = "folder"

    def __post_init__(self) -> None:
        check_pillow()
        check_choice(self, "mode", get_args(Mode))
        if self.size is not None:
            object.__setattr__(self, "size", _checked(self.size))

    def arrays(self, whose: str) -> tuple[NDArray[np.uint8], NDArray[Any] | None]:
        """Return the images [n, channels, height, width] and their labels [n], None where they have none.

        Raises:
            DataError: no such folder or file, no images, one that cannot be read or lies in no folder of a class,
                images of several sizes, or a table that is not as it should be.
        """
        files, labels = self._found(whose)
        folder = Path(self.folder)
        first = pixels(whose, folder / files[0], self.mode, self.size)
        images = np.empty((len(files), *first.shape), np.uint8)
        images[0] = first
        for place, file in enumerate(files[1:], 1):
            image = pixels(whose, folder / file, self.mode, self.size)
            if image.shape != first.shape:
                one, other = (f"{each.shape[1]} × {each.shape[2]}" for each in (first, image))
                raise DataError(
                    f"{whose}: {folder / files[0]} is {one} pixels high and wide, and {folder / file} is {other}; give "
                    "size=(height, width) to bring all images to one."
                )
            images[place] = image
        return images, labels

    def _found(self, whose: str) -> tuple[list[str], NDArray[Any] | None]:
        folder = Path(self.folder)
        if self.labels not in ("folder", None):
            return self._listed(whose, folder / str(self.labels))
        files = files_in(whose, folder, lambda name: name.lower().endswith(_IMAGES), "images")
        return files, None if self.labels is None else np.array(
            [class_of(whose, folder, file) for file in files]
        )

    def _listed(self, whose: str, path: Path) -> tuple[list[str], NDArray[Any]]:
        table = read_table(whose, path, text=("file",))
        rows = rows_of(f"{whose}, {path}", table, "label", columns=("file",), text=("file",))
        if not len(rows) or rows.y is None:
            raise DataError(f"{whose} has no rows: {path} lists no images.")
        files = rows.x["file"]
        if files.isna().any():
            raise DataError(
                f"{whose}: {path} names no file in row {int(np.argmax(files.isna())) + 1}; name it."
            )
        # By name, as links in it are followed.
        root = os.path.abspath(self.folder)
        for row, file in enumerate(files, 1):
            if os.path.commonpath([root, os.path.abspath(os.path.join(root, file))]) != root:
                raise DataError(
                    f"{whose}: {path} names a file outside of its folder in row {row}; move it there."
                )
        return list(files), rows.y


def _checked(size: Any) -> tuple[int, int]:
    if isinstance(size, (tuple, list)) and len(size) == 2:
        height, width = size
        if all(
            isinstance(each, int | np.integer) and not isinstance(each, bool) and each >= 1 for each in size
        ):
            return int(height), int(width)
    raise ConfigError(f"ImageFolder: size is {size!r}; it must be (height, width) in pixels, 1 or more.")
