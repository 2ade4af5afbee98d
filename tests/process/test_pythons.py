"""Saved Python environments made on a real machine by the real installers, from a folder of tiny wheels."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from galilean.errors import UserError
from spawner.process import overlay, pythons
from spawner.process.installer import Index, Installer, without_login
from spawner.process.lock import Lock, Pin
from spawner.process.overlay import Base
from spawner.process.pythons import UNUSED_SECONDS, WHOLE, Pythons, Shared
from tests.wheels import make_wheel

pytestmark = pytest.mark.process


@pytest.fixture(params=["uv", "pip"])
def installer(request: pytest.FixtureRequest, wheels: Path) -> Installer:
    """Both installers, with nothing but the folder to take packages from."""
    environ = {**os.environ, "PIP_NO_INDEX": "1", "UV_NO_INDEX": "1"}
    made = Installer(Index(find_links=str(wheels)), environ, uv=None if request.param == "uv" else "")
    assert bool(made.uv) == (request.param == "uv")
    return made


@pytest.fixture
def uv(wheels: Path) -> Installer:
    return Installer(Index(find_links=str(wheels)), {**os.environ, "UV_NO_INDEX": "1"})


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    make_wheel(folder, "tinyheat", "1.0")
    make_wheel(folder, "tinyheat", "2.0", requires=["tinybase>=1"])
    make_wheel(folder, "tinybase", "1.5")
    return folder


@pytest.fixture
def base() -> Base:
    found = Base.of(sys.executable)
    assert found is not None
    return found


def of_wheel(wheels: Path, pin: Pin) -> Pin:
    """The same with the digest of its file."""
    (wheel,) = wheels.glob(f"{pin.name}-{pin.version}-*.whl")
    return Pin(pin.name, pin.version, (f"sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}",))


def quiet(_: object) -> None:
    pass


def lock_of(base: Base, *pins: Pin, **more: object) -> Lock:
    said = {"below": pythons.below(base), "python": base.library[6:], "platform": pythons.here()} | more
    return Lock(environment="jupyter", pins=tuple(sorted(pins)), **said)  # type: ignore[arg-type]


async def made(installer: Installer, state: Path, base: Base, *pins: Pin) -> tuple[Pythons, Lock, Path]:
    wheels = Path(installer.environment["PIP_FIND_LINKS"])
    lock = lock_of(base, *(of_wheel(wheels, pin) for pin in pins))
    found = Pythons(state, installer)
    return found, lock, (await found.make(lock, base, lambda *_: None)).root


def says(home: Path, code: str) -> str:
    done = subprocess.run(
        [home / overlay.FOLDER / "bin" / "python", "-c", code], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or done.stderr


async def test_what_was_locked_is_imported_and_what_a_person_adds_stays_theirs(
    installer: Installer, base: Base, wheels: Path, tmp_path: Path
) -> None:
    _, _, layer = await made(installer, tmp_path / "state", base, Pin("tinyheat", "1.0"))
    ada, grace = tmp_path / "ada", tmp_path / "grace"
    for home in (ada, grace):
        overlay.make_for_node(home, base, layer)
    assert says(ada, "import tinyheat, jupyterlab; print(tinyheat.VERSION)") == "1.0"
    before = os.listdir(base.packages)
    pip = [ada / overlay.FOLDER / "bin" / "pip", "install", "-q", "--no-index", "-f", wheels, "tinyheat==2.0"]
    await asyncio.to_thread(subprocess.run, pip, check=True)
    assert says(ada, "import tinyheat; print(tinyheat.VERSION)") == "2.0"
    assert says(grace, "import tinyheat; print(tinyheat.VERSION)") == "1.0"
    assert os.listdir(base.packages) == before
    assert not os.access(layer / "lib", os.W_OK) or os.geteuid() == 0
    assert (layer / "lib").stat().st_mode & 0o222 == 0


async def test_it_is_made_once_however_many_start_at_once(
    uv: Installer, base: Base, wheels: Path, tmp_path: Path
) -> None:
    lock = lock_of(base, of_wheel(wheels, Pin("tinyheat", "1.0")))
    installs: list[Path] = []
    real = uv.install

    async def counted(root: Path, *rest: object) -> None:
        installs.append(root)
        await real(root, *rest)  # type: ignore[arg-type]

    uv.install = counted  # type: ignore[method-assign]
    # As many installations of the product as want to: hub and service are two.
    several = [Pythons(tmp_path, uv) for _ in range(4)]
    roots = await asyncio.gather(*(one.make(lock, base, lambda *_: None) for one in several))
    assert len({one.root for one in roots}) == 1
    assert len(installs) == 1


async def test_a_file_that_is_not_the_locked_one_is_refused_and_nothing_stays(
    installer: Installer, base: Base, wheels: Path, tmp_path: Path
) -> None:
    pins = [of_wheel(wheels, Pin("tinyheat", "1.0"))]
    make_wheel(wheels, "tinyheat", "1.0", files={"tinyheat.py": "print('somebody else was here')\n"})
    found = Pythons(tmp_path / "state", installer)
    with pytest.raises(UserError) as refused:
        await found.make(lock_of(base, *pins), base, lambda *_: None)
    assert refused.value.status == 422
    assert [name for name in os.listdir(found.folder) if not name.startswith(".")] == []


async def test_what_the_index_does_not_have_is_named(installer: Installer, base: Base, wheels: Path) -> None:
    good = await installer.pinned([Pin("tinyheat", "1.0")], base, quiet)
    assert good == [of_wheel(wheels, Pin("tinyheat", "1.0"))]
    with pytest.raises(UserError) as refused:
        await installer.pinned([Pin("tinyheat", "1.0"), Pin("tinyghost", "3.0")], base, quiet)
    assert (refused.value.status, refused.value.reason) == (422, "not-in-the-index")
    assert refused.value.params["names"] == "tinyghost 3.0"


async def test_nothing_of_a_package_is_run_to_save_or_make_it(
    installer: Installer, base: Base, wheels: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "was-run"
    evil = f"import pathlib; pathlib.Path({str(mark)!r}).touch()\n"
    make_wheel(wheels, "tinyevil", "1.0", files={"tinyevil.pth": evil, "tinyevil.py": evil})
    source = wheels / "tinysource-1.0.tar.gz"
    setup = tmp_path / "tinysource-1.0"
    setup.mkdir()
    (setup / "setup.py").write_text(
        evil + "from setuptools import setup; setup(name='tinysource', version='1.0')\n"
    )
    with tarfile.open(source, "w:gz") as archive:
        archive.add(setup, "tinysource-1.0")
    _, _, layer = await made(installer, tmp_path / "state", base, Pin("tinyevil", "1.0"))
    with pytest.raises(UserError) as refused:
        await installer.pinned([Pin("tinysource", "1.0")], base, quiet)
    assert refused.value.params["names"] == "tinysource 1.0"
    overlay.make_for_node(tmp_path / "home", base, layer)
    assert not mark.exists()
    says(tmp_path / "home", "pass")
    assert mark.exists(), "the test would not see it"


async def test_one_that_was_interrupted_is_made_again(uv: Installer, base: Base, tmp_path: Path) -> None:
    found, lock, root = await made(uv, tmp_path, base, Pin("tinyheat", "1.0"))
    os.chmod(root, 0o755)
    (root / WHOLE).unlink()
    again = await found.make(lock, base, lambda *_: None)
    assert again.root == root
    assert (root / WHOLE).exists()


async def test_whoever_cancels_leaves_nothing(base: Base, wheels: Path, tmp_path: Path) -> None:
    installer = Installer(Index(find_links=str(wheels)), {**os.environ, "UV_NO_INDEX": "1"})
    pins = [of_wheel(wheels, Pin("tinyheat", "1.0"))]
    began = asyncio.Event()

    async def slow(*_: object) -> None:
        began.set()
        await installer.run(["sleep", "600"], quiet)

    installer.install = slow  # type: ignore[method-assign]
    found = Pythons(tmp_path, installer)
    work = asyncio.create_task(found.make(lock_of(base, *pins), base, lambda *_: None))
    await began.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert [name for name in os.listdir(found.folder) if not name.startswith(".")] == []


async def test_starts_share_one_making_and_one_that_is_cancelled_leaves_it_going(
    uv: Installer, base: Base, wheels: Path, tmp_path: Path
) -> None:
    go_on, installs, real = asyncio.Event(), list[Path](), uv.install

    async def waits(root: Path, *rest: object) -> None:
        installs.append(root)
        await go_on.wait()
        await real(root, *rest)  # type: ignore[arg-type]

    uv.install = waits  # type: ignore[method-assign]
    lock = lock_of(base, of_wheel(wheels, Pin("tinyheat", "1.0")), installed_bytes=9 << 20)
    starts, shared, heard, totals = Pythons(tmp_path, uv), Shared(), asyncio.Event(), set[int]()

    def tell(_: int, total_bytes: int) -> None:
        totals.add(total_bytes)
        heard.set()

    first, second = (asyncio.create_task(shared.make(starts, lock, base, tell)) for _ in range(2))
    await heard.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(first, 1)
    go_on.set()
    assert (await second).root.is_dir()
    assert len(installs) == 1
    assert totals == {9 << 20}


async def test_what_does_not_fit_on_the_disk_is_refused_before_it_is_begun(
    uv: Installer, base: Base, wheels: Path, tmp_path: Path
) -> None:
    lock = lock_of(base, of_wheel(wheels, Pin("tinyheat", "1.0")), installed_bytes=1 << 50)
    with pytest.raises(UserError) as refused:
        await Pythons(tmp_path, uv).make(lock, base, lambda *_: None)
    assert (refused.value.status, refused.value.reason) == (507, "disk-full")
    assert [name for name in os.listdir(tmp_path / "pythons") if not name.startswith(".")] == []


async def test_what_nobody_needs_is_removed_and_what_a_run_holds_never(
    uv: Installer, base: Base, wheels: Path, tmp_path: Path
) -> None:
    found, kept, root = await made(uv, tmp_path, base, Pin("tinyheat", "1.0"))
    other = await found.make(lock_of(base, of_wheel(wheels, Pin("tinybase", "1.5"))), base, lambda *_: None)
    wanted, held = {kept.digest}, set[str]()

    async def of(digests: set[str]) -> set[str]:
        return digests

    removed = await found.collect(lambda: of(wanted), lambda: of(held))
    assert len(removed) == 1
    assert root.exists()
    assert not other.root.exists()

    # Nobody has run it for long: it goes, unless somebody runs it now.
    old = time.time() - UNUSED_SECONDS - 10
    os.utime(root / WHOLE, (old, old))
    held.add(kept.digest)
    assert await found.collect(lambda: of(wanted), lambda: of(held)) == []
    held.clear()
    assert await found.collect(lambda: of(wanted), lambda: of(held)) == [kept.digest]
    assert not root.exists()


async def test_what_does_not_fit_to_an_upgraded_environment_is_said(
    uv: Installer, base: Base, wheels: Path, tmp_path: Path
) -> None:
    make_wheel(
        wheels, "tinyuser", "1.0", requires=["jupyterlab<4.7", "tinybase>=1", 'absent; extra == "more"']
    )
    pins = [of_wheel(wheels, Pin("tinyuser", "1.0"))]
    found = Pythons(tmp_path / "state", uv)
    below = pythons.below(base)
    # What did not fit when it was saved was its owner's choice; what fitted then must fit now.
    fine = lock_of(base, *pins, below={**below, "jupyterlab": "4.0.0"})
    assert (await found.make(fine, base, lambda *_: None)).root.exists()
    with pytest.raises(UserError) as refused:
        await found.make(lock_of(base, *pins, below={**below, "tinybase": "1.5"}), base, lambda *_: None)
    assert (refused.value.status, refused.value.reason) == (409, "environment-changed")
    assert refused.value.params["need"] == "tinybase>=1"
    with pytest.raises(UserError) as refused:
        await found.make(lock_of(base, *pins, python="3.7"), base, lambda *_: None)
    assert refused.value.reason == "other-python"


def test_no_password_of_an_index_is_told() -> None:
    told = without_login("error: https://ada:s3cret@index.example/simple/tiny/ 401")
    assert told == "error: https://index.example/simple/tiny/ 401"


def test_an_installer_is_told_nothing_of_the_products(tmp_path: Path) -> None:
    environ = {
        "CONFIGPROXY_AUTH_TOKEN": "x",
        "GALILEAN_REGISTRY_PASSWORD": "x",
        "PYTHONPATH": "/",
        "PIP_TARGET": "/",
    }
    told = Installer(Index(url="https://index.example/simple"), {**environ, "HOME": "/root"}).environment
    assert not environ.keys() & told.keys()
    assert told["PIP_INDEX_URL"] == told["UV_DEFAULT_INDEX"] == "https://index.example/simple"
