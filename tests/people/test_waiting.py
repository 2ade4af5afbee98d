"""Who waits for a role, told from the hub's models of people."""

from __future__ import annotations

from typing import Any

import pytest

from galilean.errors import UserError
from galilean.rights import initial
from galilean.settings import parse_settings
from services.people.waiting import Account, accounts, count_waiting, grant, take

ROLES = initial(parse_settings("roles: {student: {}, teacher: {}, admin: {}}"))


def person(name: str, *groups: str, created: str = "") -> dict[str, Any]:
    return {"name": name, "groups": list(groups), "created": created, "last_activity": None}


class Hub:
    """The hub's answers, and what was asked of it."""

    def __init__(self, *people: dict[str, Any]) -> None:
        self.people = list(people)
        self.asked: list[tuple[str, str, str]] = []

    async def users(self) -> list[dict[str, Any]]:
        return self.people

    async def add_to_group(self, group: str, user: str) -> None:
        self.asked.append(("add", group, user))

    async def remove_from_group(self, group: str, user: str) -> None:
        self.asked.append(("remove", group, user))


@pytest.mark.parametrize(
    ("groups", "roles", "waits"),
    [
        ((), (), True),
        (("galilean:student",), ("student",), False),
        (("galilean:admin", "galilean:student"), ("student", "admin"), False),
        (("admin", "student", "galilean-admin", "Galilean:admin"), (), True),
        (("galilean:gone",), (), True),
    ],
)
def test_roles_are_groups_of_ours_that_the_settings_know(
    groups: tuple[str, ...], roles: tuple[str, ...], waits: bool
) -> None:
    (account,) = accounts([person("eva", *groups)], ROLES)
    assert (account.roles, account.waits) == (roles, waits)


def test_those_who_wait_longest_come_first_then_all_others_by_name() -> None:
    found = accounts(
        [
            person("zoe", "galilean:student"),
            person("bob", created="2026-02-01T00:00:00Z"),
            person("amy", "galilean:admin"),
            person("eva", created="2026-01-01T00:00:00Z"),
        ],
        ROLES,
    )
    assert [account.name for account in found] == ["eva", "bob", "amy", "zoe"]
    assert found[0] == Account(name="eva", created="2026-01-01T00:00:00Z")


async def test_the_badge_counts_those_who_wait() -> None:
    hub: Any = Hub(person("eva"), person("amy", "galilean:admin"), person("bob", "students"))
    assert await count_waiting(hub, ROLES) == 2


async def test_giving_and_taking_a_role_is_a_change_of_group() -> None:
    hub: Any = Hub(person("amy", "galilean:admin"), person("eva"))
    await grant(hub, "eva", "student", ROLES)
    await take(hub, "eva", "student", ROLES)
    assert hub.asked == [("add", "galilean:student", "eva"), ("remove", "galilean:student", "eva")]


@pytest.mark.parametrize("role", ["emperor", "", "student/../admin", "galilean:admin"])
async def test_a_role_that_is_not_in_the_settings_is_refused_before_the_hub_is_asked(role: str) -> None:
    hub: Any = Hub(person("amy", "galilean:admin"))
    for act in (grant, take):
        with pytest.raises(UserError) as refused:
            await act(hub, "eva", role, ROLES)
        assert refused.value.status == 404
    assert hub.asked == []


async def test_the_last_administrator_keeps_the_role() -> None:
    hub: Any = Hub(person("amy", "galilean:admin"))
    with pytest.raises(UserError) as refused:
        await take(hub, "amy", "admin", ROLES)
    assert refused.value.status == 409
    assert hub.asked == []
    hub.people.append(person("bob", "galilean:admin"))
    await take(hub, "amy", "admin", ROLES)
    assert hub.asked == [("remove", "galilean:admin", "amy")]
