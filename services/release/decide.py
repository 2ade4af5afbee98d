"""When a held cluster goes back by itself (CG-30, CG-31, BX-3, BX-15; design §6): one pure function.

Several things can end a cluster; the earliest counts. *Leaving* (by the policy), *idling* (by real use) and the
end of a *schedule* can be put off by an extension. The *hard maximum* of the terms and a *budget* that is used
up cannot be put off by anything.

*Seen* means that a person's page is open. Two witnesses report it, the proxy and the nodes, and both must
agree, so the earlier of the two counts (:func:`both_saw`). ``auto`` watches the cluster's own pages and waits
the grace; ``2h`` … ``7d`` watch whether the person is on the platform at all; ``manual`` watches nothing.
``auto-when-done`` is ``auto`` that waits besides until nothing runs any more: a node says so itself, and one
that says nothing for long runs nothing.

Signing out is leaving at once, and holds until the person signed in again: a page that was forgotten open
somewhere does not count after it. Nothing is released while the person was seen within the wait. A policy
whose name is not known is an error, and whoever gets it keeps the cluster: nobody loses work because of a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from services.release.terms import WITNESS_LAG_SECONDS, Terms

#: A node tells each half a minute while something runs on it; one that missed three rounds runs nothing.
BUSY_TOLD_SECONDS = 100
#: Use that nobody measured for so long says nothing of the present.
MEASURED_SECONDS = 180


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a held cluster at one moment.

    Attributes
    ----------
    held_since
        When it was ready; who never opened it is taken as seen then.
    last_seen
        On this cluster's pages, by both witnesses.
    person_last_seen
        Anywhere on the platform: any of the person's clusters, or a page of the portal.
    signed_out_at
        When the person last signed out, unless they were on a page of the portal or signed in after it.
    extended_until
        Leaving and idling do not count before this moment.
    warned_at
        When the person was last warned.
    busy_at
        When a node last said that something runs there, if that was its last word.
    ran_at
        When a node last said so, also where it has said since that nothing runs any more.
    batch_at
        As ``busy_at``, of a command that needs nobody: while it runs nothing idles.
    used_at
        When the cluster was last used above the threshold; ``None`` = never since it was ready.
    measured_at
        When use was last measured.
    scheduled_until
        When the schedule that started it gives it back.
    budget_seconds
        How long the person's budget lasts at the present rate; ``None`` = there is none.
    """

    held_since: datetime
    last_seen: datetime | None = None
    person_last_seen: datetime | None = None
    signed_out_at: datetime | None = None
    extended_until: datetime | None = None
    warned_at: datetime | None = None
    busy_at: datetime | None = None
    ran_at: datetime | None = None
    batch_at: datetime | None = None
    used_at: datetime | None = None
    measured_at: datetime | None = None
    scheduled_until: datetime | None = None
    budget_seconds: float | None = None


@dataclass(frozen=True)
class Keep:
    """Hold it; as things are it goes back at ``until`` for ``why`` (``None`` = not by itself)."""

    until: datetime | None
    why: str = ""


@dataclass(frozen=True)
class Warn:
    """Hold it, and tell the person now that it goes back at ``until``.

    ``offer_when_done``: something still runs there, and the policy would not wait for it.
    """

    until: datetime
    why: str
    offer_when_done: bool = False


@dataclass(frozen=True)
class Release:
    """Give it back: ``left``, ``signed_out``, ``done``, ``idle``, ``schedule``, ``most`` or ``budget``."""

    reason: str


Decision = Keep | Warn | Release


def both_saw(proxy_seen_at: datetime | None, node_seen_at: datetime | None) -> datetime | None:
    """When both witnesses agree that a person was there; ``None`` while one of them never saw anybody."""
    if proxy_seen_at is None or node_seen_at is None:
        return None
    return min(proxy_seen_at, node_seen_at)


def still(at: datetime | None, now: datetime) -> bool:
    """Whether a node that said at ``at`` that something runs is still to be believed."""
    return at is not None and now - at < timedelta(seconds=BUSY_TOLD_SECONDS)


def there_at(terms: Terms, facts: Facts) -> datetime:
    """When the person was last there, as this policy understands it."""
    seen = [facts.held_since, facts.last_seen]
    if not terms.automatic:
        seen.append(facts.person_last_seen)
    last = max(moment for moment in seen if moment is not None)
    out = facts.signed_out_at
    if out is None or out < facts.held_since:
        return last
    # Until then the person was on the platform, whatever page it was.
    return min(last, out) if terms.automatic else out


def decide(terms: Terms, facts: Facts, now: datetime) -> Decision:
    """Whether a held cluster goes back now, is warned of it, or is kept.

    Parameters
    ----------
    terms
        As they were frozen when the run was admitted.
    facts
        What is known now.
    now
        UTC.

    Raises
    ------
    ValueError
        For a policy whose name is not known.
    """
    found = [_leaving(terms, facts, now), _idling(terms, facts, now)]
    if facts.scheduled_until is not None:
        found.append((facts.scheduled_until, "schedule", terms.warn_seconds))
    ends = [end for end in found if end is not None]
    soft = min(ends) if ends else None
    if soft is not None and facts.extended_until is not None and facts.extended_until > soft[0]:
        soft = (facts.extended_until, soft[1], soft[2])
        if facts.scheduled_until == facts.extended_until:
            # Held until then by its schedule, whoever is there: that is what ends it, and what is warned of.
            soft = (facts.extended_until, "schedule", terms.warn_seconds)
    hard: list[tuple[datetime, str, int]] = []
    if terms.bound_seconds is not None:
        hard.append((facts.held_since + timedelta(seconds=terms.bound_seconds), "most", terms.warn_seconds))
    if facts.budget_seconds is not None:
        hard.append((now + timedelta(seconds=facts.budget_seconds), "budget", terms.warn_seconds))
    ends = [*([soft] if soft else []), *hard]
    if not ends:
        return Keep(None)
    until, why, warn_seconds = min(ends)
    if now >= until:
        return Release(why)
    due = until - timedelta(seconds=warn_seconds)
    # An end that moved a little (a budget is an estimate) is the one that was warned of.
    told = facts.warned_at is not None and facts.warned_at >= due - timedelta(seconds=warn_seconds / 2)
    if now < due or told or warn_seconds <= 0:
        return Keep(until, why)
    runs = still(facts.busy_at, now)
    return Warn(until, why, offer_when_done=runs and terms.policy == "auto" and why in ("left", "signed_out"))


def _leaving(terms: Terms, facts: Facts, now: datetime) -> tuple[datetime, str, int] | None:
    """When it goes back for having been left, why, and how long before that is said."""
    wait = terms.wait_seconds
    if wait is None:
        return None
    last = there_at(terms, facts)
    # Not so early that somebody is warned who is there, whose presence is known with a lag.
    warn = min(terms.warn_seconds, wait // 2, max(0, wait - 2 * WITNESS_LAG_SECONDS))
    at, why = last + timedelta(seconds=wait), "left"
    out = facts.signed_out_at
    if terms.automatic and out is not None and out >= facts.held_since:
        at, why, warn = min(at, out), "signed_out", 0
    if terms.policy == "auto-when-done":
        if still(facts.busy_at, now):
            return None
        if facts.ran_at is not None and facts.ran_at >= at:
            # Work ended after the person had left: at once, with a message and no warning.
            at, why, warn = facts.ran_at, "done", 0
    return at, why, warn


def _idling(terms: Terms, facts: Facts, now: datetime) -> tuple[datetime, str, int] | None:
    """When it goes back for not being used, by what was measured from outside."""
    if terms.idle_seconds is None or facts.measured_at is None:
        return None
    if now - facts.measured_at > timedelta(seconds=MEASURED_SECONDS) or still(facts.batch_at, now):
        return None
    since = max(facts.held_since, facts.used_at or facts.held_since, facts.batch_at or facts.held_since)
    at = since + timedelta(seconds=terms.idle_seconds)
    warn = min(terms.warn_seconds, terms.idle_seconds // 2)
    # A command that ran for hours without using anything has just ended: nobody was warned of this end.
    warned = facts.warned_at
    of_this = warned is not None and warned >= at - timedelta(seconds=warn * 1.5)
    told_at = warned if of_this and warned is not None else now
    return max(at, told_at + timedelta(seconds=warn)), "idle", warn
