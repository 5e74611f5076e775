"""The pipeline of images: what makes a client's raw images into what a model reads.

It is part of the model: saved in the model's file, and applied to every image that is ever predicted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from numpy.typing import NDArray

from fedpact.core.errors import DataError, ModelError
from fedpact.data.preprocess.image_resize import FittedResize
from fedpact.data.preprocess.image_steps import FittedImageStep, Shape, as_images

# The names that fitted steps go by in a model's file, and where each is.
_FITTED = {
    "NormalizeImages": "image_normalize:FittedNormalizeImages",
    "Resize": "image_resize:FittedResize",
}


@dataclass(frozen=True)
class ImagePipeline:
    """Fitted steps in order.

    Args:
        shape: the shape of one image that it takes; of any height and width where the first step resizes.
        steps: the steps.
    """

    shape: Shape
    steps: tuple[FittedImageStep, ...] = ()

    @property
    def shape_out(self) -> Shape:
        """The shape of one image behind the last step."""
        shape = self.shape
        for step in self.steps:
            shape = step.shape_out(shape)
        return shape

    def transform(self, x: Any) -> NDArray[Any]:
        """Return the prepared images [n, *shape_out].

        Raises:
            DataError: they are no images, or of another shape.
        """
        images = as_images(x)
        shape, resizes = images.shape[1:], bool(self.steps) and isinstance(self.steps[0], FittedResize)
        same = shape[:-2] == self.shape[:-2] and len(shape) >= 2 if resizes else shape == self.shape
        if not same or 0 in shape:
            wanted = (*map(str, self.shape[:-2]), "height", "width") if resizes else map(str, self.shape)
            raise DataError(
                f"the images have shape {list(shape)}; the model is made for [{', '.join(wanted)}]."
            )
        for step in self.steps:
            images = step.transform(images)
        return images

    def to_json(self) -> dict[str, Any]:
        """Return the pipeline as plain data."""
        steps = [
            {"name": type(step).__name__.removeprefix("Fitted"), **step.to_json()} for step in self.steps
        ]
        return {"shape": list(self.shape), "steps": steps}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ImagePipeline":
        """Return the pipeline that `to_json` wrote down.

        Raises:
            ModelError: these are no such data, or a step that this version does not know.
        """
        try:
            steps = tuple(_kind_of(step["name"]).from_json(step) for step in data["steps"])
            return cls(tuple(data["shape"]), steps)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the model's preparation of images cannot be read: {error!r}.") from error


def _kind_of(name: str) -> Any:
    """Return the class of the fitted step of this name."""
    if name not in _FITTED:
        raise ModelError(
            f'this version of Fedpact knows no step "{name}" that prepares images; it knows {", ".join(_FITTED)}.'
        )
    module, _, kind = _FITTED[name].partition(":")
    return getattr(import_module(f"fedpact.data.preprocess.{module}"), kind)
