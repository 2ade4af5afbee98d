"""Tables of people: what the hub does not keep of them, and imports.

The hub owns accounts, memberships and passwords; here stands how somebody is called, whom they are blocked
by and why, and what an import made, so that it can be undone. A person without a row has only an account.
"""

from __future__ import annotations

from sqlalchemy import JSON, Column, Index, Integer, String, Table, Text, UniqueConstraint

from galilean.db import UTCDateTime, metadata

people = Table(
    "people",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("full_name", String(255), nullable=False, server_default=""),
    Column("mail", String(255), nullable=False, server_default=""),
    Column("created_at", UTCDateTime(), nullable=False),
    Column("created_by", String(255), nullable=False, server_default=""),
    Column("import_id", String(26)),
    Column("blocked_at", UTCDateTime()),
    Column("blocked_by", String(255), nullable=False, server_default=""),
    Column("blocked_reason", Text, nullable=False, server_default=""),
    Index(None, "import_id"),
)

#: ``rows`` is what came of each line: ``{line, name, outcome, added: [hub groups], problem}``, no passwords.
imports = Table(
    "imports",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("at", UTCDateTime(), nullable=False),
    Column("by", String(255), nullable=False),
    Column("file", String(255), nullable=False, server_default=""),
    Column("rows", JSON, nullable=False),
    Column("done", Integer, nullable=False, server_default="0"),
    Column("finished_at", UTCDateTime()),
    Column("undone_at", UTCDateTime()),
)

#: People's public keys for ssh (:mod:`services.people.ssh_keys`); ``public`` is ``type base64`` and nothing more.
ssh_keys = Table(
    "ssh_keys",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("user", String(255), nullable=False),
    Column("name", String(255), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("fingerprint", String(80), nullable=False),
    Column("public", Text, nullable=False),
    Column("added_at", UTCDateTime(), nullable=False),
    Column("used_at", UTCDateTime()),
    UniqueConstraint("user", "fingerprint"),
)
