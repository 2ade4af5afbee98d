"""Backup and restore: everything of an installation that is not a volume, in one file (``galilean backup``).

In the file: both databases, the secrets, the settings, and a list of the volumes. Not in it: what lies on
the volumes (people's files), images, logs. That is said plainly each time, because a backup that somebody
takes for more than it is, is the worst kind.

It is made while the product runs. Each database is copied at one moment (SQLite's online backup,
PostgreSQL's exported snapshot), ours a moment before the hub's, so that nobody of whom ours speaks is
unknown to the hub. The file appears under its name only when all of it is on the disk, readable by its
owner alone.

It is restored while nothing runs, in two steps: first everything that can go wrong is tried beside the
installation (the file is whole, this version knows its tables, they are brought to this version), then it
is put in place; what was there before is kept aside. A restore that was broken off is noticed by the next
start.

==================  ===============================================================
:mod:`.archive`     the file: what is in it, how it is written and read
:mod:`.databases`   what is asked of a database; :mod:`.sqlite` and :mod:`.postgresql` do it
:mod:`.contents`    secrets, settings and volumes of an installation
:mod:`.make`        ``galilean backup``
:mod:`.restore`     ``galilean restore``
==================  ===============================================================
"""
