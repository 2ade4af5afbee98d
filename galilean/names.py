"""Names: what a project may be called in addresses, and how one person's name for another's is made.

A project's slug is also the name of the hub's *named server* that runs it, so it obeys the hub's rule
for those (``^[a-z][a-z0-9-]{0,29}``, no double hyphen) and keeps off the words that have a meaning behind
``/user/<user>/<server>/``. ``node-<n>`` is the address of a node, ``go`` the bounce for cold deep links.
"""

from __future__ import annotations

import hashlib
import re

from anyascii import anyascii

from galilean.errors import UserError, mark

SLUG_LENGTH = 30
_SLUG = re.compile(r"[a-z](?:-?[a-z0-9])*", re.ASCII)
_NODE = re.compile(r"node-?\d*", re.ASCII)
RESERVED = frozenset({"go", "api", "lab", "hub", "new", "user", "services", "static", "galilean"})


def is_slug(text: str) -> bool:
    """Whether ``text`` may be a project's slug."""
    return (
        0 < len(text) <= SLUG_LENGTH
        and _SLUG.fullmatch(text) is not None
        and not _NODE.fullmatch(text)
        and text not in RESERVED
    )


def check_slug(text: str) -> str:
    """``text`` when it is a slug.

    Raises
    ------
    UserError
        400 with the rule in words.
    """
    if _NODE.fullmatch(text) or text in RESERVED:
        raise UserError(400, mark("“{slug}” is kept for the product itself. Choose another name."), slug=text)
    if not is_slug(text):
        raise UserError(
            400,
            mark(
                "“{slug}” cannot be part of an address: start with a letter, then small letters, digits and "
                "single hyphens, at most 30 characters."
            ),
            slug=text[:60],
        )
    return text


def slugify(name: str) -> str:
    """A slug made from a name in any script; never empty, never reserved.

    ``Heat flow`` gives ``heat-flow``, ``热流`` gives ``re-liu``; a name without a letter or digit that can
    be written in Latin (emoji only) gives ``project``.
    """
    latin = anyascii(re.sub(r"(?<=[\u3400-\u9fff])(?=[\u3400-\u9fff])", " ", name))
    slug = re.sub(r"[^a-z0-9]+", "-", latin.lower()).strip("-")
    slug = slug.lstrip("0123456789-")[:SLUG_LENGTH].rstrip("-")
    if not slug:
        slug = "project"
    if not is_slug(slug):
        slug = f"p-{slug}"[:SLUG_LENGTH].rstrip("-")
    return slug


def departed(name: str, mark_of: str) -> str:
    """The owner of what somebody left who has no account any more: a name that no account can have.

    The hub takes no name with a “/” in it. ``mark_of`` makes it differ from an earlier one of the same name.
    """
    return f"{name[:200]}/{mark_of}"


def departed_name(owner: str) -> str | None:
    """What the owner was called who has no account any more; ``None`` of an owner who has."""
    name, slash, _ = owner.partition("/")
    return name if slash else None


def numbered(slug: str, number: int) -> str:
    """``slug`` for 1, then ``slug-2``, ``slug-3`` …, cut so that the whole still is a slug."""
    if number < 2:
        return slug
    tail = f"-{number}"
    return slug[: SLUG_LENGTH - len(tail)].rstrip("-") + tail


def server_alias(owner: str, slug: str, person: str) -> str:
    """The name of the server on which ``person`` runs ``owner``'s project ``slug``.

    The slug for one's own; for somebody else's ``<slug ≤ 22>-<6 of a hash>`` (design §1), so that two
    projects of one slug and different owners never meet.
    """
    if owner == person:
        return slug
    digest = hashlib.blake2s(f"{owner}/{slug}".encode(), digest_size=3).hexdigest()
    return f"{slug[:22].rstrip('-')}-{digest}"
