"""Who may see, run, fork, change and give away what (CG-12, CG-14, TI-9).

Everything here is a function of plain data: who somebody is, what a project or data set says of itself, and
to whom it is shared. What comes out is one word, :class:`Access`, and all questions are asked of it:

======== ============================================================ ===================================
access   projects                                                     data sets
======== ============================================================ ===================================
read     see, download, fork                                          see, download, mount read-only
run      also run it, on the owner's files, which cannot be written   the same as read
write    also change files, by page and in runs                       nobody but the owner
own      also name, settings, shares, publishing, deleting            also write, in runs only if they want
======== ============================================================ ===================================

*Public* gives everybody ``read``: who wants to run a public project forks it. A share gives what it says, to a
person or a group of people; the most that somebody has counts. What an administrator took down, and what lies
in the bin, is there for its owner and administrators alone. Whoever has no role yet may look, not run or make
(AP-2).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any, Literal, Protocol

from galilean.errors import UserError, mark
from galilean.rights import own_roles, slugs_of

Kind = Literal["project", "dataset"]
Visibility = Literal["private", "shared", "public"]

#: Rights beyond one's own things; the admin role has every right.
MANAGE = {"project": "projects:manage", "dataset": "datasets:manage"}


class Access(IntEnum):
    """What somebody may do with one project or data set; each has all of those before it."""

    NONE = 0
    READ = 1
    RUN = 2
    WRITE = 3
    OWN = 4


#: What can be given by a share, in the words of tables and API.
GIVEN: dict[str, dict[str, Access]] = {
    "project": {"read": Access.READ, "run": Access.RUN, "write": Access.WRITE},
    "dataset": {"read": Access.READ},
}


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """Who looks.

    Attributes
    ----------
    groups
        Slugs of the groups of people they are in.
    has_role
        Whether they may run and make anything at all.
    admin
        Whether everything is theirs to manage.
    rights
        What their roles allow beyond their own things.
    """

    name: str
    groups: frozenset[str] = frozenset()
    has_role: bool = True
    admin: bool = False
    rights: frozenset[str] = frozenset()

    @classmethod
    def of(cls, name: str, hub_groups: Collection[str], **known: Any) -> Viewer:
        """From a person's hub groups; ``known`` says what the caller knows better (roles of groups, rights)."""
        roles = own_roles(hub_groups)
        values = {"has_role": bool(roles), "admin": "admin" in roles, **known}
        return cls(name=name, groups=frozenset(slugs_of(hub_groups)), **values)

    def manages(self, kind: str) -> bool:
        """Whether everybody's things of a kind are theirs to manage."""
        return self.admin or MANAGE[kind] in self.rights


@dataclass(frozen=True, kw_only=True)
class Share:
    """What somebody, or everybody in a group, was given."""

    grantee_kind: Literal["person", "group"]
    grantee: str
    access: str
    given_by: str = ""
    given_at: datetime | None = None

    def holds_for(self, viewer: Viewer) -> bool:
        """Whether it is theirs."""
        if self.grantee_kind == "person":
            return self.grantee == viewer.name
        return self.grantee in viewer.groups


class Item(Protocol):
    """What rules ask of a project or data set."""

    @property
    def owner(self) -> str: ...
    @property
    def visibility(self) -> str: ...
    @property
    def deleted_at(self) -> datetime | None: ...
    @property
    def taken_down_at(self) -> datetime | None: ...


def access(viewer: Viewer, item: Item, shares: Iterable[Share] = (), *, kind: Kind = "project") -> Access:
    """The most that somebody may do.

    Parameters
    ----------
    viewer
        Who.
    item
        A project or data set.
    shares
        Its shares; those of others do no harm.
    kind
        Which of the two it is.
    """
    if viewer.name == item.owner or viewer.manages(kind):
        return Access.OWN
    if item.deleted_at is not None or item.taken_down_at is not None:
        return Access.NONE
    found = Access.READ if item.visibility == "public" else Access.NONE
    for share in shares:
        if share.holds_for(viewer):
            found = max(found, GIVEN[kind].get(share.access, Access.NONE))
    return found


def may_see(level: Access) -> bool:
    """Whether it is there at all; who may not is told that there is no such thing (404)."""
    return level >= Access.READ


def may_fork(viewer: Viewer, level: Access, item: Item) -> bool:
    """Whether they may make it their own: also the owner, who duplicates it."""
    return level >= Access.READ and viewer.has_role and item.deleted_at is None


def may_run(viewer: Viewer, level: Access, item: Item) -> bool:
    """Whether they may start a cluster of a project."""
    return level >= Access.RUN and viewer.has_role and item.deleted_at is None


def work_read_only(level: Access) -> bool:
    """Whether ``~/work`` of such a run may only be read."""
    return level < Access.WRITE


def may_write(viewer: Viewer, level: Access, item: Item) -> bool:
    """Whether they may change files."""
    return level >= Access.WRITE and viewer.has_role and item.deleted_at is None


def may_manage(viewer: Viewer, level: Access) -> bool:
    """Whether they may change name, settings and shares, publish, delete and restore."""
    return level >= Access.OWN and viewer.has_role


def need(viewer: Viewer, level: Access, least: Access) -> None:
    """Refuse what is beyond somebody's access to something that they may see.

    Raises
    ------
    UserError
        404 when they may not even see it, 403 in words otherwise.
    """
    if not may_see(level):
        raise no_such_thing()
    if least > Access.READ and not viewer.has_role:
        raise UserError(
            403,
            mark(
                "Your account waits for a role. An administrator must give you one before you can make or run "
                "anything."
            ),
            reason="role",
        )
    if level >= least:
        return
    raise UserError(
        403,
        {
            Access.RUN: mark("You may look at this and fork it, not run it. Fork it, and run your own copy."),
            Access.WRITE: mark("You may not change files here. Fork it, and change your own copy."),
            Access.OWN: mark("Only the owner may do this."),
        }[least],
        reason="access",
    )


def no_such_thing() -> UserError:
    """The same refusal for what does not exist and for what the person may not know of."""
    return UserError(404, mark("There is no such project or data set, or it is not shared with you."))


# --------------------------------------------------------------------------------------------- what changes


def check_share(kind: Kind, share: Share, owner: str) -> None:
    """Refuse a share that cannot be.

    Raises
    ------
    UserError
        400.
    """
    if share.access not in GIVEN[kind]:
        raise UserError(
            400,
            mark("Choose what is shared: {known}."),
            known=", ".join(GIVEN[kind]),
        )
    if not share.grantee or len(share.grantee) > 255 or "\0" in share.grantee:
        raise UserError(400, mark("Say with whom it is shared: a person's or a group's name."))
    if share.grantee_kind == "person" and share.grantee == owner:
        raise UserError(400, mark("It is {name}'s own already."), name=owner)


def visibility_with(current: str, shares: Collection[Share]) -> Visibility:
    """The word for it: shares do not make a public thing less so."""
    if current == "public":
        return "public"
    return "shared" if shares else "private"


Fate = Literal["goes on", "after grace"]

#: How long a run goes on whose person may no longer run the project as they do.
GRACE_SECONDS = 600


def fate(before: Access, after: Access) -> Fate:
    """What becomes of somebody's open run when their access to its project changes.

    A directory cannot be taken out of a node, or made read-only in it, while the node runs. So whoever may
    less than their run does is told and the cluster released after :data:`GRACE_SECONDS`. Who may more gets
    it with the next run. A data set in a node is held to the same.
    """
    if after < Access.RUN or (before >= Access.WRITE > after):
        return "after grace" if before >= Access.RUN else "goes on"
    return "goes on"
