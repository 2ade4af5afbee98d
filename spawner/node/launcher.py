"""Starts the Jupyter server of a node: ``python -m spawner.node.launcher <arguments>``.

Why not ``jupyterhub-singleuser`` itself: half of its start is spent on importing ``rfc3987_syntax``, a
grammar that ``jsonschema`` uses for two formats nobody here checks, and it binds a port somebody else may
have taken meanwhile. So this one module is kept out, and the server listens on a socket that its backend
bound before. Everything else is JupyterHub's single-user server as it is.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from spawner.node import inherited
from spawner.node.place import DIRECTORY, LANGUAGE, RANK, RUN

#: Kept out of every node. ``jsonschema`` imports it inside its own ``try``.
UNWANTED = ("rfc3987_syntax",)


def keep_out() -> None:
    """Make the unwanted modules look as if they were not installed."""
    for name in UNWANTED:
        sys.modules.setdefault(name, None)  # pyright: ignore[reportArgumentType]


def mark() -> None:
    """Leave a mark that others can read: a forked process cannot change what /proc shows as its environment."""
    directory = os.environ.get(DIRECTORY)
    if not directory or not hasattr(os, "memfd_create"):
        return
    from spawner.node.marks import node_mark

    fd = os.memfd_create("galilean-node", os.MFD_CLOEXEC)
    os.write(fd, node_mark(os.environ))


def still_wanted() -> bool:
    """Whether the cluster's directory still says that this run is to be: a removal may have been faster."""
    directory = os.environ.get(DIRECTORY)
    if not directory:
        return True
    from spawner.node.marks import wanted_run

    return wanted_run(Path(directory)) == os.environ.get(RUN)


def use_inherited_socket() -> None:
    """Let the server listen on the socket that the backend bound for it."""
    fd = inherited.take("listen")
    if fd is None:
        return
    from jupyter_server.serverapp import ServerApp
    from jupyterhub.singleuser.extension import JupyterHubSingleUser

    class NodeServerApp(ServerApp):
        def _find_http_port(self) -> None:
            pass

        def _bind_http_server_tcp(self) -> bool:
            bound = socket.socket(fileno=fd)
            bound.setblocking(False)
            self.http_server.add_socket(bound)
            return True

    JupyterHubSingleUser.serverapp_class = NodeServerApp


def hide_form_ids() -> None:
    """Keep the ids behind the cookies of forms out of the node's log, where JupyterHub's library tells them."""
    logging.getLogger("tornado.application").addFilter(
        lambda record: record.levelno >= logging.WARNING or "xsrf" not in str(record.msg).lower()
    )


def main(arguments: Sequence[str]) -> None:
    """Run the node's server; comes back when it has ended."""
    inherited.collect(os.environ)
    mark()
    if not still_wanted():
        sys.exit(f"{os.environ.get(RANK, '?')}: the run was released before the node started")
    keep_out()
    if os.environ.get("HOME"):
        from spawner.node.home import write_language, write_quiet

        home = Path(os.environ["HOME"])
        write_quiet(home)
        write_language(home, os.environ.get(LANGUAGE, ""))
    use_inherited_socket()
    hide_form_ids()
    from jupyterhub.singleuser import main as singleuser

    sys.argv = ["jupyterhub-singleuser", *arguments]
    singleuser()


if __name__ == "__main__":
    from spawner.node import launcher  # as a module of its own name, as in a forked node

    launcher.main(sys.argv[1:])
