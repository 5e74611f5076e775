"""`fedpact privacy`: how much noise a privacy guarantee takes, or which guarantee some noise gives."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from fedpact.cli.common import AsJson, Output, grid, one_of

if TYPE_CHECKING:
    from fedpact.privacy.solve import Plan


class Scheme(StrEnum):
    """Who takes part in a round."""

    poisson = "poisson"
    fixed = "fixed"
    all = "all"


class Unit(StrEnum):
    """What is protected."""

    client = "client"
    record = "record"


class Relation(StrEnum):
    """What is compared: with and without one unit, or with another in its place."""

    add_or_remove = "add_or_remove"
    replace_one = "replace_one"


class Accountant(StrEnum):
    """How the cost is added up."""

    auto = "auto"
    closed_form = "closed_form"
    pld = "pld"
    rdp = "rdp"


_SCHEMES = {
    Scheme.poisson: "each {unit} by a coin of its own, {rate:.4g} a {step}",
    Scheme.fixed: "{cohort:,} drawn from {clients:,} without replacement",
    Scheme.all: "every {unit} in every {step}; no amplification",
}
_ACCOUNTANTS = {
    "closed_form": "closed form (exact)",
    "pld": "privacy loss distributions",
    "rdp": "Rényi divergences",
}
_RELATIONS = {
    Relation.add_or_remove: "one {unit} is added or removed",
    Relation.replace_one: "one {unit} is replaced by another",
}


def privacy(
    clients: Annotated[
        int,
        typer.Option(
            "--clients", "--records", help="Clients to draw from, or records of one.", show_default=False
        ),
    ],
    cohort: Annotated[
        int | None,
        typer.Option("--cohort", "--batch", help="Units in a round, on average.", show_default=False),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option("--rounds", "--steps", help="How often something is released.", show_default=False),
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(help="Noise multiplier: on the sum, in clip norms.", show_default=False),
    ] = None,
    noise_ratio: Annotated[
        float | None,
        typer.Option(help="Noise on the mean, in clip norms, instead of --noise.", show_default=False),
    ] = None,
    epsilon: Annotated[float | None, typer.Option(help="ε.", show_default=False)] = None,
    delta: Annotated[
        float | None, typer.Option(help="δ; clients^-1.1 where it is left out too.", show_default=False)
    ] = None,
    sampling: Annotated[
        Scheme, typer.Option(parser=one_of(Scheme), metavar="SCHEME", help=f"One of {', '.join(Scheme)}.")
    ] = Scheme.poisson,
    unit: Annotated[
        Unit,
        typer.Option(parser=one_of(Unit), metavar="UNIT", help=f"What is protected: {' or '.join(Unit)}."),
    ] = Unit.client,
    relation: Annotated[
        Relation,
        typer.Option(
            parser=one_of(Relation), metavar="RELATION", help=f"Neighbouring: {' or '.join(Relation)}."
        ),
    ] = Relation.add_or_remove,
    accountant: Annotated[
        Accountant,
        typer.Option(parser=one_of(Accountant), metavar="NAME", help=f"One of {', '.join(Accountant)}."),
    ] = Accountant.auto,
    as_json: AsJson = False,
) -> None:
    """Solve for what is left out: the noise, ε, δ, the rounds or the cohort of a private training."""
    from fedpact.privacy.solve import solve

    plan = solve(
        clients=clients,
        cohort=cohort,
        rounds=rounds,
        noise_multiplier=noise,
        noise_ratio=noise_ratio,
        epsilon=epsilon,
        delta=delta,
        sampling=str(sampling),
        relation=str(relation),
        accountant=str(accountant),
    )
    given = {
        "noise multiplier": noise if noise is not None else noise_ratio,
        "epsilon": epsilon,
        "delta": delta,
        "rounds": rounds,
        "cohort": clients if sampling is Scheme.all else cohort,
    }
    found = [name for name, value in given.items() if value is None]
    marks = dict.fromkeys(found, "solved for") | ({"delta": "clients^-1.1"} if len(found) > 1 else {})
    output = Output(as_json)
    if as_json:
        solved = next(name for name, mark in marks.items() if mark == "solved for")
        output.result({**plan.to_json(), "unit": unit, "solved_for": solved})
        return
    table = grid(["", "", ""], [[*row, marks.get(row[0], "")] for row in _rows(plan, unit)], (0, 1, 2))
    table.show_header = False
    other = next(each for each in Relation if each is not relation)
    output.show(table, "", *plan.guarantee.notes, *_under(plan, other, unit))


def _rows(plan: "Plan", unit: Unit) -> list[list[str]]:
    guarantee = plan.guarantee
    words = {
        "unit": unit,
        "step": "step" if unit is Unit.record else "round",
        "rate": plan.cohort / plan.clients,
        "cohort": plan.cohort,
        "clients": plan.clients,
    }
    return [
        ["epsilon", f"{guarantee.epsilon:.5g}"],
        ["delta", f"{guarantee.delta:.5g}"],
        ["noise multiplier", f"{plan.noise_multiplier:.5g}"],
        ["noise on the mean", f"{plan.noise_ratio:.4g} clip norms"],
        ["rounds", f"{plan.rounds:,}"],
        ["cohort", f"{plan.cohort:,} of {plan.clients:,}"],
        ["sampling", _SCHEMES[Scheme(plan.sampling)].format(**words)],
        ["neighbours", _RELATIONS[Relation(guarantee.relation)].format(unit=unit)],
        ["accountant", _ACCOUNTANTS[guarantee.accountant]],
    ]


def _under(plan: "Plan", relation: Relation, unit: Unit) -> list[str]:
    """Say what the same plan costs under the other neighbouring relation, where that is known."""
    from fedpact.core.errors import ConfigError
    from fedpact.privacy.accounting import account

    try:
        other = account(plan.releases(), plan.guarantee.delta, str(relation))
    except ConfigError:
        return []
    words = _RELATIONS[relation].format(unit=unit)
    return [f"Where {words}, epsilon is {other.epsilon:.5g} at the same delta."]
