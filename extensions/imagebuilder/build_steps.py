"""What the Docker daemon keeps of builds for the next ones, under names of ours, and how it is given back.

An image that the daemon makes for a step is its cache, and is kept for ever unless something names it: only a name can
be taken away again. The last step of each stage gets one as soon as it is told (the steps before it go with it), so
that the stages of a Dockerfile, a build that failed and one whose service was killed are given back as the rest is.
Between a step and its name a kill leaves a moment; what was made then stands on a named step, by which it is found.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import requests
from ulid import ULID

from spawner.docker.api import APIError, Client, NotFound

CACHE = "galilean-build"
_STEP = re.compile(r"Step \d+/\d+ : (\w+)")
_IMAGE = re.compile(r" ---> ([0-9a-f]{12})")


def name_of(instance: str) -> str:
    """Under which an installation's steps are kept."""
    return f"{CACHE}/{instance}"


class Steps:
    """Listens to one build and names what it makes.

    Parameters
    ----------
    client
        The daemon's; a name costs it a millisecond.
    build
        The build's id, which tells when it was.
    """

    def __init__(self, client: Client, instance: str, build: str) -> None:
        self._client, self._name, self._build = client, name_of(instance), build.lower()
        self._stage, self._from = 0, False

    def heard(self, told: str) -> None:
        """A line of the daemon's."""
        if step := _STEP.match(told):
            # What FROM names is somebody's image and keeps its own names.
            self._from = step[1].upper() == "FROM"
            self._stage += self._from
        elif not self._from and (image := _IMAGE.match(told)):
            self._keep(image[1])

    def _keep(self, image: str) -> None:
        """Name the stage's last step, in the place of the one before."""
        tag = self._build if self._stage < 2 else f"{self._build}-{self._stage}"
        with contextlib.suppress(APIError, requests.RequestException):
            self._client.tag(image, self._name, tag, force=True)


def adopt(client: Client, instance: str) -> int:
    """Name what builds left that were killed before they had; how many images."""
    name, count = name_of(instance), 0
    while True:
        listed: list[dict[str, Any]] = client.images(all=True)
        found = list(nameless(listed, name))
        for image, build in found:
            client.tag(image, name, f"{build}-{image.rpartition(':')[2][:12]}", force=True)
        count += len(found)
        if not found:
            return count


def nameless(images: Sequence[Mapping[str, Any]], name: str) -> Iterator[tuple[str, str]]:
    """Images without a name and without others on them that stand on a named step: id, the build of that step."""
    below = {str(one.get("ParentId") or "") for one in images}
    ours = {
        str(one["Id"]): tag.rpartition(":")[2].partition("-")[0]
        for one in images
        for tag in _tags(one)
        if tag.rpartition(":")[0] == name
    }
    for one in images:
        parent = str(one.get("ParentId") or "")
        if parent in ours and one["Id"] not in below and not _tags(one) and not _digests(one):
            yield str(one["Id"]), ours[parent]


def forget(client: Client, instance: str, going: Collection[str], now: datetime, days: int) -> None:
    """Give back what is older than ``days``; never of a build that is under way (``going``)."""
    name = name_of(instance)
    # The newest first: what others stand on stays as long as they do.
    listed = sorted(client.images(name=name), key=lambda one: int(one.get("Created") or 0), reverse=True)
    for tag in [tag for image in listed for tag in _tags(image)]:
        repository, _, rest = tag.rpartition(":")
        build = rest.partition("-")[0].upper()
        if repository != name or build in going:
            continue
        # What is built again is an old image under a new name: the name tells when.
        with contextlib.suppress(
            ValueError, APIError, NotFound
        ):  # not a name of ours; something stands on it
            if now - ULID.from_str(build).datetime >= timedelta(days=days):
                client.remove_image(tag)


def _tags(image: Mapping[str, Any]) -> list[str]:
    return [tag for tag in image.get("RepoTags") or () if not tag.startswith("<none>")]


def _digests(image: Mapping[str, Any]) -> list[str]:
    return [one for one in image.get("RepoDigests") or () if not one.startswith("<none>")]
