"""What a saved image may be called, and under which name a registry keeps it.

A person types ``name:tag`` and nothing else; the registry's address and the person's own name space are put in
front by the service. So nobody can name somebody else's image: what is typed is always *below* the own name
space. The name space is made of the user name as kubespawner makes its slugs (plain names stay readable, all
others get a digest of the name behind a ``---`` that no plain name can hold), hence two people never share one.

The rules are CG-18's (lower case, digits, ``-`` ``.`` ``_`` ``/``, 60 characters in all, never ``latest``) and
those of the OCI distribution specification, whichever is the narrower. What only looks like a name is refused
with a word of its own: a digest, an address of a registry, another name space, the tags that registries keep for
referrers (``sha256-…``). An environment points to an image by its digest and never by a tag, which can be moved:
:class:`Pinned` is the only form in which an image is kept.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from galilean.errors import UserError, mark

MOST_CHARACTERS = 60
#: First component of every person's repositories.
PEOPLE = "people"
#: First component of saved Python environments, which lie in no registry.
PYTHON = "python"
#: The backends whose nodes have images.
IMAGES = ("docker", "kubernetes")
#: The backends whose nodes can be saved.
BACKENDS = (*IMAGES, "process")
#: Of a registry's repositories, by the specification's common implementations.
REPOSITORY_MOST_CHARACTERS = 255
_READABLE, _DIGEST_CHARACTERS = 24, 32

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-z0-9_][a-z0-9._-]*")
_ALLOWED = re.compile(r"[a-z0-9._/:-]*")
_PLAIN = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?")
_ALGORITHM = re.compile(r"sha[0-9]+|md5|blake[0-9a-z]*")
_REFERRER = re.compile(r"sha[0-9]+-.*")


def _refused(message: str, reason: str, **params: object) -> UserError:
    return UserError(422, message, reason=reason, **params)


@dataclass(frozen=True)
class ImageName:
    """A checked ``name:tag``, as a person typed it."""

    name: str
    tag: str

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}"


def parse_typed(text: str) -> ImageName:
    """Check a typed ``name:tag`` (CG-18).

    Raises
    ------
    UserError
        422 with the one rule that is broken and what to type instead; nothing is mended silently.
    """
    if not text:
        raise _refused(mark("Type a name and a tag, such as my-tools:1."), "name-empty")
    if len(text) > MOST_CHARACTERS:
        raise _refused(
            mark("Name and tag may have {most} characters together; these are {count}."),
            "name-long",
            most=MOST_CHARACTERS,
            count=len(text),
        )
    if "@" in text:
        raise _refused(
            mark("An image is named by name and tag; a digest (@…) cannot be chosen."), "name-digest"
        )
    if text != text.lower():
        raise _refused(mark("Only lower-case letters: {lower}."), "name-case", lower=text.lower())
    if not _ALLOWED.fullmatch(text):
        raise _refused(
            mark("Only lower-case letters without accents, digits and the signs - . _ / may be used."),
            "name-characters",
        )
    name, colon, tag = text.partition(":")
    if not colon or not tag:
        raise _refused(
            mark("The tag is missing: type it behind a colon, such as {name}:1."),
            "tag-missing",
            name=name or "my-tools",
        )
    if not _NAME.fullmatch(name):
        raise _refused(
            mark(
                "The name must begin and end with a letter or digit, as must every part between slashes; "
                "no two dots and no slashes may follow one another."
            ),
            "name-shape",
        )
    if not _TAG.fullmatch(tag):
        raise _refused(
            mark(
                "The tag must begin with a letter, digit or _ and holds neither a slash nor a second colon."
            ),
            "tag-shape",
        )
    if tag == "latest":
        raise _refused(
            mark("The tag “latest” says nothing of what is in the image: use a number or a date."),
            "tag-latest",
        )
    first, *others = name.split("/")
    if _ALGORITHM.fullmatch((others or [first])[-1]) or _REFERRER.fullmatch(tag):
        raise _refused(mark("This looks like a digest: choose another name or tag."), "name-digest")
    if others and (first == "localhost" or "." in first):
        raise _refused(
            mark("“{first}” would be read as the address of a registry: leave it out."),
            "name-address",
            first=first,
        )
    if first == PEOPLE:
        raise _refused(
            mark("“{first}/” begins people's own name spaces: type only what follows yours."),
            "name-space",
            first=first,
        )
    return ImageName(name, tag)


def name_space(user: str) -> str:
    """The component that all repositories of a person are under; another for every user name.

    A name of lower-case letters, digits and single hyphens of up to 40 characters stays as it is. Others become
    a readable rest, ``---`` and 128 bits of the name's SHA-256.
    """
    if _PLAIN.fullmatch(user) and len(user) <= 40:
        return user
    rest = re.sub(r"[^a-z0-9]+", "-", user.lower()).strip("-")[:_READABLE].strip("-") or "x"
    digest = hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_CHARACTERS]
    return f"{rest}---{digest}"


def repository(user: str, name: ImageName) -> str:
    """Where a person's image lies in the registry, without address and tag."""
    return f"{PEOPLE}/{name_space(user)}/{name.name}"


def python_repository(user: str, name: ImageName) -> str:
    """What a person's saved Python environment is called, without its digest: no registry has it."""
    return f"{PYTHON}/{repository(user, name)}"


def is_python(image: str) -> bool:
    """Whether a name is a saved Python environment's and no image's."""
    return image.startswith(f"{PYTHON}/{PEOPLE}/")


def require_own(user: str, path: str) -> None:
    """Refuse a repository that is not in the person's own name space.

    Raises
    ------
    UserError
        404, the same as for what does not exist: names of other people's images are not told.
    """
    own = f"{PEOPLE}/{name_space(user)}/"
    if not (path.startswith(own) and _NAME.fullmatch(path)):
        raise UserError(404, mark("You have no such image."), reason="image-unknown")


@dataclass(frozen=True)
class Pinned:
    """An image by digest: what is kept with an environment and handed to a backend.

    Attributes
    ----------
    registry
        Host with optional port; empty for an image known to the machine alone.
    repository
        Path in the registry.
    digest
        Of the manifest (or of the index), ``sha256:`` or ``sha512:`` and lower-case hexadecimal digits.
    """

    registry: str
    repository: str
    digest: str

    def __post_init__(self) -> None:
        good = (
            (not self.registry or _HOST.fullmatch(self.registry))
            and _NAME.fullmatch(self.repository)
            and len(self.repository) <= REPOSITORY_MOST_CHARACTERS
            and _DIGEST.fullmatch(self.digest)
        )
        if not good:
            raise _refused(
                mark("This is not an image by digest: registry/name@sha256:… is meant."), "image-digest"
            )

    def __str__(self) -> str:
        front = f"{self.registry}/" if self.registry else ""
        return f"{front}{self.repository}@{self.digest}"

    @classmethod
    def parse(cls, text: str) -> Pinned:
        """Read what :meth:`__str__` wrote; the first component is a registry if it can only be one."""
        path, _, digest = text.partition("@")
        first, slash, rest = path.partition("/")
        if slash and (":" in first or "." in first or first == "localhost"):
            return cls(first, rest, digest)
        return cls("", path, digest)

    def require(self, manifest: bytes) -> None:
        """Refuse a manifest whose bytes are not those that the digest names.

        Raises
        ------
        UserError
            502 (a fault of the registry, or somebody between).
        """
        algorithm, _, digest = self.digest.partition(":")
        if hashlib.new(algorithm, manifest).hexdigest() != digest:
            raise UserError(
                502,
                mark("The registry sent another image than the one that was asked for ({image})."),
                reason="image-spoofed",
                image=str(self),
            )
