"""What is decided of an image that nobody made for nodes: its files as the layers leave them, and what is laid over it."""

from __future__ import annotations

import io
import json
import tarfile
from datetime import UTC, datetime
from typing import Any

import pytest

from extensions.imagebuilder import stock
from extensions.imagebuilder.looks import NODE_LABEL
from extensions.imagebuilder.stock import Node, View
from extensions.imagebuilder.tarstream import Source
from galilean.errors import UserError
from spawner.start_command import COMMAND

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NODE = Node()


def layer(*names: str | tuple[str, str | bytes]) -> Source:
    """Names ending in a slash are folders, ``a -> b`` is a link, a pair is a file with content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for one in names:
            name, content = one if isinstance(one, tuple) else (one, "")
            path, arrow, target = name.partition(" -> ")
            entry = tarfile.TarInfo(path.rstrip("/"))
            if arrow:
                entry.type, entry.linkname = tarfile.SYMTYPE, target
            elif path.endswith("/"):
                entry.type, entry.mode, entry.uid = tarfile.DIRTYPE, 0o750, 7
            raw = content.encode() if isinstance(content, str) else content
            entry.size = 0 if arrow or path.endswith("/") else len(raw)
            archive.addfile(entry, io.BytesIO(raw))
    out.seek(0)
    return Source(out)


def view(*layers: tuple[str | tuple[str, str | bytes], ...]) -> View:
    found = View()
    for names in layers:
        found.add(layer(*names))
    return found


def kernel(*argv: str, **more: Any) -> str:
    return json.dumps({"argv": list(argv), "display_name": "K", "language": "python", **more})


def written(found: View, said: dict[str, Any] | None = None) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    out = io.BytesIO()
    stock.write_layer(out, found, said or {}, NODE)
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        return {
            one.name: (one, file.read() if (file := archive.extractfile(one)) else b"")
            for one in archive.getmembers()
            if not one.issym()
        } | {one.name: (one, one.linkname.encode()) for one in archive.getmembers() if one.issym()}


def test_a_layer_hides_what_is_below_it() -> None:
    below = (("usr/", "bin -> usr/bin", "usr/bin/bash", "a/", "a/x -> y", "opt/conda/bin/python3", "b -> a"),)
    assert view(*below).has("bin/bash")
    assert not view(*below, ("usr/bin/.wh.bash",)).has("bin/bash")
    assert not view(*below, (("usr/bin", "now a file"),)).has("bin/bash")
    assert not view(*below, ("opt/conda/.wh..wh..opq",)).named("python3")
    gone = view(*below, ("a/.wh..wh..opq", "a/z -> /usr/bin"))
    assert set(gone.links) == {"bin", "a/z", "b"}
    assert gone.real("b/z/bash") == "usr/bin/bash"
    assert view(*below, ("b/",)).real("b/x") == "b/x", "a folder has taken the place of a link"


@pytest.mark.parametrize("path", ["../../etc", "/a/../../..//etc", "./etc"])
def test_a_path_never_leads_out_of_the_image(path: str) -> None:
    assert view(("loop -> loop", "up -> ../../..")).real(f"up/{path}") == "etc"
    assert view(("loop -> loop",)).real("loop/x").endswith("x"), "a ring of links ends"


def test_kernels_run_by_the_python_that_they_were_installed_by() -> None:
    place = "usr/local/share/jupyter/kernels"
    found, left = stock.kernels(
        view(
            (
                "usr/local/bin/python3 -> python3.12",
                "usr/local/bin/python3.12",
                (f"{place}/python3/kernel.json", kernel("python", "-m", "ipykernel_launcher")),
                ("opt/conda/share/jupyter/kernels/ir/kernel.json", kernel("R", "--slave")),
                ("opt/x/share/jupyter/kernels/own/kernel.json", kernel("/opt/x/bin/python", env={"A": "1"})),
                ("srv/share/jupyter/kernels/lost/kernel.json", kernel("python3")),
                ("srv/share/jupyter/kernels/broken/kernel.json", "[]"),
                ("srv/share/jupyter/kernels/worse/kernel.json", '{"argv": [1]}'),
            )
        ),
        {"PYTHONPATH": "/src"},
    )
    assert {one.name: one.spec["argv"][0] for one in found} == {
        "ir": "R",
        "own": "/opt/x/bin/python",
        "python3": "/usr/local/bin/python3",
    }
    assert next(one for one in found if one.name == "own").spec["env"] == {"PYTHONPATH": "/src", "A": "1"}
    assert sorted(left) == ["broken", "lost", "worse"]


def test_the_account_is_added_or_let_in() -> None:
    assert stock.passwd(b"", NODE).splitlines()[-1] == b"jovyan:x:1000:1000::/home/jovyan:/bin/bash"
    there = b"root:x:0:0::/root:/bin/sh\njovyan:x:7:7::/:/bin/sh\nubuntu:x:1000:1000::/home/ubuntu:/usr/sbin/nologin"
    assert stock.passwd(there, NODE).splitlines()[-1] == b"ubuntu:x:1000:1000::/home/ubuntu:/bin/bash"
    taken = b"jovyan:x:7:7::/:/bin/sh\n"
    assert stock.passwd(taken, NODE).splitlines()[-1].startswith(b"jovyan2:x:1000:")
    assert stock.group(b"users:x:100:\n", NODE).endswith(b"jovyan:x:1000:\n")
    assert stock.group(b"staff:x:1000:\n", NODE) == b"staff:x:1000:\n"


def test_the_own_layer_has_home_accounts_and_a_bash_and_leaves_folders_as_they_are() -> None:
    found = written(
        view(
            ("etc/", "home/", "usr/", "usr/bin/", "bin -> usr/bin", ("etc/passwd", "root:x:0:0::/:/bin/sh\n"))
        )
    )
    home = found["home/jovyan"][0]
    assert (home.isdir(), home.uid, home.gid, home.mode) == (True, 1000, 1000, 0o755)
    assert found["usr/bin/bash"][1] == b"/opt/galilean/runtime/bin/bash"
    assert "bin" not in found, "a folder would hide the link"
    for name in ("etc", "home", "usr", "usr/bin"):
        assert (found[name][0].mode, found[name][0].uid) == (0o750, 7)
    assert b"root" in found["etc/passwd"][1] and b"jovyan" in found["etc/passwd"][1]
    assert "usr/bin/bash" not in written(view(("usr/bin/bash", "bin -> usr/bin")))


def test_our_python_is_a_kernel_beside_the_images() -> None:
    files = ("usr/bin/python3", ("usr/share/jupyter/kernels/python3/kernel.json", kernel("python3")))
    found = written(view(files), {"Env": ["PYTHONPATH=/it's", "PATH=/x"]})
    place = "opt/galilean/share/jupyter/kernels"
    assert json.loads(found[f"{place}/python3/kernel.json"][1])["argv"] == ["/usr/bin/python3"]
    assert json.loads(found[f"{place}/galilean/kernel.json"][1])["argv"][0] == "/opt/galilean/bin/python"
    assert found["etc/profile.d/galilean-image.sh"][1] == b"export PYTHONPATH='/it'\\''s'\n"
    assert not [name for name in written(view(("usr/bin/bash",))) if name.startswith(place)]


def test_nothing_of_a_config_keeps_a_node_from_starting() -> None:
    base = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "a" * 64]},
        "history": [{"created_by": "x"}, {"created_by": "ENV", "empty_layer": True}],
        "config": {
            "User": "root",
            "Entrypoint": ["/sbin/init"],
            "Cmd": ["x"],
            "Volumes": {"/home/jovyan": {}, "/opt": {}},
            "OnBuild": ["RUN rm -rf /"],
            "Healthcheck": {"Test": ["CMD", "false"]},
            "StopSignal": "SIGKILL",
            "Env": [
                "LD_PRELOAD=/evil.so",
                "PYTHONHOME=/x",
                "JUPYTERHUB_API_TOKEN=x",
                "HEAT=42",
                "HOME=/root",
                "=",
                "A",
            ],
            "Labels": {"galilean.io/reads": "x", "io.galilean.notices": "/y", "maintainer": "z"},
        },
    }
    added = [("sha256:" + "b" * 64, "ours")]
    found = json.loads(stock.config_of(base, added, NODE, notices="/n", now=NOW))
    assert found["config"] == {
        "Env": ["HEAT=42", "A=", f"PATH={stock.PATH}:/opt/galilean/bin", "LANG=C.UTF-8"],
        "Cmd": list(COMMAND),
        "User": "1000:1000",
        "WorkingDir": "/home/jovyan",
        "Labels": {"maintainer": "z", NODE_LABEL: "/n"},
    }
    assert (
        len(found["rootfs"]["diff_ids"]) == 2 == sum(not one.get("empty_layer") for one in found["history"])
    )


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("opt -> var/opt",), "image-opt"),
        (("etc/passwd -> /etc/other",), "image-accounts"),
        (("etc -> /usr/etc",), "image-accounts"),
        ((("etc/passwd", b"x" * (stock.TEXT_MOST_BYTES + 1)),), "image-accounts"),
    ],
)
def test_an_image_in_which_something_would_be_hidden_is_refused(names: Any, reason: str) -> None:
    with pytest.raises(UserError) as refused:
        stock.check(view(names), NODE)
    assert refused.value.reason == reason
