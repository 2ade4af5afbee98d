"""Projects as one file, to be taken to another site or kept (CG-41).

A tar, plain or gzip, read and written from front to back; ``docs/reference/project-archive.md`` tells its form to
other programs. Each project has what it is called and begins with (``project.json``), its files as they are, and a
list of them with SHA-256 sums (``manifest.json``); the last member says that all of it is there. An archive is
looked at as a whole before anything of it is made (:mod:`.reading`), what would be in the way is told for each
project (:mod:`.planning`), and each is made whole or not at all (:mod:`.importing`).

People's files travel, their rights do not: shares, favourites and machine time stay where they are.
"""

FORMAT, VERSION = "galilean-projects", 1
ENDING = ".galilean.tar.gz"
HEAD, END = "galilean-archive.json", "galilean-end.json"
