"""galilean.yaml → what hub, proxy and services are told, as tables."""

from __future__ import annotations

import json
import random
import stat
from pathlib import Path
from typing import Any

import pytest
from jupyterhub.utils import subdomain_hook_idna
from traitlets.config import Config

from galilean.errors import UserError
from galilean.migrate import upgrade
from galilean.rights import initial
from galilean.settings import Settings, parse_settings
from galilean.web.jinja import portal_public_url
from hub_config import roles
from hub_config.addresses import Addresses
from hub_config.build import browser_url, hub_traits, oauth_callback, portal_host, service_environment
from hub_config.parts import all_parts, common_environment, through_the_proxy
from hub_config.ports import INNER, is_free, keep_ports
from hub_config.secrets import (
    SERVICES,
    WaitingAccount,
    first_admin,
    leave_account,
    load_secrets,
    make_password,
    waiting_accounts,
)
from hub_config.wiring import configure, lay

PORTS = {name: number for number, name in enumerate((*INNER, "imagebuilder"), 1)}


def places(settings: Settings) -> Addresses:
    return Addresses(settings, PORTS)


def site(tmp_path: Path, **file: Any) -> tuple[Settings, dict[str, dict[str, Any]]]:
    settings = Settings.model_validate({"state": str(tmp_path), **file})
    return settings, hub_traits(settings, load_secrets(tmp_path), places(settings))


def test_an_empty_file_is_a_working_product_on_one_machine(tmp_path: Path) -> None:
    _, traits = site(tmp_path)
    hub = traits["JupyterHub"]
    assert hub["bind_url"] == "http://127.0.0.1:8000/"
    assert hub["hub_bind_url"] == "http://127.0.0.1:1"
    assert hub["default_url"] == "/services/portal/"
    assert hub["cleanup_servers"] is False
    assert hub["init_spawners_timeout"] == 1
    assert hub["allow_named_servers"] is True
    assert traits["ConfigurableHTTPProxy"]["should_start"] is False
    assert traits["Spawner"]["poll_interval"] == 5
    assert hub["db_url"] != Settings().database_url
    assert str(tmp_path) in hub["db_url"]


@pytest.mark.parametrize(
    ("web", "callback", "default_url", "browser"),
    [
        ({}, "/services/portal/oauth_callback", "/services/portal/", "http://127.0.0.1:8000/"),
        (
            {"base_url": "/lab"},
            "/lab/services/portal/oauth_callback",
            "/lab/services/portal/",
            "http://127.0.0.1:8000/lab/",
        ),
        (
            {"host": "0.0.0.0", "port": 80},
            "/services/portal/oauth_callback",
            "/services/portal/",
            "http://localhost:80/",
        ),
        (
            {"subdomain_host": "https://hub.example.edu"},
            "https://portal--service.hub.example.edu/services/portal/oauth_callback",
            "https://portal--service.hub.example.edu/services/portal/",
            "https://hub.example.edu/",
        ),
        (
            {"subdomain_host": "http://hub.localhost:8000"},
            "http://portal--service.hub.localhost:8000/services/portal/oauth_callback",
            "http://portal--service.hub.localhost:8000/services/portal/",
            "http://hub.localhost:8000/",
        ),
    ],
)
def test_addresses_fit_with_and_without_subdomains(
    tmp_path: Path, web: dict[str, Any], callback: str, default_url: str, browser: str
) -> None:
    settings, traits = site(tmp_path, web=web)
    hub = traits["JupyterHub"]
    (portal,) = [service for service in hub["services"] if service["name"] == "portal"]
    environment = service_environment("portal", settings, load_secrets(tmp_path), places(settings))
    assert oauth_callback(settings) == callback
    assert portal["oauth_redirect_uri"] == callback
    assert environment["JUPYTERHUB_OAUTH_CALLBACK_URL"] == callback
    assert hub["default_url"] == default_url
    assert browser_url(settings) == browser
    assert default_url.endswith(environment["JUPYTERHUB_SERVICE_PREFIX"])
    assert portal_public_url(settings) == default_url


def test_the_portal_s_host_is_the_one_that_the_hub_s_hook_makes(tmp_path: Path) -> None:
    settings, _ = site(tmp_path, web={"subdomain_host": "https://hub.example.edu:8443"})
    made = subdomain_hook_idna("portal", "hub.example.edu", "service")
    assert portal_host(settings) == f"https://{made}:8443"


def test_only_the_portal_has_a_public_route_and_no_service_is_run_by_the_hub(tmp_path: Path) -> None:
    _, traits = site(tmp_path)
    services = {service["name"]: service for service in traits["JupyterHub"]["services"]}
    assert set(services) == set(SERVICES)
    assert [name for name, service in services.items() if "url" in service] == ["portal"]
    assert not any("command" in service for service in services.values())
    assert len({service["api_token"] for service in services.values()}) == len(services)
    assert services["portal"]["oauth_no_confirm"] is True


def test_a_visitor_s_token_carries_the_rights_of_pages_and_never_everything(tmp_path: Path) -> None:
    _, traits = site(tmp_path)
    (portal,) = [s for s in traits["JupyterHub"]["services"] if s["name"] == "portal"]
    allowed = set(portal["oauth_client_allowed_scopes"])
    assert {"read:users!user", "servers", "list:users", "read:users", "groups"} <= allowed
    assert not allowed & {"inherit", "self", "admin:users", "tokens", "admin:groups"}
    assert {scope for scope in allowed if scope.startswith("custom:galilean:")} == set(roles.PAGE_SCOPES)


def test_the_user_role_cannot_run_and_each_role_is_bound_to_its_own_group() -> None:
    settings = parse_settings("roles: {student: {}, admin: {}, guest: {title: Guest}}")
    specs = {spec["name"]: spec for spec in roles.load_roles(initial(settings))}
    assert not any(
        "servers" in scope and not scope.startswith("access:") for scope in specs["user"]["scopes"]
    )
    for name in ("student", "admin", "guest"):
        assert specs[f"galilean-{name}"]["groups"] == [f"galilean:{name}"]
        assert "servers!user" in specs[f"galilean-{name}"]["scopes"]
    assert "admin:users" in specs["galilean-admin"]["scopes"]
    assert not any(scope.startswith("admin") for scope in specs["galilean-guest"]["scopes"])
    assert not set(specs["galilean-student"]["scopes"]) & set(roles.ADMIN) - {"custom:galilean:run"}


def test_administrators_and_waiting_accounts_are_put_into_their_groups(tmp_path: Path) -> None:
    settings = Settings.model_validate({"state": str(tmp_path), "signup": {"admins": ["ada", "bob"]}})
    waiting = [WaitingAccount(name="eva", password_hash="", role="student")]
    groups = hub_traits(settings, load_secrets(tmp_path), places(settings), waiting=waiting)["JupyterHub"][
        "load_groups"
    ]
    assert groups["galilean:admin"]["users"] == ["ada", "bob"]
    assert groups["galilean:student"]["users"] == ["eva"]
    assert groups["galilean:teacher"]["users"] == []


def test_an_authenticator_that_manages_groups_is_not_fought(tmp_path: Path) -> None:
    _, traits = site(
        tmp_path, jupyterhub={"OAuthenticator": {"manage_groups": True}}, signup={"admins": ["ada"]}
    )
    assert traits["JupyterHub"]["load_groups"] == {}
    (admin,) = [spec for spec in traits["JupyterHub"]["load_roles"] if spec["name"] == "galilean-admin"]
    assert admin["users"] == ["ada"]


def test_https_is_kept_by_browsers_and_content_is_never_sniffed(tmp_path: Path) -> None:
    plain = site(tmp_path)[1]["JupyterHub"]["tornado_settings"]["headers"]
    assert plain["X-Content-Type-Options"] == "nosniff"
    assert "Strict-Transport-Security" not in plain
    secure = site(tmp_path, web={"subdomain_host": "https://hub.example.edu"})[1]
    assert "Strict-Transport-Security" in secure["JupyterHub"]["tornado_settings"]["headers"]


def test_no_secret_is_in_a_command_line(tmp_path: Path) -> None:
    settings, _ = site(tmp_path)
    secrets = load_secrets(tmp_path)
    parts = all_parts(settings, secrets, places(settings), proxy=["proxy"], environ={})
    words = " ".join(word for part in parts for word in part.command)
    for secret in (secrets.cookie, secrets.proxy, secrets.portal_cookie, *secrets.tokens.values()):
        assert secret not in words
    assert [part.name for part in parts] == [
        "proxy",
        "hub",
        "zygote",
        "portal",
        "metering",
        "release",
        "queue",
        "imagebuilder",
    ]


def test_a_service_gets_its_own_token_only(tmp_path: Path) -> None:
    settings, _ = site(tmp_path)
    secrets = load_secrets(tmp_path)
    for part in all_parts(settings, secrets, places(settings), proxy=["proxy"], environ={}):
        values = json.dumps(dict(part.environment))
        for name, token in secrets.tokens.items():
            assert (token in values) == (part.name == name), (part.name, name)
        assert (secrets.proxy in values) == (part.name == "proxy")


def test_nothing_of_a_node_that_started_us_is_inherited(tmp_path: Path) -> None:
    settings, _ = site(tmp_path)
    found = common_environment(
        settings,
        None,
        {
            "HOME": "/home/ada",
            "PATH": "/bin",
            "JUPYTERHUB_API_TOKEN": "t",
            "GALILEAN_RANK": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": "/opt/x",
        },
    )
    assert found["HOME"] == "/home/ada"
    assert found["PYTHONPATH"] == "/opt/x"
    assert not {"JUPYTERHUB_API_TOKEN", "GALILEAN_RANK", "PYTHONDONTWRITEBYTECODE"} & set(found)
    assert found["PATH"].endswith("/bin")


@pytest.mark.parametrize(
    ("web", "url", "host"),
    [
        ({}, "http://127.0.0.1:8000/hub/health", ""),
        ({"host": "0.0.0.0"}, "http://127.0.0.1:8000/hub/health", ""),
        ({"host": "::"}, "http://[::1]:8000/hub/health", ""),
        (
            {"subdomain_host": "http://hub.localhost:8000"},
            "http://127.0.0.1:8000/hub/health",
            "hub.localhost:8000",
        ),
    ],
)
def test_readiness_is_asked_as_a_browser_would(
    tmp_path: Path, web: dict[str, Any], url: str, host: str
) -> None:
    settings, _ = site(tmp_path, web=web)
    assert through_the_proxy(settings) == (url, "", host)


def test_the_proxy_routes_by_host_only_with_subdomains(tmp_path: Path) -> None:
    def options(**file: Any) -> list[str]:
        settings, _ = site(tmp_path, **file)
        parts = all_parts(settings, load_secrets(tmp_path), places(settings), proxy=["proxy"], environ={})
        return list(parts[0].command)

    assert "--host-routing" not in options()
    assert "--host-routing" in options(web={"subdomain_host": "http://hub.localhost:8000"})
    tls = options(jupyterhub={"JupyterHub": {"ssl_key": "/k", "ssl_cert": "/c"}})
    assert tls[-4:] == ["--ssl-key", "/k", "--ssl-cert", "/c"]


def test_the_file_s_own_traits_and_then_the_directory_s_win(tmp_path: Path) -> None:
    keep_ports(tmp_path)
    (tmp_path / "galilean.yaml").write_text(
        "jupyterhub: {JupyterHub: {concurrent_spawn_limit: 7, active_server_limit: 3}, MyThing: {colour: red}}\n"
    )
    extra = tmp_path / "jupyterhub_config.d"
    extra.mkdir()
    (extra / "20-last.py").write_text("c.JupyterHub.active_server_limit += 1\n")
    (extra / "10-first.py").write_text("c = get_config()\nc.JupyterHub.active_server_limit = 40\n")
    c = Config()
    upgrade(f"sqlite:///{tmp_path / 'galilean.sqlite'}")
    wiring = configure(
        c, {"GALILEAN_CONFIG": str(tmp_path / "galilean.yaml"), "GALILEAN_STATE": str(tmp_path)}
    )
    assert c.JupyterHub.concurrent_spawn_limit == 7
    assert c.JupyterHub.active_server_limit == 41
    assert c.MyThing.colour == "red"
    assert c.VirtualCluster.collaborators.database is wiring.database
    wiring.database.close()


def test_a_hub_without_a_first_start_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        configure(Config(), {"GALILEAN_STATE": str(tmp_path)})
    assert "galilean up" in str(refused.value)


def test_laying_traits_keeps_what_is_there_already() -> None:
    c = Config()
    c.JupyterHub.port = 1
    lay(c, {"JupyterHub": {"ip": "x"}})
    assert (c.JupyterHub.port, c.JupyterHub.ip) == (1, "x")


# ------------------------------------------------------------------------------------------------ secrets


def test_secrets_are_made_once_and_readable_by_their_owner_alone(tmp_path: Path) -> None:
    first = load_secrets(tmp_path)
    assert load_secrets(tmp_path) == first
    assert len(bytes.fromhex(first.cookie)) == 32
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    for path in (tmp_path / "secrets").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name
    values = [first.cookie, first.portal_cookie, first.proxy, *first.tokens.values()]
    assert len(set(values)) == len(values)


def test_a_secret_that_others_could_read_is_closed_again_and_a_deleted_one_is_made_anew(
    tmp_path: Path,
) -> None:
    first = load_secrets(tmp_path)
    (tmp_path / "secrets" / "cookie").chmod(0o644)
    (tmp_path / "secrets" / "proxy").unlink()
    second = load_secrets(tmp_path)
    assert stat.S_IMODE((tmp_path / "secrets" / "cookie").stat().st_mode) == 0o600
    assert second.cookie == first.cookie
    assert second.proxy != first.proxy


def test_the_first_administrator_s_password_is_told_once_and_kept_nowhere(tmp_path: Path) -> None:
    password = first_admin(tmp_path, "ada")
    assert password
    assert first_admin(tmp_path, "ada") is None
    ((path, account),) = waiting_accounts(tmp_path)
    assert (account.name, account.role) == ("ada", "admin")
    for file in (tmp_path / "secrets").rglob("*"):
        if file.is_file():
            assert password not in file.read_text()
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert path.parent == tmp_path / "secrets" / "accounts"
    assert make_password() != make_password()


def test_an_account_of_any_name_can_wait(tmp_path: Path) -> None:
    for name in ("eva", "../../etc/passwd", "李雷", "x" * 300):
        leave_account(tmp_path, WaitingAccount(name=name, password_hash="h", role="student"))
    assert {account.name for _, account in waiting_accounts(tmp_path)} == {
        "eva",
        "../../etc/passwd",
        "李雷",
        "x" * 300,
    }
    assert not (tmp_path.parent / "etc").exists()


# -------------------------------------------------------------------------------------------------- ports


def test_inner_ports_are_chosen_once_and_kept(tmp_path: Path) -> None:
    ports = keep_ports(tmp_path, random.Random(1))
    assert set(ports) == set(INNER)
    assert len(set(ports.values())) == len(INNER)
    assert all(20000 <= port < 30000 for port in ports.values())
    assert keep_ports(tmp_path, random.Random(2)) == ports


def test_a_port_that_somebody_took_is_chosen_anew_but_never_the_hub_s(tmp_path: Path) -> None:
    import socket

    ports = keep_ports(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports["queue"]))
        taken.listen()
        assert not is_free("127.0.0.1", ports["queue"])
        again = keep_ports(tmp_path)
        assert again["queue"] != ports["queue"]
        assert {k: v for k, v in again.items() if k != "queue"} == {
            k: v for k, v in ports.items() if k != "queue"
        }
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports["hub"]))
        taken.listen()
        with pytest.raises(UserError) as refused:
            keep_ports(tmp_path)
        assert str(ports["hub"]) in str(refused.value)


def test_an_address_that_is_not_this_machine_s_is_said_plainly() -> None:
    with pytest.raises(UserError) as refused:
        is_free("192.0.2.1", 8000)
    assert "192.0.2.1" in str(refused.value)


def test_sign_in_cookies_are_bound_to_their_host_wherever_browsers_take_such(tmp_path: Path) -> None:
    for web, bound in (
        ({}, False),
        ({"subdomain_host": "http://hub.localhost:8000"}, False),
        ({"subdomain_host": "https://hub.example.edu"}, True),
    ):
        hub = site(tmp_path, web=web)[1]["JupyterHub"]
        assert hub["cookie_host_prefix_enabled"] is bound
        assert hub["tornado_settings"]["cookie_options"] == {"samesite": "Lax"}
        assert hub["tornado_settings"]["xsrf_cookie_kwargs"]["secure"] is bound
        assert hub["template_vars"]["one_origin"] is not bool(web)


def test_a_role_may_share_nothing(tmp_path: Path) -> None:
    roles_of_hub = site(tmp_path)[1]["JupyterHub"]["load_roles"]
    assert not [scope for role in roles_of_hub for scope in role["scopes"] if "share" in scope]
