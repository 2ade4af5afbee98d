"""The language of the request that is being answered.

Kept in a context variable, so that templates of the hub and of the portal translate alike, though the
hub hands its templates nothing that names the request. ``LanguageOfRequest`` sets it: Tornado makes one
for each request before the handler's own task begins, and the task inherits it.
"""

from __future__ import annotations

from contextvars import ContextVar
from http.cookies import CookieError

from tornado.httputil import HTTPServerRequest
from tornado.web import OutputTransform

from galilean.i18n import LANGUAGES, choose_language, translations

COOKIE = "galilean_language"

current: ContextVar[str] = ContextVar("galilean_language", default="en")


def language_of(request: HTTPServerRequest, default: str = "en") -> str:
    """What the person chose, else what the browser asks for, else the site's."""
    try:
        morsel = request.cookies.get(COOKIE)
    except CookieError:
        morsel = None
    chosen = morsel.value if morsel else None
    return choose_language(chosen, request.headers.get("Accept-Language", ""), default)


class LanguageOfRequest(OutputTransform):
    """Sets :data:`current` for the request; it changes no output.

    For the hub: ``c.JupyterHub.tornado_settings = {"transforms": [language_transform(default)]}``.
    """

    default = "en"

    def __init__(self, request: HTTPServerRequest) -> None:
        current.set(language_of(request, self.default))


def language_transform(default: str) -> type[LanguageOfRequest]:
    """``LanguageOfRequest`` for a site whose own language is ``default``."""
    return type("LanguageOfRequest", (LanguageOfRequest,), {"default": default})


def translate(message: str) -> str:
    """``message`` in the language of the request."""
    return translations(current.get()).gettext(message) if message else ""


def translate_plural(singular: str, plural: str, n: int) -> str:
    """The form for ``n`` in the language of the request."""
    return translations(current.get()).ngettext(singular, plural, n)


def html_language() -> str:
    """Value of ``<html lang>``."""
    return current.get().replace("_", "-")


def other_language() -> tuple[str, str]:
    """The one to switch to: its key and the word on the switch."""
    key = "zh_CN" if current.get() == "en" else "en"
    return key, {"zh_CN": "中文", "en": "EN"}.get(key, LANGUAGES[key])
