"""When a held cluster goes back, as its person is told (BX-4): one pure answer for the meter, cards and tables.

While somebody is there the end of a cluster moves on with every half minute, and a moment that moves helps
nobody: then its *policy* is told. A moment is told where it stands: the person has **left** and it comes
nearer, it was **kept** until then, or a maximum, a budget, a schedule or idleness will **end** it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from services.release.ask import may_extend, may_when_done, terms_of
from services.release.terms import WITNESS_LAG_SECONDS
from spawner.records import Run

#: Ends that do not move while the person is there.
STANDING = frozenset({"most", "budget", "schedule", "idle", "done"})


@dataclass(frozen=True, kw_only=True)
class GoesBack:
    """What is to be told.

    Attributes
    ----------
    kind
        ``policy`` = by its policy alone; ``left`` = it is being left; ``kept`` = extended until then; ``ends`` =
        it ends then, whoever is there.
    at
        The moment, of all kinds but the first.
    why
        Machine word of the reason, as the release service wrote it.
    soon
        Whether the person was, or would be, warned by now.
    may_extend
        Where one press would bring the end; ``None`` = it cannot be extended.
    may_when_done
        Whether it may go on without its person until nothing runs.
    """

    kind: Literal["policy", "left", "kept", "ends"] = "policy"
    at: datetime | None = None
    why: str = ""
    soon: bool = False
    may_extend: datetime | None = None
    may_when_done: bool = False


def goes_back(run: Run, now: datetime, *, grace_seconds: int = 300, tells: bool = False) -> GoesBack:
    """When and why a run goes back, as things are.

    Parameters
    ----------
    run
        Its row.
    now
        UTC.
    grace_seconds
        The site's, for a row without terms of its own.
    tells
        Whether its nodes tell what runs there (:func:`services.release.ask.telling`).
    """
    asks = {
        "may_extend": may_extend(run, now, grace_seconds=grace_seconds),
        "may_when_done": may_when_done(run, tells=tells),
    }
    if run.word != "running":
        return GoesBack(**asks)
    terms = terms_of(run, grace_seconds=grace_seconds)
    at, why, kept = run.release_at, run.release_why, run.extended_until
    soon = (
        run.warned_at is not None
        and at is not None
        and at - now <= timedelta(seconds=terms.warn_seconds + 60)
    )
    if at is not None and why in STANDING:
        return GoesBack(kind="ends", at=at, why=why, soon=soon, **asks)
    # Told at once: the release service writes its next word some seconds after the press.
    if kept is not None and kept > now and (at is None or at <= kept):
        return GoesBack(kind="kept", at=kept, why=why, soon=soon, **asks)
    if at is None:
        return GoesBack(**asks)
    try:
        wait = terms.wait_seconds or 0
    except ValueError:
        return GoesBack(**asks)
    # Presence is up to this old, also of somebody who is there.
    if soon or at - now < timedelta(seconds=wait - WITNESS_LAG_SECONDS):
        return GoesBack(kind="left", at=at, why=why, soon=soon, **asks)
    return GoesBack(**asks)
