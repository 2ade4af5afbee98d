"""The chart on a real Kubernetes: installed, used in a browser, its parts killed, upgraded, taken away.

One install carries the tests of this module in their order, as the life of a centre's would. The way to try it
out is another, in ``test_front_door.py``.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command

from galilean.migrate import alembic_config, newest, present
from tests.chart.installed import RELEASE, Installed
from tests.chart.restoring import backed_up_and_restored
from tests.lab.kubernetes import Kubernetes
from tests.lab.waiting import wait_for
from tests.postgres import PostgresServer
from tests.product.code import in_node
from tests.product.product import Person
from tests.product.story import WRITE
from tests.product.test_browser_thread import Visit, chromium, visit  # noqa: F401 - fixtures
from tests.product.test_browser_thread import test_the_thread as the_thread
from tests.product.test_story import the_story

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.geteuid() != 0, reason="a lab needs root"),
]

PARTS = ("hub", "portal", "metering", "release", "queue", "machines")


@pytest.fixture(scope="module")
def postgres(kubernetes: Kubernetes, place: Path) -> Iterator[PostgresServer]:
    from tests.lab.lab import GATEWAY

    (place / "postgres").mkdir()
    server = PostgresServer(place / "postgres", more=(GATEWAY,))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def product(kubernetes: Kubernetes, place: Path, postgres: PostgresServer) -> Iterator[Installed]:
    from tests.lab.lab import GATEWAY

    here, hubs = postgres.create_database("galilean"), postgres.create_database("hub")
    urls = {"url": here, "hubUrl": hubs}
    values = {"database": {key: url.replace("127.0.0.1", GATEWAY) for key, url in urls.items()}}
    site = Installed(kubernetes, f"t{os.getpid()}-centre", place / "centre", values)
    site.database_url = here
    try:
        site.install()
        yield site
    finally:
        site.close()


@pytest.fixture(scope="module")
def ada(product: Installed) -> Person:
    return product.person("ada", "researcher")


@pytest.fixture(scope="module")
def held(ada: Person, product: Installed) -> dict[str, Any]:
    """A cluster of two nodes that lives through the tests below, with a program that runs on node-1."""
    slug = ada.running("Long work", nodes=2, release="manual")
    (cluster,) = ada.clusters()
    program = "import subprocess; print(subprocess.Popen(['sleep', '3600'], start_new_session=True).pid)"
    pid = int(in_node(ada, slug, program, rank=1))
    return {"slug": slug, "run": cluster["id"], "pid": pid, "pods": product.nodes(cluster["id"])}


def of(part: str) -> str:
    """What selects the pods of a part."""
    return f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component={part}"


def present_revision(product: Installed) -> str:
    with product.db.read() as conn:
        return present(conn)


def goes_on(ada: Person, product: Installed, held: dict[str, Any]) -> None:
    """The same pods, the same programs in them, both nodes answer and a cell can be run."""
    assert product.nodes(held["run"]) == held["pods"]
    assert ada.node(held["slug"]).status_code == 200
    lives = f"import os; os.kill({held['pid']}, 0); print('lives', 6 * 7)"
    assert in_node(ada, held["slug"], lives, rank=1) == "lives 42\n"


def test_helm_test_says_whether_every_part_works(product: Installed):
    product.helm("test", RELEASE, "--timeout", "480s")
    product.kubectl("scale", "--replicas=0", f"deployment/{RELEASE}-queue")
    wait_for(lambda: not product.pods(of("queue")), "the queue service is gone", seconds=60)
    with pytest.raises(AssertionError, match=r"queue +does not answer"):
        product.helm("test", RELEASE, "--timeout", "480s")
    product.kubectl("scale", "--replicas=1", f"deployment/{RELEASE}-queue")
    product.kubectl("delete", "pod", f"{RELEASE}-test-answers")
    wait_for(lambda: product.ready("queue"), "the queue service is back", seconds=60)


def test_the_first_administrator_signs_in_with_the_password_of_the_notes(product: Installed):
    somebody = Person(product, "admin", "")
    browser = somebody.sign_in(product.password())
    assert "admin" in browser.get("/services/portal/admin/people").text


def test_the_whole_thread_in_a_browser(
    product: Installed,
    visit: Callable[..., Visit],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(platform, "node", lambda: "node-0")  # what the first cell prints: where it runs
    the_thread(product, visit, "en")


def test_nodes_reach_hub_and_portal_and_nothing_else_of_ours(
    ada: Person, product: Installed, held: dict[str, Any]
):
    ask = """
import json, socket
def reach(name, port):
    try:
        socket.create_connection((name, port), timeout=3).close()
        return True
    except OSError:
        return False
print(json.dumps({name: reach(name, port) for name, port in %s}))
""" % [
        (service["metadata"]["name"], port["port"])
        for service in product.every("services", f"app.kubernetes.io/instance={RELEASE}")
        for port in service["spec"]["ports"]
    ]
    reached = json.loads(in_node(ada, held["slug"], ask))
    assert {name for name, open_ in reached.items() if open_} == {f"{RELEASE}-hub", f"{RELEASE}-portal"}


def test_a_project_published_in_a_browser_is_found_in_chinese_forked_and_run_with_data_that_cannot_be_written(
    ada: Person,
    product: Installed,
    visit: Callable[..., Visit],  # noqa: F811
):
    student = product.person("bob", "student")

    def cannot_be_written(slug: str) -> None:
        assert in_node(student, slug, WRITE) == "Read-only file system\n"

    the_story(product, visit, ada, student, while_it_runs=cannot_be_written)


def test_people_go_on_working_while_the_hub_is_killed_and_comes_back(
    ada: Person, product: Installed, held: dict[str, Any]
):
    goes_on(ada, product, held)
    old = product.part("hub")
    product.kubectl("delete", "pod", old, "--grace-period=0", "--force", "--wait=false")
    assert not product.ready("hub") or product.part("hub") != old
    goes_on(ada, product, held)
    wait_for(lambda: product.ready("hub"), "the hub is back", seconds=90)
    wait_for(lambda: ada.is_ready(held["slug"]), "the hub knows the cluster", seconds=30)
    goes_on(ada, product, held)
    (cluster,) = ada.clusters()
    assert (cluster["id"], cluster["status"]) == (held["run"], "running")


def test_parts_that_are_killed_come_back(ada: Person, product: Installed, held: dict[str, Any]):
    """All at once: none of them needs another to begin."""
    parts = {part: product.part(part) for part in ("portal", "metering", "release", "queue")}
    pods = [f"pod/{pod}" for pod in parts.values()]
    product.kubectl("delete", *pods, "--grace-period=0", "--force", "--wait=false")
    goes_on(ada, product, held)
    for part, killed in parts.items():
        wait_for(
            lambda part=part, killed=killed: product.ready(part) and product.part(part) != killed,
            f"{part} is back",
            seconds=90,
        )
    assert ada.portal("GET", "/projects").status_code == 200


def test_a_new_proxy_is_filled_with_the_ways_to_every_node(
    ada: Person, product: Installed, held: dict[str, Any]
):
    product.kubectl("delete", "pod", product.part("proxy"), "--grace-period=0", "--force", "--wait=false")

    def all_there() -> bool:
        return [ada.node(held["slug"], rank).status_code for rank in (0, 1)] == [200, 200]

    wait_for(all_there, "both nodes can be reached again", seconds=60)
    wait_for(lambda: ada.portal("GET", "/projects").status_code == 200, "the portal can be reached again")
    goes_on(ada, product, held)


def test_an_upgrade_changes_the_parts_the_tables_and_no_cluster(
    ada: Person, product: Installed, held: dict[str, Any]
):
    proxy, keys = product.part("proxy"), product.get("secret", f"{RELEASE}-secrets")["data"]
    # An older version was here: its tables, and none of its parts works when ours come.
    parts = [f"deployment/{RELEASE}-{part}" for part in PARTS]
    product.kubectl("scale", "--replicas=0", *parts)
    wait_for(
        lambda: not [part for part in PARTS if product.pods(of(part))], "the old parts are gone", seconds=60
    )
    with product.db.serialised("migrate") as conn:
        command.downgrade(alembic_config(conn), "-1")
    assert present_revision(product) != newest()
    assert [ada.node(held["slug"], rank).status_code for rank in (0, 1)] == [200, 200]

    product.upgrade({"config": {"site": {"name": "Another name"}}})
    assert present_revision(product) == newest()
    assert product.part("proxy") == proxy
    assert product.get("secret", f"{RELEASE}-secrets")["data"] == keys
    assert "Another name" in product.http.get("/hub/login").text
    wait_for(lambda: ada.is_ready(held["slug"]), "the hub knows the cluster", seconds=30)
    goes_on(ada, product, held)
    assert [node.gone_at for node in product.intervals(held["run"])] == [None, None]


def test_an_uninstall_releases_every_cluster_and_leaves_claims_and_keys_only(
    ada: Person, product: Installed, held: dict[str, Any]
):
    keys = product.get("secret", f"{RELEASE}-secrets")["data"]
    in_node(ada, held["slug"], "open('/home/jovyan/work/kept.txt', 'w').write('kept')")
    product.uninstall()
    kinds = (
        "deployments,pods,services,configmaps,networkpolicies,poddisruptionbudgets,serviceaccounts,roles,"
        "rolebindings,jobs,secrets,persistentvolumeclaims"
    )

    def left() -> set[tuple[str, str]]:
        return {(item["kind"], item["metadata"]["name"]) for item in product.every(kinds)}

    expected = {("Secret", f"{RELEASE}-secrets"), ("PersistentVolumeClaim", f"{RELEASE}-projects")}
    wait_for(lambda: left() == expected, f"only {expected} are left, there are {left()}", seconds=30)
    assert not [
        name
        for name in product.kubectl(
            "get", "clusterroles,clusterrolebindings", "-o", "name", of_all=True
        ).split()
        if product.namespace in name
    ]
    (run,) = [run for run in product.runs("ada") if run.id == held["run"]]
    assert run.released_at
    assert all(node.gone_at for node in product.intervals(run.id))

    product.install()
    assert product.get("secret", f"{RELEASE}-secrets")["data"] == keys
    answer = ada.portal("GET", "/projects")  # the old token and the old account
    assert "long-work" in [project["slug"] for project in answer.raise_for_status().json()["items"]]
    assert [path.read_text() for path in (product.place / "projects").rglob("kept.txt")] == ["kept"]


def test_a_backup_from_the_hubs_pod_is_restored_by_the_steps_of_the_how_to(
    product: Installed, tmp_path: Path
):
    backed_up_and_restored(product, product.person("bea", "researcher"), tmp_path / "backup.tar.gz")
