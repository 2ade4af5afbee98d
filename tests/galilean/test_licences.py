"""Licence servers as they are named: what is one, and what nobody gets a way to."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from galilean.licences import PORTS_NEVER, never, read_host
from galilean.settings import EnvironmentSettings, LicenceServer, Settings


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("flex.example.edu", "flex.example.edu"),
        ("FLEX.Example.EDU.", "flex.example.edu"),
        ("flex", "flex"),
        ("10.20.30.40", "10.20.30.40"),
        ("[2001:db8:1::7]", "2001:db8:1::7"),
    ],
)
def test_a_host_is_a_name_or_a_whole_address(said: str, read: str) -> None:
    assert read_host(said) == read


@pytest.mark.parametrize(
    "host",
    [
        "", " ", "a b", "a/b", "http://a", "*.example.edu", "10.0.0.0/8", "a..b", "x" * 300, "ä.example.edu",
        # numbers that some programs read as 127.0.0.1
        "2130706433", "0x7f000001", "017700000001", "127.1", "10.1", "1.2.3.0x4",
        # the machine that asks, Kubernetes inside, a cloud's metadata
        "127.0.0.1", "127.8.9.1", "0.0.0.0", "0.1.2.3", "::1", "::", "::ffff:127.0.0.1", "64:ff9b::7f00:1",
        "2002:7f00:1::", "localhost", "LOCALHOST.", "a.localhost", "hub.galilean.svc",
        "kubernetes.default.svc.cluster.local", "metadata.google.internal", "host.docker.internal",
        "169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "fd00:ec2::254", "100.100.100.200",
        "168.63.129.16", "224.0.0.1", "255.255.255.255", "240.0.0.1", "ff02::1",
    ],
)  # fmt: skip
def test_what_is_no_licence_server_is_refused_in_words(host: str) -> None:
    with pytest.raises(ValidationError):
        LicenceServer(host=host, ports=(27000,))


@pytest.mark.parametrize("port", [0, -1, 65536, 10**9, *sorted(PORTS_NEVER)])
def test_ports_of_kubernetes_and_docker_are_opened_for_nobody(port: int) -> None:
    with pytest.raises(ValidationError):
        LicenceServer(host="flex.example.edu", ports=(port,))


@given(st.ip_addresses())
def test_what_is_not_of_one_machine_outside_is_never_opened(address) -> None:
    special = address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
    assert not special or never(address)


def test_networks_of_the_platform_are_its_own() -> None:
    ours = (ip_network("10.213.0.0/16"), ip_network("2001:db8::/32"))
    assert never(ip_address("10.213.4.5"), ours)
    assert never(ip_address("::ffff:10.213.4.5"), ours)
    assert never(ip_address("2001:db8::1"), ours)
    assert never(ip_address("10.214.4.5"), ours) is None


def test_an_entry_of_the_file_that_names_the_platforms_own_is_told() -> None:
    def site(host: str) -> Settings:
        entry = {"title": "CAE", "licences": [{"host": host, "ports": [27000]}]}
        return Settings.model_validate(
            {
                "backend": "docker",
                "docker": {"image": "a/b"},
                "environments": {"jupyter": entry},
                "addresses": {"portal": "http://10.9.8.7:80"},
            }
        )

    assert site("10.20.30.40").environments["jupyter"].licences[0].ports == (27000,)
    for host in ("10.213.0.1", "10.9.8.7"):
        with pytest.raises(
            ValidationError, match=r"environments.jupyter.licences: .* belongs to the platform"
        ):
            site(host)


@pytest.mark.parametrize(
    ("name", "fine"),
    [
        ("cae-{person}", True),
        ("cae-{person}-x", True),
        ("{person}", False),
        ("cae-{person}-{person}", False),
        ("cae-{other}", False),
        ("CAE-{person}", False),
        ("{person}-cae", False),
    ],
)
def test_a_host_name_may_have_the_person_in_it_once(name: str, fine: bool) -> None:
    if fine:
        assert EnvironmentSettings(title="CAE", hostname=name).hostname == name
        return
    with pytest.raises(ValidationError):
        EnvironmentSettings(title="CAE", hostname=name)
