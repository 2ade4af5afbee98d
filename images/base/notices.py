#!/usr/bin/python3
"""Write which parts of others this image holds, and where their licences are: /usr/share/galilean/NOTICES.

Run at the end of every build, as root. Debian's packages keep theirs below /usr/share/doc, Python's beside
their files, JavaScript's beside what was bundled. Standard library only.
"""

import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

TARGET = Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/galilean/NOTICES")
VENV = Path(sys.argv[2] if len(sys.argv) > 2 else "/opt/galilean")
LICENCES = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "third-party-licenses")


def debian() -> list[str]:
    form = "${Package}\t${Version}\t${Homepage}\n"
    said = subprocess.run(["dpkg-query", "-W", "-f", form], capture_output=True, text=True, check=True)
    found = []
    for line in said.stdout.splitlines():
        name, version, home = line.split("\t")
        copyright = Path("/usr/share/doc", name, "copyright")
        found.append("\t".join((name, version, str(copyright) if copyright.exists() else home)))
    return found


def python() -> list[str]:
    found = set()
    for item in distributions(path=[str(path) for path in VENV.glob("lib/python3*/site-packages")]):
        meta: Any = item.metadata
        licence = meta.get("License-Expression") or (meta.get("License") or "").split("\n")[0]
        licence = licence or next((c for c in meta.get_all("Classifier") or () if "License ::" in c), "")
        files = [
            str(item.locate_file(f)) for f in item.files or () if f.name.upper().startswith(LICENCES[:4])
        ]
        found.add("\t".join((meta["Name"], item.version, licence.rpartition(":: ")[2], " ".join(files))))
    return sorted(found, key=str.lower)


def javascript() -> list[str]:
    found = (path for top in ("share", "app") for path in (VENV / top).rglob("*") if path.is_file())
    return sorted(str(path) for path in found if any(word in path.name for word in LICENCES))


def main() -> None:
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    parts = (
        ("Debian packages: name, version, licence", debian()),
        ("Python packages: name, version, licence, its text", python()),
        ("Bundled JavaScript: its licences", javascript()),
    )
    TARGET.write_text("\n".join(f"{title}\n\n" + "\n".join(lines) + "\n" for title, lines in parts))


main()
