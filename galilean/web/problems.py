"""Errors as RFC 9457 problem documents, and unexpected ones under an id."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ValidationError
from tornado.web import HTTPError

from galilean.errors import UserError, mark

log = logging.getLogger("galilean.web")

MEDIA_TYPE = "application/problem+json"

_SENTENCES = {
    400: mark("The request could not be understood."),
    401: mark("Sign in first."),
    403: mark("You may not do this."),
    404: mark("There is no such page."),
    405: mark("This address takes no such request."),
    413: mark("This is larger than what is taken here."),
    415: mark("The request must be JSON."),
}
_LOST = mark(
    "Something went wrong on our side ({id}). It was written down; tell an administrator this number."
)


class Problem(BaseModel):
    """An RFC 9457 problem document.

    Attributes
    ----------
    reason
        Machine word of the refusal (``quota``, ``queued``, ``sign-in`` …), empty when the status says it all.
    id
        Number under which an unexpected error was logged.
    errors
        For a body that does not fit its model: one entry per field.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    reason: str = ""
    id: str = ""
    errors: list[dict[str, str]] = []


class BodyError(UserError):
    """A request body that does not fit its model; one entry of ``errors`` per field."""

    def __init__(self, error: ValidationError) -> None:
        self.errors = [
            {"field": ".".join(str(part) for part in item["loc"]), "detail": item["msg"]}
            for item in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        first = self.errors[0]
        super().__init__(
            400, mark("“{field}”: {detail}"), field=first["field"] or "body", detail=first["detail"]
        )


def problem_of(
    error: BaseException | None, status: int, translate: Callable[[str], str], *, where: str = ""
) -> Problem:
    """What is told of an error.

    Parameters
    ----------
    error
        What was raised; ``None`` when a handler only set a status.
    status
        The HTTP status that Tornado decided on, used unless the error knows better.
    translate
        Into the visitor's language.
    where
        Method and path for the log; never a query, which may hold what people typed.
    """
    if isinstance(error, UserError):
        return Problem(
            title=phrase(error.status),
            status=error.status,
            detail=error.text(translate),
            reason=error.reason,
            errors=getattr(error, "errors", []),
        )
    if isinstance(error, HTTPError) and error.status_code < 500:
        sentence = _SENTENCES.get(error.status_code, _SENTENCES[400])
        return Problem(title=phrase(error.status_code), status=error.status_code, detail=translate(sentence))
    if error is None and status < 500:
        return Problem(
            title=phrase(status), status=status, detail=translate(_SENTENCES.get(status, _SENTENCES[400]))
        )
    number = secrets.token_hex(4)
    log.error("%s: %s", number, where, exc_info=error)
    status = status if status >= 500 else 500
    return Problem(title=phrase(status), status=status, detail=translate(_LOST).format(id=number), id=number)


def phrase(status: int) -> str:
    """The standard phrase of a status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def plain(model: Any) -> Any:
    """Models, and lists and dictionaries of them, as plain JSON values."""
    if isinstance(model, BaseModel):
        return model.model_dump(mode="json")
    if isinstance(model, dict):
        return {key: plain(value) for key, value in model.items()}
    if isinstance(model, list | tuple):
        return [plain(value) for value in model]
    return model
