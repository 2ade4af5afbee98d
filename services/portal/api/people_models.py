"""People, groups, roles, the audit log and imports as the API shows and takes them (AP-31 … AP-36, SC-17)."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from services.portal.api.models import Incoming, Outgoing

Names = list[str]


class Person(Outgoing):
    name: str
    full_name: str
    mail: str
    state: Literal["blocked", "waits", "holds", "in"]
    roles: Names = Field(description="The person's own.")
    effective_roles: Names = Field(description="Own ones and those of the groups.")
    groups: Names
    clusters: int = Field(description="Held or waited for now.")
    created_at: datetime | None
    last_seen_at: datetime | None
    blocked_reason: str


class NewPerson(Incoming):
    name: str = Field(min_length=1, max_length=32)
    roles: Names = Field(default=[], max_length=100)
    groups: Names = Field(default=[], max_length=500)
    full_name: str = Field(default="", max_length=255)
    mail: str = Field(default="", max_length=128)
    password: str | None = Field(default=None, min_length=8, max_length=72)


class PersonChange(Incoming):
    """What is sent is changed: a list says all that the person is to have."""

    roles: Names | None = Field(default=None, max_length=100)
    groups: Names | None = Field(default=None, max_length=500)
    full_name: str | None = Field(default=None, max_length=255)
    mail: str | None = Field(default=None, max_length=128)


class NewBlock(Incoming):
    reason: str = Field(min_length=1, max_length=500)
    release: bool = Field(default=False, description="Release what is held now; else its policy decides.")


class NewPassword(Incoming):
    password: str | None = Field(
        default=None, min_length=8, max_length=72, description="Left out = one is made and answered, once."
    )


class PasswordSet(Outgoing):
    name: str
    password: str | None = Field(description="The one that was made; null = the one that was sent.")


class Role(Outgoing):
    name: str
    title: str
    builtin: bool
    rights: Names


class NewRole(Incoming):
    name: str = Field(min_length=1, max_length=40)
    title: str = Field(default="", max_length=80)
    rights: Names = Field(default=[], max_length=100)


class RoleChange(Incoming):
    title: str | None = Field(default=None, max_length=80)
    rights: Names | None = Field(default=None, max_length=100)


class Group(Outgoing):
    slug: str
    title: str
    description: str
    roles: Names


class GroupDetail(Group):
    members: Names


class NewGroup(Incoming):
    title: str = Field(min_length=1, max_length=80)
    slug: str = Field(default="", max_length=30)
    description: str = Field(default="", max_length=2000)
    roles: Names = Field(default=[], max_length=100)


class GroupChange(Incoming):
    title: str | None = Field(default=None, max_length=80)
    description: str | None = Field(default=None, max_length=2000)
    roles: Names | None = Field(default=None, max_length=100)


class AuditLine(Outgoing):
    id: int
    at: datetime
    actor: str
    address: str
    action: str
    subject: str
    before: Any
    after: Any
    reason: str


class NewImport(Incoming):
    text: str = Field(max_length=2 * 2**20, description="The table as CSV, with a first line of columns.")
    role: str = Field(default="", max_length=64, description="Of those without one in the table.")
    file: str = Field(default="", max_length=255, description="What it is called.")
    dry_run: bool = Field(default=False, description="Only say what it would do.")


class ImportLine(Outgoing):
    line: int
    name: str
    outcome: str
    problem: str


class ImportPasswords(Outgoing):
    """The passwords that an import made, by account."""

    passwords: dict[str, str]


class Import(Outgoing):
    id: str | None = Field(description="null for a dry run.")
    done: int
    finished: bool
    undone: bool
    lines: list[ImportLine]
