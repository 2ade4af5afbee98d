"""ssh and applications of the whole product: as the account page says it, through the hub's own rights."""

from __future__ import annotations

import html
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import yaml

from tests.product.product import Person, Product, wait_for

PORTAL = "/services/portal/"
APPLICATION = {
    "title": "Counter",
    "needs": ["python3"],
    "fields": {"folder": {"title": "Folder", "type": "directory", "default": "."}},
    "command": 'cd "$APP_FOLDER" && exec python3 -m http.server --bind 127.0.0.1 "$APP_PORT"',
}


def xsrf(browser: httpx.Client, path: str) -> dict[str, str]:
    """What a page's own requests carry."""
    page = browser.get(path)
    assert page.status_code == 200, page.text[:300]
    value = next(
        cookie.value for cookie in browser.cookies.jar if cookie.name == "_xsrf" and cookie.path in path
    )
    return {"X-XSRFToken": value or "", "HX-Request": "true"}


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="no OpenSSH here")
def test_the_lines_of_the_account_page_lead_into_ones_own_nodes(
    product: Product, person: Callable[..., Person], tmp_path: Path
) -> None:
    ada, bob = person(), person()
    server = ada.running("Heat flow", nodes=2)
    folder = tmp_path / ".ssh"
    folder.mkdir(mode=0o700)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "id_ed25519")], check=True
    )

    browser = ada.sign_in()
    headers = xsrf(browser, f"{PORTAL}account")
    key = (folder / "id_ed25519.pub").read_text()
    added = browser.post(
        f"{PORTAL}account/ssh-keys", data={"public_key": key, "name": "mine"}, headers=headers
    )
    assert added.status_code == 200, added.text
    made = browser.post(
        f"{PORTAL}account/tokens", data={"note": "ssh", "may": "ssh", "days": "7"}, headers=headers
    )
    token = re.search(r'class="secret">([^<]+)<', made.text)
    assert token, made.text
    # It comes into nodes, and does nothing else.
    only = {"Authorization": f"token {token[1]}"}
    assert product.http.get(f"{PORTAL}api/v1/clusters", headers=only).status_code in (401, 403)
    assert product.http.get(f"/hub/api/users/{bob.name}", headers=only).status_code in (403, 404)
    assert product.http.delete(f"/hub/api/users/{ada.name}/servers/{server}", headers=only).status_code in (
        403,
        404,
    )

    page = browser.get(f"{PORTAL}account").text
    lines = {
        name: html.unescape(text)
        for name, text in re.findall(r'<pre tabindex="0" id="(ssh-[a-z]+)">(.*?)</pre>', page, re.DOTALL)
    }
    home = {**os.environ, "HOME": str(tmp_path)}
    here = {"~": str(tmp_path)}
    for name in ("ssh-fetch", "ssh-token"):
        command = lines[name].replace("~", here["~"])
        subprocess.run(
            shlex.split(command), input=token[1] + "\n", text=True, env=home, check=True, capture_output=True
        )
    # OpenSSH takes the home of the account and not $HOME: a test has a place of its own.
    (folder / "config").write_text(
        lines["ssh-config"].replace("~", here["~"])
        + f"\n  IdentityFile {folder}/id_ed25519\n  IdentitiesOnly yes\n"
    )

    def ssh(host: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ssh", "-F", str(folder / "config"), "-o", "BatchMode=yes", host, *words],
            env=home, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    for rank, host in enumerate((f"{server}.galilean", f"node-1.{server}.galilean")):
        done = ssh(host, "echo $GALILEAN_RANK; touch came-in")
        assert (done.returncode, done.stdout) == (0, f"{rank}\n"), done.stderr
    files = ada.portal("GET", f"/projects/{ada.name}/{server}/files").json()
    assert "came-in" in str(files)
    (kept,) = ada.portal("GET", "/ssh-keys").json()["items"]
    wait_for(
        lambda: ada.portal("GET", "/ssh-keys").json()["items"][0]["used_at"], "the use of the key is told"
    )
    # Another person's key and token, on the same machine, with the same lines.
    assert bob.portal("POST", "/ssh-keys", json={"public_key": key}).status_code == 201
    (folder / "galilean-token").write_text(bob.token)
    refused = ssh(f"{server}.galilean", "id")
    assert refused.returncode == 255 and "does not take the token" in refused.stderr
    (folder / "galilean-token").write_text(token[1])

    opened = subprocess.Popen(
        ["ssh", "-F", str(folder / "config"), f"{server}.galilean", "echo in; exec sleep 600"],
        env=home, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert opened.stdout is not None and opened.stdout.readline() == "in\n"
    assert ada.portal("DELETE", f"/ssh-keys/{kept['id']}").status_code == 204
    wait_for(lambda: opened.poll() is not None, "who came in with the key is cut off", seconds=40)
    opened.communicate()
    assert "Permission denied (publickey)" in ssh(f"{server}.galilean", "id").stderr


def test_one_file_gives_every_node_an_application(tmp_path_factory: pytest.TempPathFactory) -> None:
    from tests.product.conftest import SETTINGS
    from tests.product.product import running_product

    directory = tmp_path_factory.mktemp("applications")
    (directory / "applications").mkdir()
    (directory / "applications" / "counter.yaml").write_text(yaml.safe_dump(APPLICATION))
    with running_product(directory, SETTINGS) as product:
        ada = product.person("ada", "researcher")
        server = ada.running("Heat flow")
        run = ada.clusters()[0]["id"]

        def doors() -> dict[str, str]:
            (node,) = ada.portal("GET", f"/clusters/{run}").json()["node_list"]
            return {door["name"]: door["url"] for door in node["doors"]}

        wait_for(lambda: "app-counter" in doors(), "the door is there")
        assert doors()["app-counter"] == f"/user/ada/{server}/galilean/apps/counter"
        browser = ada.sign_in()
        assert "Counter" in browser.get(f"{PORTAL}projects/ada/{server}/run").text
        assert "Folder" in browser.get(doors()["app-counter"]).text
        started = ada.api("POST", f"/user/ada/{server}/galilean/api/apps/counter", json={"values": {}})
        assert started.status_code == 202, started.text
        address = f"/user/ada/{server}/apps/counter/"
        wait_for(lambda: "Directory listing" in browser.get(address).text, "the program answers")
        assert "Directory listing" not in product.http.get(address).text  # not signed in
