"""FedDF: clients with models of their own send what these make of public rows, and the server teaches a student by it.

Lin et al., "Ensemble Distillation for Robust Model Fusion in Federated Learning", NeurIPS 2020, Algorithm 3: the
student learns the softmax of the mean logits (AVGLOGITS). That clients learn from public rows as well, so that they
gain from one another, is FedMD: Li and Wang, "FedMD: Heterogenous Federated Learning via Model Distillation", 2019.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedpact.algorithms import PARTS
from fedpact.algorithms.local_sgd import LocalSGD, Weighting
from fedpact.algorithms.optimizers import Adam, Optimizer
from fedpact.algorithms.public_set import PublicSet
from fedpact.core.algorithm import ClientState
from fedpact.core.errors import ConfigError, ModelError
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.model import Schema, TeachableModel
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.core.settings import check_choice, check_counts, check_numbers, check_part
from fedpact.core.vector import Entry, Layout, Vector

Lessons = Literal["student", "ensemble", "none"]
Floats = NDArray[np.float64]

_SCORES = "scores"


@dataclass(frozen=True)
class FedDFState:
    """The server's state.

    Args:
        round: the number of rounds done.
        model: the student.
        scores: the scores of the public rows [rows, classes] that clients are sent: the lesson, and what their answers
            are the difference from; None for zeros, before the first round.
        classes: how many classes there are.
        seed: the key of the stream that the student's batches are drawn from.
    """

    round: int
    model: Vector
    scores: Vector | None
    classes: int
    seed: bytes


@dataclass(frozen=True, kw_only=True)
class FedDF(LocalSGD):
    """Ensemble distillation: clients train models of their own, and the job's model learns from their mean logits.

    A client's model never leaves it, and may have any architecture; it is kept from round to round. A client answers
    with its scores of the public rows, logits less their mean over the classes, as one averaged vector
    [rows, classes]: what it sends is their difference from the scores that it was sent (kind "delta"), so that a
    channel can clip, quantise, noise and mask them as it does changes of models.

    The settings of local training are those of `LocalSGD`, but that all clients weigh the same by default.

    Args:
        public: the public rows, raw as clients' rows are: an array [n, ...], a table, or the path of a file of them
            (.csv, .tsv, .parquet, .npy). A job holds their SHA-256.
        models: client → its model, as `fp.train` takes models. A name may be a pattern, such as "ward-*": a client has
            the model of its own name, else that of the longest pattern that fits, else the job's.
        temperature: T of the softmax of scores; the loss of distillation is T²·KL(ensemble ‖ student).
        server_lr: the learning rate of distillation;
        server_steps: its steps a round;
        server_batch_size: public rows a step, None for all of them;
        server_optimizer: and how a step is taken; its state starts anew every round.
        lessons: from whose scores of the public rows clients learn before they train: those of the "student", of the
            "ensemble" (FedMD), or "none".
        lesson_epochs: passes over the public rows in a lesson, with the rate, batches and optimiser of local training.

    Raises:
        ConfigError: a setting is out of range, or the public set's file is not there.
    """

    weighting: Weighting = "uniform"
    public: Any = None
    models: Mapping[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    server_lr: float = 1e-3
    server_steps: int = 500
    server_batch_size: int | None = 128
    server_optimizer: Optimizer = field(default_factory=Adam)
    lessons: Lessons = "student"
    lesson_epochs: int = 1

    releases: ClassVar[Literal["averaged", "summed"]] = "averaged"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, "temperature", "server_lr", positive=True)
        check_counts(self, "server_steps", "lesson_epochs")
        check_counts(self, "server_batch_size", optional=True)
        check_part(self, "server_optimizer", Optimizer, PARTS)
        check_choice(self, "lessons", get_args(Lessons))
        if not isinstance(self.models, Mapping) or not all(isinstance(name, str) for name in self.models):
            raise ConfigError(
                f'FedDF: models is {self.models!r}; give a model for each client or pattern: {{"ward-*": model}}.'
            )
        object.__setattr__(self, "models", dict(self.models))
        if self.public is not None:
            object.__setattr__(self, "public", PublicSet.of(self.public))

    def prepared(self, examples: Callable[[Any], NDArray[Any]]) -> "FedDF":
        """Return this algorithm with its public rows as a model reads them (see `PublicSet.prepared`)."""
        return replace(self, public=self.public_set.prepared(examples))

    @property
    def public_set(self) -> PublicSet:
        """The public set.

        Raises:
            ConfigError: there is none.
        """
        if self.public is None:
            raise ConfigError("FedDF distils on public rows and has none: give them, FedDF(public=rows).")
        public: PublicSet = self.public
        return public

    def init(self, model: Any, seed: Seed) -> FedDFState:
        """Return the state before the first round.

        Raises:
            ModelError: the model is none that can be taught.
        """
        _check_teachable(model, "the student")
        return FedDFState(
            0, model.initial(seed), None, len(model.schema.classes), seed.child("distillation").key
        )

    def task(self, state: FedDFState) -> Task:
        """Ask the cohort to train and to score the public rows."""
        scores = state.scores
        if scores is None:
            scores = Vector.zeros(_layout(len(self.public_set.examples), state.classes))
        return Task(
            "train", version=state.round, arrays={_SCORES: scores}, kind="delta", weighting=self.weighting
        )

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Learn the lesson, train on the client's rows, and return the change of the scores of the public rows.

        Raises:
            ModelError: the client's model is none that can be taught.
        """
        own, sent, public = self.model_of(data.id, model), task.arrays[_SCORES], self.public_set.examples
        weights = _unpacked(kept["model"], own.layout) if kept else own.initial(seed.child("initial"))
        if self.lessons != "none" and task.version > 0:
            rows = Rows(public, self.soft_labels(sent))
            taught = own.taught(self.temperature)
            weights = self._lesson.local_training(
                taught, weights, rows, task.version, seed.child("lesson")
            ).model
        trained = self.local_training(own, weights, data.train, task.version, seed)
        weights = trained.model
        change = own.scores(weights, public) - sent[_SCORES]
        update = Update(
            client=data.id,
            version=task.version,
            kind="delta",
            weight=len(data.train) if self.weighting == "examples" else 1,
            averaged={_SCORES: Vector.from_arrays({_SCORES: change}, sent.layout)},
            metrics=trained.metrics,
        )
        return update, {"model": _packed(weights, self._room(model))}

    def server(self, model: Any, state: FedDFState, aggregate: Aggregate) -> FedDFState:
        """Teach the student the mean of the clients' scores."""
        sent, public = self.task(state).arrays[_SCORES], self.public_set.examples
        ensemble = sent.plus(aggregate.means[_SCORES])
        rows = Rows(public, self.soft_labels(ensemble))
        seed = Seed(state.seed).child("round", state.round)
        taught = model.taught(self.temperature)
        student = self._distillation.local_training(taught, state.model, rows, state.round, seed).model
        if self.lessons == "student":
            ensemble = Vector.from_arrays({_SCORES: model.scores(student, public)}, ensemble.layout)
        return replace(state, round=state.round + 1, model=student, scores=ensemble)

    def soft_labels(self, scores: Vector) -> Floats:
        """Return the class probabilities [rows, classes] that scores stand for at the temperature."""
        heated = scores[_SCORES] / np.float64(self.temperature)
        powers = np.exp(heated - heated.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def model_of(self, client: str, model: Any) -> Any:
        """Return a client's model.

        Args:
            client: its name.
            model: the job's, which gives the schema.

        Raises:
            ModelError: it is none that can be taught.
        """
        fitting = [name for name in self.models if fnmatchcase(client, name)]
        if client in self.models:
            fitting = [client]
        return (
            self._built(max(fitting, key=lambda name: (len(name), name)), model.schema) if fitting else model
        )

    @cached_property
    def _lesson(self) -> LocalSGD:
        settings = {each.name: getattr(self, each.name) for each in fields(LocalSGD)}
        # What is private are the client's rows, which a lesson does not read.
        return LocalSGD(**{**settings, "local_steps": None, "local_epochs": self.lesson_epochs, "dp": None})

    @cached_property
    def _distillation(self) -> LocalSGD:
        return LocalSGD(
            lr=self.server_lr,
            local_steps=self.server_steps,
            batch_size=self.server_batch_size,
            optimizer=self.server_optimizer,
        )

    @cached_property
    def _models(self) -> dict[tuple[str, Schema], Any]:
        """Clients' models, once they were built."""
        return {}

    def _built(self, name: str, schema: Schema) -> Any:
        if (name, schema) not in self._models:
            spec = self.models[name]
            if not hasattr(spec, "build"):
                raise ModelError(
                    f'FedDF: the model of "{name}" is a {type(spec).__name__}, which is no specification; give one of '
                    "fp.models, such as fp.models.Torch(module)."
                )
            model = spec.build(schema)
            _check_teachable(model, f'the model of "{name}"')
            self._models[name, schema] = model
        return self._models[name, schema]

    def _room(self, model: Any) -> int:
        """Return how many bytes the largest of all models takes."""
        models = [model, *(self._built(name, model.schema) for name in self.models)]
        return max(each.layout.nbytes for each in models)

    def __getstate__(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self)}


def _layout(rows: int, classes: int) -> Layout:
    return Layout([Entry(_SCORES, (rows, classes))])


def _check_teachable(model: Any, whose: str) -> None:
    schema = model.schema
    if schema.kind == "regression" or schema.positions:
        raise ModelError(
            "FedDF distils the class probabilities of rows; here there is "
            f"{'a label at every position of a row' if schema.positions else 'a number to predict'}. Use FedAvg."
        )
    if not isinstance(model, TeachableModel):
        raise ModelError(
            f"FedDF needs models that learn from class probabilities (Logistic, Softmax, torch modules), and {whose} "
            f"is a {type(model).__name__}; choose another."
        )


def _packed(weights: Vector, nbytes: int) -> Vector:
    """Return weights as so many bytes: all clients keep the same, whatever their models."""
    packed = Vector.zeros(Layout([Entry("bytes", (nbytes,), "uint8")]))
    packed["bytes"][: weights.buffer.nbytes] = weights.buffer
    return packed


def _unpacked(packed: Vector, layout: Layout) -> Vector:
    weights = Vector.zeros(layout)
    weights.buffer[:] = packed["bytes"][: layout.nbytes]
    return weights
