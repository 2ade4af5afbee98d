"""Docker's API from an event loop: every call in a thread of our own, pulls apart from the rest.

The ``docker`` package is synchronous, and a call to a daemon that is busy may take seconds. So the hub's loop
never makes one: requests go to sixteen threads, each with a connection of its own; fetching an image, which
may take an hour, has four others, so that it never keeps a release waiting.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.utils import kwargs_from_env

from spawner.collaborators import PullLogin

R = TypeVar("R")

THREADS = 16
PULLS = 4
REQUEST_SECONDS = 60

Client = docker.APIClient


class PullFailed(Exception):
    """An image could not be fetched; the text is the registry's."""


class DockerAPI:
    """One Docker daemon.

    Parameters
    ----------
    url
        Such as ``unix:///var/run/docker.sock``; empty = as ``DOCKER_HOST`` says, else the usual socket.
    """

    def __init__(self, url: str = "") -> None:
        self._url = url
        self._local = threading.local()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="galilean-docker")
        self._pulls = ThreadPoolExecutor(PULLS, thread_name_prefix="galilean-pull")

    def connect(self, *, timeout: Any = REQUEST_SECONDS) -> Client:
        """A client of one's own; asks the daemon for its version.

        Raises
        ------
        DockerException
            When it does not answer.
        """
        where: dict[str, Any] = {"base_url": self._url} if self._url else {**kwargs_from_env()}
        return docker.APIClient(**where, version="auto", timeout=timeout)

    def client(self) -> Client:
        """The calling thread's."""
        found = getattr(self._local, "client", None)
        if found is None:
            found = self._local.client = self.connect()
        return found

    async def ask(self, function: Callable[[Client], R]) -> R:
        """What a function of a client says, without blocking the loop."""
        return await self._in(self._threads, lambda: function(self.client()))

    async def do(self, function: Callable[[], R]) -> R:
        """Something else that blocks, such as writing files."""
        return await self._in(self._threads, function)

    async def pull(self, image: str, login: PullLogin | None = None) -> None:
        """Fetch an image, with a name and password where it needs one.

        Raises
        ------
        PullFailed
            Also for what the daemon tells only in the stream of its progress.
        """
        await self._in(self._pulls, lambda: pull(self.client(), image, login))

    async def _in(self, threads: ThreadPoolExecutor, function: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(threads, function)

    def close(self) -> None:
        """Take no more calls."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._pulls.shutdown(wait=False, cancel_futures=True)


def pull(client: Client, image: str, login: PullLogin | None = None) -> None:
    # For this one request: the daemon keeps nothing of it.
    auth = {"username": login.username, "password": login.password} if login else None
    try:
        # A name without tag or digest would fetch every tag that there is.
        plain = "@" in image or ":" in image.rpartition("/")[2]
        for line in client.pull(
            image if plain else f"{image}:latest", stream=True, decode=True, auth_config=auth
        ):
            if "error" in line:
                raise PullFailed(str(line["error"]))
    except (APIError, requests.RequestException) as error:
        raise PullFailed(str(getattr(error, "explanation", "") or error)) from error


def is_passing(error: BaseException) -> bool:
    """Whether asking again may help: the daemon is away, or busy with itself."""
    if isinstance(error, APIError):
        return error.status_code in (500, 502, 503) and (
            "context deadline" in str(error) or "shutting down" in str(error) or "connection" in str(error)
        )
    return isinstance(error, requests.ConnectionError | requests.Timeout | OSError | DockerException)


def said(error: Exception) -> str:
    """The daemon's own sentence."""
    return str(getattr(error, "explanation", "") or error)


__all__ = [
    "APIError",
    "Client",
    "DockerAPI",
    "ImageNotFound",
    "NotFound",
    "PullFailed",
    "is_passing",
    "pull",
    "said",
]
