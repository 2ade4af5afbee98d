"""Addresses, Kubernetes, pools and claims in ``galilean.yaml``: mistakes are told in words, with their line."""

from __future__ import annotations

from pathlib import Path

import pytest

from galilean.settings import Settings, SettingsError, parse_settings
from galilean.settings_places import NOT_OUTSIDE
from spawner.kubernetes.spec import CLUSTER_DNS
from spawner.kubernetes.spec import NOT_OUTSIDE as OF_THE_BACKEND

PODS = """
backend: kubernetes
kubernetes: {image: "galilean-jupyter:1"}
volumes: {default: {kind: claim, claim: projects, path: /srv/projects}}
"""


def problem(source: str, **environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        parse_settings(source, environ=environ)
    (only,) = caught.value.problems
    return only


@pytest.mark.parametrize(
    "address",
    [
        "hub:8081",
        "http://hub",
        "https://hub:1",
        "http://hub:1/x",
        "http://a:b@hub:1",
        "http://hub:99999",
        "x",
    ],
)
def test_an_address_that_is_not_whole_is_refused_with_its_line(address: str) -> None:
    said = problem(f"addresses:\n  portal: http://portal:80\n  hub: {address!r}\n")
    assert said.startswith("galilean.yaml:3: addresses.hub: ")
    assert "http://portal:8080" in said


def test_an_address_is_kept_without_a_slash_at_its_end() -> None:
    assert parse_settings("addresses: {hub: 'http://hub:8081/'}").addresses.hub == "http://hub:8081"


def test_on_kubernetes_projects_lie_on_claims_and_environments_have_images() -> None:
    assert "volumes.default" in problem("backend: kubernetes\nkubernetes: {image: a}\n")
    assert "environments.jupyter has no image" in problem(PODS.replace("image", "kueue_queue"))
    settings = parse_settings(PODS)
    assert settings.volume_path("default") == Path("/srv/projects")


@pytest.mark.parametrize(
    ("volume", "said"),
    [
        ("{kind: claim, path: /x}", "the name of its PersistentVolumeClaim"),
        ("{kind: claim, path: /x, claim: Not_A_Name}", "Not_A_Name"),
        ("{kind: claim, claim: x}", "needs path"),
        ("{claim: x}", "say kind: claim"),
        ("{kind: nfs}", "directory"),
    ],
)
def test_a_volume_that_is_half_said_is_refused_with_its_line(volume: str, said: str) -> None:
    text = problem(f"volumes:\n  data: {volume}\n")
    assert text.startswith("galilean.yaml:2: volumes.data")
    assert said in text


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("pools: {physics: {}}", "pools must contain default"),
        ("pools: {default: {}, Physics Lab: {}}", "pools.Physics Lab"),
        ("pools: {default: {open_to: [dean]}}", "no role 'dean'"),
        ("pools: {default: {tolerations: [{effect: Never}]}}", "pools.default.tolerations.0.effect"),
        ("gpu_models: {A100: {}}", "gpu_models.A100"),
        ("gpu_models: {a100: {resource: gpu}}", "nvidia.com/gpu"),
        ("kubernetes: {gpu_resource: gpu}", "nvidia.com/gpu"),
        ("kubernetes: {namespace: My Space}", "name of a namespace"),
        ("kubernetes: {home_dir: home}", "absolute"),
        ("kubernetes: {shm_share: 2}", "kubernetes.shm_share"),
        ("kubernetes: {network: {not_outside: [10.0.0.1/8]}}", "10.0.0.0/8"),
        ("web: {public_url: hub.example.edu}", "https://hub.example.edu/"),
        ("web: {public_url: 'https://x/lab', base_url: /hub}", "base_url"),
        ("database: {url: 'postgresql://a/b', hub_url: 'postgresql://a/b'}", "two databases"),
    ],
)
def test_other_mistakes_are_told_in_words(source: str, said: str) -> None:
    assert said in problem(source)


def test_addresses_of_databases_come_by_the_environment_and_win() -> None:
    settings = parse_settings(
        "database: {url: 'sqlite:////old'}",
        environ={"GALILEAN_DATABASE_URL": "postgresql://a/b", "GALILEAN_HUB_DATABASE_URL": "postgres://a/h"},
    )
    assert settings.database_url == "postgresql://a/b"
    assert settings.hub_database_url == "postgresql+psycopg://a/h"


def test_whether_browsers_come_by_tls_is_told_by_the_public_address() -> None:
    def https(web: str) -> bool:
        return parse_settings(f"web: {web}").web.https

    assert not https("{}")
    assert https("{public_url: 'https://hub.example.edu'}")
    assert https("{subdomain_host: 'https://hub.example.edu'}")
    assert not https("{public_url: 'http://hub.example.edu/'}")


def test_a_toleration_is_written_as_kubernetes_has_it() -> None:
    pool = parse_settings("pools: {default: {tolerations: [{key: gpu, operator: Exists}]}}").pools["default"]
    assert pool.tolerations[0].written() == {"key": "gpu", "operator": "Exists"}


def test_what_is_outside_by_default_is_what_the_backend_means_by_it() -> None:
    assert NOT_OUTSIDE == OF_THE_BACKEND
    assert Settings().kubernetes.network.dns == (dict(CLUSTER_DNS),)
