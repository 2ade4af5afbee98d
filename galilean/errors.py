"""The one exception whose text is for people.

Whatever a person caused or can act on is raised as :class:`UserError`: a sentence that says what
happened, the numbers, and what to do. Everything else is a fault of ours: it is logged with an id and
shown as "something went wrong (id)". The sentence is kept as a message id with parameters, not as text,
because it is raised in one process (the hub, in nobody's language) and read in another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def mark(message: str) -> str:
    """Mark a message id for translation without translating it (for ``pybabel extract``)."""
    return message


class UserError(Exception):
    """Something a person can understand and act on.

    Parameters
    ----------
    status
        HTTP status that an API answers with, 4xx or 503/507.
    message
        English sentence, a ``str.format`` template over ``params``; at the same time the gettext id.
    reason
        Machine word of the refusal (``quota``, ``queued``, …); empty when the status says it all.
    **params
        Values of the template. Plain JSON values, so that a refusal can be stored with a run.
    """

    def __init__(self, status: int, message: str, *, reason: str = "", **params: Any) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason
        self.params = params

    def text(self, translate: Callable[[str], str] = lambda message: message) -> str:
        """The sentence in the language of ``translate``."""
        return render(self.message, self.params, translate)

    def __str__(self) -> str:
        return self.text()

    def as_dict(self) -> dict[str, Any]:
        """The form in which a refusal is stored (``clusters.explanation``)."""
        return {"message": self.message, "params": self.params}


def render(
    message: str, params: Mapping[str, Any], translate: Callable[[str], str] = lambda message: message
) -> str:
    """Fill a stored message; a translation with a wrong placeholder falls back to English."""
    try:
        return translate(message).format(**params)
    except (KeyError, IndexError, ValueError):
        try:
            return message.format(**params)
        except (KeyError, IndexError, ValueError):
            return message
