"""Starting the Jupyter server of a node anew, in its place (CG-20).

The process stays the same and runs the launcher again (``exec``): for the backend the node never ended, so
nothing is released and time goes on. The listening sockets are handed on open: whoever comes meanwhile waits
instead of being refused. Kernels and terminals end, with what they were told to write written; programs that
were detached from them go on, and so do ssh connections.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, MutableMapping
from typing import Any

from spawner.node.busy import Reader
from spawner.node.place import LISTEN_FD, RANK, RUN, SSH_FD, Place

END_SECONDS = 12.0
#: The answer to whoever asked, and the last word to open pages, leave before.
LAST_WORD_SECONDS = 0.3

Exec = Callable[[str, list[str], MutableMapping[str, str]], Any]


class Restart:
    """Restarts the server, once.

    Parameters
    ----------
    app
        The Jupyter server.
    place
        Which node.
    ssh_fd
        Descriptor of the node's ssh port; ``None`` = it has none.
    replace
        ``os.execve``; tests hand in their own.
    """

    def __init__(
        self, app: Any, place: Place, ssh_fd: Callable[[], int | None], *, replace: Exec = os.execve
    ) -> None:
        self._app = app
        self._place = place
        self._ssh_fd = ssh_fd
        self._replace = replace
        self._begun = False

    async def __call__(self) -> None:
        """End what the server started and run it anew; does not come back."""
        if self._begun:
            return
        self._begun = True
        log: logging.Logger = self._app.log
        log.warning("The server of this node is restarted; its kernels and terminals end")
        await asyncio.sleep(LAST_WORD_SECONDS)
        for what, end in (("kernels", self._app.cleanup_kernels), ("terminals", self._end_terminals)):
            try:
                await asyncio.wait_for(end(), END_SECONDS)
            except Exception as error:  # what does not end now is ended with its parent's children below
                log.warning("Not all %s ended: %s", what, error or type(error).__name__)
        self._end_children()
        environ = dict(os.environ)
        for name, fd in ((LISTEN_FD, self._listening()), (SSH_FD, self._ssh_fd())):
            if fd is not None:
                os.set_inheritable(fd, True)
                environ[name] = str(fd)
        logging.shutdown()
        self._replace(
            sys.executable, [sys.executable, "-P", "-m", "spawner.node.launcher", *sys.argv[1:]], environ
        )

    async def _end_terminals(self) -> None:
        terminals = self._app.web_app.settings.get("terminal_manager")
        if terminals is not None:
            await terminals.terminate_all()

    def _listening(self) -> int | None:
        sockets = getattr(self._app.http_server, "_sockets", {})
        return next(iter(sockets), None)

    def _end_children(self) -> None:
        """Helpers such as language servers; nobody would speak to them any more."""
        marks = (f"{RUN}={self._place.run}".encode(), f"{RANK}={self._place.rank}".encode())
        for item in Reader().read(marks):
            if item.parent == os.getpid() and not item.name.startswith("sshd"):
                try:
                    os.kill(item.pid, signal.SIGTERM)
                except OSError:
                    pass
