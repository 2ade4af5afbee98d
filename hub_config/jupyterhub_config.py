"""Configuration of the hub: from ``galilean.yaml``, then ``jupyterhub:`` in it, then ``jupyterhub_config.d``."""

from hub_config.wiring import configure

configure(get_config())  # type: ignore[name-defined]  # noqa: F821 - JupyterHub's loader brings it
