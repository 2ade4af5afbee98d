"""User ports of a real node: what is reached, what never is, and what stays behind (AP-11)."""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from spawner.node.listening import Listener, Ports, Who, listeners
from spawner.node.ports import from_another_site, without_our_cookies, without_token
from tests.process.hub import eventually
from tests.process.jupyter import TOKEN, Jupyter

#: Tells what it was sent, and tries to set cookies that are not its own.
PROGRAM = """
import http.server, json, sys
class Tell(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        said = json.dumps({"path": self.path, "headers": list(self.headers.items())}).encode()
        self.send_response(302 if self.path.startswith(("/away", "/elsewhere")) else 200)
        if self.path.startswith("/elsewhere"):
            self.send_header("Location", self.path.partition("?")[2])
        if self.path.startswith("/away"):
            self.send_header("Location", "/landed")
        for cookie in ("mine=1; Path=/", "=jupyterhub-user-ada=stolen", "service-portal=stolen", "jupyterhub-user-ada=stolen; Path=/", "_xsrf=guess", "galilean_language=xx"):
            self.send_header("Set-Cookie", cookie)
        self.send_header("Service-Worker-Allowed", "/")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
    do_POST = do_GET
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer((sys.argv[1], 0), Tell)
print(server.server_port, flush=True)
server.serve_forever()
"""


class Cluster(Jupyter):
    """A node of the process backend: the loopback is the machine's."""

    def __init__(self, folder: Path) -> None:
        self.directory = folder / "cluster"
        self.directory.mkdir()
        super().__init__(folder, more={"GALILEAN_CLUSTER_DIR": str(self.directory)})

    def program(self, address: str = "127.0.0.1", **marks: str) -> tuple[subprocess.Popen[str], int]:
        """A program of the person's on this node, or with other marks on another."""
        environment = {
            **os.environ,
            **self.place.variables(),
            "GALILEAN_CLUSTER_DIR": str(self.directory),
            **marks,
        }
        started = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, address], env=environment, stdout=subprocess.PIPE, text=True
        )
        assert started.stdout is not None
        return started, int(started.stdout.readline())


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("node"))
    yield made
    made.stop()


@pytest.fixture
def program(node: Cluster) -> Iterator[int]:
    started, port = node.program()
    yield port
    started.kill()
    started.wait()


def sent(answer: httpx.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.json()["headers"]}


@pytest.mark.process
class TestARealNode:
    def test_a_program_of_the_node_is_reached_and_only_by_who_is_signed_in(
        self, node: Cluster, program: int
    ) -> None:
        answer = node.client.get(f"proxy/{program}/a/b?c=d")
        assert answer.status_code == 200 and answer.json()["path"] == "/a/b?c=d"
        stranger = httpx.get(f"{node.url}proxy/{program}/a/b")
        assert stranger.status_code == 302 and "login" in stranger.headers["location"]
        assert (
            node.client.get(f"proxy/{program}/away").headers["location"].endswith(f"/proxy/{program}/landed")
        )

    def test_what_signs_a_person_in_stays_behind(self, node: Cluster, program: int) -> None:
        cookies = (
            "jupyterhub-user-ada=secret; mine=1; _xsrf=2|x; jupyterhub-session-id=y; galilean_language=en"
        )
        headers = {"Cookie": cookies, "X-XSRFToken": "2|x"}
        got = sent(node.client.get(f"proxy/{program}/", headers=headers))
        assert got["cookie"] == "mine=1"
        assert not {"authorization", "x-xsrftoken"} & set(got)
        by_address = httpx.get(f"{node.url}proxy/{program}/x?token={TOKEN}&a=1")
        assert by_address.json()["path"] == "/x?a=1"
        assert TOKEN not in by_address.text
        from_it = {"Referer": f"{node.url}proxy/{program}/x?tok%65n={TOKEN}"}
        hidden = httpx.get(f"{node.url}proxy/{program}/x?tok%65n={TOKEN}", headers=from_it)
        assert hidden.status_code == 200 and TOKEN not in hidden.text

    def test_a_program_sets_its_own_cookies_and_none_that_sign_in(self, node: Cluster, program: int) -> None:
        answer = node.client.get(f"proxy/{program}/")
        set_by_it = [value.split("=")[0] for value in answer.headers.get_list("set-cookie")]
        assert "mine" in set_by_it and not any(
            name.startswith(("jupyterhub", "galilean")) for name in set_by_it
        )
        assert "_xsrf=guess" not in str(answer.headers)
        assert "service-worker-allowed" not in answer.headers
        streamed = node.client.get(f"proxy/{program}/", headers={"Accept": "text/event-stream"})
        assert "stolen" not in str(streamed.headers)

    @pytest.mark.parametrize(
        "address",
        [
            "proxy/169.254.169.254:80/latest/meta-data/",
            "proxy/0.0.0.0:{port}/",
            "proxy/127.0.0.1:{port}/",
            "proxy/localhost:{port}/",
            "proxy/[::1]:{port}/",
            "proxy/2130706433:{port}/",
            "proxy/0x7f000001:{port}/",
            "proxy/example.test:{port}/",
            "proxy/absolute/127.0.0.1:{port}/",
            "proxy/absolute/169.254.169.254:80/",
            "proxy/0x{port:x}/",
            "proxy/{port}@169.254.169.254/",
            "proxy/-{port}/",
            "proxy/%31%36%39.254.169.254:80/",
            "proxy/٣٤٥٦/",
            "proxy/999999999/",
            "proxy/127.1:{port}/",
            "proxy/0177.0.0.1:{port}/",
            "proxy/[::ffff:127.0.0.1]:{port}/",
            "proxy/[::]:{port}/",
            "proxy/{port}:{port}/",
            "proxy/unix:%2Frun%2Fdocker.sock/info",
            "proxy/absolute/unix:%2Frun%2Fdocker.sock/info",
            "proxy/http:%2F%2F169.254.169.254/",
            "proxy/{port}%00/",
            "proxy/+{port}/",
        ],
    )
    def test_no_address_names_a_host(self, node: Cluster, program: int, address: str) -> None:
        answer = node.client.get(address.format(port=program), follow_redirects=True)
        assert answer.status_code == 404 and str(answer.url).startswith(node.url)
        assert "headers" not in answer.text, "the program was not asked"

    @pytest.mark.parametrize(
        "address", ["169.254.169.254:80", "[::1]:{port}", "0.0.0.0:{port}", "unix:%2Frun%2Fdocker.sock"]
    )
    def test_no_websocket_goes_to_a_named_host(self, node: Cluster, program: int, address: str) -> None:
        there = f"{node.url.replace('http', 'ws', 1)}proxy/{address.format(port=program)}/ws?token={TOKEN}"
        with pytest.raises(InvalidStatus) as refused:
            connect(there, open_timeout=60)
        assert refused.value.response.status_code == 404

    def test_what_a_program_points_to_is_not_asked_from_here(self, node: Cluster, program: int) -> None:
        """A redirect is the browser's to follow: it has no rights there that the person has not."""
        for place in ("http://169.254.169.254/latest/meta-data/", "http://localhost:1/hub/api/"):
            answer = node.client.get(f"proxy/{program}/elsewhere?{place}")
            assert (answer.status_code, answer.headers["location"]) == (302, place)

    @pytest.mark.parametrize("port", [0, 22, 80, 1023, 65536, 99999])
    def test_ports_of_the_system_are_no_doors(self, node: Cluster, port: int) -> None:
        assert node.client.get(f"proxy/{port}/").status_code == 403

    def test_ports_of_others_on_the_machine_are_no_doors(self, node: Cluster) -> None:
        """The hub, another person's node, another node of the same cluster: none is of this node."""
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as hub:
            threading.Thread(target=hub.serve_forever, daemon=True).start()
            assert node.client.get(f"proxy/{hub.server_port}/").status_code == 403
            hub.shutdown()
        for marks in (
            {"GALILEAN_CLUSTER_DIR": "/somebody/else"},
            {"GALILEAN_RANK": "1"},
            {"GALILEAN_CLUSTER": "1" * 26},
        ):
            started, port = node.program(**marks)
            assert node.client.get(f"proxy/{port}/").status_code == 403, marks
            started.kill()
            started.wait()

    def test_a_port_that_somebody_else_took_over_is_closed_at_once(self, node: Cluster) -> None:
        started, port = node.program()
        assert node.client.get(f"proxy/{port}/").status_code == 200
        started.kill()
        started.wait()
        assert node.client.get(f"proxy/{port}/").status_code == 502
        with socket.create_server(("127.0.0.1", port)):
            assert node.client.get(f"proxy/{port}/").status_code == 403

    def test_the_node_itself_is_no_door(self, node: Cluster) -> None:
        own = httpx.URL(node.url).port
        assert node.client.get(f"proxy/{own}/").status_code == 403

    def test_nothing_there_is_said_in_the_persons_language(self, node: Cluster) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        answer = node.client.get(f"proxy/{port}/")
        assert answer.status_code == 502 and f"Nothing answers on port {port}" in answer.text
        chinese = node.client.get(f"proxy/{port}/", headers={"Accept-Language": "zh-CN"})
        assert f"端口 {port}" in chinese.text

    def test_a_program_that_listens_on_all_addresses_is_reached(self, node: Cluster) -> None:
        started, port = node.program("0.0.0.0")
        assert node.client.get(f"proxy/{port}/").status_code == 200
        started.kill()
        started.wait()

    def test_a_websocket_to_somebody_elses_port_is_closed(self, node: Cluster) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            address = f"{node.url.replace('http', 'ws', 1)}proxy/{other.getsockname()[1]}/ws?token={TOKEN}"
            with connect(address) as opened:
                with pytest.raises(Exception, match=r"4404|other"):
                    opened.recv(timeout=120)


@pytest.mark.process
def test_ports_are_their_owners_alone(tmp_path: Path) -> None:
    node = Jupyter(tmp_path, more={"JUPYTERHUB_USER": "somebody-else"})
    try:
        assert node.client.get("proxy/8050/").status_code == 403
    finally:
        node.stop()


@pytest.mark.process
def test_the_start_command_runs_in_work_and_its_port_is_a_door(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        PROGRAM.replace("print(", "open('port', 'w').write(str(server.server_port)) and print(")
    )
    command = f"env > environment; exec {sys.executable} {tmp_path / 'program.py'} 127.0.0.1"
    node = Jupyter(tmp_path, more={"GALILEAN_START_COMMAND": command, "JUPYTERHUB_API_TOKEN": "secret"})
    try:
        eventually(
            lambda: bool((node.root / "port").exists() and (node.root / "port").read_text()), 30, "it runs"
        )
        port = int((node.root / "port").read_text())
        assert node.client.get(f"proxy/{port}/hello").json()["path"] == "/hello"
        told = (node.root / "environment").read_text()
        assert "GALILEAN_RANK=0" in told and "JUPYTERHUB_API_TOKEN" not in told
        assert (tmp_path / ".galilean-command.log").read_text().strip() == str(port)
    finally:
        node.stop()
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), 5):
        pass  # it ended with its node


# ------------------------------------------------------------------------------------------ pure decisions


def test_only_our_cookies_are_left_out() -> None:
    assert without_our_cookies("a=1; JupyterHub-user-x=2;_xsrf=3; b=4") == "a=1; b=4"
    assert without_our_cookies("jupyterhub-hub-login=1") == ""


def test_only_the_token_is_left_out_of_a_query() -> None:
    assert without_token("a=1&token=secret&b=") == "a=1&b="
    assert without_token("tok%65n=secret") == ""
    assert without_token("a=%41") == "a=%41"


def test_the_kernels_table_says_who_listens_where() -> None:
    table = [
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
        "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1",
        "   1: 0100007F:1F90 0100007F:A000 01 00000000:00000000 00:00000000 00000000     0        0 222 1",
        "   2: 0A0B0C0D:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1",
        f"   3: {'0' * 24}01000000:1F90 {'0' * 32}:0000 0A 0:0 00:0 0     0        0 444 1",
    ]
    assert list(listeners(iter(table), 8080)) == [Listener("127.0.0.1", "111"), Listener("[::1]", "444")]
    assert list(listeners(iter(table), 8081)) == []


@pytest.mark.parametrize("address", ["::ffff:127.0.0.1", "::ffff:0.0.0.0", "::"])
def test_a_socket_of_both_protocols_is_reached_at_the_ipv4_loopback(address: str) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    code = (
        "import socket, sys; s = socket.socket(socket.AF_INET6); s.setsockopt(socket.IPPROTO_IPV6, "
        "socket.IPV6_V6ONLY, 0); s.bind((sys.argv[1], 0)); s.listen(); print(s.getsockname()[1], flush=True); "
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout and other.stdin
        port = int(other.stdout.readline())
        assert Ports({}).look(port) == (Who.PERSON, "127.0.0.1")
        socket.create_connection(("127.0.0.1", port)).close()
        other.stdin.close()


def test_in_a_container_every_program_but_the_node_itself_is_the_persons() -> None:
    ports = Ports({})
    with socket.create_server(("127.0.0.1", 0)) as own:
        assert ports.look(own.getsockname()[1])[0] is Who.NODE
    code = "import socket,sys; s=socket.create_server(('127.0.0.1',0)); print(s.getsockname()[1],flush=True); sys.stdin.read()"
    other: Any = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert ports.look(int(other.stdout.readline())) == (Who.PERSON, "127.0.0.1")
    finally:
        other.communicate("")
    assert json.dumps(ports.look(80)[0].value) == '"other"'


def test_a_page_of_another_site_changes_nothing_in_a_persons_program() -> None:
    for site in ("cross-site", "same-site"):
        assert from_another_site("POST", {"Sec-Fetch-Site": site})
        assert from_another_site("DELETE", {"Sec-Fetch-Site": site})
        assert not from_another_site("GET", {"Sec-Fetch-Site": site})
    assert not from_another_site("POST", {"Sec-Fetch-Site": "same-origin"})
    assert not from_another_site("POST", {}), "a program without a browser"
