"""Fitting: the algorithm that makes a pipeline of a job's steps for images."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from fedpact.core.algorithm import ClientState
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.data.preprocess.estimate import Estimate, Estimating
from fedpact.data.preprocess.fit import Fitting
from fedpact.data.preprocess.image_pipeline import ImagePipeline
from fedpact.data.preprocess.image_steps import ImageStep, Shape
from fedpact.data.wording import at_client


@dataclass(frozen=True)
class FitImages:
    """Fit each step to images that the steps before it have prepared.

    A step takes one round, or none where nothing has to be found out. A task carries the steps fitted so far, so
    clients bring their raw images to it and keep nothing in between. The pipeline depends on the training images
    alone, to the last bit, not on how they are spread over clients.

    Args:
        steps: the steps.
        shape: the shape of one image; where the first step resizes, that of one behind it.
    """

    steps: tuple[ImageStep, ...]
    shape: Shape

    releases: ClassVar[Literal["averaged", "summed"]] = "summed"

    def init(self, model: Any, seed: Seed) -> Fitting:
        """Return the state before the first round.

        Raises:
            ConfigError: a step does not fit the images.
        """
        stream = seed.child("preprocess").key.hex()
        return self._on(0, ImagePipeline(self.shape), None, stream)

    def task(self, state: Fitting) -> Task | None:
        """Return what clients are asked next, or None once every step is fitted."""
        pipeline = self.fitted(state)
        if len(pipeline.steps) == len(self.steps):
            return None
        task = self._estimate(pipeline).task(state.estimating)
        return task and replace(
            task, version=state.round, parameters={**task.parameters, "images": state.pipeline}
        )

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return what the server has to know of one client's training images.

        Raises:
            DataError: an image cannot be prepared; the client is named.
        """
        pipeline = ImagePipeline.from_json(task.parameters["images"])
        with at_client(data.id):
            prepared = ClientData(data.id, Rows(pipeline.transform(data.train.x)))
        return self._estimate(pipeline).client(model, task, prepared, kept, seed)

    def server(self, model: Any, state: Fitting, aggregate: Aggregate) -> Fitting:
        """Return the state with what this round told.

        Raises:
            DataError: no client has an image.
            ConfigError: a step does not fit the images.
        """
        pipeline = self.fitted(state)
        estimating = self._estimate(pipeline).server(model, state.estimating, aggregate)
        return self._on(state.round + 1, pipeline, estimating, state.stream)

    def fitted(self, state: Fitting) -> ImagePipeline:
        """Return the pipeline, once there is no task left."""
        return ImagePipeline.from_json(state.pipeline or {})

    def _on(self, round: int, pipeline: ImagePipeline, estimating: Estimating | None, stream: str) -> Fitting:
        """Return the state once each step that has no task left has given way to the next."""
        while len(pipeline.steps) < len(self.steps):
            place = len(pipeline.steps)
            estimate = self._estimate(pipeline)
            if estimating is None:
                estimating = estimate.init(None, Seed(bytes.fromhex(stream)).child("step", place))
            if estimate.task(estimating) is not None:
                break
            step = self.steps[place].fitted(pipeline.shape_out, estimate.fitted(estimating))
            pipeline, estimating = ImagePipeline(pipeline.shape, (*pipeline.steps, step)), None
        return Fitting(round, pipeline.to_json(), estimating or Estimating(), stream)

    def _estimate(self, pipeline: ImagePipeline) -> Estimate:
        return self.steps[len(pipeline.steps)].estimate(pipeline.shape_out)
