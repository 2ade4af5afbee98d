"""A public data set never becomes private again (CG-12): a trigger in the database itself refuses it.

Other people's projects rest on it, so neither a page, nor a script, nor a mistake of ours may take it back.
Deleting it into the bin and taking it down by an administrator are other things: they leave ``visibility`` as
it is. Made by the migration and by ``metadata.create_all`` alike.
"""

from __future__ import annotations

from sqlalchemy import DDL, event

from services.catalog.tables import datasets

REFUSAL = "a public data set stays public"
_OLD = "EXISTS (SELECT 1 FROM datasets AS old WHERE old.id = NEW.id AND old.visibility = 'public')"


def statements(dialect: str) -> list[str]:
    """What makes public data sets stay so."""
    if dialect == "postgresql":
        return [
            "CREATE OR REPLACE FUNCTION galilean_public_for_ever() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{REFUSAL}'; END $$",
            "CREATE TRIGGER datasets_public_update BEFORE UPDATE ON datasets FOR EACH ROW "
            "WHEN (OLD.visibility = 'public' AND (NEW.visibility <> 'public' OR NEW.id <> OLD.id)) "
            "EXECUTE FUNCTION galilean_public_for_ever()",
            "CREATE TRIGGER datasets_public_delete BEFORE DELETE ON datasets FOR EACH ROW "
            "WHEN (OLD.visibility = 'public') EXECUTE FUNCTION galilean_public_for_ever()",
            "CREATE TRIGGER datasets_public_truncate BEFORE TRUNCATE ON datasets FOR EACH STATEMENT "
            "EXECUTE FUNCTION galilean_public_for_ever()",
        ]
    refuse = f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
    return [
        "CREATE TRIGGER datasets_public_update BEFORE UPDATE ON datasets "
        f"WHEN OLD.visibility = 'public' AND (NEW.visibility IS NOT 'public' OR NEW.id IS NOT OLD.id) {refuse}",
        f"CREATE TRIGGER datasets_public_delete BEFORE DELETE ON datasets WHEN OLD.visibility = 'public' {refuse}",
        # INSERT OR REPLACE removes the old row without firing the one before.
        f"CREATE TRIGGER datasets_public_replace BEFORE INSERT ON datasets WHEN {_OLD} {refuse}",
    ]


for _dialect in ("sqlite", "postgresql"):
    for _statement in statements(_dialect):
        event.listen(
            datasets, "after_create", DDL(_statement.replace("%", "%%")).execute_if(dialect=_dialect)
        )
