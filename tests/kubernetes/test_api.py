"""The verbs against a small server: what is sent, what is made of answers, what a request costs the loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes_asyncio.client import ApiClient, Configuration

from spawner.kubernetes.api import NOT_NOW, SETTLE_SECONDS, APIError, KubeAPI, is_passing, proxy_of

SECRET = {"kind": "Secret", "metadata": {"name": "s"}}
PATH = "/api/v1/namespaces/ns/secrets"


class Server:
    """Answers with what it is told to; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []
        self.answers: list[web.Response] = []

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else None
        self.asked.append((request.method, request.path_qs, dict(request.headers), body))
        return self.answers.pop(0) if self.answers else web.json_response({"kind": "Secret"})


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    told = Server()
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", told.answer)
    running = TestServer(app)
    await running.start_server()
    told.url = str(running.make_url("")).rstrip("/")  # type: ignore[attr-defined]
    yield told
    await running.close()


@pytest.fixture
async def api(server: Server) -> AsyncIterator[KubeAPI]:
    configuration = Configuration(host=server.url, api_key={"BearerToken": "Bearer first"})  # type: ignore[attr-defined]
    made = KubeAPI("ns", lambda: ApiClient(configuration))
    yield made
    await made.close()


async def test_a_request_asks_no_thread_what_the_environment_says(
    api: KubeAPI, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Any:
        raise AssertionError("a thread was asked")

    monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", refuse)
    await api.create(SECRET)
    assert server.asked[0][:2] == ("POST", PATH)
    assert server.asked[0][3] == SECRET


async def test_of_what_is_made_only_the_name_tag_comes_back(api: KubeAPI, server: Server) -> None:
    """Pods are long, and nobody reads them a second time; a Secret's contents need not travel back."""
    await api.create(SECRET)
    assert ";as=PartialObjectMetadata;" in server.asked[0][2]["Accept"]


async def test_a_token_that_was_renewed_is_used_by_the_next_request(api: KubeAPI, server: Server) -> None:
    await api.create(SECRET)
    client, _ = api._connected()

    async def renew(configuration: Configuration) -> None:
        configuration.api_key["BearerToken"] = "Bearer second"

    client.configuration.refresh_api_key_hook = renew
    await api.create(SECRET)
    assert [asked[2]["Authorization"] for asked in server.asked] == ["Bearer first", "Bearer second"]


async def test_a_server_that_has_just_come_back_is_not_believed_who_may_do_what(server: Server) -> None:
    """It answers before it has read roles and accounts."""

    def refused(status: int, message: str) -> web.Response:
        return web.json_response({"message": message}, status=status)

    who = 'secrets is forbidden: User "hub" cannot create resource "secrets"'
    now = [100.0]
    configuration = Configuration(host=server.url)  # type: ignore[attr-defined]
    api = KubeAPI("ns", lambda: ApiClient(configuration), clock=lambda: now[0])

    async def passes(answer: web.Response) -> bool:
        server.answers.append(answer)
        with pytest.raises(APIError) as raised:
            await api.create(SECRET)
        return is_passing(raised.value)

    try:
        assert not await passes(refused(403, who))
        assert await passes(refused(503, "not ready"))
        now[0] += SETTLE_SECONDS - 1
        assert await passes(refused(403, who))
        assert await passes(refused(401, "Unauthorized"))
        assert not await passes(refused(403, "secrets is forbidden: exceeded quota: room"))
        now[0] += 2
        assert not await passes(refused(403, who))
        assert not await passes(refused(401, "Unauthorized"))
        configuration.host = f"http://127.0.0.1:{closed_port()}"
        with pytest.raises(NOT_NOW):
            await api.create(SECRET)
        configuration.host = server.url  # type: ignore[attr-defined]
        assert await passes(refused(403, who))
    finally:
        await api.close()


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def test_a_list_of_several_pages_comes_as_one_with_the_version_of_the_last(
    api: KubeAPI, server: Server
) -> None:
    for names, more in ((["a", "b"], "next page&"), (["c"], "")):
        page = {"items": names, "metadata": {"continue": more, "resourceVersion": "7"}}
        server.answers.append(web.json_response(page))
    assert await api.list("Secret", "galilean.io/run=x") == (["a", "b", "c"], "7")
    assert [asked[1] for asked in server.asked] == [
        f"{PATH}?labelSelector=galilean.io/run%3Dx&limit=250".replace("/run", "%2Frun"),
        f"{PATH}?labelSelector=galilean.io%2Frun%3Dx&limit=250&continue=next+page%26",
    ]


async def test_a_refusal_keeps_the_servers_words_and_when_to_ask_again(api: KubeAPI, server: Server) -> None:
    server.answers.append(web.json_response({"message": "slow"}, status=429, headers={"Retry-After": "3"}))
    with pytest.raises(APIError, match="429: slow") as refused:
        await api.create(SECRET)
    assert refused.value.retry_after == 3


async def test_what_is_not_there_is_deleted_already(api: KubeAPI, server: Server) -> None:
    server.answers.append(web.json_response({"message": "not found"}, status=404))
    assert not await api.delete("Secret", "s", uid="u")
    assert server.asked[0][3] == {"propagationPolicy": "Background", "preconditions": {"uid": "u"}}


def test_a_proxy_of_the_environment_is_taken_but_not_for_what_it_leaves_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTPS_PROXY", "NO_PROXY", "https_proxy", "no_proxy", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert proxy_of("https://10.0.0.1:443") is None
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "10.0.0.2")
    assert proxy_of("https://10.0.0.1:443") == "http://proxy:3128"
    assert proxy_of("https://10.0.0.2:443") is None


async def test_one_object_is_got_by_its_name_and_what_is_not_there_is_none(
    api: KubeAPI, server: Server
) -> None:
    assert await api.get("Secret", "s") == {"kind": "Secret"}
    assert server.asked[-1][:2] == ("GET", f"{PATH}/s")
    server.answers = [
        web.json_response({}, status=404),
        web.json_response({"message": "forbidden"}, status=403),
    ]
    assert await api.get("Secret", "s") is None
    with pytest.raises(APIError, match="forbidden"):
        await api.get("Secret", "s")


async def test_what_is_replaced_names_its_version_and_all_of_a_kind_are_listed_without_a_selector(
    api: KubeAPI, server: Server
) -> None:
    body = {"kind": "NetworkPolicy", "metadata": {"name": "p", "resourceVersion": "7"}}
    server.answers = [
        web.json_response({"metadata": {"generation": 2}}),
        web.json_response({"metadata": {"resourceVersion": "9"}, "items": None}),
    ]
    assert (await api.replace(body))["metadata"]["generation"] == 2
    method, path, _, sent = server.asked[-1]
    assert (method, path, sent) == (
        "PUT", "/apis/networking.k8s.io/v1/namespaces/ns/networkpolicies/p", body,
    )  # fmt: skip
    assert await api.list("Node", "") == ([], "9")
    assert server.asked[-1][1].startswith("/api/v1/nodes?limit=")
