"""Where a person's request came from, told by the portal to the hub so that nobody else can claim it.

The hub writes the audit log of what it does for people, but sees only the portal's address. So the portal
signs what it saw with its own token, which the hub knows; the signature holds for one address of the API.
"""

from __future__ import annotations

import hashlib
import hmac

HEADER = "X-Galilean-From"


def signed(address: str, path: str, key: str) -> str:
    """The header's value: address and signature."""
    return f"{address} {_signature(address, path, key)}"


def verified(value: str, path: str, key: str) -> str:
    """The address when the portal signed it for this path, else empty."""
    address, _, signature = value.rpartition(" ")
    if not key or not address:
        return ""
    # Bytes: of texts compare_digest takes ASCII only, and a header is anybody's to write.
    given, wanted = (_bytes(text) for text in (signature, _signature(address, path, key)))
    return address[:64] if hmac.compare_digest(given, wanted) else ""


def _signature(address: str, path: str, key: str) -> str:
    return hmac.new(_bytes(key), _bytes(f"{address}\n{path}"), hashlib.sha256).hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
