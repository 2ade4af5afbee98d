"""Cold deep links keep path and query, and never lead off the site."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spawner.node.bounce import bounce_target, head_target, login_path

P = "/user/alice/heat/"
rest = st.text(st.characters(exclude_characters="?#", exclude_categories=["Cs"]), max_size=60)
query = st.text(st.characters(exclude_characters="#", exclude_categories=["Cs"]), max_size=40)


@pytest.mark.parametrize(
    ("target", "login", "back"),
    [
        (f"{P}node-1/lab/tree/a%20b.ipynb?x=1&y=%2F", f"{P}go/node-1/lab/tree/a%20b.ipynb?x=1&y=%2F", None),
        (f"{P}node-1/", f"{P}go/node-1/?", f"{P}node-1/"),
        (f"{P}node-1", f"{P}go/node-1/?", f"{P}node-1/"),
        (f"{P}node-1/lab?next=//evil.com", f"{P}go/node-1/lab?next=//evil.com", None),
    ],
)
def test_the_login_address_carries_path_and_query(target: str, login: str, back: str | None) -> None:
    assert login_path(P, 1, target) == login
    assert bounce_target(P, 2, login) == (back or target)


@given(rest, query)
def test_any_plain_link_survives_the_bounce(path: str, question: str) -> None:
    from urllib.parse import quote

    target = f"{P}node-3/{quote(path)}" + (f"?{quote(question, safe='=&')}" if question else "")
    assert bounce_target(P, 4, login_path(P, 3, target)) == target


@given(rest, query)
def test_no_bounce_leaves_the_cluster(path: str, question: str) -> None:
    for target in (
        bounce_target(P, 4, f"{P}go/node-2/{path}?{question}"),
        head_target(P, f"{P}node-0/{path}?{question}"),
    ):
        assert target is not None
        where = urlsplit(urljoin("http://hub.example", target))
        assert where.netloc == "hub.example"
        assert target.startswith(P)
        assert "\n" not in target.split("?")[0]


@pytest.mark.parametrize(
    "name", ["node-4", "node-99999", "node-", "node-01", "evil.com", "", "..", "node-1%2f"]
)
def test_there_is_no_bounce_to_what_is_no_node(name: str) -> None:
    assert bounce_target(P, 4, f"{P}go/{name}/lab") is None


def test_a_prefix_that_a_browser_encoded_otherwise_is_still_the_prefix() -> None:
    prefix = "/user/al%40ice/heat/"
    assert (
        login_path(prefix, 1, "/user/al@ice/heat/node-1/lab?a=b") == "/user/al%40ice/heat/go/node-1/lab?a=b"
    )


def test_node_0_leads_to_the_clusters_own_path() -> None:
    assert head_target(P, f"{P}node-0/lab/tree/x?y=2") == f"{P}lab/tree/x?y=2"
    assert head_target(P, f"{P}node-0") == P
    assert bounce_target(P, 1, f"{P}go/node-0/lab?y=2") == f"{P}lab?y=2"
