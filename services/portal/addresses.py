"""Addresses of a project's pages, of any owner: names may have spaces, ``@``, ``%``, quotes, Chinese."""

from __future__ import annotations

from urllib.parse import quote


def project_path(owner: str, slug: str) -> str:
    """``projects/<owner>/<slug>`` below the portal or its API, escaped as the hub escapes names in addresses."""
    return f"projects/{quote(owner, safe='@~')}/{quote(slug, safe='')}"
