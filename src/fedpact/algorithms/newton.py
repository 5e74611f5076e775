"""Newton's method over clients: each sends the gradient and Hessian of its rows, and their sums are the pooled ones.

For linear, logistic and softmax regression the sums over clients equal those over all rows, so every iterate is
the pooled one: Newton–Raphson (iteratively reweighted least squares), as in Wu et al., "Grid Binary LOgistic
REgression (GLORE): building shared models without sharing data", JAMIA 2012.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fedpact.core.algorithm import ClientState
from fedpact.core.errors import ConfigError, ModelError
from fedpact.core.messages import Aggregate, Everyone, Task, Update
from fedpact.core.model import HessianModel
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.core.settings import check_numbers
from fedpact.core.vector import Vector

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class NewtonState:
    """The server's state.

    Args:
        round: the number of rounds done.
        model: the best point judged so far, or the one to start from; where it converged, one last step from it.
        trial: the point that the next round is asked to judge.
        objective: that of the best point judged; infinite before the first round.
        rows: the number of rows that it was judged on.
        step: the full Newton step from it.
        damping: the part of the step that `trial` takes.
        converged: whether the step became smaller than the tolerance.
    """

    round: int
    model: Vector
    trial: Vector
    objective: float
    rows: int
    step: Vector
    damping: float
    converged: bool


@dataclass(frozen=True, kw_only=True)
class Newton:
    """Newton steps with step halving; needs a model with a Hessian (Linear, Logistic, Softmax).

    Args:
        tolerance: done when no weight moves by more than this, relative to |weight| + 1/√(its curvature), the
            unit in which its column measures it.
    """

    tolerance: float = 1e-9

    releases: ClassVar[Literal["averaged", "summed"]] = "summed"

    def __post_init__(self) -> None:
        check_numbers(self, "tolerance", positive=True)

    def init(self, model: Any, seed: Seed) -> NewtonState:
        """Return the state before the first round.

        Raises:
            ModelError: the model gives no Hessian.
            ConfigError: its loss is not convex.
        """
        if not isinstance(model, HessianModel):
            raise ModelError(
                f"Newton needs a model with a Hessian (Linear, Logistic, Softmax); {type(model).__name__} has none."
            )
        if reason := model.not_convex():
            raise ConfigError(
                f"Newton needs a loss that is convex, and {reason}; use an algorithm that follows gradients, such as "
                "FedAvg, or the model's own loss."
            )
        start = model.initial(seed)
        return NewtonState(0, start, start, float("inf"), 0, Vector.zeros(start.layout), 1.0, False)

    def task(self, state: NewtonState) -> Task | None:
        """Ask every client for the loss, gradient and Hessian at the point of the trial."""
        if state.converged:
            return None
        return Task(
            "newton", version=state.round, arrays={"model": state.trial}, kind="statistics", to=Everyone()
        )

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return the sums over the client's rows."""
        loss, gradient, hessian = model.curvature(task.arrays["model"], data.train)
        # A Hessian is symmetric: half of it says it all.
        upper = hessian[np.triu_indices(len(gradient))]
        update = Update(
            client=data.id,
            version=task.version,
            kind="statistics",
            summed={
                "loss": np.array(loss),
                "gradient": gradient,
                "hessian": upper,
                "rows": np.array(len(data.train)),
            },
            metrics={"loss": loss, "rows": len(data.train)},
        )
        return update, kept

    def server(self, model: Any, state: NewtonState, aggregate: Aggregate) -> NewtonState:
        """Take the Newton step, or half of the last one where it went too far."""
        rows = int(aggregate.sum("rows"))
        weights = state.trial.flats[0]
        penalty = model.l2 * model.penalised()
        objective = float(aggregate.sum("loss")) / rows + 0.5 * float(penalty @ np.square(weights))
        # Rounding alone may raise the objective by a few units in the last place near the optimum.
        slack = 1e-12 * max(1.0, abs(objective))
        worse = not objective <= state.objective + slack
        # When clients fail or come back, objectives are of other rows and say nothing about the step.
        if worse and rows == state.rows and state.damping > _LEAST_DAMPING:
            damping = state.damping / 2
            trial = _stepped(state.model, state.step, damping)
            return replace(state, round=state.round + 1, trial=trial, damping=damping)
        gradient = aggregate.sum("gradient") / rows + penalty * weights
        hessian = np.zeros((weights.size, weights.size))
        hessian[np.triu_indices(weights.size)] = aggregate.sum("hessian") / rows
        hessian += np.triu(hessian, 1).T
        hessian[np.diag_indices(weights.size)] += penalty
        step = Vector.zeros(state.trial.layout)
        unit = _units(hessian)
        step.flats[0][:] = _newton_step(hessian, gradient, unit)
        converged = bool(np.all(np.abs(step.flats[0]) <= self.tolerance * (np.abs(weights) + unit)))
        trial = _stepped(state.trial, step, 1.0)
        model = trial if converged else state.trial
        return NewtonState(state.round + 1, model, trial, objective, rows, step, 1.0, converged)


# A step of less than a millionth that still does not help means that rounding has the last word.
_LEAST_DAMPING = 1e-6

# Of a Hessian in its own units, what rounding leaves of an eigenvalue of 0.
_SINGULAR = 1e-13


def _units(hessian: Floats) -> Floats:
    curvature = np.diag(hessian)
    return 1 / np.sqrt(np.where(curvature > 0, curvature, 1.0))


def _newton_step(hessian: Floats, gradient: Floats, unit: Floats) -> Floats:
    """Return −H⁺·g: where the Hessian is singular, as softmax intercepts make it, the shortest of the steps."""
    # In units in which its diagonal is 1, whether it is singular does not depend on those of the columns.
    values, vectors = np.linalg.eigh(unit[:, None] * hessian * unit)
    kept = values > _SINGULAR * values[-1]
    along = vectors[:, kept].T @ (unit * gradient) / values[kept]
    step = -unit * (vectors[:, kept] @ along)
    flat, _ = np.linalg.qr(unit[:, None] * vectors[:, ~kept])
    return step - flat @ (flat.T @ step)


def _stepped(point: Vector, step: Vector, damping: float) -> Vector:
    stepped = point.copy()
    stepped.flats[0][:] += damping * step.flats[0]
    return stepped
