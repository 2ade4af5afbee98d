"""What the fields of an application take (SC-3): one set of rules for the file, the node and the page.

Pure, and of the standard library alone: nodes import it. A value becomes a text in a variable of the command,
never a part of its line, so nothing that somebody writes into a field is read by a shell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

TEXT_MOST = 1000
_WHOLE = re.compile(r"-?[0-9]{1,15}", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,9})?", re.ASCII)


class BadValue(ValueError):
    """A value that a field does not take.

    Attributes
    ----------
    why
        ``required``, ``whole``, ``number``, ``least``, ``most``, ``options``, ``long``, ``pattern``, ``path``,
        ``text``.
    limit
        The limit that it breaks, as a text.
    """

    def __init__(self, why: str, limit: object = "") -> None:
        super().__init__(f"{why} {limit}".strip())
        self.why, self.limit = why, str(limit)


def check(field: Mapping[str, Any], value: object) -> str:
    """A value as the command gets it.

    Parameters
    ----------
    field
        ``type``, and what goes with it: ``least``, ``most``, ``options``, ``pattern``, ``longest``, ``required``.
    value
        As a form or a file says it: a text, a number, true or false.

    Raises
    ------
    BadValue
        With the reason.
    """
    kind = field.get("type", "text")
    if kind == "switch":
        if value in (True, "true", "on", "1"):
            return "1"
        if value in (False, None, "false", "", "0"):
            return ""
        raise BadValue("options", "true, false")
    if isinstance(value, bool) or not isinstance(value, str | int | float | None):
        raise BadValue("text")
    text = "" if value is None else str(value).strip()
    if "\0" in text or "\n" in text or "\r" in text:
        raise BadValue("text")
    if not text:
        if field.get("required"):
            raise BadValue("required")
        return ""
    if kind in ("integer", "number"):
        return _number(field, text, whole=kind == "integer")
    if kind == "choice":
        options = [str(option) for option in field.get("options") or ()]
        if text not in options:
            raise BadValue("options", ", ".join(options))
        return text
    if kind in ("directory", "file"):
        return _path(text)
    if len(text) > int(field.get("longest") or TEXT_MOST):
        raise BadValue("long", field.get("longest") or TEXT_MOST)
    if field.get("pattern") and not re.fullmatch(str(field["pattern"]), text):
        raise BadValue("pattern", field["pattern"])
    return text


def _number(field: Mapping[str, Any], text: str, *, whole: bool) -> str:
    if not (_WHOLE if whole else _NUMBER).fullmatch(text):
        raise BadValue("whole" if whole else "number")
    number = float(text)
    if field.get("least") is not None and number < float(field["least"]):
        raise BadValue("least", f"{field['least']:g}")
    if field.get("most") is not None and number > float(field["most"]):
        raise BadValue("most", f"{field['most']:g}")
    return text


def _path(text: str) -> str:
    """A path below ``~/work``, relative."""
    below = "." if text.rstrip("/") == "~/work" else text.removeprefix("~/work/")
    path = PurePosixPath(below)
    if path.is_absolute() or ".." in path.parts or len(text) > TEXT_MOST or below.startswith("~"):
        raise BadValue("path")
    return str(path)


def shown(field: Mapping[str, Any], values: Mapping[str, str]) -> bool:
    """Whether a field is asked for, by the values of those before it."""
    when = field.get("when") or {}
    return all(
        values.get(name, "") == ("1" if wanted is True else str(wanted or ""))
        for name, wanted in when.items()
    )


def values_of(fields: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any]) -> dict[str, str]:
    """The values of a whole form; fields that are not shown are empty.

    Raises
    ------
    Refused
        With what is wrong, by field.
    """
    found: dict[str, str] = {}
    wrong: dict[str, BadValue] = {}
    for name, field in fields.items():
        if not shown(field, found):
            found[name] = ""
            continue
        try:
            found[name] = check(field, given[name] if name in given else field.get("default"))
        except BadValue as error:
            wrong[name], found[name] = error, ""
    if wrong or (unknown := set(given) - set(fields)):
        raise Refused(wrong or dict.fromkeys(sorted(unknown), BadValue("unknown")))
    return found


class Refused(ValueError):
    """A form with values that its fields do not take."""

    def __init__(self, wrong: Mapping[str, BadValue]) -> None:
        super().__init__(", ".join(f"{name}: {error}" for name, error in wrong.items()))
        self.wrong = dict(wrong)


def variables(values: Mapping[str, str]) -> dict[str, str]:
    """The variables of a command: ``logdir`` is ``APP_LOGDIR``."""
    return {f"APP_{name.upper()}": value for name, value in values.items()}


def said(text: object, language: str) -> str:
    """A text of a file in a language: it is one text for all, or one for each."""
    if isinstance(text, Mapping):
        return str(text.get(language) or text.get("en") or next(iter(text.values()), ""))
    return str(text or "")
