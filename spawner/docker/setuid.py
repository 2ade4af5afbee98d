"""Whether root in a node could become root of the machine by what it leaves on a disk.

Where an environment gives sudo, people can leave a program in their project that is root's own and runs as root for
whoever starts it (``chmod 4755``). On the machine itself that program is there, too, unless Docker maps the accounts
of containers to others, or the disk is mounted with ``nosuid``. It is looked at when hub and daemon begin, for the volumes
of the settings, and at each start of such an environment, for whatever is mounted then: volumes and environments
may have been added meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from spawner.docker.api import Client
from spawner.plan import Mount


def maps_users(client: Client) -> bool:
    """Whether root in a container is nobody in particular on the machine: userns-remap, or a rootless daemon."""
    options = " ".join(client.info().get("SecurityOptions") or ())
    return "name=userns" in options or "name=rootless" in options


def lets_root_out(path: Path, look: Callable[[Path], Any] = os.statvfs) -> bool:
    """Whether a program below ``path`` may run with its owner's rights. Blocks.

    Parameters
    ----------
    path
        Need not be there yet.
    look
        ``os.statvfs``.
    """
    there = next(place for place in (path, *path.parents) if place.exists())
    return not look(there).f_flag & os.ST_NOSUID


def first_open(mounts: Sequence[Mount], look: Callable[[Path], Any] = os.statvfs) -> Mount | None:
    """The first of a node's mounts that may be written and where that is so. Blocks."""
    return next((one for one in mounts if not one.read_only and lets_root_out(Path(one.source), look)), None)
