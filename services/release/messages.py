"""What people are told of releases: message ids with their values (:mod:`galilean.notices`).

Values whose names end in ``_at`` are moments as ISO text; whoever shows the notice writes them in the
reader's zone.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from galilean import notices
from galilean.errors import mark
from galilean.notices import Notice
from services.release.decide import Warn
from services.release.store import Held

WARNED = {
    "left": mark("{project} goes back at {goes_at}, because you left it. Files in “work” stay."),
    "idle": mark("{project} goes back at {goes_at}, because it has hardly been used."),
    "schedule": mark("{project} goes back at {goes_at}, as its schedule says."),
    "most": mark("{project} goes back at {goes_at}. It has then been held as long as it may be."),
    "budget": mark("{project} goes back at {goes_at}. Your budget is used up then."),
}
STILL_RUNS = mark(
    "{project} goes back at {goes_at}, because you left it, and something still runs there. Choose “when done” "
    "to let it end first."
)
RELEASED = {
    "left": mark("{project} went back, because you had left it. Files in “work” stay."),
    "signed_out": mark("{project} went back, because you signed out. Files in “work” stay."),
    "done": mark("{project} is done: nothing runs there any more, and it went back. Files in “work” stay."),
    "idle": mark("{project} went back, because it had hardly been used. Files in “work” stay."),
    "schedule": mark("{project} went back, as its schedule says. Files in “work” stay."),
    "most": mark("{project} went back. It had been held as long as it may be. Files in “work” stay."),
    "budget": mark("{project} went back, because your budget is used up. Files in “work” stay."),
}
#: Who left or signed out knows it; they were warned, and a second letter says nothing new.
UNMAILED = frozenset({"left", "signed_out"})


def warning(held: Held, warn: Warn, now: datetime) -> Notice:
    """That a cluster goes back soon, for its holder."""
    text = STILL_RUNS if warn.offer_when_done else WARNED.get(warn.why, WARNED["left"])
    return _of(held, now, kind="warning", text=text, mail=True, goes_at=warn.until.isoformat())


def release(held: Held, reason: str, now: datetime) -> Notice:
    """That a cluster went back and why, for its holder."""
    text = RELEASED.get(reason, RELEASED["left"])
    return _of(held, now, kind="released", text=text, mail=reason not in UNMAILED)


def _of(held: Held, now: datetime, *, kind: str, text: str, mail: bool, **params: Any) -> Notice:
    return notices.notice(
        held.user,
        now=now,
        kind=kind,
        text=text,
        cluster_id=held.id,
        mail=mail,
        project=held.project,
        **params,
    )
