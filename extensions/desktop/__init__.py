"""A desktop in every node whose environment has one (CG-5, CG-21): a Jupyter server extension.

It is answered at ``<node>/desktop/`` beside JupyterLab. What makes it: TigerVNC's X server on a unix socket in a
directory that only the node's account enters, no TCP port at all; XFCE or a lighter window manager on
it; a page with noVNC and the toolbar; a websocket that ties the two together. One desktop per node, started
when somebody comes, the same for all their tabs, gone with the node. A single application of the
environment has a desktop to itself: ``desktop/?app=<name>``.

Only the node's owner gets in, by the node's own sign-in; there is no VNC password because there is nothing to
connect to from outside. It builds on jupyter-server-proxy's raw sockets, as jupyter-remote-desktop-proxy does; that
package itself starts its desktop by Debian's wrapper script, has one desktop without applications, and a page that
knows neither restart nor files nor why a start failed.

Runs inside nodes, containers included: nothing here imports our database, settings or anything of the hub. The
Debian packages that an image needs are :data:`extensions.desktop.available.PACKAGES`.
"""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "extensions.desktop"}]


def _load_jupyter_server_extension(app: Any) -> None:
    from extensions.desktop.handlers import load

    load(app)
