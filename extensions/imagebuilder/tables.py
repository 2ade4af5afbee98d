"""Tables of environments: entries, their versions, who finds them, saved images, and keys to registries.

An entry is what people choose; each of its versions is one image *by digest*, which nobody can move under a run.
Runs keep the name of the entry and the digest they were started from (``clusters``), so rows of entries are never
deleted: machine time of last year still has its words. Entries of ``galilean.yaml`` are not in these tables.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    false,
    text,
    true,
)

from galilean.db import UTCDateTime, metadata
from spawner.tables import clusters

_LIVING: dict[str, Any] = {
    "sqlite_where": text("deleted_at IS NULL"),
    "postgresql_where": text("deleted_at IS NULL"),
}

#: ``name`` is what requests and projects say: ``pytorch`` of the centre, ``ada/paint`` of a person (their name space,
#: :func:`extensions.imagebuilder.names.name_space`). ``owner`` is empty for the centre's. ``start`` are the start
#: options, as :class:`galilean.settings.EnvironmentSettings` reads them. ``version`` is the number of the version
#: that a new run gets. ``logo`` names a picture that the portal keeps; empty = one that is drawn.
environments = Table(
    "environments",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("owner", String(255), nullable=False),
    Column("title", String(80), nullable=False),
    Column("description", String(500), nullable=False, server_default=""),
    Column("documentation", Text, nullable=False, server_default=""),
    Column("field", String(64), nullable=False, server_default=""),
    Column("logo", String(64), nullable=False, server_default=""),
    Column("start", JSON, nullable=False),
    # Of the start options, for filters: whether it is made for GPUs, and its interfaces as " jupyter desktop ".
    Column("gpu", Boolean, nullable=False, server_default=false()),
    Column("interfaces", String(64), nullable=False, server_default=" jupyter "),
    # own, group (with whom stands in ``environment_shares``) or public.
    Column("visibility", String(16), nullable=False, server_default="own"),
    Column("version", Integer, nullable=False),
    Column("search_text", Text, nullable=False),
    Column("sort_name", String(80), nullable=False),
    Column("created_at", UTCDateTime(), nullable=False),
    Column("created_by", String(255), nullable=False),
    Column("changed_at", UTCDateTime(), nullable=False),
    # An administrator has its image on every machine, though nobody but its owner may see it.
    Column("beforehand", Boolean, nullable=False, server_default=false()),
    # No new runs; those that are there stay.
    Column("retired_at", UTCDateTime()),
    Column("retired_by", String(255), nullable=False, server_default=""),
    Column("deleted_at", UTCDateTime()),
    CheckConstraint("visibility IN ('own', 'group', 'public')", name="visibility"),
    Index("uq_environments_open", "name", unique=True, **_LIVING),
    Index(None, "owner"),
)

#: ``image`` is :class:`extensions.imagebuilder.names.Pinned` as text, ``digest`` the part that runs keep; ``source`` the
#: address that somebody typed, tag and all. ``told`` are findings of its looks (:mod:`extensions.imagebuilder.looks`).
environment_versions = Table(
    "environment_versions",
    metadata,
    Column("environment_id", String(26), ForeignKey(environments.c.id), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("tag", String(128), nullable=False),
    Column("image", String(512), nullable=False),
    Column("digest", String(136), nullable=False),
    Column("source", String(512), nullable=False, server_default=""),
    # The key it is fetched with (``registry_keys``); empty = nobody asks for one.
    Column("key_id", String(26), nullable=False, server_default=""),
    # The saved image it was made from; empty = registered by address.
    Column("saved_image_id", String(26), nullable=False, server_default=""),
    Column("size_bytes", BigInteger),
    Column("layers", Integer),
    Column("platform", String(64), nullable=False, server_default=""),
    Column("told", JSON, nullable=False, server_default="[]"),
    Column("note", String(500), nullable=False, server_default=""),
    Column("added_at", UTCDateTime(), nullable=False),
    Column("added_by", String(255), nullable=False),
    Index(None, "digest"),
)

#: Who finds an entry besides its owner: ``grantee_kind`` person or group (slug of a group of people).
environment_shares = Table(
    "environment_shares",
    metadata,
    Column("environment_id", String(26), ForeignKey(environments.c.id), primary_key=True),
    Column("grantee_kind", String(16), primary_key=True),
    Column("grantee", String(255), primary_key=True),
    Column("given_by", String(255), nullable=False),
    Column("given_at", UTCDateTime(), nullable=False),
    Index(None, "grantee", "grantee_kind"),
)

#: Names and passwords of registries (AP-13): ``sealed`` is encrypted, and read by what fetches an image alone.
registry_keys = Table(
    "registry_keys",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("registry", String(255), nullable=False),
    Column("username", String(255), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("made_at", UTCDateTime(), nullable=False),
    Column("made_by", String(255), nullable=False),
    Column("deleted_at", UTCDateTime()),
    Index("uq_registry_keys_open", "owner", "registry", unique=True, **_LIVING),
)

#: Images that people saved from a node or uploaded (CG-18, CG-19, CG-38). ``state`` is saving, ready, failed or
#: cancelled; ``step`` what is being done, with bytes so far. ``changes`` is what differs from ``parent``. In the library
#: = ``environment_id``.
saved_images = Table(
    "saved_images",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("name", String(64), nullable=False),
    Column("tag", String(64), nullable=False),
    Column("description", String(500), nullable=False, server_default=""),
    Column("state", String(16), nullable=False),
    Column("step", String(32), nullable=False, server_default=""),
    Column("done_bytes", BigInteger, nullable=False, server_default="0"),
    Column("total_bytes", BigInteger),
    Column("cancel_asked_at", UTCDateTime()),
    Column("image", String(512), nullable=False, server_default=""),
    Column("digest", String(136), nullable=False, server_default=""),
    Column("size_bytes", BigInteger),
    Column("layers", Integer),
    Column("platform", String(64), nullable=False, server_default=""),
    Column("parent", String(512), nullable=False, server_default=""),
    # The entry that the run was of: a version made of this image begins with its start options.
    Column("environment", String(128), nullable=False, server_default=""),
    Column("run_id", String(26), nullable=False, server_default=""),
    Column("rank", Integer, nullable=False, server_default="0"),
    # saved, uploaded, built or adapted. Built: ``build`` says from what, and ``dockerfile`` is there from the beginning;
    # adapted: ``parent`` is the image, ``build`` the entry's name and version.
    Column("how", String(16), nullable=False, server_default="saved"),
    Column("build", JSON),
    Column("changes", JSON),
    Column("dockerfile", Text, nullable=False, server_default=""),
    Column("log", Text, nullable=False, server_default=""),
    # A message id and its values: why it failed.
    Column("why", Text, nullable=False, server_default=""),
    Column("why_params", JSON),
    Column("began_at", UTCDateTime(), nullable=False),
    Column("ended_at", UTCDateTime()),
    Column("environment_id", String(26), nullable=False, server_default=""),
    Column("deleted_at", UTCDateTime()),
    # Of an upload: the archive that waits, below the owner's folder; and the entry that it becomes a version of.
    Column("archive", String(64), nullable=False, server_default=""),
    Column("into_id", String(26), nullable=False, server_default=""),
    CheckConstraint("state IN ('saving', 'ready', 'failed', 'cancelled')", name="state"),
    Index("uq_saved_images_open", "owner", "name", "tag", unique=True, **_LIVING),
    Index(None, "state"),
)

#: Lock files of saved Python environments, by digest: what a run of last year ran can be read for good.
environment_locks = Table(
    "environment_locks",
    metadata,
    Column("digest", String(136), primary_key=True),
    Column("text", Text, nullable=False),
    Column("made_at", UTCDateTime(), nullable=False),
)

#: The current images of entries, on each machine: what a look at it showed, and how far a fetch is
#: (:mod:`extensions.imagebuilder.distribution`). ``private``: only a run's own key fetches it. ``beforehand``: it is
#: fetched without being asked for.
image_places = Table(
    "image_places",
    metadata,
    Column("image", String(512), primary_key=True),
    Column("machine", String(255), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("done_bytes", BigInteger, nullable=False, server_default="0"),
    Column("total_bytes", BigInteger),
    Column("why", Text, nullable=False, server_default=""),
    Column("why_params", JSON),
    Column("private", Boolean, nullable=False, server_default=false()),
    Column("beforehand", Boolean, nullable=False, server_default=true()),
    Column("changed_at", UTCDateTime(), nullable=False),
    # Somebody wanted it fetched anew.
    Column("asked_at", UTCDateTime()),
    # When it was fetched here last.
    Column("fetched_at", UTCDateTime()),
    CheckConstraint("state IN ('present', 'pulling', 'failed', 'absent')", name="state"),
)

#: What happened to an image on a machine: *asked* (by ``actor``), *begun*, *present* after ``seconds``, *failed*, *gone*.
image_place_events = Table(
    "image_place_events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("image", String(512), nullable=False),
    Column("machine", String(255), nullable=False),
    Column("at", UTCDateTime(), nullable=False),
    Column("what", String(16), nullable=False),
    Column("seconds", Integer),
    Column("why", Text, nullable=False, server_default=""),
    Column("why_params", JSON),
    Column("actor", String(255), nullable=False, server_default=""),
    Index(None, "image", "id"),
)

#: Who uses an entry, how often and when last is asked on every page of the catalogue.
Index("ix_clusters_environment", clusters.c.environment, clusters.c.queued_at)
