"""Fitting: the algorithm that makes a pipeline of a job's preprocessing steps."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal

from fedpact.core.algorithm import ClientState
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.data.agree import Labels, labels_of
from fedpact.data.chunked import ChunkedRows
from fedpact.data.preprocess.by_chunk import ByChunk, check_steps
from fedpact.data.preprocess.estimate import Estimate, Estimating
from fedpact.data.preprocess.pipeline import Pipeline
from fedpact.data.preprocess.schema import FitSchema
from fedpact.data.preprocess.steps import LabelledStep, RawStep, Step
from fedpact.data.summary.frequent import AllCategories
from fedpact.data.wording import at_client


@dataclass(frozen=True)
class Fitting:
    """The state of a pipeline that is being fitted.

    Args:
        round: the number of rounds done.
        pipeline: the columns agreed on and the steps fitted so far, as plain data; None at first.
        estimating: the state of the estimate for the step after these.
        stream: the key of the random stream that steps draw from, in hexadecimal.
        naming: the state in which categories are found from sums, that clients would name else; None outside of it.
    """

    round: int = 0
    pipeline: Mapping[str, Any] | None = None
    estimating: Estimating = field(default_factory=Estimating)
    stream: str = ""
    naming: Estimating | None = None


@dataclass(frozen=True)
class FitPipeline:
    """Agree on the columns, then fit each step to tables that the steps before it have prepared.

    The columns take one round; a step takes none for constants and declared categories, one for means,
    deviations and categories, two for most frequent values and for categories that are counted, eight for medians
    and other quantiles, about thirteen for powers. A task carries the steps fitted so far, so clients bring their
    raw rows to it and keep nothing in between.

    The pipeline depends on the training rows alone, to the last bit, not on how they are spread over clients,
    nor on the clients' names or order; but for a step that says otherwise, because it draws a random part of them.

    Args:
        steps: the steps.
        labels: what the labels are, for steps that are fitted to them; None where there are none.
        hidden: whether sums are masked: then categories are found from sums too, in two rounds or more instead of one,
            and no client names its own.
    """

    steps: tuple[Step, ...]
    labels: Labels | None = None
    hidden: bool = False

    releases: ClassVar[Literal["averaged", "summed"]] = "summed"

    def init(self, model: Any, seed: Seed) -> Fitting:
        """Return the state before the first round."""
        return Fitting(stream=seed.child("preprocess").key.hex())

    def task(self, state: Fitting) -> Task | None:
        """Return what clients are asked next, or None once every step is fitted."""
        if state.pipeline is None:
            return self._schema.task(state.estimating)
        pipeline = Pipeline.from_json(state.pipeline)
        if len(pipeline.steps) == len(self.steps):
            return None
        estimate = self._estimate(pipeline)
        task = estimate.task(state.estimating)
        if task is not None and (naming := self._naming(estimate, task)):
            task = naming.task(state.naming or Estimating())
            task = task and replace(task, parameters={**task.parameters, "naming": True})
        return task and replace(
            task, version=state.round, parameters={**task.parameters, "pipeline": state.pipeline}
        )

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return what the server has to know of one client's training rows.

        Raises:
            DataError: a column cannot be prepared; the client is named.
            ConfigError: the rows are no table; or they are read in chunks, and a step needs all of them at once.
        """
        in_chunks = isinstance(data.train, ChunkedRows)
        if in_chunks:
            check_steps(self.steps)
        if "pipeline" not in task.parameters:
            return self._schema.client(model, task, data, kept, seed)
        pipeline = Pipeline.from_json(task.parameters["pipeline"])
        estimate, prepare = self._estimate(pipeline), partial(self._prepared, pipeline, data.id)
        if task.parameters.get("naming"):
            estimate = AllCategories(_named(estimate))
        if in_chunks:
            return ByChunk(estimate, prepare).client(model, task, data, kept, seed)
        return estimate.client(model, task, ClientData(data.id, prepare(data.train)), kept, seed)

    def server(self, model: Any, state: Fitting, aggregate: Aggregate) -> Fitting:
        """Return the state with what this round told.

        Raises:
            DataError: clients' columns disagree, a column has no value at any client, or at the end one is
                left that no model can read.
            ConfigError: a step does not fit the columns.
            QuorumError: other rows answered than in the round before.
        """
        if state.pipeline is None:
            schema = self._schema
            pipeline = Pipeline(schema.fitted(schema.server(model, state.estimating, aggregate)))
            estimating = self._begin(pipeline, state)
        else:
            pipeline = Pipeline.from_json(state.pipeline)
            estimate, estimating = self._estimate(pipeline), state.estimating
            if naming := self._naming(estimate, estimate.task(estimating)):
                known = naming.server(model, state.naming or Estimating(), aggregate)
                if naming.task(known) is not None:
                    return replace(state, round=state.round + 1, naming=known)
                # As if one client had all rows, and named their categories.
                aggregate = replace(aggregate, sums={}, answers={"all clients": naming.found(known)})
            estimating = estimate.server(model, estimating, aggregate)
        # A step with no task left gives way to the next, which may have none at all.
        while len(pipeline.steps) < len(self.steps) and self._estimate(pipeline).task(estimating) is None:
            found = self._estimate(pipeline).fitted(estimating)
            step = self.steps[len(pipeline.steps)].fitted(pipeline.columns_out, found)
            pipeline = Pipeline(pipeline.columns, (*pipeline.steps, step))
            estimating = self._begin(pipeline, state)
        if len(pipeline.steps) == len(self.steps):
            pipeline.check_numeric()
        return Fitting(state.round + 1, pipeline.to_json(), estimating, state.stream)

    def fitted(self, state: Fitting) -> Pipeline:
        """Return the pipeline, once there is no task left."""
        return Pipeline.from_json(state.pipeline or {})

    def told(self, pipeline: Pipeline) -> tuple[str, ...]:
        """Return what the server saw of each client besides its part of sums, in phrases.

        Args:
            pipeline: what came out.
        """
        phrases = ["the names and kinds of each client's columns"]
        for place in range(len(self.steps)):
            estimate = self._estimate(Pipeline(pipeline.columns, pipeline.steps[:place]))
            if self.hidden and _named(estimate):
                phrases.append("the categories that there are, and how many rows have each")
            else:
                phrases += getattr(estimate, "told", ())
        return tuple(dict.fromkeys(phrases))

    @property
    def _schema(self) -> FitSchema:
        raw = (name for step in self.steps if isinstance(step, RawStep) for name in step.raw_columns())
        return FitSchema(tuple(raw))

    def _begin(self, pipeline: Pipeline, state: Fitting) -> Estimating:
        place = len(pipeline.steps)
        if place == len(self.steps):
            return Estimating()
        return self._estimate(pipeline).init(None, Seed(bytes.fromhex(state.stream)).child("step", place))

    def _naming(self, estimate: Estimate, task: Task | None) -> AllCategories | None:
        """Return what finds the categories from sums that a task would collect, where sums are hidden."""
        collecting = self.hidden and task is not None and task.answers == "collect"
        return AllCategories(_named(estimate)) if collecting and _named(estimate) else None

    def _prepared(self, pipeline: Pipeline, id: str, rows: Rows) -> Rows:
        with at_client(id):
            x, places = pipeline.selected(rows.x, training_of=id)
            y = None
            if self.labels is not None and isinstance(self.steps[len(pipeline.steps)], LabelledStep):
                y = self.labels.encode(labels_of(rows))[places]
            return Rows(x, y)

    def _estimate(self, pipeline: Pipeline) -> Estimate:
        step = self.steps[len(pipeline.steps)]
        if self.labels is not None and isinstance(step, LabelledStep):
            return step.labelled_estimate(pipeline.columns_out, self.labels)
        return step.estimate(pipeline.columns_out)


def _named(estimate: Estimate) -> tuple[str, ...]:
    names: tuple[str, ...] = getattr(estimate, "named", ())
    return names
