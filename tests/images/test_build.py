"""What an image is made anew for, what reaches its build, and that the locks agree; nothing is built here."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType

import pytest

from extensions.desktop.available import PACKAGES

ROOT = Path(__file__).parents[2]
DAYS = 24 * 3600
NAMES = (
    "tools",
    "base",
    "node",
    "control",
    "proxy",
    "jupyter",
    "mpi",
    "desktop",
    "pytorch-cpu",
    "pytorch-gpu",
)
#: What ends with the part of Galilean that runs inside of nodes.
OF_NODES = {"jupyter", "mpi", "desktop", "pytorch-cpu", "pytorch-gpu"}
ALL = set(NAMES)


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("images_script", ROOT / "scripts" / "images.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


images = _script()


def containerfile(name: str) -> str:
    return (ROOT / "images" / name / "Containerfile").read_text()


def key(name: str, clone: Path, base: str = "debian") -> str:
    return images.key_of(name, clone, base)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What the images are made of, in a folder of the test's own."""
    for name in NAMES:
        images.snapshot(name, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "anew"),
    [
        ("spawner/node/place.py", {"control", "node", *OF_NODES}),
        ("services/portal/app.py", {"control"}),
        ("requirements/node.txt", {"base", *OF_NODES}),
        ("requirements/hub.txt", {"control"}),
        ("requirements/pytorch.txt", {"pytorch-gpu"}),
        ("requirements/bootstrap.txt", ALL),
        ("package-lock.json", ALL - {"tools", "base"}),
        ("extensions/lab/src/start.ts", {"control", "node", *OF_NODES}),
        ("extensions/desktop/desktops.py", {"control", "node", *OF_NODES}),
        ("extensions/desktop/static/0/page.js", set()),
        ("extensions/lab/labextensions/@galilean/lab/package.json", set()),
        ("images/proxy/Containerfile", {"proxy"}),
        ("images/base/notices.py", {"base", *OF_NODES}),
        ("galilean/web/static/vendor/htmx.min.js", set()),
        ("spawner/__pycache__/plan.cpython-311.pyc", set()),
        ("state/secrets/cookie", set()),
    ],
)
def test_an_image_is_made_anew_for_what_it_holds_and_for_nothing_else(
    clone: Path, changed: str, anew: set[str]
) -> None:
    before = {name: key(name, clone) for name in NAMES}
    path = clone / changed
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((path.read_bytes() if path.exists() else b"") + b"\n")
    assert {name for name in NAMES if key(name, clone) != before[name]} == anew


def test_another_base_is_another_image(clone: Path) -> None:
    assert key("proxy", clone, "debian:12") != key("proxy", clone, "debian:13")


def test_narrow_modes_of_a_clone_reach_no_image(
    clone: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (clone / "spawner" / "node" / "place.py").chmod(0o600)
    (clone / "spawner" / "node").chmod(0o700)
    copy = tmp_path_factory.mktemp("copy")
    images.snapshot("node", copy, clone)
    assert (copy / "spawner" / "node" / "place.py").stat().st_mode & 0o777 == 0o644
    assert (copy / "spawner" / "node").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("name", NAMES)
def test_the_build_is_let_see_what_it_copies(name: str) -> None:
    allowed = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    for source in images.copied(containerfile(name)):
        assert any(fnmatch(source, entry) or source.startswith(f"{entry}/") for entry in allowed), source


@pytest.mark.parametrize("name", NAMES)
def test_an_image_begins_from_images_that_are_there_and_is_none_s_own_parent(name: str) -> None:
    seen, left = set(), [name]
    while left:
        found = set(images.parents(containerfile(left.pop())).values())
        assert found <= ALL
        assert name not in found
        left += found - seen
        seen |= found


@pytest.mark.parametrize("name", sorted(OF_NODES))
def test_a_change_of_our_code_installs_no_package_anew(name: str) -> None:
    text = containerfile(name)
    assert text.index("apt-get install") < text.index("COPY --from=node")
    assert "spawner" not in "".join(images.copied(text) + images.copied(containerfile("base")))


def test_the_desktop_s_packages_are_those_that_the_desktop_asks_for() -> None:
    assert set(PACKAGES) <= set(containerfile("desktop").split())


def test_notices_name_what_is_bundled_and_where_its_licence_is(tmp_path: Path) -> None:
    target = tmp_path / "NOTICES"
    script = ROOT / "images" / "base" / "notices.py"
    subprocess.run([sys.executable, str(script), str(target), sys.prefix], check=True, timeout=60)
    text = target.read_text()
    assert re.search(r"^bash\t.*/usr/share/doc/bash/copyright$", text, re.MULTILINE)
    assert re.search(r"^tornado\t\S+\tApache.*/LICENSE$", text, re.MULTILINE)


def test_a_password_in_an_index_reaches_the_build_as_a_secret_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://reader:pass word@packages.example.edu/simple")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    (tmp_path / "ca.pem").write_text("an authority")
    arguments = images.secrets(tmp_path)
    assert not any("pass word" in word for word in arguments)
    assert f"id=ca,src={tmp_path / 'ca.pem'}" in arguments
    said = (tmp_path / "env").read_text()
    assert "export PIP_INDEX_URL='https://reader:pass word@packages.example.edu/simple'\n" in said
    assert "export PIP_CERT=/run/secrets/ca\n" in said


def test_images_that_are_there_wait_for_nobody_s_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "galilean" / "images"
    archive = cache / key("proxy", ROOT, "local") / "proxy.tar"
    archive.parent.mkdir(parents=True)
    archive.touch()
    os.utime(archive, (0, 0))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # somebody builds
        monkeypatch.setattr("sys.argv", ["images.py", "proxy"])
        images.main()
        images.forget(cache, set())
    assert capsys.readouterr().out.split()[2] == str(archive)
    assert archive.exists()
    assert images.kept(["proxy", "control"], "local", ROOT, cache) is None


def test_what_nobody_used_for_days_is_removed_and_what_is_used_stays(tmp_path: Path) -> None:
    for folder in ("old", "used", "new"):
        (tmp_path / folder).mkdir()
        archive = tmp_path / folder / "proxy.tar"
        archive.touch()
        if folder != "new":
            past = archive.stat().st_mtime - 9 * DAYS
            os.utime(archive, (past, past))
    images.forget(tmp_path, {tmp_path / "used" / "proxy.tar"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "used"]
    images.forget(tmp_path, set())
    assert (tmp_path / "used").exists(), "its use was noted"


def test_of_an_image_that_is_made_often_only_the_newest_stay_and_those_that_may_be_in_use(
    tmp_path: Path,
) -> None:
    hours = (0, 1, 2, 4, 5, 6, 7)
    for age in hours:
        (tmp_path / str(age)).mkdir()
        archive = tmp_path / str(age) / "control.tar"
        archive.touch()
        past = archive.stat().st_mtime - age * 3600
        os.utime(archive, (past, past))
    images.forget(tmp_path, {tmp_path / "7" / "control.tar"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2", "4", "7"]


def _pins(lock: str) -> dict[str, str]:
    text = (ROOT / "requirements" / lock).read_text()
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[.*?\])?==([^ ;]+)", text, re.MULTILINE))


@pytest.mark.parametrize("lock", ["hub.txt", "node.txt"])
def test_images_hold_the_versions_that_are_tested(lock: str) -> None:
    tested = _pins("run.txt")
    assert _pins(lock).items() <= tested.items()


def test_the_control_plane_has_nothing_of_nodes_and_nodes_nothing_of_the_control_plane() -> None:
    assert "jupyterlab" not in _pins("hub.txt")
    assert not {"jupyterhub-kubespawner", "psycopg", "oauthenticator"} & _pins("node.txt").keys()


IMPORT_ALL = """
import importlib, pkgutil, sys
copy, clone = sys.argv[1:]
sys.path[:] = [copy, *(place for place in sys.path if place not in ("", clone))]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
for name in ("spawner.node", "extensions.desktop"):
    room = importlib.import_module(name)
    assert room.__file__.startswith(copy), room.__file__
    for module in pkgutil.walk_packages(room.__path__, name + "."):
        if not module.name.endswith("__main__"):
            print(module.name)
            importlib.import_module(module.name)
"""


def test_all_of_our_code_in_nodes_finds_what_it_imports_there(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    copy = tmp_path_factory.mktemp("node")
    images.snapshot("node", copy)
    command = [sys.executable, "-c", IMPORT_ALL, str(copy), str(ROOT)]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "spawner.node.application_pages" in done.stdout.split()
