"""What the handlers of the API share."""

from __future__ import annotations

from galilean.errors import UserError, mark
from galilean.web.handlers import APIHandler

LANGUAGE_TAGS = {"en": "en", "zh_CN": "zh-CN,zh;q=0.9"}


class Handler(APIHandler):
    """A handler of the API, version 1."""

    @property
    def accept_language(self) -> str:
        """The visitor's language for the hub, whose refusals are sentences too."""
        return LANGUAGE_TAGS.get(self.language, "en")

    def word(self, name: str, *known: str) -> str:
        """A query value out of a few; the first is the default."""
        value = self.query(name) or known[0]
        if value not in known:
            raise UserError(400, mark("“{name}” is one of: {known}."), name=name, known=", ".join(known))
        return value
