"""What every backend with labels calls a node's properties, so that one selector finds them on any of them."""

from __future__ import annotations

import re

#: Begins all of them. A container has its image's labels, too: what is not said of one can be said by whoever made the image.
OURS = "galilean.io/"
RUN = "galilean.io/run"
#: The cluster's base name: what all objects of (user, server) have in common, whichever run made them.
CLUSTER = "galilean.io/cluster"
USER = "galilean.io/user"
SERVER = "galilean.io/server"
RANK = "galilean.io/rank"
COMPONENT = "galilean.io/component"
POOL = "galilean.io/pool"
GPU_MODEL = "galilean.io/gpu-model"
#: Marks what keeps a disk, which belongs to no run; its value is the disk's id.
DISK = "galilean.io/disk"
#: What is opened to licence servers, as an annotation.
LICENCES = "galilean.io/licences"
#: Marks containers that are made for reading an image alone; its value is the installation.
READER = "galilean.io/reads"

_RANK = re.compile(r"0|[1-9][0-9]{0,5}", re.ASCII)


def rank_in(text: str) -> int | None:
    """The rank that a text tells; ``None`` for everything that we would not have written so."""
    return int(text) if _RANK.fullmatch(text) else None
