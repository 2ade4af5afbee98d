"""Write the next migration from the difference between the tables and an empty, migrated database.

    python scripts/new_migration.py "Add announcements"

Read what it wrote: a rename looks like a drop and an add.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import tempfile
from pathlib import Path

from alembic import command

from galilean.db import Database
from galilean.migrate import MIGRATIONS, alembic_config, upgrade

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("galilean", "spawner", "extensions", "services")


def import_all_tables() -> list[str]:
    """Import every ``tables`` module, so that all tables are known."""
    found: list[str] = []
    for room in ROOMS:
        package = importlib.import_module(room)
        names = [room, *(f"{room}.{m.name}" for m in pkgutil.iter_modules(package.__path__) if m.ispkg)]
        for name in names:
            path = ROOT / name.replace(".", "/") / "tables.py"
            if path.exists():
                importlib.import_module(f"{name}.tables")
                found.append(f"{name}.tables")
    return found


def main(message: str) -> None:
    import_all_tables()
    number = len(list((MIGRATIONS / "versions").glob("[0-9]*.py"))) + 1
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{directory}/empty.sqlite"
        if number > 1:
            upgrade(url)
        database = Database(url)
        with database.write() as connection:
            config = alembic_config(connection)
            config.set_main_option("file_template", f"{number:04d}_%%(slug)s")
            script = command.revision(config, message, autogenerate=True, rev_id=f"{number:04d}")
        database.close()
    print(script.path)  # type: ignore[union-attr]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
