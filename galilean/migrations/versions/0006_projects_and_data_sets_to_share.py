"""Projects and data sets to share

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import galilean.db

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

#: As services.catalog.public_for_ever says it for tables that are made at once (a test compares them).
PUBLIC_FOR_EVER = {
    "postgresql": [
        "CREATE OR REPLACE FUNCTION galilean_public_for_ever() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'a public data set stays public'; END $$",
        "CREATE TRIGGER datasets_public_update BEFORE UPDATE ON datasets FOR EACH ROW WHEN (OLD.visibility = 'public' AND (NEW.visibility <> 'public' OR NEW.id <> OLD.id)) EXECUTE FUNCTION galilean_public_for_ever()",
        "CREATE TRIGGER datasets_public_delete BEFORE DELETE ON datasets FOR EACH ROW WHEN (OLD.visibility = 'public') EXECUTE FUNCTION galilean_public_for_ever()",
        "CREATE TRIGGER datasets_public_truncate BEFORE TRUNCATE ON datasets FOR EACH STATEMENT EXECUTE FUNCTION galilean_public_for_ever()",
    ],
    "sqlite": [
        "CREATE TRIGGER datasets_public_update BEFORE UPDATE ON datasets WHEN OLD.visibility = 'public' AND (NEW.visibility IS NOT 'public' OR NEW.id IS NOT OLD.id) BEGIN SELECT RAISE(ABORT, 'a public data set stays public'); END",
        "CREATE TRIGGER datasets_public_delete BEFORE DELETE ON datasets WHEN OLD.visibility = 'public' BEGIN SELECT RAISE(ABORT, 'a public data set stays public'); END",
        "CREATE TRIGGER datasets_public_replace BEFORE INSERT ON datasets WHEN EXISTS (SELECT 1 FROM datasets AS old WHERE old.id = NEW.id AND old.visibility = 'public') BEGIN SELECT RAISE(ABORT, 'a public data set stays public'); END",
    ],
}


def upgrade() -> None:
    op.create_table(
        "card_words",
        sa.Column(
            "card", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column(
            "word",
            sa.String(length=96).with_variant(sa.String(length=96, collation="C"), "postgresql"),
            nullable=False,
        ),
        sa.Column("shelf", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("card", "word", name=op.f("pk_card_words")),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("card_words", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_card_words_shelf_word_card"), ["shelf", "word", "card"], unique=False
        )

    op.create_table(
        "cards",
        sa.Column(
            "number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("item_id", sa.String(length=26), nullable=False),
        sa.Column("shelf", sa.SmallInteger(), nullable=False),
        sa.Column("version", sa.SmallInteger(), nullable=False),
        sa.Column("taken_down", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("slug", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("summary", sa.String(length=255), server_default="", nullable=False),
        sa.Column("visibility", sa.String(length=16), nullable=False),
        sa.Column("cover", sa.String(length=64), server_default="", nullable=False),
        sa.Column("field", sa.String(length=64), server_default="", nullable=False),
        sa.Column("environment", sa.String(length=128), server_default="", nullable=False),
        sa.Column("tags", sa.JSON(), server_default="[]", nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column(
            "sort_name",
            sa.String(length=255).with_variant(sa.String(length=255, collation="C"), "postgresql"),
            nullable=False,
        ),
        sa.Column("changed_at", galilean.db.UTCDateTime(), nullable=False),
        sa.Column("new_at", galilean.db.UTCDateTime(), nullable=False),
        sa.Column("views", sa.Integer(), server_default="0", nullable=False),
        sa.Column("uses", sa.Integer(), server_default="0", nullable=False),
        sa.Column("favourites", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_cards")),
        sa.UniqueConstraint("kind", "item_id", name=op.f("uq_cards_kind_item_id")),
    )
    with op.batch_alter_table("cards", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_cards_owner_kind"), ["owner", "kind"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_cards_shelf_changed_at_number"), ["shelf", "changed_at", "number"], unique=False
        )
        batch_op.create_index(
            batch_op.f("ix_cards_shelf_favourites_number"), ["shelf", "favourites", "number"], unique=False
        )
        batch_op.create_index(
            batch_op.f("ix_cards_shelf_new_at_number"), ["shelf", "new_at", "number"], unique=False
        )
        batch_op.create_index(
            batch_op.f("ix_cards_shelf_sort_name_number"), ["shelf", "sort_name", "number"], unique=False
        )
        batch_op.create_index(
            batch_op.f("ix_cards_shelf_uses_number"), ["shelf", "uses", "number"], unique=False
        )
        batch_op.create_index(
            batch_op.f("ix_cards_shelf_views_number"), ["shelf", "views", "number"], unique=False
        )

    op.create_table(
        "counted",
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("item_id", sa.String(length=26), nullable=False),
        sa.Column("what", sa.String(length=16), nullable=False),
        sa.Column("person", sa.String(length=255), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "item_id", "what", "person", "day", name=op.f("pk_counted")),
    )
    with op.batch_alter_table("counted", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_counted_day"), ["day"], unique=False)

    op.create_table(
        "favourites",
        sa.Column("person", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("item_id", sa.String(length=26), nullable=False),
        sa.Column("at", galilean.db.UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("person", "kind", "item_id", name=op.f("pk_favourites")),
    )
    op.create_table(
        "shares",
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("item_id", sa.String(length=26), nullable=False),
        sa.Column("grantee_kind", sa.String(length=16), nullable=False),
        sa.Column("grantee", sa.String(length=255), nullable=False),
        sa.Column("access", sa.String(length=16), nullable=False),
        sa.Column("given_by", sa.String(length=255), nullable=False),
        sa.Column("given_at", galilean.db.UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "item_id", "grantee_kind", "grantee", name=op.f("pk_shares")),
    )
    with op.batch_alter_table("shares", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_shares_grantee_grantee_kind_kind"),
            ["grantee", "grantee_kind", "kind"],
            unique=False,
        )

    op.create_table(
        "datasets",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("slug", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("summary", sa.String(length=255), server_default="", nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("search_text", sa.Text(), nullable=False),
        sa.Column("sort_name", sa.String(length=255), nullable=False),
        sa.Column("mount", sa.String(length=64), nullable=False),
        sa.Column("visibility", sa.String(length=16), server_default="private", nullable=False),
        sa.Column("volume_id", sa.String(length=64), nullable=False),
        sa.Column("directory", sa.String(length=512), nullable=False),
        sa.Column("cover", sa.String(length=64), server_default="", nullable=False),
        sa.Column("field", sa.String(length=64), server_default="", nullable=False),
        sa.Column("tags", sa.JSON(), server_default="[]", nullable=False),
        sa.Column("busy", sa.String(length=16), server_default="", nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("file_count", sa.BigInteger(), nullable=True),
        sa.Column("measured_at", galilean.db.UTCDateTime(), nullable=True),
        sa.Column("created_at", galilean.db.UTCDateTime(), nullable=False),
        sa.Column("changed_at", galilean.db.UTCDateTime(), nullable=False),
        sa.Column("published_at", galilean.db.UTCDateTime(), nullable=True),
        sa.Column("deleted_at", galilean.db.UTCDateTime(), nullable=True),
        sa.Column("purged_at", galilean.db.UTCDateTime(), nullable=True),
        sa.Column("taken_down_at", galilean.db.UTCDateTime(), nullable=True),
        sa.Column("taken_down_by", sa.String(length=255), server_default="", nullable=False),
        sa.Column("taken_down_reason", sa.Text(), server_default="", nullable=False),
        sa.CheckConstraint(
            "visibility IN ('private', 'shared', 'public')", name=op.f("ck_datasets_visibility")
        ),
        sa.ForeignKeyConstraint(["volume_id"], ["volumes.id"], name=op.f("fk_datasets_volume_id_volumes")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datasets")),
    )
    with op.batch_alter_table("datasets", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_datasets_owner_changed_at"), ["owner", "changed_at"], unique=False
        )
        batch_op.create_index(
            "uq_datasets_open",
            ["owner", "slug"],
            unique=True,
            sqlite_where=sa.text("deleted_at IS NULL"),
            postgresql_where=sa.text("deleted_at IS NULL"),
        )

    op.create_table(
        "project_datasets",
        sa.Column("project_id", sa.String(length=26), nullable=False),
        sa.Column("dataset_id", sa.String(length=26), nullable=False),
        sa.Column("mount", sa.String(length=64), nullable=False),
        sa.Column("mount_key", sa.String(length=64), nullable=False),
        sa.Column("writable", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("added_by", sa.String(length=255), nullable=False),
        sa.Column("added_at", galilean.db.UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_project_datasets_dataset_id_datasets")
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_project_datasets_project_id_projects")
        ),
        sa.PrimaryKeyConstraint("project_id", "dataset_id", name=op.f("pk_project_datasets")),
        sa.UniqueConstraint("project_id", "mount_key", name=op.f("uq_project_datasets_project_id_mount_key")),
    )
    with op.batch_alter_table("project_datasets", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_project_datasets_dataset_id"), ["dataset_id"], unique=False)

    with op.batch_alter_table("projects", schema=None) as batch_op:
        batch_op.add_column(sa.Column("purged_at", galilean.db.UTCDateTime(), nullable=True))
        batch_op.add_column(sa.Column("cover", sa.String(length=64), server_default="", nullable=False))
        batch_op.add_column(sa.Column("readme", sa.String(length=255), server_default="", nullable=False))
        batch_op.add_column(sa.Column("field", sa.String(length=64), server_default="", nullable=False))
        batch_op.add_column(sa.Column("tags", sa.JSON(), server_default="[]", nullable=False))
        batch_op.add_column(sa.Column("published_at", galilean.db.UTCDateTime(), nullable=True))
        batch_op.add_column(sa.Column("forked_from", sa.String(length=26), nullable=True))
        batch_op.add_column(sa.Column("busy", sa.String(length=16), server_default="", nullable=False))
        batch_op.add_column(sa.Column("size_bytes", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("file_count", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("measured_at", galilean.db.UTCDateTime(), nullable=True))
        batch_op.add_column(sa.Column("taken_down_at", galilean.db.UTCDateTime(), nullable=True))
        batch_op.add_column(
            sa.Column("taken_down_by", sa.String(length=255), server_default="", nullable=False)
        )
        batch_op.add_column(sa.Column("taken_down_reason", sa.Text(), server_default="", nullable=False))
        batch_op.create_index(batch_op.f("ix_projects_forked_from"), ["forked_from"], unique=False)

    with op.batch_alter_table("volumes", schema=None) as batch_op:
        batch_op.add_column(sa.Column("claim", sa.String(length=253), server_default="", nullable=False))
        batch_op.add_column(sa.Column("holds", sa.String(length=16), server_default="both", nullable=False))
        batch_op.add_column(sa.Column("state", sa.String(length=16), server_default="open", nullable=False))
        batch_op.add_column(sa.Column("drains_to", sa.String(length=64), server_default="", nullable=False))
        batch_op.add_column(sa.Column("total_bytes", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("free_bytes", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("looked_at", galilean.db.UTCDateTime(), nullable=True))
        batch_op.add_column(sa.Column("problem", sa.String(length=255), server_default="", nullable=False))
        batch_op.add_column(
            sa.Column("registered_by", sa.String(length=255), server_default="", nullable=False)
        )

    for statement in PUBLIC_FOR_EVER[op.get_bind().dialect.name]:
        op.execute(statement)


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for verb in ("update", "delete", "truncate"):
            op.execute(f"DROP TRIGGER datasets_public_{verb} ON datasets")
        op.execute("DROP FUNCTION galilean_public_for_ever()")
    with op.batch_alter_table("volumes", schema=None) as batch_op:
        batch_op.drop_column("registered_by")
        batch_op.drop_column("problem")
        batch_op.drop_column("looked_at")
        batch_op.drop_column("free_bytes")
        batch_op.drop_column("total_bytes")
        batch_op.drop_column("drains_to")
        batch_op.drop_column("state")
        batch_op.drop_column("holds")
        batch_op.drop_column("claim")

    with op.batch_alter_table("projects", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_projects_forked_from"))
        batch_op.drop_column("taken_down_reason")
        batch_op.drop_column("taken_down_by")
        batch_op.drop_column("taken_down_at")
        batch_op.drop_column("measured_at")
        batch_op.drop_column("file_count")
        batch_op.drop_column("size_bytes")
        batch_op.drop_column("busy")
        batch_op.drop_column("forked_from")
        batch_op.drop_column("published_at")
        batch_op.drop_column("tags")
        batch_op.drop_column("field")
        batch_op.drop_column("readme")
        batch_op.drop_column("cover")
        batch_op.drop_column("purged_at")

    with op.batch_alter_table("project_datasets", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_project_datasets_dataset_id"))

    op.drop_table("project_datasets")
    with op.batch_alter_table("datasets", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_datasets_open",
            sqlite_where=sa.text("deleted_at IS NULL"),
            postgresql_where=sa.text("deleted_at IS NULL"),
        )
        batch_op.drop_index(batch_op.f("ix_datasets_owner_changed_at"))

    op.drop_table("datasets")
    with op.batch_alter_table("shares", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_shares_grantee_grantee_kind_kind"))

    op.drop_table("shares")
    op.drop_table("favourites")
    with op.batch_alter_table("counted", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_counted_day"))

    op.drop_table("counted")
    with op.batch_alter_table("cards", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_cards_shelf_views_number"))
        batch_op.drop_index(batch_op.f("ix_cards_shelf_uses_number"))
        batch_op.drop_index(batch_op.f("ix_cards_shelf_sort_name_number"))
        batch_op.drop_index(batch_op.f("ix_cards_shelf_new_at_number"))
        batch_op.drop_index(batch_op.f("ix_cards_shelf_favourites_number"))
        batch_op.drop_index(batch_op.f("ix_cards_shelf_changed_at_number"))
        batch_op.drop_index(batch_op.f("ix_cards_owner_kind"))

    op.drop_table("cards")
    with op.batch_alter_table("card_words", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_card_words_shelf_word_card"))

    op.drop_table("card_words")
