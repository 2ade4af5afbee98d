"""A node of processes is saved by its lock file; what cannot be made again elsewhere is refused by name."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from extensions.imagebuilder import locks, python_reading, python_saving, saved
from extensions.imagebuilder.container import GivenUp, Wanted
from extensions.imagebuilder.entries import Actor
from extensions.imagebuilder.names import ImageName, is_python
from extensions.imagebuilder.python_saving import PythonSaver
from extensions.imagebuilder.saving import Result, Task
from extensions.imagebuilder.service import Savers
from galilean.db import Database
from galilean.errors import UserError
from spawner.process import overlay
from spawner.process.installer import Index, Installer
from spawner.process.layout import ClusterDirectory, write_json
from spawner.process.lock import Lock, Pin
from spawner.process.overlay import Base
from spawner.process.prepare import Recipe
from spawner.process.pythons import Pythons
from tests.imagebuilder.test_service import make_run, until_over
from tests.imagebuilder.test_store import NOW
from tests.lab.waiting import wait_for
from tests.wheels import make_wheel, unpack

RUN = "01HAAAAAAAAAAAAAAAAAAAAAAA"
NAME = ImageName("tools", "1")
SECRET = "s3cret-of-the-run"


class Digests(Installer):
    """The real one, but that digests are read from the folder: pip takes seconds for it."""

    wheels: Path

    async def pinned(self, pins: Any, base: Base, say: Callable[[str], None]) -> list[Pin]:
        found: list[Pin] = []
        for pin in pins:
            wheels = list(self.wheels.glob(f"{pin.name}-{pin.version}-*.whl"))
            if not wheels:
                raise UserError(422, "no {names}", names=pin.name, reason="not-in-the-index")
            digest = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
            found.append(Pin(pin.name, pin.version, (f"sha256:{digest}",)))
        return found


class Ground:
    """A state directory with one node of ada's, and a service."""

    def __init__(self, db: Database, folder: Path) -> None:
        self.db, self.state, self.wheels = db, folder / "state", folder / "wheels"
        make_wheel(self.wheels, "tinyheat", "1.0")
        make_wheel(self.wheels, "tinybase", "1.5")
        make_run(db, RUN, "ada", backend="process", server="heat")
        base = Base.of(sys.executable)
        assert base is not None
        self.base = base
        self.node("heat", RUN)
        installer = Digests(Index(find_links=str(self.wheels)), {**os.environ, "UV_NO_INDEX": "1"})
        installer.wheels = self.wheels
        self.pythons = Pythons(self.state, installer)
        self.saver = PythonSaver(db, self.pythons, self.state)

    def node(self, server: str, run: str, layer: str = "") -> Path:
        directory = ClusterDirectory.of(self.state / "clusters", "ada", server)
        home = directory.home(0)
        home.mkdir(parents=True)
        directory.secrets.mkdir()
        directory.write_run({"user": "ada", "server": server, "run": run, "nodes": 1})
        environment = {"JUPYTERHUB_API_TOKEN": SECRET}
        recipe = Recipe(
            port=1, ssh_port=2, work="/", datasets={}, arguments=[], environment=environment, layer=layer
        )
        write_json(directory.recipe_file(0), asdict(recipe))
        overlay.make_for_node(home, self.base, Path(layer) if layer else None)
        self.packages = home / overlay.FOLDER / "lib" / self.base.library / "site-packages"
        return self.packages

    def install(self, name: str, version: str, **more: Any) -> None:
        (wheel,) = self.wheels.glob(f"{name}-{version}-*.whl")
        unpack(wheel, self.packages, **more)

    async def save(self, server: str = "heat", run: str = RUN) -> Result:
        return await self.saver.save(Task(lambda: NOW), Wanted("ada", server, run, 0), NAME)

    async def refused(self) -> UserError:
        with pytest.raises(UserError) as refused:
            await self.save()
        return refused.value


@pytest.fixture
def ground(db: Database, tmp_path: Path) -> Ground:
    return Ground(db, tmp_path)


async def test_what_was_installed_is_locked_and_the_environment_below_stays_as_it_was(ground: Ground) -> None:
    before = sorted(os.listdir(ground.base.packages))
    ground.install("tinyheat", "1.0")
    result = await ground.save()
    lock = Lock.parse(result.lock)
    assert [(pin.name, pin.version) for pin in lock.pins] == [("tinyheat", "1.0")]
    assert (lock.environment, lock.below["jupyterlab"]) == ("jupyter", _version("jupyterlab"))
    assert is_python(str(result.image))
    assert result.image.digest == lock.digest
    assert result.changes["packages_added"][0]["name"] == "tinyheat"
    (root,) = (one for one in ground.pythons.folder.iterdir() if not one.name.startswith("."))
    assert (root / "lib" / ground.base.library / "site-packages" / "tinyheat.py").exists()
    assert sorted(os.listdir(ground.base.packages)) == before
    assert SECRET not in result.lock + json.dumps(result.changes)


def _version(name: str) -> str:
    from importlib.metadata import version

    return version(name)


#: An image service of its own, with a tool that never ends.
SERVICE = """
import asyncio, sys
from pathlib import Path
from extensions.imagebuilder.python_saving import PythonSaver
from extensions.imagebuilder.service import Savers
from galilean.clock import utcnow
from galilean.db import Database
from spawner.process.installer import Index, Installer
from spawner.process.pythons import Pythons
url, state, wheels, uv = sys.argv[1:]
db = Database(url, threads=2)
saver = PythonSaver(db, Pythons(Path(state), Installer(Index(find_links=wheels), uv=uv)), Path(state))
async def serve():
    savers = Savers(db, saver, utcnow)
    while True:
        await savers.tick()
        await asyncio.sleep(0.05)
asyncio.run(serve())
"""


async def test_a_service_that_is_killed_in_the_middle_leaves_nothing_that_anybody_sees(
    sqlite_db: Database, tmp_path: Path
) -> None:
    ground = Ground(sqlite_db, tmp_path)
    ground.install("tinyheat", "1.0")
    begun = await sqlite_db.run(
        lambda conn: saved.begin(conn, actor=Actor(name="ada"), name=NAME, now=NOW, run_id=RUN)
    )

    def step() -> str:
        with sqlite_db.read() as conn:
            return saved.get(conn, "ada", begun.id).step

    tool = tmp_path / "uv"
    # Of digests it knows nothing; when it is to install, it writes something and stays.
    tool.write_text(
        '#!/bin/sh\ncase "$2" in compile) exit 0;; esac\n'
        f'while [ $# -gt 1 ]; do [ "$1" = --python ] && root="${{2%/bin/python}}"; shift; done\n'
        f'echo half > "$root/half"; echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 3600\n'
    )
    tool.chmod(0o755)
    words = [str(sqlite_db.engine.url), str(ground.state), str(ground.wheels), str(tool)]
    service = subprocess.Popen([sys.executable, "-c", SERVICE, *words])  # noqa: ASYNC220 - there is nobody else
    try:
        wait_for(
            lambda: (tmp_path / "pid").exists() and step() == "placing",
            "it installs, and stays there",
            seconds=120,
        )
    finally:
        service.kill()
        service.wait()
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not alive(pid), "nothing writes on into what the next one makes", seconds=60)
    assert [path.name for path in ground.pythons.folder.glob("*/half")] == ["half"]

    savers = Savers(sqlite_db, ground.saver, lambda: NOW)
    over = await until_over(savers, sqlite_db, begun.id)
    assert (over.state, over.image, over.size_bytes) == ("failed", "", None)
    assert "restarted in the middle" in over.why
    assert not list(ground.state.glob("images/*"))
    await ground.saver.collect()
    assert not list(ground.pythons.folder.glob("*/half")), "what is not whole is given back"
    assert (await ground.save()).image.digest, "and the same can be saved again"
    await savers.close()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_save_of_a_saved_environment_has_what_that_had(ground: Ground) -> None:
    ground.install("tinyheat", "1.0")
    first = await ground.save()
    layer = ground.pythons.folder / next(one for one in os.listdir(ground.pythons.folder) if one[0] != ".")
    make_run(
        ground.db,
        "01HBBBBBBBBBBBBBBBBBBBBBBB",
        "ada",
        backend="process",
        server="next",
        environment="ada/tools",
    )
    ground.node("next", "01HBBBBBBBBBBBBBBBBBBBBBBB", str(layer))
    make_wheel(ground.wheels, "tinyheat", "2.0")
    ground.install("tinyheat", "2.0")
    ground.install("tinybase", "1.5")
    second = await ground.save("next", "01HBBBBBBBBBBBBBBBBBBBBBBB")
    lock = Lock.parse(second.lock)
    assert [(pin.name, pin.version) for pin in lock.pins] == [("tinybase", "1.5"), ("tinyheat", "2.0")]
    assert lock.environment == "jupyter"
    assert [one["name"] for one in second.changes["packages_added"]] == ["tinybase"]
    assert second.changes["packages_changed"] == [
        {"manager": "pip", "name": "tinyheat", "before": "1.0", "version": "2.0"}
    ]
    assert second.image.digest != first.image.digest


@pytest.mark.parametrize(
    ("direct_url", "reason"),
    [
        ({"url": "file:///home/ada/tool", "dir_info": {"editable": True}}, "editable"),
        ({"url": "file:///home/ada/tool", "dir_info": {}}, "path"),
        ({"url": "file:///home/ada/tool-1.0-py3-none-any.whl", "archive_info": {}}, "path"),
        (
            {"url": "https://x:token@git.example/t", "vcs_info": {"vcs": "git", "commit_id": "0"}},
            "repository",
        ),
        ({"url": "https://x:token@files.example/t.whl", "archive_info": {}}, "address"),
    ],
)
async def test_what_only_this_node_has_is_refused_by_its_name(
    ground: Ground, direct_url: dict[str, Any], reason: str
) -> None:
    ground.install("tinyheat", "1.0", direct_url=json.dumps(direct_url))
    error = await ground.refused()
    assert (error.status, error.reason) == (422, f"python-{reason}")
    assert error.params["names"] == "tinyheat 1.0"
    assert "token" not in str(error)
    told = await ground.saver.look(Wanted("ada", "heat", RUN, 0))
    assert told["python"]["refused"][0]["message"] == error.message


async def test_other_files_under_the_same_version_are_refused(ground: Ground) -> None:
    ground.install("tinyheat", "1.0")
    make_wheel(ground.wheels, "tinyheat", "1.0", files={"tinyheat.py": "print('not what ada has')\n"})
    error = await ground.refused()
    assert (error.reason, error.params["names"]) == ("other-files", "tinyheat 1.0")


async def test_what_the_index_does_not_have_is_refused(ground: Ground) -> None:
    ground.install("tinyheat", "1.0")
    next(ground.wheels.glob("tinyheat-*")).unlink()
    assert (await ground.refused()).reason == "not-in-the-index"


async def test_what_was_changed_by_hand_is_told_and_not_saved(ground: Ground) -> None:
    ground.install("tinyheat", "1.0")
    text = (ground.packages / "tinyheat.py").read_text()
    (ground.packages / "tinyheat.py").write_text(text.replace("1.0", "9.9"))
    (ground.packages / "notes.txt").write_text("mine")
    result = await ground.save()
    assert result.changes["python"]["edited"] == ["tinyheat 1.0"]
    assert result.changes["python"]["loose"] == {"count": 1, "names": ["notes.txt"]}
    told = await ground.saver.look(Wanted("ada", "heat", RUN, 0))
    assert (told["pip"], told["python"]["loose"]) == (["tinyheat 1.0"], ["notes.txt"])


async def test_links_pipes_and_paths_that_climb_lead_nowhere(ground: Ground, tmp_path: Path) -> None:
    ground.install("tinyheat", "1.0")
    info = ground.packages / "tinyheat-1.0.dist-info"
    outside = tmp_path / "outside"
    outside.write_text("a secret")
    record = (info / "RECORD").read_text()
    (info / "RECORD").write_text(
        f"{record}../../../../../../../../outside,sha256=x,8\n/etc/passwd,sha256=x,8\n"
    )
    (ground.packages / "etc").symlink_to("/etc")
    (ground.packages / "odd-1.0.dist-info").symlink_to("/etc")
    os.mkfifo(info / "direct_url.json")
    reading = await asyncio.wait_for(
        asyncio.to_thread(python_reading.read, ground.packages, contents=True), timeout=20
    )
    assert {one.said: one.refused for one in reading.packages} == {"tinyheat 1.0": "", "odd-1.0": "broken"}
    os.unlink(info / "RECORD")
    os.mkfifo(info / "RECORD")
    assert (await asyncio.wait_for(ground.refused(), 20)).reason == "python-broken"


def test_lists_and_names_of_any_bytes_are_told_and_break_nothing(ground: Ground) -> None:
    ground.install("tinyheat", "1.0")
    info = ground.packages / "tinyheat-1.0.dist-info"
    rows = f"tinyheat.py,sha256=x,{'9' * 5000}\ntinyheat.py,sha256=x,²\nno\0such,sha256=x,1\n"
    (info / "RECORD").write_text(rows)
    (info / "direct_url.json").write_text("[" * 100_000)
    odd = os.fsencode(ground.packages)
    os.mkdir(odd + b"/\xff-1.dist-info")
    os.mkdir(odd + b"/odd-\xff.dist-info")
    with open(odd + b"/\xfe.py", "wb"):
        pass
    reading = python_reading.read(ground.packages, contents=True)
    assert {one.refused for one in reading.packages} == {"broken"}
    assert "\ufffd.py" in reading.loose
    for refusal in reading.refusals():
        json.dumps(refusal.params, ensure_ascii=False).encode()
    json.dumps(reading.loose, ensure_ascii=False).encode()


async def test_a_folder_of_packages_that_leads_elsewhere_is_none(ground: Ground, tmp_path: Path) -> None:
    ground.packages.rename(tmp_path / "moved")
    ground.packages.symlink_to(tmp_path / "moved")
    assert (await ground.refused()).reason == "no-python"


async def test_a_node_of_another_run_is_none(ground: Ground) -> None:
    make_run(ground.db, "01HCCCCCCCCCCCCCCCCCCCCCCC", "ada", backend="process", server="other")
    with pytest.raises(UserError) as refused:
        await ground.save("heat", "01HCCCCCCCCCCCCCCCCCCCCCCC")
    assert refused.value.reason == "node-gone"


async def test_whoever_cancels_leaves_nothing(ground: Ground) -> None:
    ground.install("tinyheat", "1.0")
    task = Task(lambda: NOW)

    async def slow(*_: object) -> None:
        task.stop.set()
        await asyncio.sleep(600)

    ground.pythons.installer.install = slow  # type: ignore[method-assign]
    with pytest.raises(GivenUp):
        await ground.saver.save(task, Wanted("ada", "heat", RUN, 0), NAME)
    assert [one for one in os.listdir(ground.pythons.folder) if one[0] != "."] == []


async def test_the_service_saves_it_keeps_its_lock_and_gives_back_what_is_deleted(ground: Ground) -> None:
    db = ground.db
    ground.install("tinyheat", "1.0")
    savers = Savers(db, ground.saver, lambda: datetime.now(UTC))
    ada = Actor(name="ada")
    begun = await db.run(lambda conn: saved.begin(conn, actor=ada, name=NAME, now=NOW, run_id=RUN))
    row = await until_over(savers, db, begun.id)
    assert (row.state, row.dockerfile) == ("ready", ""), row.log
    lock = await db.run_read(locks.text_of, row.digest)
    assert lock is not None
    assert Lock.parse(lock).pins[0].name == "tinyheat"
    assert row.changes["packed_bytes"] == row.size_bytes > 0

    ground.saver._made.clear()
    await ground.saver.collect()
    folders = [one for one in os.listdir(ground.pythons.folder) if one[0] != "."]
    assert len(folders) == 1
    await db.run(lambda conn: saved.remove(conn, begun.id, actor=ada, now=NOW))
    make_run(db, "01HDDDDDDDDDDDDDDDDDDDDDDD", "ada", backend="process", environment_digest=row.digest)
    await ground.saver.collect()
    assert [one for one in os.listdir(ground.pythons.folder) if one[0] != "."] == folders, "a run holds it"
    with db.write() as conn:
        conn.exec_driver_sql("DELETE FROM clusters WHERE id = '01HDDDDDDDDDDDDDDDDDDDDDDD'")
    await savers.tick()
    await ground.saver.collect()
    assert [one for one in os.listdir(ground.pythons.folder) if one[0] != "."] == []
    assert await db.run_read(locks.text_of, row.digest) == lock, "what a run ran can be read for good"


def test_the_steps_have_titles() -> None:
    from services.portal.pages.my_images import PYTHON

    assert tuple(PYTHON) == python_saving.STEPS
