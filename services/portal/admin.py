"""Entries of the administration: the left sidebar, and the menu in the top bar.

A room adds its page by one line in :data:`ENTRIES`; nobody sees an entry that their rights do not open.
Badges are numbers that wait for somebody (amber) or merely count (plain), asked of :class:`Badges` by name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from galilean.errors import mark

CONTENT, PLATFORM = mark("Content and hardware"), mark("Platform")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One page of the administration.

    Attributes
    ----------
    place
        Relative to the portal's prefix.
    rights
        Any of these opens it.
    section
        Heading under which it stands; empty = above all headings.
    badge
        Name of the number beside it, see :meth:`services.portal.frame.Frame.badges`.
    """

    label: str
    place: str
    icon: str
    rights: tuple[str, ...]
    section: str = ""
    badge: str = ""

    def seen_with(self, rights: Collection[str]) -> bool:
        return any(right in rights for right in self.rights)


#: Whoever has one of these has something to look at in the overview.
OVERVIEW_RIGHTS = ("clusters:read-all", "people:manage", "machines:manage", "usage:read-all")
PEOPLE_RIGHTS = ("people:manage", "groups:manage", "roles:manage")

ENTRIES: tuple[Entry, ...] = (
    Entry(
        label=mark("Overview"), place="admin", icon="speedometer2", rights=OVERVIEW_RIGHTS, badge="overview"
    ),
    Entry(
        label=mark("Online"),
        place="admin/online",
        icon="broadcast",
        rights=("clusters:read-all",),
        badge="online",
    ),
    Entry(
        label=mark("Machine time"), place="admin/machine-time", icon="activity", rights=("usage:read-all",)
    ),
    Entry(label=mark("Calendar"), place="admin/calendar", icon="clock", rights=("clusters:read-all",)),
    Entry(
        label=mark("People"), place="admin/people", icon="people", rights=("people:manage",), badge="people"
    ),
    Entry(label=mark("Groups"), place="admin/groups", icon="diagram-2", rights=("groups:manage",)),
    Entry(label=mark("Roles and rights"), place="admin/roles", icon="person-check", rights=("roles:manage",)),
    Entry(label=mark("Quotas"), place="admin/quotas", icon="sliders", rights=("quotas:manage",)),
    Entry(label=mark("Release policies"), place="admin/release", icon="clock", rights=("release:manage",)),
    Entry(
        label=mark("All projects"),
        place="admin/projects",
        icon="folder",
        rights=("projects:manage",),
        section=CONTENT,
    ),
    Entry(
        label=mark("Export and import"),
        place="admin/archives",
        icon="box",
        rights=("projects:manage",),
        section=CONTENT,
    ),
    Entry(
        label=mark("All data sets"),
        place="admin/datasets",
        icon="database",
        rights=("datasets:manage",),
        section=CONTENT,
    ),
    Entry(
        label=mark("All environments"),
        place="admin/environments",
        icon="box",
        rights=("environments:manage",),
        section=CONTENT,
    ),
    Entry(
        label=mark("Volumes"),
        place="admin/volumes",
        icon="hdd",
        rights=("volumes:manage",),
        section=CONTENT,
    ),
    Entry(
        label=mark("Machines"),
        place="admin/machines",
        icon="hdd-rack",
        rights=("machines:manage",),
        section=CONTENT,
        badge="machines",
    ),
    Entry(
        label=mark("Home page and messages"),
        place="admin/site",
        icon="house",
        rights=("site:manage",),
        section=PLATFORM,
    ),
    Entry(
        label=mark("Audit"),
        place="admin/audit",
        icon="journal-code",
        rights=("audit:read",),
        section=PLATFORM,
    ),
)


def entries_for(rights: Collection[str]) -> Iterator[Entry]:
    """What somebody with these rights sees, in order."""
    return (entry for entry in ENTRIES if entry.seen_with(rights))


def is_current(entry: Entry, path: str, prefix: str) -> bool:
    """Whether a page belongs to an entry; the overview is only itself."""
    url = prefix + entry.place
    return path.rstrip("/") == url or (entry.place != "admin" and path.startswith((url + "/", url + "-")))
