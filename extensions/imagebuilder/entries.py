"""What an entry of the catalogue of environments is, who finds it, and what may be said of it (CG-17, CG-22, CG-38).

Pure rules on plain data. An entry is the centre's (no owner) or a person's. Its name is what requests say: a word
for the centre's, ``ada/paint`` for a person's, so nobody takes a name from anybody. It is for its owner alone
(*own*), for those it is shared with (*group*), or for everybody (*public*); the centre's are public or shared.
What somebody may not find answers exactly as what does not exist.

Start options are those of ``environments:`` in ``galilean.yaml``, read by the same rules
(:class:`galilean.settings.EnvironmentSettings`); ``sudo``, licence servers and containers inside are for administrators
to give: an owner may keep or drop what they were given, and not change it. An interpreter
(``python``) is a path of the machine and can stand in the file alone.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from extensions.imagebuilder.looks import is_stock
from extensions.imagebuilder.names import name_space
from galilean.errors import UserError, mark
from galilean.settings import EnvironmentSettings, Settings

MANAGE = "environments:manage"
TITLE_MOST, DESCRIPTION_MOST, DOCUMENTATION_MOST, NOTE_MOST = 80, 500, 50_000, 500
SHARES_MOST = 200
VISIBILITIES = ("own", "group", "public")
#: The nine of CG-22; a centre adds its own (``images.fields``).
FIELDS: dict[str, str] = {
    "ai": mark("AI and big data"),
    "robotics": mark("Robotics"),
    "physics": mark("Chemistry, physics and CFD"),
    "life": mark("Life science"),
    "academic": mark("Academic"),
    "aerospace": mark("Aerospace"),
    "semiconductors": mark("Heavy industry and semiconductors"),
    "petroleum": mark("Petroleum and parallel computing"),
    "cae": mark("CAE"),
}
#: What ``start`` may hold, of :class:`galilean.settings.EnvironmentSettings`.
START = (
    "variables",
    "interfaces",
    "command",
    "ports",
    "display",
    "vnc",
    "applications",
    "hostname",
    "gpu",
    "needs_gpu",
    "least_memory",
    "sudo",
    "licences",
    "containers",
)
#: Of these, what only administrators give; whoever makes an entry of a saved image does not inherit it.
GIVEN = ("sudo", "licences", "containers")
_ONLY_GIVEN = {
    "sudo": mark("Only administrators may give sudo."),
    "licences": mark("Only administrators may name licence servers. Ask one of them."),
    "containers": mark("Only administrators may let containers be started inside of nodes. Ask one of them."),
}
_SLUG = re.compile(r"[a-z0-9](?:-?[a-z0-9])*", re.ASCII)
SLUG_MOST = 40
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """Who looks.

    Attributes
    ----------
    groups
        Slugs of the groups of people they are in.
    has_role
        Whether they may run and make anything at all.
    manages
        Whether everybody's entries are theirs to change (``environments:manage``).
    """

    name: str
    groups: frozenset[str] = frozenset()
    has_role: bool = True
    manages: bool = False


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who changes something; ``address`` is where the request came from."""

    name: str
    address: str = ""


@dataclass(frozen=True)
class Grantee:
    """Whom an entry is shared with: ``kind`` is person or group."""

    kind: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Version:
    """One image of an entry, by digest; see :mod:`extensions.imagebuilder.tables`."""

    environment_id: str
    number: int
    tag: str
    image: str
    digest: str
    source: str = ""
    key_id: str = ""
    saved_image_id: str = ""
    size_bytes: int | None = None
    layers: int | None = None
    platform: str = ""
    told: tuple[Mapping[str, Any], ...] = ()
    note: str = ""
    added_at: datetime
    added_by: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An entry with the version that a new run gets."""

    id: str
    name: str
    owner: str
    title: str
    description: str = ""
    documentation: str = ""
    field: str = ""
    logo: str = ""
    start: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    gpu: bool = False
    visibility: str = "own"
    version: Version
    created_at: datetime
    created_by: str = ""
    changed_at: datetime
    retired_at: datetime | None = None
    retired_by: str = ""
    deleted_at: datetime | None = None

    @property
    def settings(self) -> EnvironmentSettings:
        """As a start, a picker and the doors read it."""
        return EnvironmentSettings.model_validate(
            {
                **self.start,
                "title": self.title,
                "description": self.description,
                "image": self.version.image,
                "as_is": is_stock(self.version.told),
            }
        )


def may_see(viewer: Viewer, entry: Entry, grantees: Iterable[Grantee] = ()) -> bool:
    """Whether it is there at all for somebody."""
    if viewer.manages or (entry.owner and entry.owner == viewer.name):
        return True
    if entry.deleted_at is not None:
        return False
    if entry.visibility == "public":
        return True
    return entry.visibility == "group" and any(
        one.name == viewer.name if one.kind == "person" else one.name in viewer.groups for one in grantees
    )


def may_change(viewer: Viewer, entry: Entry) -> bool:
    """Whether they may edit, share, retire and delete it, and add versions."""
    return viewer.has_role and (viewer.manages or (bool(entry.owner) and entry.owner == viewer.name))


def need_change(viewer: Viewer, entry: Entry) -> None:
    """Refuse whoever may only look.

    Raises
    ------
    UserError
        403.
    """
    if not may_change(viewer, entry):
        raise UserError(
            403, mark("Only its owner and administrators may change this environment."), reason="access"
        )


def may_keep(viewer: Viewer, settings: Settings, *, centre: bool) -> bool:
    """Whether they may make an entry of what they saved: one of the centre's, or their own."""
    return viewer.has_role and (viewer.manages or (settings.images.own and not centre))


def need_keep(viewer: Viewer, settings: Settings, *, centre: bool) -> None:
    """Refuse whoever may not, in words.

    Raises
    ------
    UserError
        403.
    """
    if not may_keep(viewer, settings, centre=centre):
        raise UserError(
            403,
            mark("Only administrators may make environments for everybody.")
            if centre
            else mark("Here only administrators keep environments. Ask one of them."),
            reason="access",
        )


def may_make(viewer: Viewer, settings: Settings, *, centre: bool) -> bool:
    """Whether they may make an entry of an image: processes have none."""
    return settings.backend != "process" and may_keep(viewer, settings, centre=centre)


def need_make(viewer: Viewer, settings: Settings, *, centre: bool) -> None:
    """Refuse whoever may not make one, in words.

    Raises
    ------
    UserError
        409 on the process backend, which has no images; 403.
    """
    if settings.backend == "process":
        raise no_images()
    need_keep(viewer, settings, centre=centre)


def no_images() -> UserError:
    """For whoever wants an image where there are none."""
    return UserError(
        409,
        mark(
            "On this installation nodes are processes, which have no images: an environment is a Python "
            "environment, named in galilean.yaml or saved from a node."
        ),
        reason="no-images",
    )


def no_such_entry() -> UserError:
    """The same refusal for what does not exist and for what the person may not know of."""
    return UserError(404, mark("There is no such environment, or it is not shared with you."))


# ------------------------------------------------------------------------------------------------- what is said


def check_slug(text: str) -> str:
    """The last word of an entry's name.

    Raises
    ------
    UserError
        400 with the rule in words.
    """
    if len(text) > SLUG_MOST or not _SLUG.fullmatch(text):
        raise UserError(
            400,
            mark(
                "“{name}” cannot name an environment: small letters, digits and single hyphens between them, "
                "at most {most} characters."
            ),
            name=text[:60],
            most=SLUG_MOST,
        )
    return text


def slug_of(text: str) -> str:
    """A last word made from an image's or environment's name; empty when nothing of it can be written so."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:SLUG_MOST].strip("-")


def full_name(owner: str, slug: str) -> str:
    """What requests say: the word alone for the centre's."""
    return f"{name_space(owner)}/{slug}" if owner else slug


def check_tag(text: str) -> str:
    """The tag of a version.

    Raises
    ------
    UserError
        400.
    """
    if not _TAG.fullmatch(text):
        raise UserError(
            400,
            mark("“{tag}” is no tag: letters, digits and the signs . _ -, at most 128 characters."),
            tag=text[:60],
        )
    return text


def check_field(name: str, settings: Settings) -> str:
    """``name`` when there is such a field; empty stays empty.

    Raises
    ------
    UserError
        400, naming those there are.
    """
    known = fields_of(settings)
    if name and name not in known:
        raise UserError(
            400,
            mark("There is no field “{field}”. Choose one of: {known}."),
            field=name[:60],
            known=", ".join(known),
        )
    return name


def fields_of(settings: Settings) -> dict[str, str]:
    """Short name → title, the built-in ones first."""
    return {**FIELDS, **settings.images.fields}


def clean_text(text: str, most: int, *, lines: bool = False) -> str:
    """A text as it is kept: no control characters, no blanks around it.

    Raises
    ------
    UserError
        400 when it is too long.
    """
    kept = unicodedata.normalize("NFC", text).replace("\r\n", "\n").strip()
    kept = "".join(c for c in kept if c.isprintable() or (lines and c in "\n\t"))
    if len(kept) > most:
        raise UserError(
            400, mark("The text is too long: {count} characters of {most}."), count=len(kept), most=most
        )
    return kept


def check_title(text: str) -> str:
    """A title: a line that is not empty.

    Raises
    ------
    UserError
        400.
    """
    title = clean_text(text, TITLE_MOST)
    if not title:
        raise UserError(400, mark("Give the environment a title."))
    return title


def check_start(
    start: Mapping[str, Any],
    settings: Settings,
    viewer: Viewer,
    *,
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Start options as they are kept: read, completed, and nothing that the backend cannot give.

    ``before`` are those that the entry has: what an administrator gave may be sent back as it is.

    Raises
    ------
    UserError
        400, naming the option; 403 for what only administrators give.
    """
    strange = next((key for key in start if key not in START), None)
    if strange is not None:
        raise UserError(
            400,
            mark("There is no start option “{name}”. There are: {known}."),
            name=str(strange)[:60],
            known=", ".join(START),
        )
    try:
        read = EnvironmentSettings.model_validate({**start, "title": "–"})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        why = str(first["msg"]).removeprefix("Value error, ")
        raise UserError(
            400, mark("Start option {name}: {why}"), name=place or "start", why=why[:300], reason="start"
        ) from None
    found = read.model_dump(mode="json", include=set(START), exclude_defaults=True)
    given = {key for key in GIVEN if found.get(key) and found[key] != (before or {}).get(key)}
    if given and not viewer.manages:
        raise UserError(
            403,
            next(words for key, words in _ONLY_GIVEN.items() if key in given),
            reason="access",
        )
    problem = next(settings.problems_of(read), None)
    if problem is not None:
        raise UserError(400, mark("Start option {name}: {why}"), name="", why=problem, reason="start")
    return found


def without_passwords(start: Mapping[str, Any]) -> dict[str, Any]:
    """Start options without what a VNC server asks for; whether it asks stays."""
    vnc = start.get("vnc")
    if not vnc or not vnc.get("password"):
        return dict(start)
    return {**start, "vnc": {**vnc, "password": "…"}}


def check_visibility(word: str, owner: str, grantees: Iterable[Grantee]) -> str:
    """The word for who finds it.

    Raises
    ------
    UserError
        400 for another word, or *group* with nobody, or too many of them.
    """
    if word not in VISIBILITIES:
        raise UserError(
            400, mark("Who finds it is one of: {known}."), known=", ".join(VISIBILITIES), reason="visibility"
        )
    count = len(list(grantees))
    if word == "group" and not count:
        raise UserError(400, mark("Say with whom it is shared: a person's or a group's name."))
    if count > SHARES_MOST:
        raise UserError(
            400, mark("It can be shared with at most {most} people and groups."), most=SHARES_MOST
        )
    if word == "own" and not owner:
        raise UserError(
            400, mark("An environment of the centre is for everybody, or for named people and groups.")
        )
    return word


def search_text(*parts: str) -> str:
    """By what an entry is found: the same letters on every database."""
    return " ".join(fold(part) for part in parts if part)[:4000]


def fold(text: str) -> str:
    """Width and case do not matter."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
