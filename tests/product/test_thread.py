"""The thread of the product by API (design §10): from a project to its machine time."""

from __future__ import annotations

import re
import subprocess
import time
from datetime import timedelta

import httpx

from tests.product.product import GALILEAN, PASSWORD, ROOT, Person, Product, wait_for


def test_from_sign_in_to_machine_time(product: Product, ada: Person):
    browser = ada.sign_in()
    assert ada.name in browser.get("/services/portal/").text

    slug = ada.project("Heat flow")
    assert slug == "heat-flow"
    assert slug in [item["slug"] for item in ada.portal("GET", "/projects").json()["items"]]

    begin = time.time()
    answer = ada.run(slug, project=slug, nodes=2, cpu=2, memory="1G")
    assert answer.status_code in (201, 202), answer.text
    wait_for(lambda: ada.is_ready(slug), "the cluster is ready", seconds=60)
    waited = time.time() - begin

    (cluster,) = ada.clusters()
    assert (cluster["status"], cluster["nodes"], cluster["user"]) == ("running", 2, ada.name)
    for rank in (0, 1):
        assert ada.node(slug, rank).status_code == 200
        lab = browser.get(f"/user/{ada.name}/{slug}/" + (f"node-{rank}/" if rank else "") + "lab")
        assert lab.status_code == 200 and "jupyter-config-data" in lab.text

    answer = ada.portal("DELETE", f"/clusters/{cluster['id']}")
    assert answer.status_code in (202, 204), answer.text
    wait_for(lambda: not ada.clusters(), "the cluster is released")
    held = time.time() - begin - waited
    product.wait_truth()

    (run,) = product.runs(ada.name)
    assert run.word == "released" and run.reason
    nodes = product.intervals(run.id)
    assert [node.rank for node in nodes] == [0, 1]
    wall = max(node.gone_at for node in nodes) - min(node.ready_at for node in nodes)
    assert timedelta(0) < wall < timedelta(seconds=held + 3), nodes

    (usage,) = ada.portal("GET", "/usage", params={"by": "project"}).json()["items"]
    node_seconds = sum((node.gone_at - node.ready_at).total_seconds() for node in nodes)
    assert abs(usage["seconds"] - wall.total_seconds()) <= 1
    assert abs(usage["cpu_core_minutes"] - node_seconds * 2 / 60) <= 2 / 60
    assert abs(usage["memory_gb_minutes"] - node_seconds / 60) <= 2 / 60
    assert usage["gpu_card_minutes"] == 0


def test_files_are_the_same_on_all_nodes_and_stay_after_the_release(product: Product, ada: Person):
    slug = ada.running("Files stay", nodes=2)
    text = {"type": "file", "format": "text", "content": "0.5\n"}
    made = ada.api("PUT", f"/user/{ada.name}/{slug}/api/contents/result.txt", json=text)
    assert made.status_code == 201, made.text
    assert ada.node(slug, 1, "api/contents/result.txt").json()["content"] == "0.5\n"
    ada.stop(slug)
    wait_for(lambda: not ada.clusters(), "the cluster is released")
    assert ada.run(slug, project=slug).status_code in (201, 202)
    wait_for(lambda: ada.is_ready(slug), "the cluster is ready again", seconds=60)
    assert ada.node(slug, 0, "api/contents/result.txt").json()["content"] == "0.5\n"


def test_a_second_supervisor_on_the_same_state_is_refused(product: Product):
    second = subprocess.run(
        [GALILEAN, "up"], cwd=ROOT, env=product.environment, capture_output=True, text=True, timeout=120
    )
    assert second.returncode != 0
    assert str(product.status()["pid"]) in second.stdout + second.stderr
    assert "Traceback" not in second.stdout + second.stderr
    assert product.http.get("/hub/api/").status_code == 200


def test_a_new_account_can_look_but_not_run_until_it_has_a_role(product: Product):
    browser = httpx.Client(base_url=product.url, follow_redirects=True, timeout=120)
    page = browser.get("/hub/signup")
    xsrf = re.search(r'name="_xsrf"\s+value="([^"]+)"', page.text)
    assert xsrf
    form = {
        "username": "newcomer",
        "signup_password": PASSWORD,
        "signup_password_confirmation": PASSWORD,
        "_xsrf": xsrf[1],
    }
    assert browser.post("/hub/signup", data=form).status_code == 200
    newcomer = Person(product, "newcomer", product.command("token", "newcomer").strip().splitlines()[-1])
    browser = newcomer.sign_in()
    home = browser.get("/services/portal/")
    assert home.status_code == 200 and "role" in home.text
    assert newcomer.run("anything", project="anything").status_code == 403
    assert not product.runs("newcomer")


def test_nothing_secret_is_in_logs_or_rows(product: Product, ada: Person):
    slug = ada.running("Secrets")
    secrets = [ada.token] + [
        text
        for path in (product.state / "secrets").rglob("*")
        if path.is_file() and len(text := path.read_text(encoding="utf-8", errors="replace").strip()) >= 32
    ]
    for path in [*(product.state / "logs").rglob("*.log"), product.output]:
        said = path.read_text(encoding="utf-8", errors="replace")
        for number, secret in enumerate(secrets):
            assert secret not in said, f"secret {number} stands in {path}"
    (run,) = [run for run in product.runs(ada.name) if run.server == slug]
    assert not [secret for secret in secrets if secret in repr(run)]
