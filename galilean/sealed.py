"""Secrets that people hand over, kept in the database so that a copy of it tells nothing.

AES in the recipe Fernet; the key is made by HKDF from a secret that portal and hub have and the database has not,
and from the purpose, so that what was sealed for one thing opens for no other. Where that secret was replaced nothing
can be read any more and must be typed again: who opens says so in words.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class Unreadable(Exception):
    """It was sealed with another secret, or is damaged."""


class Sealed:
    """Closes and opens what is kept for one purpose.

    Parameters
    ----------
    secret
        What portal and hub share: the portal's own token at the hub.
    purpose
        Words that are never changed.
    """

    def __init__(self, secret: str, purpose: bytes) -> None:
        if len(secret) < 16:
            raise ValueError("too short to keep anything by")
        made = HKDF(SHA256(), 32, salt=None, info=purpose).derive(secret.encode())
        self._box = Fernet(base64.urlsafe_b64encode(made))

    def close(self, value: Any) -> bytes:
        """Sealed bytes of a plain JSON value."""
        return self._box.encrypt(json.dumps(value).encode())

    def open(self, sealed: bytes) -> Any:
        """What was sealed.

        Raises
        ------
        Unreadable
            When it cannot be.
        """
        try:
            return json.loads(self._box.decrypt(sealed))
        except InvalidToken:
            raise Unreadable from None
