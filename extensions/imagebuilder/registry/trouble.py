"""What can go wrong with a registry, in words for people.

A registry answers with a status and a list of codes, and each product has its own way to say "full". What it
writes in its messages is never repeated to people: it is somebody else's text, and some registries echo what
they were sent.
"""

from __future__ import annotations

import json
import re

from galilean.errors import UserError, mark

#: Worth another try: the registry, or what stands before it, is away or busy for a moment.
FOR_NOW = frozenset({408, 425, 429, 502, 503, 504})
_CODE = re.compile(r"[A-Z_]{1,40}")
_FULL = re.compile(
    rb"no space left|disk quota exceeded|not enough space|storage quota|quota.{0,40}exceed", re.I
)


def away(registry: str) -> UserError:
    return UserError(
        503,
        mark("The image registry {registry} does not answer. Try again in a few minutes."),
        reason="registry-away", registry=registry,
    )  # fmt: skip


def broken(registry: str) -> UserError:
    return UserError(
        502,
        mark("The image registry {registry} gave an answer that does not fit the question. Tell the administrators."),
        reason="registry-broken", registry=registry,
    )  # fmt: skip


def changed() -> UserError:
    return UserError(
        409,
        mark("The layer changed while it was being sent. Save the image again."),
        reason="registry-changed",
    )


def codes(body: bytes) -> list[str]:
    """The machine words of an answer, such as ``NAME_UNKNOWN``; empty when it has none."""
    try:
        errors = json.loads(body)["errors"]
        found = [error["code"] for error in errors]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    return [code for code in found if isinstance(code, str) and _CODE.fullmatch(code)]


def refusal(registry: str, status: int, body: bytes) -> UserError:
    """The words for an answer that is not what was hoped for."""
    if status in (413, 507) or (status >= 400 and _FULL.search(body)):
        return UserError(
            507,
            mark(
                "The image registry {registry} is full. Delete images that are no longer needed, "
                "or ask the administrators for more room."
            ),
            reason="registry-full", registry=registry,
        )  # fmt: skip
    if status in FOR_NOW:
        return away(registry)
    if status == 404:
        return UserError(
            404,
            mark("The image registry {registry} has no such image."),
            reason="registry-missing", registry=registry,
        )  # fmt: skip
    if status in (401, 403, 405):
        said = codes(body)
        return UserError(
            403,
            mark(
                "The image registry {registry} does not allow this ({answer}). "
                "The administrators can check its settings, name and password."
            ),
            reason="registry-refused", registry=registry, answer=" ".join([str(status), *said[:1]]),
        )  # fmt: skip
    return broken(registry)
