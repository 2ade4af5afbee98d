"""Settings of a node's Jupyter server, the same on every backend. No secrets: arguments can be listed."""

from __future__ import annotations

import os

from spawner.node.place import Place


def server_arguments(
    place: Place, *, home: str, cookie_secret_file: str, labextensions: str = ""
) -> list[str]:
    """Arguments of ``python -m spawner.node.launcher``.

    Parameters
    ----------
    place
        The node.
    home
        Its HOME; JupyterLab opens in ``work`` below it.
    cookie_secret_file
        The same for all nodes of the cluster, so that one sign-in counts on all.
    labextensions
        Where JupyterLab finds our extension when it is not among those of the node's own Python.
    """
    arguments = [
        "--ServerApp.jpserver_extensions=spawner.node=True",
        # It proxies to any host it is told and hands on the hub's cookies: see spawner.node.ports instead.
        "--ServerApp.jpserver_extensions=jupyter_server_proxy=False",
        "--ServerApp.identity_provider_class=spawner.node.identity.PresenceIdentity",
        # Cells go on without their page, and are written into the notebook.
        "--ServerApp.kernel_manager_class=spawner.node.kernels.NodeKernelManager",
        "--ServerApp.kernel_websocket_connection_class=spawner.node.kernels.NodeKernelConnection",
        # Read from the environment when a module is imported, which a forked node does too late. The
        # cluster's path, not the node's: one login cookie and one XSRF cookie for all its nodes.
        f"--HubOAuth.base_url={place.prefix}",
        f"--ServerApp.cookie_secret_file={cookie_secret_file}",
        f"--ServerApp.root_dir={home}/work",
        "--ServerApp.terminado_settings={'shell_command': ['/bin/bash']}",
        # Worked out from the HOME of whoever imports JupyterLab: in a forked node, the zygote's.
        f"--LabApp.user_settings_dir={home}/.jupyter/lab/user-settings",
        f"--LabApp.workspaces_dir={home}/.jupyter/lab/workspaces",
        "--LabApp.extension_manager=readonly",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    if labextensions:
        arguments.append(f"--LabApp.extra_labextensions_path={labextensions}")
    if os.geteuid() == 0:
        arguments.append("--ServerApp.allow_root=True")
    return arguments
