"""Preparing: what clients agree on, what steps are fitted to, and how many rows of each class they train on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fedpact.channel.channel import Channel
from fedpact.channel.mask import Mask
from fedpact.core.errors import ConfigError
from fedpact.core.seeds import Seed
from fedpact.data.agree import Agreement, AgreeOnRows
from fedpact.data.preprocess.by_chunk import ByChunk
from fedpact.data.preprocess.class_counts import ClassCounts
from fedpact.data.preprocess.fit import FitPipeline
from fedpact.data.preprocess.image_fit import FitImages
from fedpact.data.preprocess.image_resize import size_first
from fedpact.data.preprocess.image_steps import are_image_steps, check_images
from fedpact.data.preprocess.resample import Resampler, resampling_apart
from fedpact.engine.masked_sums import hide_sums
from fedpact.engine.population import Population, stand_in
from fedpact.engine.preparation import Preparation
from fedpact.engine.rounds import hold_to_end
from fedpact.engine.work import Engine, Rules, Setting
from fedpact.learn.class_weight import counts_classes


def prepare(
    model: Any,
    steps: Sequence[Any],
    population: Population,
    engine: Engine,
    rules: Rules,
    seed: Seed,
    failures: Mapping[str, str] | None = None,
    weighed: bool | None = None,
    mask: Mask | None = None,
) -> Preparation:
    """Agree on labels and columns, and fit each step on what the steps before it make of the training rows.

    A population that describes itself is taken at its word: its clients are asked for what steps are fitted on alone.

    Args:
        model: the model's specification, for the kind of label it is made for.
        steps: the specifications of the steps.
        population: the clients with their raw rows.
        engine: who runs the clients.
        rules: how many must answer.
        seed: the job's.
        failures: client → why it had no part in what came before.
        weighed: whether clients have to count their training rows of each class; None for whether the model needs it.
        mask: what hides each client's part of the sums; None for nothing.

    Raises:
        DataError: a client's rows cannot be used, or clients do not agree; each is named.
        ConfigError: a step does not fit the columns.
    """
    weighed = counts_classes(model) if weighed is None else weighed
    fitting, resampling = resampling_apart(steps)
    of_images = are_image_steps(fitting)
    clients = _Clients(population, stand_in(population), engine, rules, seed, dict(failures or {}), mask)
    agreement = clients.agree(AgreeOnRows(getattr(model, "kind", None), size_first(fitting)))
    for step in resampling:
        # The shape of a table's examples is known once it is prepared, and is that of a row.
        step.check(agreement.labels, agreement.shape or (0,))
    fit = _fitted_to_images if of_images else _fitted_to_rows
    preparation = fit(clients, fitting, agreement)
    counts: tuple[int, ...] = ()
    if resampling:
        if any(step.counts_classes for step in resampling):
            counts = clients.class_counts(preparation)
        stream = seed.child("resampling").key.hex()
        preparation = replace(preparation, resampler=Resampler(resampling, stream, counts))
    if weighed and agreement.labels.kind != "regression":
        # A class weighs by the rows that are trained on.
        counts = clients.class_counts(preparation)
    notes = agreement.lacking() if resampling or getattr(model, "class_weight", None) else {}
    return replace(preparation, failures=clients.failures, class_counts=counts, notes=notes)


@dataclass(frozen=True)
class _Clients:
    """Clients that are asked one thing after the other, and who failed at it."""

    population: Population
    one_for_all: Population | None
    engine: Engine
    rules: Rules
    seed: Seed
    failures: dict[str, str]
    mask: Mask | None

    def fitted(self, algorithm: Any) -> Any:
        """Return what an algorithm finds out about all clients' rows."""
        hidden = None if self.mask is None else partial(hide_sums, self.mask)
        setting = self._setting(algorithm, self.population, self.rules)
        return algorithm.fitted(hold_to_end(self.engine, setting, self.failures, hidden))

    def agree(self, algorithm: Any) -> Any:
        """Return what an algorithm finds out that any client answers alike, from one that stands for all if it can."""
        if self.one_for_all is None:
            return self.fitted(algorithm)
        # It is a quorum, and being nobody has nothing to hide.
        setting = self._setting(algorithm, self.one_for_all, replace(self.rules, quorum=1))
        return algorithm.fitted(hold_to_end(self.engine, setting, self.failures))

    def class_counts(self, preparation: Preparation) -> tuple[int, ...]:
        """Return how many rows of each class all clients train on."""
        counting = ClassCounts(len(preparation.labels.classes), preparation.training_classes)
        # A client resamples all its rows together.
        counts: tuple[int, ...] = self.fitted(counting if preparation.resampler else ByChunk(counting))
        return counts

    def _setting(self, algorithm: Any, population: Population, rules: Rules) -> Setting:
        stream = self.seed.child(type(algorithm).__name__)
        return Setting(algorithm, None, population, Channel((), algorithm), rules, stream)


def _fitted_to_images(clients: _Clients, steps: Sequence[Any], agreement: Agreement) -> Preparation:
    fitting = FitImages(tuple(steps), check_images(steps, agreement.shape))
    images = clients.fitted(fitting)
    return Preparation(agreement.labels, images.shape_out, None, images=images)


def _fitted_to_rows(clients: _Clients, steps: Sequence[Any], agreement: Agreement) -> Preparation:
    if agreement.shape is not None and not steps:
        return Preparation(agreement.labels, agreement.shape, None)
    if agreement.shape is not None and len(agreement.shape) != 1:
        raise ConfigError(
            f"preprocess prepares tables, but these examples are arrays of shape {agreement.shape}; "
            "leave preprocess out."
        )
    fitting = FitPipeline(tuple(steps), agreement.labels, hidden=clients.mask is not None)
    pipeline = clients.fitted(fitting) if steps else clients.agree(fitting)
    return Preparation(agreement.labels, (len(pipeline.feature_names_out),), pipeline)
