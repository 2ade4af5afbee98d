"""``galilean.yaml`` → the hub's traits, as plain data.

Pure: everything that the outside decides (secrets, addresses, accounts that wait) is handed in, and the result
is ``{class: {trait: value}}``, so that wiring is tested as a table. ``jupyterhub_config.py`` lays it on the
hub's configuration, with the live collaborators, then the ``jupyterhub:`` section of the settings, then the
files of ``jupyterhub_config.d``: whoever comes later wins.

All services are *external* to the hub (address and token, no command): services that the hub manages
outlive a killed hub, block its successor's port and come back after half a minute only. Only the portal has
an address, because an address is a public route: the others' ``/metrics`` are for the machine itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from galilean.errors import mark
from galilean.rights import Rights, initial
from galilean.settings import Settings
from galilean.web.jinja import TEMPLATES, GalileanExtension, hub_template_vars
from galilean.web.language import language_transform, translate
from hub_config import roles
from hub_config.addresses import EVERYWHERE, Addresses
from hub_config.docker import cluster_traits as docker_traits
from hub_config.kubernetes import cluster_traits
from hub_config.secrets import SERVICES, Secrets, WaitingAccount
from services.portal.admin import entries_for
from spawner.backends import SPAWNERS

OUR_TEMPLATES = Path(__file__).parent / "templates"
POLL_SECONDS = 5
SAMPLE_SECONDS = 30


def public_url(settings: Settings) -> str:
    """Where the proxy listens, as the hub is told: ``http://127.0.0.1:8000/``."""
    return f"http://{bracketed(settings.web.host)}:{settings.web.port}{settings.web.base_url}"


def browser_url(settings: Settings) -> str:
    """The address to type into a browser."""
    if settings.web.public_url:
        return settings.web.public_url.rstrip("/") + "/"
    if settings.web.subdomain_host:
        return settings.web.subdomain_host.rstrip("/") + settings.web.base_url
    host = settings.web.host
    if host in (EVERYWHERE, "::", ""):
        host = "localhost"
    return f"http://{host}:{settings.web.port}{settings.web.base_url}"


def portal_host(settings: Settings) -> str:
    """The portal's own origin when people's nodes have theirs, else empty."""
    if not settings.web.subdomain_host:
        return ""
    from jupyterhub.utils import subdomain_hook_idna

    parts = urlsplit(settings.web.subdomain_host)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{subdomain_hook_idna('portal', parts.hostname, 'service')}{port}"


def portal_prefix(settings: Settings) -> str:
    """The portal's path."""
    return settings.web.base_url + "services/portal/"


def hub_traits(
    settings: Settings,
    secrets: Secrets,
    addresses: Addresses,
    *,
    waiting: Sequence[WaitingAccount] = (),
    rights: Rights | None = None,
    rights_now: Callable[[], Rights] | None = None,
) -> dict[str, dict[str, Any]]:
    """All traits that the settings decide.

    Parameters
    ----------
    settings
        The whole file.
    secrets
        Of this installation.
    addresses
        Where the parts are.
    waiting
        Accounts that the hub makes when it starts; their roles are granted with them.
    rights
        Roles and groups as the administrators decided; ``None`` = nothing was decided yet.
    rights_now
        The same at the time of a request, where it can change.
    """
    rights = rights or initial(settings)
    manages_groups = any(traits.get("manage_groups") for traits in settings.jupyterhub.values())
    members: dict[str, list[str]] = {"admin": list(settings.signup.admins)}
    for account in waiting:
        members.setdefault(account.role, []).append(account.name)
    role_specs = roles.load_roles(rights)
    if manages_groups:  # the hub refuses both at once; administrators of the file then hold the role itself
        admin = next(spec for spec in role_specs if spec["name"] == roles.hub_role_of("admin"))
        admin["users"] = list(settings.signup.admins)
    portal = portal_host(settings) + portal_prefix(settings)
    hub = addresses["hub"]
    traits = {
        "JupyterHub": {
            "bind_url": public_url(settings),
            "hub_bind_url": f"http://{bracketed(hub.host)}:{hub.port}",
            "hub_connect_url": hub.url,
            **({"public_url": browser_url(settings)} if settings.web.public_url else {}),
            "subdomain_host": settings.web.subdomain_host,
            # A host below ours cannot plant such a cookie on us; browsers take it by https only.
            "cookie_host_prefix_enabled": settings.web.subdomain_host.startswith("https://"),
            "db_url": settings.hub_database_url,
            "cookie_secret": cookie_secret(secrets.cookie),
            "default_url": portal,
            "redirect_to_server": False,
            "cleanup_servers": False,
            "cleanup_proxy": False,
            "shutdown_on_logout": False,
            "init_spawners_timeout": 1,
            "last_activity_interval": SAMPLE_SECONDS,
            "allow_named_servers": True,
            "named_server_limit_per_user": 200,
            "concurrent_spawn_limit": 100,
            "authenticator_class": "hub_config.authenticator.GalileanAuthenticator",
            "spawner_class": SPAWNERS[settings.backend],
            "proxy_class": "spawner.proxy.ClusterProxy",
            "services": services(settings, secrets, addresses),
            "custom_scopes": roles.CUSTOM_SCOPES,
            "load_roles": role_specs,
            "load_groups": {} if manages_groups else roles.load_groups(rights, members),
            "template_paths": [str(OUR_TEMPLATES), str(TEMPLATES)],
            "template_vars": {
                **hub_template_vars(settings),
                # From the hub itself, so that the sign-in page has its clothes on while the portal is away.
                "assets_prefix": settings.web.base_url + "hub/galilean/",
                "signup_open": settings.signup.open,
                "one_origin": not settings.web.subdomain_host,
                "nav": navigation(settings, rights_now or (lambda: rights)),  # called with the visitor
            },
            "jinja_environment_options": {"extensions": [GalileanExtension]},
            "tornado_settings": {
                "headers": security_headers(settings),
                "transforms": [language_transform(settings.site.language)],
                # Also of the nodes' sign-in, which the hub tells them.
                "cookie_options": {"samesite": "Lax"},
                "xsrf_cookie_kwargs": {"httponly": True, "samesite": "Lax", "secure": settings.web.https},
            },
        },
        "ConfigurableHTTPProxy": {
            "should_start": False,
            "auth_token": secrets.proxy,
            "api_url": addresses.url("proxy_api"),
            "pid_file": str(settings.state / "run" / "proxy.pid"),
        },
        "Authenticator": {"allow_all": True},
        "GalileanAuthenticator": {
            "enable_signup": settings.signup.open,
            "open_signup": True,
            "minimum_password_length": 8,
            "check_common_password": True,
            "allowed_failed_logins": 8,
            "seconds_before_next_try": 300,
            "reserved_names": sorted({name.lower() for name in settings.signup.admins}),
        },
        "Spawner": {
            "poll_interval": POLL_SECONDS,
            "start_timeout": settings.start_timeout_seconds,
            "http_timeout": 30,
            "server_token_scopes": list(roles.NODE),
        },
        "VirtualCluster": {
            "gang_timeout": settings.gang_timeout_seconds,
            "poll_interval": POLL_SECONDS,
        },
        "ClusterProxy": {"presence_seconds": SAMPLE_SECONDS},
    }
    # Not by way of the proxy: nodes reach the portal whatever its public name is.
    prefix = portal_prefix(settings).rstrip("/")
    if settings.backend == "kubernetes":
        # Finding places and pulling an image come before a node can begin to answer.
        traits["Spawner"]["start_timeout"] += settings.gang_timeout_seconds
        traits["KubeCluster"] = cluster_traits(settings, addresses, prefix)
    elif settings.backend == "docker":
        traits["Spawner"]["start_timeout"] += settings.gang_timeout_seconds
        traits["DockerCluster"] = docker_traits(settings, addresses, prefix)
    else:
        traits["ProcessCluster"] = {
            "state_dir": str(settings.state),
            "zygote_socket": str(zygote_socket(settings)) if settings.process.zygote else "",
            "portal_url": addresses.url("portal") + prefix,
            "scratch": settings.process.scratch,
            "index_url": settings.process.index_url,
            "find_links": settings.process.find_links,
        }
    return traits


def cookie_secret(text: str) -> bytes:
    """The 32 bytes that a kept secret means: written as hexadecimal digits, or whatever else was given."""
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    return secret if len(secret) == 32 else hashlib.sha256(text.encode()).digest()


def bracketed(host: str) -> str:
    """A host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def zygote_socket(settings: Settings) -> Path:
    """Where the zygote takes requests."""
    return settings.state / "run" / "zygote.sock"


def navigation(settings: Settings, rights_now: Callable[[], Rights]) -> Callable[[Any], list[dict[str, Any]]]:
    """The top bar's entries on the hub's own pages: those of the portal, without their badges."""
    portal = portal_host(settings) + portal_prefix(settings)

    def entry(label: str, place: str, icon: str, admin: bool = False) -> dict[str, Any]:
        return {"label": translate(label), "url": portal + place, "icon": icon, "admin": admin}

    def entries(user: Any) -> list[dict[str, Any]]:
        if user is None:
            return []
        given = rights_now().given_by(group.name for group in user.groups)
        return [
            entry(mark("Projects"), "projects", "folder"),
            entry(mark("Data sets"), "datasets", "database"),
            entry(mark("Explore"), "explore", "compass"),
            entry(mark("Environments"), "environments", "box"),
            entry(mark("Machine time"), "machine-time", "activity"),
            entry(mark("Schedules"), "schedules", "clock"),
            *(entry(found.label, found.place, found.icon, admin=True) for found in entries_for(given)),
        ]

    return entries


def services(settings: Settings, secrets: Secrets, addresses: Addresses) -> list[dict[str, Any]]:
    """``JupyterHub.services``: the portal with its OAuth client, the others with a token only."""
    portal: dict[str, Any] = {
        "name": "portal",
        "url": addresses.url("portal"),
        "api_token": secrets.tokens["portal"],
        "oauth_client_id": "service-portal",
        "oauth_redirect_uri": oauth_callback(settings),
        "oauth_client_allowed_scopes": list(roles.VISITOR),
        "oauth_no_confirm": True,
        "display": False,
        # How long the hub, when it starts, waits for the portal before it looks after its routes.
        "timeout": 5,
    }
    others = [
        {"name": name, "api_token": secrets.tokens[name], "display": False}
        for name in SERVICES
        if name != "portal"
    ]
    return [portal, *others]


def oauth_callback(settings: Settings) -> str:
    """Where the hub sends a visitor back to: a whole address when hosts are split, else a path."""
    return portal_host(settings) + portal_prefix(settings) + "oauth_callback"


def security_headers(settings: Settings) -> dict[str, str]:
    """Headers of every answer of the hub, besides its own ``frame-ancestors 'none'``."""
    headers = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "strict-origin-when-cross-origin"}
    if settings.web.https:
        headers["Strict-Transport-Security"] = "max-age=31536000"
    return headers


def service_environment(
    name: str, settings: Settings, secrets: Secrets, addresses: Addresses
) -> dict[str, str]:
    """What a service process finds in its environment, besides the machine's own variables.

    The ``JUPYTERHUB_*`` names are those that the hub's own library reads; nobody else sets them for an
    external service.
    """
    base = settings.web.base_url
    mine = addresses[name]
    environment = {
        "GALILEAN_STATE": str(settings.state),
        "GALILEAN_SERVICE_HOST": mine.host,
        "GALILEAN_SERVICE_PORT": str(mine.port),
        "JUPYTERHUB_API_URL": hub_api_url(settings, addresses),
        "JUPYTERHUB_API_TOKEN": secrets.tokens[name],
        "JUPYTERHUB_BASE_URL": base,
        "JUPYTERHUB_SERVICE_NAME": name,
    }
    if name == "portal":
        environment |= {
            "JUPYTERHUB_CLIENT_ID": "service-portal",
            "JUPYTERHUB_HOST": settings.web.subdomain_host.rstrip("/"),
            "JUPYTERHUB_SERVICE_URL": mine.url,
            "JUPYTERHUB_SERVICE_PREFIX": portal_prefix(settings),
            "JUPYTERHUB_OAUTH_CALLBACK_URL": oauth_callback(settings),
            "JUPYTERHUB_OAUTH_ACCESS_SCOPES": json.dumps(["access:services!service=portal"]),
            "JUPYTERHUB_OAUTH_CLIENT_ALLOWED_SCOPES": json.dumps(list(roles.VISITOR)),
            "GALILEAN_COOKIE_SECRET": secrets.portal_cookie,
        }
        if "machines" in addresses:  # it alone may ask Kubernetes for what lets a machine join
            environment["GALILEAN_MACHINES_URL"] = addresses.url("machines")
        if (
            "imagebuilder" in addresses
        ):  # it alone has Docker's socket for images, and the registry's password
            environment["GALILEAN_IMAGES_URL"] = addresses.url("imagebuilder")
    if name == "release":
        # While the portal is away nodes cannot report presence: then nobody counts as gone.
        environment["GALILEAN_PORTAL_URL"] = addresses.url("portal") + "/health"
    return environment


def hub_api_url(settings: Settings, addresses: Addresses) -> str:
    """Where the hub answers requests of the services and commands."""
    return f"{addresses.url('hub')}{settings.web.base_url}hub/api"
