"""When a token or a cookie was used last is a note, and a note that cannot be kept must not sign anybody out.

JupyterHub writes it while it looks who is asking. When that fails because its database is full or locked, it
takes the person for a stranger: valid tokens are refused as invalid, pages lead to the sign-in and back.
There is no setting for this; the two methods that write the note are wrapped, and asked again without it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from jupyterhub.handlers.base import BaseHandler
from sqlalchemy.exc import OperationalError

_UNNOTED = "_galilean_unnoted"


def _once_more(look: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(look)
    def without_a_note(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return look(self, *args, **kwargs)
        except OperationalError as error:
            if getattr(self, _UNNOTED, False):
                raise
            self.log.warning("It cannot be noted who was here: %s", error.orig)
            self.db.rollback()
            setattr(self, _UNNOTED, True)
            return look(self, *args, **kwargs)

    without_a_note.galilean = True  # type: ignore[attr-defined]
    return without_a_note


def _unless_unnoted(record: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(record)
    def maybe(self: Any, *args: Any, **kwargs: Any) -> Any:
        return False if getattr(self, _UNNOTED, False) else record(self, *args, **kwargs)

    return maybe


def never_deny_for_a_note() -> None:
    """Wrap the hub's methods; a second time nothing happens."""
    handler: Any = BaseHandler
    if getattr(handler.get_current_user_token, "galilean", False):
        return
    handler._record_activity = _unless_unnoted(handler._record_activity)
    for name in ("get_current_user_token", "get_current_user_cookie"):
        setattr(handler, name, _once_more(getattr(handler, name)))
