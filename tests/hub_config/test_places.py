"""Where parts are, what each is told, secrets from outside, and what follows for clusters of pods."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from galilean.errors import UserError
from galilean.settings import Settings, parse_settings
from hub_config.addresses import Addresses, address_of
from hub_config.build import cookie_secret, hub_traits
from hub_config.parts import NAMES, all_parts, part_of, proxy_command
from hub_config.ports import INNER, keep_ports, read_ports
from hub_config.secrets import (
    NAMES as SECRETS,
)
from hub_config.secrets import given_admin, load_secrets, needed_by, waiting_accounts

SERVICES_OF_THE_CHART = {
    name: f"http://galilean-{name.replace('_', '-')}:{8001 + number}" for number, name in enumerate(INNER)
}
PEER = {"podSelector": {"matchLabels": {"app.kubernetes.io/component": "hub"}}}
PODS: dict[str, Any] = {
    "backend": "kubernetes",
    "kubernetes": {
        "namespace": "here",
        "image": "galilean-jupyter:1",
        "network": {"reached_by": [PEER], "reaches": [{"to": [PEER]}]},
    },
    "volumes": {"default": {"kind": "claim", "claim": "projects", "path": "/srv/projects"}},
    "addresses": SERVICES_OF_THE_CHART,
}


def settings_of(tmp_path: Path, *more: dict[str, Any]) -> Settings:
    file: dict[str, Any] = {"state": str(tmp_path)}
    for part in more:
        file |= part
    return Settings.model_validate(file)


def kept_secrets(directory: Path, *but: str) -> Path:
    directory.mkdir()
    for name in SECRETS:
        if name not in but:
            (directory / name).write_text(f"{name}-{'0' * 40}\n")
    return directory


# ---------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://galilean-hub:8081", "0.0.0.0"),
        ("http://localhost:8081", "127.0.0.1"),
        ("http://192.0.2.7:8081", "192.0.2.7"),
        ("http://[2001:db8::1]:8081", "2001:db8::1"),
    ],
)
def test_a_part_listens_where_its_address_can_only_mean_it(url: str, host: str) -> None:
    address = address_of(url)
    assert (address.url, address.host, address.port) == (url, host, 8081)


def test_without_addresses_everything_is_on_this_machine(tmp_path: Path) -> None:
    addresses = Addresses(settings_of(tmp_path), {"hub": 4, "portal": 5})
    assert addresses.url("hub") == "http://127.0.0.1:4"
    assert addresses["portal"].host == "127.0.0.1"
    assert "queue" not in addresses
    with pytest.raises(UserError) as refused:
        addresses.url("queue")
    assert "addresses.queue" in str(refused.value)


def test_what_the_settings_say_wins_over_a_port_that_was_chosen_before(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, {"addresses": {"hub": "http://192.0.2.7:8081"}})
    addresses = Addresses(settings, {"hub": 4, "portal": 5})
    assert addresses.url("hub") == "http://192.0.2.7:8081"
    assert addresses.url("portal") == "http://127.0.0.1:5"


def test_no_port_is_kept_for_what_has_an_address(tmp_path: Path) -> None:
    ports = keep_ports(tmp_path, but={"hub", "portal"})
    assert set(ports) == set(INNER) - {"hub", "portal"}


def test_ports_that_an_older_version_kept_are_known(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "ports.json").write_text('{"hub": 20001, "proxy-api": 20002}')
    assert read_ports(tmp_path) == {"hub": 20001, "proxy_api": 20002}


# ------------------------------------------------------------------------------------------------ secrets


@pytest.mark.parametrize("name", NAMES)
def test_a_part_reads_only_the_secrets_that_it_needs(tmp_path: Path, name: str) -> None:
    given = kept_secrets(tmp_path / "given", *(set(SECRETS) - set(needed_by(name))))
    secrets = load_secrets(tmp_path / "state", given, names=needed_by(name))
    assert not (tmp_path / "state").exists()
    part = part_of(
        name,
        settings_of(tmp_path, PODS),
        secrets,
        Addresses(settings_of(tmp_path, PODS)),
        proxy=["proxy"],
        environ={"GALILEAN_SECRETS": str(given), "GALILEAN_DATABASE_URL": "postgresql://u:word@db/ours"},
    )
    told = json.dumps(dict(part.environment))
    assert ("postgresql://u:word@db/ours" in told) == (name != "proxy")
    assert ("GALILEAN_SECRETS" in part.environment) == (name == "hub")


def test_a_given_secret_that_is_missing_or_empty_is_named(tmp_path: Path) -> None:
    given = kept_secrets(tmp_path / "given", "token-queue")
    with pytest.raises(UserError) as refused:
        load_secrets(tmp_path, given)
    assert str(given / "token-queue") in str(refused.value)
    (given / "token-queue").write_text("\n")
    with pytest.raises(UserError, match="empty"):
        load_secrets(tmp_path, given)
    assert load_secrets(tmp_path, given, names=needed_by("proxy")).proxy.startswith("proxy-")


def test_given_secrets_are_never_written(tmp_path: Path) -> None:
    given = kept_secrets(tmp_path / "given")
    before = {path: (path.read_text(), path.stat().st_mode) for path in given.iterdir()}
    given.chmod(0o555)
    load_secrets(tmp_path / "state", given)
    given.chmod(0o755)
    assert {path: (path.read_text(), path.stat().st_mode) for path in given.iterdir()} == before


def test_a_cookie_secret_of_any_form_makes_32_bytes() -> None:
    assert cookie_secret("ab" * 32) == bytes.fromhex("ab" * 32)
    assert len(cookie_secret("whatever the chart made")) == 32
    assert len(cookie_secret("abcd")) == 32
    assert cookie_secret("a") != cookie_secret("b")


def test_the_first_administrator_waits_for_the_hub_with_the_given_password(tmp_path: Path) -> None:
    import bcrypt

    given = kept_secrets(tmp_path / "given")
    (tmp_path / "secrets").mkdir()
    assert not given_admin(tmp_path, given, "ada")
    (given / "admin-password").write_text("correct horse\n")
    assert given_admin(tmp_path, given, "ada")
    ((_, account),) = waiting_accounts(tmp_path)
    assert (account.name, account.role, account.replace) == ("ada", "admin", False)
    assert bcrypt.checkpw(b"correct horse", account.password_hash.encode())
    (given / "admin-password").write_text("x" * 73)
    with pytest.raises(UserError, match="72 bytes"):
        given_admin(tmp_path, given, "ada")


# -------------------------------------------------------------------------------------------------- parts


def test_parts_of_a_chart_listen_on_all_addresses_and_find_one_another_by_name(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, PODS)
    addresses = Addresses(settings)
    secrets = load_secrets(tmp_path)
    portal = dict(part_of("portal", settings, secrets, addresses, environ={}).environment)
    assert portal["GALILEAN_SERVICE_HOST"] == "0.0.0.0"
    assert portal["GALILEAN_SERVICE_PORT"] == SERVICES_OF_THE_CHART["portal"].rpartition(":")[2]
    assert portal["JUPYTERHUB_API_URL"] == SERVICES_OF_THE_CHART["hub"] + "/hub/api"
    assert portal["GALILEAN_MACHINES_URL"] == SERVICES_OF_THE_CHART["machines"]
    hub = hub_traits(settings, secrets, addresses)["JupyterHub"]
    assert hub["hub_bind_url"] == "http://0.0.0.0:8001"
    assert hub["hub_connect_url"] == SERVICES_OF_THE_CHART["hub"]
    (service,) = [item for item in hub["services"] if item["name"] == "portal"]
    assert service["url"] == SERVICES_OF_THE_CHART["portal"]
    assert service["oauth_redirect_uri"] == "/services/portal/oauth_callback"
    command = proxy_command(settings, addresses, ["proxy"])
    assert command[command.index("--api-ip") + 1] == "0.0.0.0"
    assert command[command.index("--error-target") + 1] == SERVICES_OF_THE_CHART["hub"] + "/hub/error"


def test_the_supervisor_starts_the_same_parts_that_containers_are(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, PODS)
    addresses, secrets = Addresses(settings), load_secrets(tmp_path)
    together = all_parts(settings, secrets, addresses, proxy=["proxy"], environ={})
    assert {part.name for part in together} == set(NAMES)
    for part in together:
        alone = part_of(part.name, settings, secrets, addresses, proxy=["proxy"], environ={})
        assert (alone.command, alone.environment) == (part.command, part.environment)


def test_a_part_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    with pytest.raises(UserError) as refused:
        part_of("cook", settings, load_secrets(tmp_path), Addresses(settings))
    assert "portal" in str(refused.value)


def test_the_public_address_is_what_people_and_cookies_go_by(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, PODS, {"web": {"public_url": "https://hub.example.edu"}})
    hub = hub_traits(settings, load_secrets(tmp_path), Addresses(settings))["JupyterHub"]
    assert hub["public_url"] == "https://hub.example.edu/"
    assert hub["tornado_settings"]["xsrf_cookie_kwargs"]["secure"] is True
    assert "Strict-Transport-Security" in hub["tornado_settings"]["headers"]
    assert hub["cookie_host_prefix_enabled"] is False  # people's nodes are on this host, too


# ---------------------------------------------------------------------------------------- clusters of pods


def test_clusters_of_pods_are_told_everything_that_the_settings_say(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path,
        PODS,
        {
            "pools": {
                "default": {},
                "gpu": {
                    "node_selector": {"pool": "gpu"},
                    "tolerations": [{"key": "g", "operator": "Exists"}],
                },
            },
            "gpu_models": {"a100": {"resource": "nvidia.com/a100"}, "any": {}},
        },
    )
    traits = hub_traits(settings, load_secrets(tmp_path), Addresses(settings))
    kube = traits["KubeCluster"]
    assert traits["JupyterHub"]["spawner_class"] == "spawner.kubernetes.cluster.KubeCluster"
    assert kube["namespace"] == "here"
    assert kube["claims"] == {"/srv/projects": "projects"}
    assert kube["portal_url"] == SERVICES_OF_THE_CHART["portal"] + "/services/portal"
    assert kube["reached_by"] == [PEER]
    assert kube["pools"]["gpu"] == {
        "node_selector": {"pool": "gpu"},
        "tolerations": [{"key": "g", "operator": "Exists"}],
    }
    assert kube["gpu_models"] == {"a100": {"resource": "nvidia.com/a100"}, "any": {}}
    assert "hub_connect_url" not in kube
    assert "ProcessCluster" not in traits
    assert (
        traits["Spawner"]["start_timeout"] == settings.gang_timeout_seconds + settings.start_timeout_seconds
    )


def test_every_trait_that_clusters_of_pods_are_told_exists(tmp_path: Path) -> None:
    from spawner.kubernetes.cluster import KubeCluster

    file = {**PODS, "kubernetes": {**PODS["kubernetes"], "hub_connect_url": "http://10.0.0.1:8"}}
    settings = settings_of(tmp_path, file)
    told = hub_traits(settings, load_secrets(tmp_path), Addresses(settings))["KubeCluster"]
    assert set(told) <= set(KubeCluster.class_trait_names(config=True))


def test_a_hub_outside_of_kubernetes_is_let_in_and_reached_by_its_number(tmp_path: Path) -> None:
    outside = {
        "addresses": {"hub": "http://192.0.2.7:8081", "portal": "http://192.0.2.7:8082"},
        "kubernetes": {"image": "galilean-jupyter:1"},
    }
    settings = settings_of(tmp_path, PODS, outside)
    ports = keep_ports(tmp_path, but={"hub", "portal"})
    kube = hub_traits(settings, load_secrets(tmp_path), Addresses(settings, ports))["KubeCluster"]
    assert kube["reached_by"] == [{"ipBlock": {"cidr": "192.0.2.7/32"}}]
    assert [(rule["to"][0]["ipBlock"]["cidr"], rule["ports"][0]["port"]) for rule in kube["reaches"]] == [
        ("192.0.2.7/32", 8081),
        ("192.0.2.7/32", 8082),
    ]


@pytest.mark.parametrize(
    ("addresses", "said"),
    [
        ({}, "addresses.hub"),
        ({"hub": "http://192.0.2.7:8081"}, "addresses.portal"),
        ({"hub": "http://hub:8081", "portal": "http://portal:8082"}, "kubernetes.network.reached_by"),
    ],
)
def test_nodes_that_would_be_cut_off_from_their_hub_are_told_of_before_anything_starts(
    tmp_path: Path, addresses: dict[str, str], said: str
) -> None:
    file = {**PODS, "addresses": addresses, "kubernetes": {"image": "galilean-jupyter:1"}}
    settings = settings_of(tmp_path, file)
    ports = keep_ports(tmp_path, but=set(addresses))
    with pytest.raises(UserError) as refused:
        hub_traits(settings, load_secrets(tmp_path), Addresses(settings, ports))
    assert refused.value.status == 400
    assert said in str(refused.value)


def test_a_file_written_for_pods_is_read_as_one() -> None:
    assert parse_settings(json.dumps(PODS)).backend == "kubernetes"


@pytest.fixture
def kubeconfig(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spawner.kubernetes.inventory.load_config", lambda: None)


@pytest.mark.usefixtures("kubeconfig")
async def test_the_hub_hands_clusters_of_pods_what_they_work_with(tmp_path: Path) -> None:
    from traitlets.config import Config

    from galilean.migrate import upgrade
    from hub_config.wiring import configure
    from services.release.__main__ import sighted_by
    from spawner.kubernetes.inventory import KubeInventory
    from spawner.kubernetes.nodes import PodNodes

    (tmp_path / "galilean.yaml").write_text(json.dumps(PODS))
    c = Config()
    given = kept_secrets(tmp_path / "given", "portal-cookie")
    upgrade(f"sqlite:///{tmp_path}/ours.sqlite")
    wiring = configure(
        c,
        {
            "GALILEAN_CONFIG": str(tmp_path / "galilean.yaml"),
            "GALILEAN_STATE": str(tmp_path / "state"),
            "GALILEAN_SECRETS": str(given),
            "GALILEAN_DATABASE_URL": f"sqlite:///{tmp_path}/ours.sqlite",
        },
    )
    try:
        assert isinstance(c.KubeCluster.pods, PodNodes)
        assert c.KubeCluster.pods.namespace == "here"
        assert isinstance(wiring.inventory, KubeInventory)
        assert not hasattr(wiring.room, "cpu_millicores")  # not this machine's
        assert await sighted_by(wiring.settings).inventory() == []  # it has no rights there
    finally:
        wiring.database.close()


def test_an_address_that_is_not_this_machine_s_names_its_setting(tmp_path: Path) -> None:
    from hub_config.start import _check_free

    settings = settings_of(tmp_path, {"addresses": {"hub": "http://192.0.2.7:8081"}})
    with pytest.raises(UserError) as refused:
        _check_free(Addresses(settings), "hub")
    assert str(refused.value).startswith("addresses.hub is 192.0.2.7")


def test_a_hub_does_not_begin_before_its_database(tmp_path: Path) -> None:
    from hub_config.start import part

    with pytest.raises(UserError, match="not ready"):
        part(
            "hub",
            {
                "GALILEAN_STATE": str(tmp_path / "state"),
                "GALILEAN_SECRETS": str(kept_secrets(tmp_path / "given")),
                "GALILEAN_CONFIG": str(
                    write(tmp_path / "galilean.yaml", {"addresses": SERVICES_OF_THE_CHART})
                ),
            },
        )
    assert not (tmp_path / "state").exists()


def write(path: Path, file: dict[str, Any]) -> Path:
    path.write_text(json.dumps(file))
    return path


class LateProxy:
    """Does not answer so many times, then says what it is to say."""

    should_start, api_url = False, "http://proxy-api:8001"

    def __init__(self, late: int, then: Exception | None = None) -> None:
        self.late, self.then, self.asked = late, then, 0

    async def get_all_routes(self) -> dict[str, Any]:
        self.asked += 1
        if self.asked <= self.late:
            raise TimeoutError
        if self.then:
            raise self.then
        return {}


async def test_a_hub_does_not_give_up_on_a_proxy_that_is_away_but_on_one_that_refuses_it() -> None:
    import logging
    from types import SimpleNamespace

    from hub_config.hub import GalileanHub

    def hub(proxy: LateProxy) -> Any:
        return SimpleNamespace(proxy=proxy, log=logging.getLogger("test"))

    proxy = LateProxy(late=3)
    await GalileanHub._until_the_proxy_answers(hub(proxy))
    assert proxy.asked == 4
    with pytest.raises(PermissionError):
        await GalileanHub._until_the_proxy_answers(hub(LateProxy(late=1, then=PermissionError())))
