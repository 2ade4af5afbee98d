"""The node side of containers: what a node prepares for itself before its server starts."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from spawner.keys import ClusterKeys
from spawner.node import container, place
from spawner.node.place import Place


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """What a backend gives a node, its directories included."""
    keys = ClusterKeys.new()
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name, content in {**keys.ssh_files(), "cookie_secret": keys.cookie_secret}.items():
        (secrets / name).write_bytes(content)
        (secrets / name).chmod(0o444)
    (tmp_path / "home" / "work").mkdir(parents=True)
    here = Place(run="01K", server="heat", nodes=3, rank=1, prefix="/user/ada/heat/")
    return {
        **here.variables(),
        place.SECRETS: str(secrets),
        place.CPU_MILLICORES: "2500",
        "JUPYTERHUB_API_TOKEN": "the-token",
        "PATH": "/usr/bin:/bin",
    }


def test_a_node_finds_hosts_keys_and_variables_in_its_home(tmp_path: Path, environ: dict[str, str]) -> None:
    home = tmp_path / "home"
    prepared = container.prepare(environ, home, "jovyan")
    told = prepared.environment
    assert Path(told["OMPI_MCA_orte_default_hostfile"]).read_text() == "".join(
        f"node-{rank} slots=2\n" for rank in range(3)
    )
    assert (told["MASTER_ADDR"], told["NODE_RANK"], told["PWD"]) == ("node-0", "1", str(home / "work"))
    assert (told["PET_MASTER_ADDR"], told["PET_NODE_RANK"], told["PET_NNODES"]) == (
        "node-0",
        "1",
        told["NNODES"],
    )
    assert f"--ServerApp.cookie_secret_file={home}/.galilean/cookie_secret" in prepared.arguments
    assert "  Port 2222\n" in (home / ".ssh" / "config").read_text()
    config = Path(told[place.SSHD_CONFIG]).read_text()
    assert f'AuthorizedKeysFile "{home}/.galilean/ssh/authorized_keys"' in config


def test_private_files_are_the_accounts_alone_and_no_token_is_written(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    home = tmp_path / "home"
    container.prepare(environ, home, "jovyan")
    for path in (home / ".galilean").rglob("*"):
        if path.is_file():
            assert "the-token" not in path.read_text(errors="replace")
            if path.name != "hostfile":
                assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_preparing_twice_keeps_what_the_person_changed(tmp_path: Path, environ: dict[str, str]) -> None:
    home = tmp_path / "home"
    container.prepare(environ, home, "jovyan")
    (home / ".ssh" / "config").write_text("Host mine\n")
    container.prepare(environ, home, "jovyan")
    assert (home / ".ssh" / "config").read_text() == "Host mine\n"


def test_a_project_that_is_not_mounted_is_an_error(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "home" / "work").rmdir()
    with pytest.raises(FileNotFoundError, match="not mounted"):
        container.prepare(environ, tmp_path / "home", "jovyan")


def test_ssh_accepts_the_configuration(tmp_path: Path, environ: dict[str, str]) -> None:
    home = tmp_path / "home"
    container.prepare(environ, home, "jovyan")
    said = subprocess.run(
        ["ssh", "-G", "-F", str(home / ".ssh" / "config"), "node-2"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "port 2222\n" in said
    assert "user jovyan\n" in said
    assert "stricthostkeychecking true" in said


def test_programs_are_bound_to_cores_only_where_these_are_the_nodes_own() -> None:
    assert container.binding_variables(64, 64) == {"OMPI_MCA_hwloc_base_binding_policy": "none"}
    assert container.binding_variables(64, 4) == {}


def test_the_port_of_its_pages_is_bound_before_anything_answers_there() -> None:
    """Who asks meanwhile waits in its queue."""
    assert container.http_port({"JUPYTERHUB_SERVICE_URL": "http://0.0.0.0:8888/user/a/s/"}) == 8888
    assert container.http_port({"JUPYTERHUB_SERVICE_URL": "http://[::]:8889/user/a/s/"}) == 8889
    assert container.http_port({}) == 0
    bound = socket.socket(fileno=int(container.listen(0)))
    with bound, socket.create_connection(("127.0.0.1", bound.getsockname()[1])) as asking:
        asking.sendall(b"GET")
        assert os.get_inheritable(bound.fileno())
        taken, _ = bound.accept()
        with taken:
            assert taken.recv(3) == b"GET"


def first(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"from spawner.node.container import be_first\ndef node():\n{code}\nbe_first(node)",
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def test_the_first_process_ends_as_its_node_ends() -> None:
    assert first("    import sys; sys.exit(7)").wait(20) == 7
    assert first("    import os; os.kill(os.getpid(), 9)").wait(20) == 128 + signal.SIGKILL


def test_a_node_that_ends_by_itself_says_its_last_words_and_is_gone_at_once() -> None:
    """Nothing of Python is taken apart, but what asked to be called at the end is."""
    kept = "class Kept:\n        def __del__(self): print('taken apart')\n    sys.kept = Kept()"
    process = first(
        f"    import atexit, sys; atexit.register(print, 'the end')\n    {kept}\n    print('a word', end=' ')"
    )
    said, _ = process.communicate(timeout=20)
    assert (said, process.returncode) == ("a word the end\n", 0)


@pytest.mark.parametrize("politely", [False, True])
def test_the_first_process_hands_signals_on(politely: bool) -> None:
    """However the node takes it, it ended because it was told to."""
    takes = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))" if politely else "pass"
    process = first(f"    import signal, sys, time; {takes}; print('up', flush=True); time.sleep(60)")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    process.stdout.close()
