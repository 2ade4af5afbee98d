"""When a held cluster goes back by itself (CG-30, CG-31; design §6): one pure function.

*Seen* means that a person's page is open. Two witnesses report it, the proxy and the nodes, and both must
agree, so the earlier of the two counts (:func:`both_saw`). Policies differ in what they watch and how long
they wait: ``auto`` watches the cluster's own pages and waits the site's grace; ``2h`` … ``7d`` watch whether
the person is on the platform at all, on any cluster; ``manual`` watches nothing and never ends by itself.
Signing out is leaving at once, unless the person was seen again after it.

Nothing is released while the person was seen within the wait. A policy whose name is not known is an error,
and whoever gets it keeps the cluster: nobody loses work because of a word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

#: Presence reaches our rows in rounds of half a minute from each witness; a shorter wait would release
#: people who are there.
WITNESS_LAG_SECONDS = 75

_AFTER = re.compile(r"([1-9]\d{0,3})([hd])", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A release policy.

    Attributes
    ----------
    name
        As it is frozen into the run.
    watches
        ``page`` = the cluster's own pages, ``platform`` = the person anywhere, ``nothing`` = manual.
    wait_seconds
        How long after leaving.
    """

    name: str
    watches: Literal["page", "platform", "nothing"]
    wait_seconds: int = 0


def policy_named(name: str, *, grace_seconds: int) -> Policy:
    """The policy of this name.

    Parameters
    ----------
    name
        ``auto``, ``manual``, or hours or days such as ``2h`` and ``7d``.
    grace_seconds
        The site's grace of ``auto``; at least :data:`WITNESS_LAG_SECONDS` are waited.

    Raises
    ------
    ValueError
        For any other name.
    """
    if name == "manual":
        return Policy(name=name, watches="nothing")
    if name == "auto":
        return Policy(name=name, watches="page", wait_seconds=max(grace_seconds, WITNESS_LAG_SECONDS))
    found = _AFTER.fullmatch(name)
    if found is None:
        raise ValueError(f"no such release policy: {name!r}")
    hours = int(found[1]) * (24 if found[2] == "d" else 1)
    return Policy(name=name, watches="platform", wait_seconds=hours * 3600)


@dataclass(frozen=True)
class Keep:
    """Hold it; look again at ``until`` at the latest (``None`` = it never ends by itself)."""

    until: datetime | None


@dataclass(frozen=True)
class Release:
    """Give it back; ``reason`` is ``left`` or ``signed_out``."""

    reason: str


def both_saw(proxy_seen_at: datetime | None, node_seen_at: datetime | None) -> datetime | None:
    """When both witnesses agree that a person was there; ``None`` while one of them never saw anybody."""
    if proxy_seen_at is None or node_seen_at is None:
        return None
    return min(proxy_seen_at, node_seen_at)


def decide(
    policy: Policy,
    now: datetime,
    *,
    held_since: datetime,
    last_seen: datetime | None = None,
    person_last_seen: datetime | None = None,
    signed_out_at: datetime | None = None,
    extended_until: datetime | None = None,
) -> Keep | Release:
    """Whether a held cluster goes back now.

    Parameters
    ----------
    policy
        As it was when the run started.
    now
        UTC.
    held_since
        When the cluster was ready; who never opened it is taken as seen then.
    last_seen
        On this cluster's pages, by both witnesses.
    person_last_seen
        Anywhere on the platform.
    signed_out_at
        When the person last signed out.
    extended_until
        Not before this moment, whatever the policy says.
    """
    if policy.watches == "nothing":
        return Keep(None)
    seen = [held_since, last_seen]
    if policy.watches == "platform":
        seen.append(person_last_seen)
    there_at = max(moment for moment in seen if moment is not None)
    release_at, reason = there_at + timedelta(seconds=policy.wait_seconds), "left"
    if signed_out_at is not None and signed_out_at > there_at:
        if policy.watches == "page":
            release_at, reason = signed_out_at, "signed_out"
        else:
            # Until then the person was on the platform, whatever page it was.
            release_at = signed_out_at + timedelta(seconds=policy.wait_seconds)
    if extended_until is not None:
        release_at = max(release_at, extended_until)
    return Release(reason) if now >= release_at else Keep(release_at)
