"""Ways to licence servers: what is looked up, what is refused, and host names that stay."""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galilean.errors import UserError
from galilean.settings import EnvironmentSettings
from spawner import licences
from spawner.host_names import of_person, part_of
from spawner.licences import LicenceServer, Way

KNOWN = {
    "flex.example.edu": ["10.20.30.40", "10.20.30.41"],
    "six.example.edu": ["2001:db8:9::1"],
    "both.example.edu": ["10.20.30.40", "2001:db8:9::1"],
    "turned.example.edu": ["10.20.30.40", "127.0.0.1"],
    "metadata.example.edu": ["169.254.169.254"],
    "hub": ["10.1.1.1"],
    "inward.example.edu": ["10.1.1.1"],
    "pods.example.edu": ["10.244.3.4"],
}


def looking(known: dict[str, list[str]] = KNOWN) -> Callable[[str], Awaitable[Sequence[str]]]:
    async def look(host: str) -> Sequence[str]:
        try:
            return [str(ip_address(host))]
        except ValueError:
            if host in known:
                return known[host]
            raise socket.gaierror(f"{host}: no") from None

    return look


async def ways(*servers: LicenceServer, only_four: bool = False, own: str = "") -> tuple[Way, ...]:
    return await licences.ways(
        servers,
        environment="cae",
        ours=await licences.networks(("hub", "10.244.0.0/16", "nobody.example.edu"), looking()),
        only_four=only_four,
        look=looking(),
        own=lambda address: str(address) == own,
    )


def server(host: str, *ports: int, protocol: str = "tcp") -> LicenceServer:
    return LicenceServer(host=host, ports=ports or (27000,), protocol=protocol)  # type: ignore[arg-type]


async def test_every_address_of_a_name_gets_its_ports_and_no_others() -> None:
    assert await ways(server("flex.example.edu", 27001, 27000), server("10.9.9.9", 1947, protocol="udp")) == (
        Way("10.20.30.40", 27000),
        Way("10.20.30.40", 27001),
        Way("10.20.30.41", 27000),
        Way("10.20.30.41", 27001),
        Way("10.9.9.9", 1947, "udp"),
    )


async def test_where_nodes_have_no_ipv6_only_the_others_count() -> None:
    assert await ways(server("both.example.edu"), only_four=True) == (Way("10.20.30.40", 27000),)
    with pytest.raises(UserError) as caught:
        await ways(server("six.example.edu"), only_four=True)
    assert caught.value.status == 503


@pytest.mark.parametrize(
    ("host", "word"),
    [
        ("turned.example.edu", "the platform itself"),
        ("metadata.example.edu", "metadata"),
        ("inward.example.edu", "belongs to the platform"),
        ("pods.example.edu", "other people's clusters"),
        ("10.244.0.1", "belongs to the platform"),
        ("127.0.0.1", "the platform itself"),
    ],
)
async def test_a_name_that_leads_inward_is_refused_with_the_reason(host: str, word: str) -> None:
    with pytest.raises(UserError, match=word) as caught:
        await ways(server("flex.example.edu"), server(host))
    assert caught.value.status == 403
    assert host in caught.value.text()


async def test_an_address_of_this_machine_is_refused() -> None:
    with pytest.raises(UserError, match="machine of the platform itself"):
        await ways(server("flex.example.edu"), own="10.20.30.41")
    assert licences.is_own(ip_address("127.0.0.1"))
    assert not licences.is_own(ip_address("192.0.2.77"))


async def test_one_of_several_servers_may_be_away_and_not_all_of_them() -> None:
    assert await ways(server("away.example.edu"), server("10.9.9.9")) == (Way("10.9.9.9", 27000),)
    with pytest.raises(UserError, match=r"away\.example\.edu, gone\.example\.edu") as caught:
        await ways(server("away.example.edu"), server("gone.example.edu"))
    assert caught.value.status == 503


def test_a_row_keeps_what_was_named_as_people_write_it() -> None:
    servers = (server("flex.example.edu", 27000, 27001), server("2001:db8::7", 1947, protocol="udp"))
    state = licences.to_keep(servers)
    assert licences.kept(state) == ("flex.example.edu:27000,27001", "[2001:db8::7]:1947/udp")
    assert licences.to_keep(()) == {}
    assert licences.kept(None) == ()


@given(st.text(max_size=60))
def test_a_host_name_of_anybody_is_a_label(person: str) -> None:
    longest = "c" * 40 + "-{person}"
    assert EnvironmentSettings(title="CAE", hostname=longest)
    name = f"{of_person(longest, person)}-1023"
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name), name


@given(st.text(max_size=30), st.text(max_size=30))
def test_two_people_never_share_a_host_name(one: str, other: str) -> None:
    assert one == other or part_of(one) != part_of(other)


def test_a_plain_name_stays_as_it_is_and_looks_alike_differ() -> None:
    assert of_person("cae-{person}", "ada") == "cae-ada"
    assert of_person("cae", "ada") == "cae"
    assert len({part_of(name) for name in ("Ada", "ADA", "ada", "a.da", "a_da")}) == 5
    assert part_of(part_of("Ada")) != part_of("Ada")
