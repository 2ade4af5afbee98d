"""From requests to plans, and who may run what."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galilean.db import Database
from galilean.errors import UserError
from galilean.names import is_slug
from galilean.settings import EnvironmentSettings, Settings
from services.catalog import environments, resolver, store, volumes
from services.catalog.resolver import CatalogResolver, Offered, release_policy
from services.catalog.store import Project
from spawner.collaborators import Person
from spawner.request import ClusterRequest

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ALICE = Person(name="alice", groups=("galilean:student",), asked_by="alice")
BOB = Person(name="bob", groups=("galilean:researcher",), asked_by="bob")
ADMIN = Person(name="root", groups=("galilean:admin",), asked_by="root")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {
            "state": tmp_path,
            "environments": {
                "jupyter": {"title": "JupyterLab"},
                "gpu": {"title": "GPU", "gpu": True, "image": "site/gpu@sha256:1", "variables": {"A": "1"}},
            },
            "release": {"offered": ["auto", "manual", "2h"]},
        }
    )


@pytest.fixture
def project(sqlite_db: Database, settings: Settings) -> Project:
    with sqlite_db.write() as conn:
        volumes.ensure_volumes(conn, settings, NOW)
        return store.create(conn, owner="alice", name="Heat flow", volume_id="default", now=NOW)


@pytest.fixture
def resolve(sqlite_db: Database, settings: Settings, project: Project) -> Any:
    made = CatalogResolver(sqlite_db, settings, lambda: NOW, offers=lambda conn, person, now: STUDENT)

    async def call(person: Person = ALICE, server: str = "heat-flow", **options: Any) -> Any:
        return await made.resolve(person, server, ClusterRequest.parse(options))

    yield call
    made.close()


async def refused(status: int, coroutine: Any) -> str:
    with pytest.raises(UserError) as caught:
        await coroutine
    assert caught.value.status == status, caught.value
    assert "{" not in caught.value.text()
    return caught.value.text()


async def test_an_empty_request_is_filled_from_the_sites_defaults(
    resolve: Any, project: Project, settings: Settings
) -> None:
    plan = await resolve()
    assert (plan.user, plan.server, plan.project_id) == ("alice", "heat-flow", project.id)
    assert (plan.project_owner, plan.project_slug, plan.project_name) == ("alice", "heat-flow", "Heat flow")
    assert (plan.nodes, plan.cpu_millicores, plan.memory_bytes, plan.gpu) == (1, 2000, 8 * 2**30, 0)
    assert (plan.release_policy, plan.on_node_loss, plan.pool) == ("auto", "release", "default")
    assert plan.environment.name == "jupyter"
    assert plan.work.source == str(project.path(settings))
    assert not plan.work.read_only
    assert project.path(settings).is_dir()
    assert project.path(settings).stat().st_mode & 0o777 == 0o700


async def test_the_projects_defaults_go_before_the_sites_and_the_request_before_both(
    resolve: Any, sqlite_db: Database, project: Project
) -> None:
    with sqlite_db.write() as conn:
        own = ClusterRequest.parse(
            {"nodes": 3, "cpu": 2, "release": "2h", "on_node_loss": "keep", "ports": [8080]}
        )
        store.update(conn, project, now=NOW, environment="gpu", default_request=own.as_dict())
    plan = await resolve()
    assert (plan.nodes, plan.cpu_millicores, plan.release_policy) == (3, 2000, "2h")
    assert (plan.on_node_loss, plan.ports) == ("keep", (8080,))
    assert (plan.environment.name, plan.environment.image) == ("gpu", "site/gpu@sha256:1")
    assert plan.environment.digest == "site/gpu@sha256:1"
    assert plan.environment.variables == {"A": "1"}
    plan = await resolve(
        nodes=1, cpu=0.5, memory="512M", release="auto", environment="jupyter", storage="5G", gpu=1
    )
    assert (plan.nodes, plan.cpu_millicores, plan.memory_bytes) == (1, 500, 512 * 2**20)
    assert (plan.release_policy, plan.environment.name) == ("auto", "jupyter")
    assert (plan.storage_bytes, plan.gpu) == (5 * 2**30, 1)


@pytest.mark.parametrize("named", ["heat-flow", "alice/heat-flow", None])
async def test_ones_own_project_can_be_named_in_three_ways(
    resolve: Any, project: Project, named: Any
) -> None:
    assert (await resolve(project=named)).project_id == project.id


@pytest.mark.parametrize(
    "named",
    ["alice/heat-flow", "alice/nothing", "nobody/heat-flow", "heat-flow", "/", "a/b/c", "../alice/heat-flow"],
)
async def test_another_persons_project_answers_as_one_that_does_not_exist(resolve: Any, named: str) -> None:
    texts = set()
    for server in ("heat-flow", store.server_alias("alice", "heat-flow", "bob"), "else"):
        texts.add(await refused(404, resolve(BOB, server, project=named)))
    texts.add(await refused(404, resolve(BOB, store.server_alias("alice", "heat-flow", "bob"))))
    assert len(texts) == 1
    assert "alice" not in texts.pop()


async def test_an_administrator_runs_anybodys_project_on_a_server_of_their_own(
    resolve: Any, project: Project
) -> None:
    alias = project.server("root")
    assert is_slug(alias)
    for named in ("alice/heat-flow", None):
        plan = await resolve(ADMIN, alias, project=named)
        assert (plan.user, plan.server, plan.project_owner) == ("root", alias, "alice")
    await refused(400, resolve(ADMIN, "heat-flow", project="alice/heat-flow"))


async def test_an_administrator_who_asks_for_somebody_gives_them_no_more_rights(resolve: Any) -> None:
    on_behalf = Person(name="bob", groups=("galilean:student",), asked_by="root")
    await refused(404, resolve(on_behalf, "heat-flow", project="alice/heat-flow"))


async def test_a_server_that_is_not_the_named_projects_is_refused(resolve: Any) -> None:
    text = await refused(400, resolve(server="other", project="heat-flow"))
    assert "“heat-flow”" in text
    assert "“other”" in text


@pytest.mark.parametrize(
    "server", ["", "node-1", "node-0", "go", "lab", "api", "Heat", "a--b", "a/b", "x" * 65]
)
async def test_a_server_name_that_no_project_can_have_is_refused(resolve: Any, server: str) -> None:
    await refused(400, resolve(server=server))


async def test_a_project_deleted_meanwhile_is_refused(
    resolve: Any, sqlite_db: Database, project: Project
) -> None:
    with sqlite_db.write() as conn:
        store.delete(conn, project, now=NOW)
    await refused(404, resolve())
    await refused(404, resolve(project="alice/heat-flow"))


@pytest.mark.parametrize(
    ("status", "options"),
    [
        (400, {"environment": "nothing"}),
        (400, {"pool": "college"}),
        (400, {"gpu_model": "A100"}),
        (400, {"memory": "1M"}),
        (400, {"memory": 1}),
        (400, {"cpu": 0.001}),
        (400, {"release": "1d"}),
        (400, {"release": "4h"}),
        (400, {"release": "AUTO"}),
        (403, {"release": "manual"}),
    ],
)
async def test_values_that_cannot_be_are_refused(
    resolve: Any, project: Project, settings: Settings, status: int, options: dict[str, Any]
) -> None:
    text = await refused(status, resolve(**options))
    assert len(text) > 20
    assert not project.path(settings).exists()


async def test_what_holds_for_requests_holds_for_the_projects_own_defaults(
    resolve: Any, sqlite_db: Database, project: Project
) -> None:
    with sqlite_db.write() as conn:
        store.update(conn, project, now=NOW, environment="was-removed", default_request={"pool": "default"})
    assert "was-removed" in await refused(400, resolve())
    assert (await resolve(environment="jupyter")).environment.name == "jupyter"


ALL = ("auto", "manual", "2h")
STUDENT = Offered(policies=("auto", "2h"), default="auto", everybody=ALL)
TEACHER = Offered(policies=ALL, default="auto", everybody=ALL)
STRICT = Offered(policies=("2h",), default="manual", everybody=("manual", "2h"))
ONLY_AUTO = Offered(policies=("auto",), default="auto", everybody=ALL)


@pytest.mark.parametrize(
    ("offered", "asked", "own", "result"),
    [
        (STUDENT, None, None, "auto"),
        (STUDENT, "2h", None, "2h"),
        (STUDENT, None, "2h", "2h"),
        (STUDENT, None, "manual", "auto"),
        (STUDENT, None, "7d", "auto"),
        (STUDENT, "manual", None, 403),
        (TEACHER, "manual", None, "manual"),
        (TEACHER, None, "manual", "manual"),
        (TEACHER, "7d", None, 400),
        (TEACHER, "soon", None, 400),
        (ONLY_AUTO, "2h", None, 403),
        (STRICT, None, None, "2h"),
    ],
)
def test_release_policies(offered: Offered, asked: Any, own: Any, result: Any) -> None:
    if isinstance(result, str):
        assert release_policy(offered, asked, own) == result
    else:
        with pytest.raises(UserError) as caught:
            release_policy(offered, asked, own)
        assert caught.value.status == result


async def test_a_volume_that_is_not_mounted_starts_nothing(
    resolve: Any, project: Project, settings: Settings
) -> None:
    (settings.volume_path("default") / volumes.MARK).unlink()
    await refused(503, resolve())
    assert not project.path(settings).exists()


async def test_a_disk_that_hangs_delays_one_start_only(
    sqlite_db: Database, settings: Settings, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = threading.Event()
    monkeypatch.setattr(resolver, "prepare_directory", lambda *_: hangs.wait(60))
    made = CatalogResolver(sqlite_db, settings, lambda: NOW, disk_seconds=0.01)
    try:
        text = await refused(503, made.resolve(ALICE, "heat-flow", ClusterRequest()))
        assert "disk" in text
    finally:
        hangs.set()
        made.close()


async def test_a_full_volume_is_told(resolve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    await refused(507, resolve())


@given(
    st.dictionaries(
        st.sampled_from(
            ["project", "nodes", "cpu", "memory", "gpu", "gpu_model", "storage", "environment", "pool", "ports",
             "release", "on_node_loss", "image"]
        ),
        st.none() | st.integers() | st.floats() | st.text(max_size=8) | st.booleans()
        | st.sampled_from(["8G", "2h", "jupyter", "default", "keep", "alice/heat-flow"]) | st.lists(st.integers()),
    ),
    st.sampled_from([ALICE, BOB, ADMIN]),
)  # fmt: skip
def test_no_request_whatever_gives_anything_but_a_sound_plan_or_words(
    options: dict[str, Any], person: Person
) -> None:
    settings = Settings()
    project = Project(
        id="p", owner="alice", slug="heat-flow", name="Heat", description="", environment="", default_request=None,
        visibility="private", volume_id="default", directory="projects/p", created_at=NOW, changed_at=NOW,
    )  # fmt: skip
    plan = said = None
    try:
        plan = resolver.fill(settings, person, "heat-flow", project, ClusterRequest.parse(options))
    except UserError as error:
        said = error
    if plan is None:
        assert said is not None
        assert said.status in (400, 403)
        assert said.text()
    else:
        assert plan.nodes >= 1
        assert plan.cpu_millicores >= resolver.CPU_LEAST_MILLICORES
        assert plan.memory_bytes >= resolver.MEMORY_LEAST_BYTES
        assert plan.environment.name in settings.environments
        assert [mount.target for mount in plan.mounts] == ["work"]


def test_the_picker_shows_the_sites_default_first(settings: Settings) -> None:
    site = settings.model_copy(
        update={"defaults": settings.defaults.model_copy(update={"environment": "gpu"})}
    )
    shown = environments.environments(site)
    assert [(item.name, item.default, item.gpu) for item in shown] == [
        ("gpu", True, True),
        ("jupyter", False, False),
    ]


def test_the_digest_of_a_python_environment_follows_its_packages(tmp_path: Path) -> None:
    packages = tmp_path / "lib/python3.12/site-packages"
    (packages / "a-1.0.dist-info").mkdir(parents=True)
    entry = EnvironmentSettings(title="x", python=str(tmp_path / "bin/python"))
    first = environments.digest_of(entry)
    (packages / "b-2.0.dist-info").mkdir()
    assert first.startswith("py:")
    assert environments.digest_of(entry) != first
    assert environments.digest_of(EnvironmentSettings(title="x")).startswith("py:")
    assert environments.digest_of(EnvironmentSettings(title="x", python="/nowhere/bin/python")) == ""


async def test_an_environment_that_needs_more_than_is_asked_for_is_refused_with_the_reason(
    sqlite_db: Database, tmp_path: Path
) -> None:
    picky = {"title": "CUDA", "needs_gpu": True, "least_memory": "4G", "ports": [8050], "command": "./serve"}
    settings = Settings.model_validate({"state": tmp_path, "environments": {"jupyter": picky}})
    with sqlite_db.write() as conn:
        volumes.ensure_volumes(conn, settings, NOW)
        store.create(conn, owner="alice", name="Heat flow", volume_id="default", now=NOW)
    made = CatalogResolver(sqlite_db, settings, lambda: NOW)

    def ask(**options: Any) -> Any:
        return made.resolve(ALICE, "heat-flow", ClusterRequest.parse(options))

    assert "needs a GPU" in await refused(400, ask())
    assert "at least 4.0\xa0GB of memory" in await refused(400, ask(gpu=1, memory="2G"))
    plan = await ask(gpu=1, memory="4G")
    assert plan.environment.variables["GALILEAN_START_COMMAND"] == "./serve"
    assert plan.environment.ports == (8050,)
    made.close()
