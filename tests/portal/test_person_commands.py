"""``galilean project …`` and ``galilean dataset …`` with a person's token, against a portal."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from galilean.cli import build_app
from galilean.commands.portal_client import PortalClient, path_of, portal_address
from galilean.commands.uploading import PIECE_BYTES, Journal, Source, Uploader, find
from galilean.errors import UserError
from services.portal import freezing
from tests.portal.conftest import Sign, made
from tests.portal.live import LiveSite
from tests.portal.test_datasets import dataset, now, put
from tests.process.hub import eventually

Command = Callable[..., Result]
KEEP = ("dataset", "keep-version", "alice/io-nims")


@pytest.fixture
def command(site: LiveSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """``command("alice", "project", "create", "Heat")``: as somebody, against the site."""
    monkeypatch.setenv("GALILEAN_SITE", site.url)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "journal"))
    monkeypatch.setenv("LANG", "C.UTF-8")

    def run(name: str, *words: str) -> Result:
        monkeypatch.setenv("GALILEAN_TOKEN", site.hub.token(name) if name else "")
        return CliRunner().invoke(build_app(), list(words))

    return run


def test_a_project_is_made_published_forked_and_deleted_by_script(command: Command, sign: Sign) -> None:
    made_at = command("alice", "project", "create", "Heat flow", "--description", "Of Io")
    assert made_at.output == "alice/heat-flow\n"
    refused = command("alice", "project", "publish", "alice/heat-flow")
    assert "--yes" in str(refused.exception)
    assert sign("alice").get("/projects/alice/heat-flow").json()["visibility"] == "private"
    told = command("alice", "project", "publish", "alice/heat-flow", "--yes")
    assert "Everybody will see 0 files" in told.output
    assert command("bob", "project", "fork", "alice/heat-flow", "--no-wait").output == "bob/heat-flow\n"
    assert command("alice", "project", "delete", "alice/heat-flow").exit_code == 0
    assert sign("alice").get("/projects/alice/heat-flow").status_code == 404
    assert len(sign("alice").get("/bin/projects").json()["items"]) == 1


def test_a_command_may_what_its_person_may_and_no_more(command: Command, sign: Sign) -> None:
    made(sign("alice"))
    for words in (("delete",), ("publish", "--yes"), ("fork",)):
        refused = command("bob", "project", words[0], "alice/heat-flow", *words[1:])
        assert isinstance(refused.exception, UserError)
        assert refused.exception.status == 404
    nobody = command("", "project", "create", "x")
    assert "GALILEAN_TOKEN" in str(nobody.exception)
    assert sign("alice").get("/projects/alice/heat-flow").status_code == 200


def test_a_folder_is_uploaded_and_the_same_command_again_sends_nothing(
    command: Command, sign: Sign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = sign("alice")
    dataset(alice)
    folder = tmp_path / "温度"
    (folder / "raw" / "none").mkdir(parents=True)
    (folder / "raw" / "a b.csv").write_bytes(b"1,2\n")
    (folder / "empty.txt").write_bytes(b"")
    (folder / "out").symlink_to("/etc")
    (folder / "passwd").symlink_to("/etc/passwd")
    words = ("dataset", "upload", "alice/io-nims", str(folder), "--into", "2026")
    told = command("alice", *words)
    assert told.exit_code == 0, told.output
    assert "2 files are there" in told.output
    files = "/datasets/alice/io-nims/files/2026/温度"
    assert alice.get(f"{files}/raw/a b.csv").content == b"1,2\n"
    assert alice.get(f"{files}/raw/none/").status_code == 200
    names = {entry["name"] for entry in alice.get(f"{files}/").json()["items"]}
    assert names == {"raw", "empty.txt"}, "what links lead to is somewhere else"
    sent: list[str] = []
    monkeypatch.setattr(Uploader, "_send", lambda self, source, *rest: sent.append(source.target))
    assert command("alice", *words).exit_code == 0
    assert sent == []


def test_one_refused_file_keeps_no_other_back(command: Command, sign: Sign, tmp_path: Path) -> None:
    alice = sign("alice")
    dataset(alice)
    alice.put("/datasets/alice/io-nims/files/a.txt", content=b"old")
    for name in "ab":
        (tmp_path / f"{name}.txt").write_bytes(b"new")
    paths = (str(tmp_path / "a.txt"), str(tmp_path / "b.txt"))
    told = command("alice", "dataset", "upload", "alice/io-nims", *paths)
    assert told.exit_code == 1
    assert alice.get("/datasets/alice/io-nims/files/b.txt").content == b"new"
    assert alice.get("/datasets/alice/io-nims/files/a.txt").content == b"old"
    again = command("alice", "dataset", "upload", "alice/io-nims", *paths, "--if-taken", "replace")
    assert again.exit_code == 0
    assert alice.get("/datasets/alice/io-nims/files/a.txt").content == b"new"


def test_a_public_data_set_is_for_ever_and_the_command_says_so(command: Command, sign: Sign) -> None:
    dataset(sign("alice"))
    told = command("alice", "dataset", "publish", "alice/io-nims", "--yes")
    assert "for ever" in told.output
    assert sign("bob").get("/datasets/alice/io-nims").json()["visibility"] == "public"
    dataset(sign("alice"), "Other")
    assert command("alice", "dataset", "delete", "alice/other").exit_code == 0


class Cut(httpx.HTTPTransport):
    """A line that breaks in the middle of some pieces, after the portal took them (or before)."""

    def __init__(self, breaks: set[int], *, after: bool) -> None:
        super().__init__()
        self.breaks, self.after, self.pieces, self.bytes = breaks, after, 0, 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.method != "PATCH":
            return super().handle_request(request)
        self.pieces += 1
        cut = self.pieces in self.breaks
        if not cut or self.after:
            self.bytes += len(request.content)
            answer = super().handle_request(request)
            if not cut:
                return answer
            answer.close()
        raise httpx.ReadError("cut", request=request)


@pytest.mark.parametrize("after", [True, False])
def test_an_upload_goes_on_where_a_broken_line_left_it(
    site: LiveSite, sign: Sign, tmp_path: Path, after: bool
) -> None:
    alice = sign("alice")
    dataset(alice)
    content = bytes(range(256)) * (PIECE_BYTES // 256) + b"the end"
    source = _file(tmp_path, content)
    line, waited = Cut({1, 3}, after=after), []
    with PortalClient(portal_address(site.url), site.hub.token("alice"), line) as client:
        journal = Journal(tmp_path / "journal")
        placed = Uploader(client, "/datasets/alice/io-nims", journal, sleep=waited.append).upload(source)
    assert placed == "big.bin"
    assert waited
    assert line.bytes == len(content), "no byte that was there is sent again"
    assert alice.get("/datasets/alice/io-nims/files/big.bin").content == content


def test_an_upload_goes_on_after_the_command_was_ended(site: LiveSite, sign: Sign, tmp_path: Path) -> None:
    dataset(sign("alice"))
    content = b"x" * PIECE_BYTES + b"y" * 10
    source = _file(tmp_path, content)

    def begin(line: Cut, sleep: Callable[[float], None]) -> str:
        with PortalClient(portal_address(site.url), site.hub.token("alice"), line) as client:
            journal = Journal(tmp_path / "journal")
            return Uploader(client, "/datasets/alice/io-nims", journal, sleep=sleep).upload(source)

    def end(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin(Cut({2}, after=False), end)
    rest = Cut(set(), after=False)
    assert begin(rest, end) == "big.bin"
    assert rest.bytes == 10


def test_a_file_that_changes_meanwhile_gets_no_name(site: LiveSite, sign: Sign, tmp_path: Path) -> None:
    alice = sign("alice")
    dataset(alice)
    source = _file(tmp_path, b"a" * (PIECE_BYTES + 1))

    def told(done: int) -> None:
        if done:
            source.path.write_bytes(b"b" * (PIECE_BYTES + 1))

    with PortalClient(portal_address(site.url), site.hub.token("alice")) as client:
        uploader = Uploader(client, "/datasets/alice/io-nims", Journal(tmp_path / "journal"), told=told)
        with pytest.raises(UserError, match="changed"):
            uploader.upload(source)
    assert alice.get("/datasets/alice/io-nims/files/big.bin").status_code == 404


def _file(folder: Path, content: bytes) -> Source:
    path = folder / "big.bin"
    path.write_bytes(content)
    (found,) = find([path]).files
    return found


def test_a_folder_keeps_its_name_and_no_two_files_get_one_place(tmp_path: Path) -> None:
    (tmp_path / "data" / "x").mkdir(parents=True)
    (tmp_path / "data" / "x" / "1").write_text("")
    assert [one.target for one in find([tmp_path / "data"], "in").files] == ["in/data/x/1"]
    with pytest.raises(UserError, match="Two files"):
        find([tmp_path / "data", tmp_path / "data"])


def test_a_journal_with_a_torn_line_is_read_and_old_lines_go(tmp_path: Path) -> None:
    place = tmp_path / "journal"
    first = Journal(place, now=lambda: 1000.0)
    first.note("a", "//x")
    Journal(place, now=lambda: 600_000.0).note("b", "//y")
    with place.open("a") as file:
        file.write('["c", "//z')
    later = Journal(place, now=lambda: 700_000.0)
    assert (later.find("a"), later.find("b"), later.find("c")) == ("", "//y", "")
    assert place.stat().st_mode & 0o777 == 0o600
    later.note("d", "//w")
    assert Journal(place, now=lambda: 700_001.0).find("d") == "//w"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("https://hub.example.edu", "https://hub.example.edu/services/portal/"),
        ("http://h:8000/at/services/portal", "http://h:8000/at/services/portal/"),
    ],
)
def test_a_site_is_named_by_its_address_or_the_portals(text: str, address: str) -> None:
    assert portal_address(text) == address


@pytest.mark.parametrize("text", ["hub.example.edu", "file:///etc/passwd", ""])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        portal_address(text)


def test_an_address_of_a_project_cannot_leave_its_place() -> None:
    assert path_of("projects", "alice/a?b#c") == "/projects/alice/a%3Fb%23c"
    for text in ("alice", "a/b/c", "/", "alice/"):
        with pytest.raises(UserError):
            path_of("projects", text)


def test_versions_of_a_data_set_are_kept_listed_and_deleted_by_script(
    command: Command, sign: Sign, site: LiveSite
) -> None:
    put(site, dataset(sign("alice")), "a.csv", b"orbit 1")
    assert command("alice", "dataset", "keep-version", "alice/io-nims", "--no-wait").output == (
        "alice/io-nims-v1\n"
    )
    assert "alice/io-nims-v1\tcopying" in command("alice", "dataset", "versions", "alice/io-nims").output
    now(site, freezing.go_on(site.portal))
    (line,) = command("alice", "dataset", "versions", "alice/io-nims", "--json").output.splitlines()
    assert (json.loads(line)["version"], json.loads(line)["busy"]) == (1, "")
    refused = command("bob", "dataset", "keep-version", "alice/io-nims")
    assert isinstance(refused.exception, UserError)
    assert command("alice", "dataset", "delete", "alice/io-nims-v1").exit_code == 0
    assert command("alice", "dataset", "versions", "alice/io-nims").output == ""


def test_a_version_that_came_to_nothing_is_told(command: Command, sign: Sign, site: LiveSite) -> None:
    put(site, dataset(sign("alice")), "a.csv", b"orbit 1")
    waits = threading.Thread(target=lambda: told.append(command("alice", *KEEP)))
    told: list[Result] = []
    waits.start()
    address = "/datasets/alice/io-nims-v1"
    eventually(lambda: sign("alice").get(address).status_code == 200)
    assert sign("alice").delete(address).status_code == 204  # cancels it
    waits.join(60)
    assert isinstance(told[0].exception, UserError)
    assert "no version" in str(told[0].exception)
