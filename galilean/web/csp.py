"""Content security policies: one for our pages, one for what people wrote.

Ours allows scripts of our origin and inline ones that carry the request's nonce, no inline style, no
plug-in, no foreign frame around it. The other belongs on every response whose body is somebody's HTML,
SVG or rendered notebook: the ``sandbox`` directive gives it an opaque origin, so that it can neither read
the visitor's cookies nor call the portal as the visitor, even when opened in a tab of its own.
"""

from __future__ import annotations

import secrets

from tornado.web import RequestHandler


def new_nonce() -> str:
    """A nonce for one response."""
    return secrets.token_urlsafe(16)


def page_policy(nonce: str, hub_host: str = "") -> str:
    """The policy of our own pages.

    Parameters
    ----------
    nonce
        Of this response.
    hub_host
        ``https://hub.example.edu`` when the hub has an origin of its own, else empty: sign-in and sign-out
        forms may be sent there.
    """
    hub = f" {hub_host}" if hub_host else ""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' 'nonce-{nonce}'",
            "style-src 'self'",
            "img-src 'self' data: blob:",
            "font-src 'self'",
            "connect-src 'self'",
            "frame-src 'self'",
            "manifest-src 'self'",
            f"form-action 'self'{hub}",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    )


def sandbox_policy(*, scripts: bool = False) -> str:
    """The policy of a response whose body somebody else wrote.

    Parameters
    ----------
    scripts
        Whether its own inline scripts may run (plots in a notebook). They still have an opaque origin and
        no network.
    """
    allow = " allow-scripts" if scripts else ""
    script_src = "'unsafe-inline'" if scripts else "'none'"
    return "; ".join(
        (
            f"sandbox{allow}",
            "default-src 'none'",
            f"script-src {script_src}",
            "style-src 'unsafe-inline'",
            "img-src data: blob:",
            "font-src data:",
            "media-src data: blob:",
            "form-action 'none'",
            "base-uri 'none'",
            "frame-ancestors 'self'",
        )
    )


def mark_untrusted(handler: RequestHandler, *, scripts: bool = False) -> None:
    """Put the headers of untrusted content on a response: sandboxed, never sniffed, never cached by others."""
    handler.set_header("Content-Security-Policy", sandbox_policy(scripts=scripts))
    handler.set_header("X-Content-Type-Options", "nosniff")
    handler.set_header("Referrer-Policy", "no-referrer")
    handler.set_header("Cross-Origin-Resource-Policy", "same-origin")
    handler.set_header("Cache-Control", "private, no-store")
