"""The matrix of limits and what changing it would do: pure, for the page and the API (CG-28, TI-12).

Changes are gathered first. :func:`gather` makes them from what was typed, :func:`effect_of` says whom they
touch: how many people have one of the roles, and how many of them stand at the limit that is changed.
Running clusters never lose anything by a change; only what is asked for afterwards is measured by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from extensions.quota.measures import BUDGETS, RESOURCES, TOGETHER, UNITS, Measure
from galilean.errors import UserError, mark
from services.portal.measures_said import (
    AT_A_TIME,
    IN_ONE,
    OTHERWISE,
    amount_said,
    name_of,
)
from services.portal.said import Said, say
from spawner.records import Run

#: Limits of each role; a narrowed measure or a budget that is missing is no limit.
Matrix = Mapping[str, Mapping[Measure, int | None]]


@dataclass(frozen=True, kw_only=True)
class RoleHead:
    """A column: a role and how many people have it."""

    name: str
    title: str
    people: int


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One amount of one role."""

    role: str
    measure: Measure
    amount: int | None

    @property
    def said(self) -> Said:
        return amount_said(self.measure, self.amount)

    @property
    def flag(self) -> bool:
        """Whether a press changes it: yes or no."""
        return UNITS[self.measure.resource] == "flag"

    @property
    def pale(self) -> bool:
        """Whether nothing is bounded or given here."""
        return not self.amount if self.flag else self.amount is None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A measure with the amounts of all roles."""

    measure: Measure
    name: Said
    cells: tuple[Cell, ...]

    @property
    def key(self) -> str:
        return str(self.measure)

    @property
    def narrow(self) -> bool:
        return self.measure.narrowed


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows below one heading."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One amount that is to be another one."""

    role: str
    measure: Measure
    before: int | None
    after: int | None


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What changes would do.

    Attributes
    ----------
    people
        How many have one of the roles.
    at_limit
        For each role how many of its people hold all that the present limit allows; only roles with any.
    """

    people: int
    at_limit: Mapping[str, int] = field(default_factory=dict)


def amount_in(limits: Mapping[Measure, int | None], measure: Measure) -> int | None:
    """What a role says of a measure; ``None`` = no limit.

    Where nothing is said of a plain measure, the product's
    own small and safe amount holds.
    """
    if measure in limits:
        return limits[measure]
    return None if measure.narrowed else RESOURCES[measure.resource].default


def generous(matrix: Matrix, roles: Iterable[str], measure: Measure) -> int | None:
    """The most generous of several roles; 0 without any."""
    amounts = [amount_in(matrix[role], measure) for role in roles if role in matrix]
    if not amounts:
        return 0
    return None if None in amounts else max(amount for amount in amounts if amount is not None)


def groups_of(
    matrix: Matrix,
    roles: Sequence[str],
    *,
    more: Iterable[Measure] = (),
    pools: Mapping[str, str] | None = None,
    models: Mapping[str, str] | None = None,
) -> tuple[Group, ...]:
    """The rows of the page: those that always stand there, those of which something is said, and ``more``."""
    present = {measure for limits in matrix.values() for measure in limits} | set(more)

    def rows(resources: Sequence[str], *, always: bool = True) -> tuple[Row, ...]:
        found = {measure for measure in present if measure.resource in resources}
        if always:
            found |= {Measure(resource) for resource in resources}
        return tuple(
            Row(
                measure=measure,
                name=name_of(measure, pools=pools, models=models),
                cells=tuple(
                    Cell(role=role, measure=measure, amount=amount_in(matrix.get(role, {}), measure))
                    for role in roles
                ),
            )
            for measure in sorted(found)
        )

    groups = (
        Group(title=mark("At a time"), rows=rows(AT_A_TIME)),
        Group(title=mark("In one cluster"), rows=rows(IN_ONE)),
        Group(title=mark("Over time"), rows=rows(BUDGETS, always=False)),
        Group(title=mark("All people of the role together"), rows=rows(TOGETHER, always=False)),
        Group(title=mark("Otherwise"), rows=rows(OTHERWISE)),
    )
    return tuple(group for group in groups if group.rows)


def gather(matrix: Matrix, wanted: Iterable[tuple[str, Measure, int | None]]) -> tuple[Change, ...]:
    """Changes among wishes: what is so already is none; of two wishes for one amount the later counts.

    Raises
    ------
    UserError
        404 for a role that does not exist.
    """
    asked: dict[tuple[str, Measure], int | None] = {}
    for role, measure, amount in wanted:
        if role not in matrix:
            raise UserError(404, mark("There is no role “{role}”."), role=role[:64])
        asked[(role, measure)] = amount
    found = (
        Change(role=role, measure=measure, before=amount_in(matrix[role], measure), after=after)
        for (role, measure), after in asked.items()
    )
    return tuple(change for change in found if change.before != change.after)


def held_of(runs: Iterable[Run], measure: Measure) -> int:
    """What open clusters of one person come to in a measure; 0 for what is not held at a time."""
    runs = [
        run for run in runs if measure.pool in ("", run.pool) and measure.gpu_model in ("", run.gpu_model)
    ]
    resource = measure.resource
    if resource == "clusters":
        return len(runs)
    columns = {"cpu": "cpu_millicores", "memory": "memory_bytes", "gpu": "gpu", "storage": "storage_bytes"}
    if resource == "nodes":
        return max((run.nodes for run in runs), default=0)
    if resource in columns:
        return max((int(getattr(run, columns[resource])) for run in runs), default=0)
    column = columns.get(resource.removeprefix("total_"))
    if column is None or not resource.startswith("total_"):
        return 0
    return sum(int(run.together(column)) for run in runs)


def effect_of(
    changes: Sequence[Change], people_of: Mapping[str, frozenset[str]], runs: Iterable[Run]
) -> Effect:
    """Whom changes touch.

    Parameters
    ----------
    changes
        All of them.
    people_of
        Names of the people of each role.
    runs
        All open clusters.
    """
    by_user: dict[str, list[Run]] = {}
    for run in runs:
        by_user.setdefault(run.user, []).append(run)
    touched: set[str] = set()
    at_limit: dict[str, set[str]] = {}
    for change in changes:
        people = people_of.get(change.role, frozenset())
        touched |= people
        if not change.before:
            continue  # without a limit, or with nothing allowed, nobody stands at it
        for user in people & by_user.keys():
            if held_of(by_user[user], change.measure) >= change.before:
                at_limit.setdefault(change.role, set()).add(user)
    return Effect(people=len(touched), at_limit={role: len(users) for role, users in at_limit.items()})


def change_said(change: Change, role_title: str, names: Mapping[Measure, Said]) -> Said:
    """``Student, cores``: which amount of which role."""
    return say(mark("{role}, {measure}"), role=role_title, measure=names[change.measure])
