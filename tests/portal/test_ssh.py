"""Keys for ssh in the API and on the account page, and what nodes are told (TI-19)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from galilean.rights import BLOCKED
from tests.portal.conftest import Sign, made
from tests.portal.live import LiveSite
from tests.portal.test_doors import running


def line() -> str:
    key = Ed25519PrivateKey.generate().public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() + " ada@laptop"


def node(site: LiveSite, name: str, server: str) -> httpx.Client:
    """What a node of somebody's has."""
    scopes = [
        f"users:activity!user={name}",
        f"access:servers!server={name}/{server}",
        "access:services!service=portal",
    ]
    token = site.hub.token(name, scopes)
    return httpx.Client(
        base_url=site.url + "api/v1", headers={"Authorization": f"token {token}"}, timeout=120
    )


def asks(run: str, **more: object) -> dict[str, object]:
    return {"server": "heat-flow", "run": run, "rank": 0, **more}


def test_a_key_is_added_shown_and_removed(sign: Sign) -> None:
    alice = sign("alice")
    made_ = alice.post("/ssh-keys", json={"public_key": line()})
    assert made_.status_code == 201
    key = made_.json()
    assert key["name"] == "ada@laptop" and key["fingerprint"].startswith("SHA256:") and key["used_at"] is None
    assert len(key["public_key"].split()) == 2
    assert [item["id"] for item in alice.get("/ssh-keys").json()["items"]] == [key["id"]]
    assert sign("bob").get("/ssh-keys").json()["items"] == []
    assert sign("bob").delete(f"/ssh-keys/{key['id']}").status_code == 204  # there is none of his
    assert len(alice.get("/ssh-keys").json()["items"]) == 1
    for _ in range(2):
        assert alice.delete(f"/ssh-keys/{key['id']}").status_code == 204
    assert alice.get("/ssh-keys").json()["items"] == []


def test_what_is_no_key_is_refused_in_both_languages(sign: Sign) -> None:
    for language, word in (("en", "ssh-ed25519"), ("zh-CN", "公钥")):
        answer = sign("alice", language=language).post(
            "/ssh-keys", json={"public_key": 'command="id" ' + line()}
        )
        assert answer.status_code == 400 and word in answer.json()["detail"]


def test_who_waits_for_a_role_and_a_token_that_only_looks_add_none(sign: Sign) -> None:
    assert sign("nobody").post("/ssh-keys", json={"public_key": line()}).status_code == 403
    looks = ["access:services!service=portal", "read:users!user=alice"]
    assert sign("alice", scopes=looks).post("/ssh-keys", json={"public_key": line()}).status_code == 403


def test_a_node_is_told_the_keys_of_its_owner_and_tells_which_was_used(site: LiveSite, sign: Sign) -> None:
    alice = sign("alice")
    made(alice)
    run = running(alice)
    key = alice.post("/ssh-keys", json={"public_key": line()}).json()
    sign("bob").post("/ssh-keys", json={"public_key": line()})
    with node(site, "alice", "heat-flow") as own:
        told = own.post("/node/ssh-keys", json=asks(run)).json()
        assert told == {
            "keys": [{"fingerprint": key["fingerprint"], "public": key["public_key"]}], "forward": "localhost",
        }  # fmt: skip
        assert own.post("/node/ssh-keys", json=asks(run, used=[key["fingerprint"]])).status_code == 200
        assert alice.get("/ssh-keys").json()["items"][0]["used_at"] is not None
        for wrong in (asks("0" * 26), {**asks(run), "server": "other"}, {**asks(run), "rank": 9}):
            assert own.post("/node/ssh-keys", json=wrong).status_code in (400, 403, 409)
    assert alice.post("/node/ssh-keys", json=asks(run)).status_code == 403  # her own token is no node's
    with node(site, "bob", "heat-flow") as other:
        assert other.post("/node/ssh-keys", json=asks(run)).status_code == 409
    with node(site, "alice", "else") as another:
        assert another.post("/node/ssh-keys", json=asks(run)).status_code == 403


def test_somebody_who_is_blocked_comes_in_nowhere(site: LiveSite, sign: Sign) -> None:
    alice = sign("alice")
    made(alice)
    run = running(alice)
    alice.post("/ssh-keys", json={"public_key": line()})
    with node(site, "alice", "heat-flow") as own:
        assert len(own.post("/node/ssh-keys", json=asks(run)).json()["keys"]) == 1
        site.hub.people["alice"]["groups"].append(BLOCKED)
        site.portal.people.forget("alice")
        assert own.post("/node/ssh-keys", json=asks(run)).json()["keys"] == []


def test_the_account_page_has_the_keys_and_the_lines_to_copy(site: LiveSite, sign: Sign) -> None:
    alice = sign("alice")
    page = alice.get(site.url + "account").text
    assert "Add a key" in page and "Host *.galilean" in page and "/user/alice/ %r@%h" in page
    alice.post("/ssh-keys", json={"public_key": line(), "name": "<b>mine</b>"})
    page = alice.get(site.url + "account").text
    assert "&lt;b&gt;mine&lt;/b&gt;" in page and "<b>mine" not in page
    assert "添加公钥" in alice.get(site.url + "account", headers={"Accept-Language": "zh-CN"}).text


def test_the_script_is_fetched_without_a_sign_in_and_runs_alone(site: LiveSite, tmp_path: Path) -> None:
    answer = httpx.get(site.url + "ssh/galilean-ssh.py")
    assert answer.status_code == 200
    (tmp_path / "galilean-ssh.py").write_bytes(answer.content)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "galilean-ssh.py", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "connect" in done.stdout


def test_the_drawer_says_how_ssh_calls_each_node(site: LiveSite, sign: Sign) -> None:
    alice = sign("alice")
    made(alice)
    running(alice, nodes=2)
    page = alice.get(site.url + "projects/alice/heat-flow/run", headers={"HX-Request": "true"}).text
    assert "ssh heat-flow.galilean" in page and "ssh node-1.heat-flow.galilean" in page


@pytest.mark.parametrize("path", ["account", "ssh/galilean-ssh.py"])
def test_where_the_centre_has_no_ssh_nothing_speaks_of_it(site: LiveSite, sign: Sign, path: str) -> None:
    alice = sign("alice")
    alice.post("/ssh-keys", json={"public_key": line()})
    settings = site.portal.settings
    site.portal.settings = settings.model_copy(
        update={"ssh": settings.ssh.model_copy(update={"enabled": False})}
    )
    answer = alice.get(site.url + path)
    assert "Host *.galilean" not in answer.text and "ProxyCommand" not in answer.text
    assert alice.post("/ssh-keys", json={"public_key": line()}).status_code == 404
