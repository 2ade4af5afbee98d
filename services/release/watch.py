"""Whether the witnesses of presence can be believed at this moment.

Presence stands still while the hub (who samples the proxy) or the portal (who takes the nodes' reports) is
away, and looks old when the clock jumps ahead. Whoever was working all the time would then be taken as
gone. So nothing is released until all witnesses have been answering for a while without a break, long
enough for each of them to report twice. An outage delays a release, it never loses one and never makes one.
"""

from __future__ import annotations

from datetime import datetime

from services.release.terms import WITNESS_LAG_SECONDS

JUMP_SECONDS = 15.0


class Watch:
    """Keeps for how long the witnesses have been there.

    Parameters
    ----------
    settle_seconds
        How long they must have been there before their word counts.
    gap_seconds
        A pause between two looks longer than this counts as a break: nobody looked.
    """

    def __init__(self, *, settle_seconds: float = WITNESS_LAG_SECONDS, gap_seconds: float = 60.0) -> None:
        self.settle_seconds, self.gap_seconds = settle_seconds, gap_seconds
        self._since: float | None = None
        self._last: tuple[float, datetime] | None = None

    def look(self, *, there: bool, now: datetime, monotonic: float) -> bool:
        """Note whether all witnesses answer now; whether their word counts.

        Parameters
        ----------
        there
            All of them answered just now.
        now, monotonic
            Wall clock and monotonic clock of this look.
        """
        if self._last is not None:
            passed = monotonic - self._last[0]
            jumped = abs((now - self._last[1]).total_seconds() - passed) > JUMP_SECONDS
            if jumped or passed > self.gap_seconds:
                self._since = None
        self._last = (monotonic, now)
        if not there:
            self._since = None
            return False
        if self._since is None:
            self._since = monotonic
        return monotonic - self._since >= self.settle_seconds
