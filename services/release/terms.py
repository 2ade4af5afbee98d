"""On which terms a run holds its cluster (CG-30): frozen into the row when it is admitted.

What an administrator decides later does not change what somebody was promised; the one thing that may change
is the policy itself, by its owner, from *automatic* to *automatic when done*. A row from before there were
terms has none: it goes by the name of its policy and the site's grace.

Names of policies: ``auto``, ``auto-when-done``, ``manual``, and hours or days after leaving, ``2h`` … ``7d``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any

#: Presence reaches our rows in rounds of half a minute from each witness; a shorter wait would release
#: people who are there.
WITNESS_LAG_SECONDS = 75
#: A warning comes ten minutes before, or half of the wait before where that is shorter.
WARN_SECONDS = 600
#: Of an unattended run whose role has no hard maximum: it ends some time, whatever it says of itself.
WHEN_DONE_MOST_SECONDS = 7 * 86400
#: How far ahead one may extend where nothing longer is offered.
EXTEND_LEAST_SECONDS = 3600

_AFTER = re.compile(r"([1-9]\d{0,3})([hd])", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What holds for one run.

    Attributes
    ----------
    policy
        Its name.
    grace_seconds
        How long after its pages were left, for the automatic policies.
    most_seconds
        Hard maximum since it was ready; ``None`` = none.
    idle_seconds, idle_percent
        It goes back when its use stayed below so many percent of what it booked for so long; ``None`` = never
        for that.
    extend_seconds
        How far ahead an extension may reach.
    warn_seconds
        How long before an end the person is warned, at most.
    """

    policy: str
    grace_seconds: int = 300
    most_seconds: int | None = None
    idle_seconds: int | None = None
    idle_percent: int = 5
    extend_seconds: int = 2 * 3600
    warn_seconds: int = WARN_SECONDS

    @property
    def automatic(self) -> bool:
        """Whether the cluster's own pages are watched."""
        return self.policy in ("auto", "auto-when-done")

    @property
    def wait_seconds(self) -> int | None:
        """How long after leaving it goes back; ``None`` = not by itself.

        Raises
        ------
        ValueError
            For a policy whose name is not known.
        """
        return wait_seconds(self.policy, grace_seconds=self.grace_seconds)

    @property
    def bound_seconds(self) -> int | None:
        """The hard maximum that really holds: an unattended run always has one."""
        if self.policy == "auto-when-done":
            return self.most_seconds or WHEN_DONE_MOST_SECONDS
        return self.most_seconds

    def to_json(self) -> dict[str, Any]:
        """As ``clusters.release_terms`` keeps it."""
        return asdict(self)

    def unattended(self, *, held_seconds: int = 0) -> Terms:
        """The same terms for a run that goes on without its person from now, ``held_seconds`` after it was ready.

        However long it was held before, it has as long from now on; a hard maximum stays what it is.
        """
        bound = held_seconds + WHEN_DONE_MOST_SECONDS
        return replace(self, policy="auto-when-done", most_seconds=min(self.most_seconds or bound, bound))


_FIELDS = frozenset(field.name for field in fields(Terms))


def from_json(kept: Mapping[str, Any] | None, *, policy: str, grace_seconds: int) -> Terms:
    """The terms of a row; where it has none, those of its policy's name.

    Parameters
    ----------
    kept
        ``clusters.release_terms``. Keys that are not known (of a later version) are left out.
    policy, grace_seconds
        Of a row without terms: the name in it, and the site's grace.
    """
    if not kept:
        return Terms(policy=policy, grace_seconds=grace_seconds)
    return Terms(**{"policy": policy, **{key: value for key, value in kept.items() if key in _FIELDS}})


def wait_seconds(policy: str, *, grace_seconds: int) -> int | None:
    """How long after leaving a cluster of this policy goes back; ``None`` = not by itself.

    Parameters
    ----------
    policy
        A name.
    grace_seconds
        Of the automatic policies; at least :data:`WITNESS_LAG_SECONDS` are waited.

    Raises
    ------
    ValueError
        For a name that is not known.
    """
    if policy == "manual":
        return None
    if policy in ("auto", "auto-when-done"):
        return max(grace_seconds, WITNESS_LAG_SECONDS)
    found = _AFTER.fullmatch(policy)
    if found is None:
        raise ValueError(f"no such release policy: {policy!r}")
    return int(found[1]) * (24 if found[2] == "d" else 1) * 3600


def allowed_until(
    terms: Terms, *, held_since: datetime, now: datetime, budget_seconds: float | None = None
) -> tuple[datetime, str]:
    """How far an extension may reach now, and what bounds it.

    Returns
    -------
    The moment, and ``most`` (the hard maximum), ``budget`` or ``extend`` (the longest wait offered).
    """
    ends = [(now + timedelta(seconds=terms.extend_seconds), "extend")]
    if terms.bound_seconds is not None:
        ends.append((held_since + timedelta(seconds=terms.bound_seconds), "most"))
    if budget_seconds is not None:
        ends.append((now + timedelta(seconds=budget_seconds), "budget"))
    return min(ends)
