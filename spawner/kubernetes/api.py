"""The few verbs that clusters of pods need of the API server, on plain data.

Generated clients turn every answer into objects of hundreds of classes, on the hub's one thread; we keep
the JSON. They also go to a thread twice for each request, for what the environment and a file say of
proxies: of theirs we use only what knows where the API server is and how to be let in. Every request has
a time limit. Lists come in pages, so that no answer of thousands of pods holds the loop for long.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes_asyncio.client import ApiClient, Configuration
from yarl import URL

REQUEST_SECONDS = 10.0
PAGE = 250
#: An API server that comes back answers before it has read who may do what, and refuses everybody meanwhile.
SETTLE_SECONDS = 30.0
_LIMIT = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
_READ_BYTES = 2**20
_PATHS = {
    "Pod": "/api/v1/namespaces/{namespace}/pods",
    "Secret": "/api/v1/namespaces/{namespace}/secrets",
    "Service": "/api/v1/namespaces/{namespace}/services",
    "PersistentVolumeClaim": "/api/v1/namespaces/{namespace}/persistentvolumeclaims",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies",
    "Node": "/api/v1/nodes",
    "Event": "/api/v1/namespaces/{namespace}/events",
    # Those of the Service "kubernetes", which is in that namespace always.
    "EndpointSlice": "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
}
_ONLY_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_ONLY_METADATA_OF_ONE = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


class APIError(Exception):
    """The API server said no.

    Attributes
    ----------
    status
        HTTP status.
    message
        Its own words.
    retry_after
        Seconds after which it wants to be asked again; 0 = it did not say.
    settling
        It refused us a moment after it had been away, when it need not know our rights yet.
    """

    def __init__(self, status: int, message: str, retry_after: float = 0, *, settling: bool = False) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message
        self.retry_after = retry_after
        self.settling = settling


#: What may have nothing to do with the request: asked again, it may be answered.
NOT_NOW = (aiohttp.ClientError, TimeoutError, OSError)


def is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, APIError):
        return error.settling or error.status in (429, 500, 502, 503, 504)
    return isinstance(error, NOT_NOW)


class KubeAPI:
    """The objects of one namespace.

    Parameters
    ----------
    namespace
        Where all clusters of this installation are.
    client
        Makes the connection when it is first needed, on the loop that needs it; what it is configured
        with (the pod's own account, or a kubeconfig) is the caller's.
    """

    def __init__(
        self,
        namespace: str,
        client: Callable[[], ApiClient] = ApiClient,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.namespace = namespace
        self._clock = clock
        self._away_at: float | None = None
        self._make = client
        self._client: ApiClient | None = None
        self._http: aiohttp.ClientSession | None = None
        self._how: dict[str, Any] = {}

    @staticmethod
    def servers() -> list[str]:
        """Hosts at which the API server is known: by what connections are made with, and inside of Kubernetes."""
        configured = urlsplit(str(Configuration.get_default_copy().host)).hostname
        return [host for host in (configured, os.environ.get("KUBERNETES_SERVICE_HOST")) if host]

    async def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object; what the API server calls it (its ``metadata``, no contents).

        Raises
        ------
        APIError
            409 when one of this name exists, 403 when a quota or a policy forbids it.
        """
        return await self._ask(
            "POST", self._path(body["kind"]), body=body, headers={"Accept": _ONLY_METADATA_OF_ONE}
        )

    async def replace(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Put an object in the place of the version of it that ``body`` names; its new ``metadata``.

        Raises
        ------
        APIError
            409 when it is another version by now, 404 when it is gone.
        """
        path = f"{self._path(body['kind'])}/{body['metadata']['name']}"
        return await self._ask("PUT", path, body=body, headers={"Accept": _ONLY_METADATA_OF_ONE})

    async def delete(self, kind: str, name: str, *, uid: str = "", grace_seconds: int | None = None) -> bool:
        """Delete an object and, in the background, what it owns; ``False`` when there is none.

        With ``uid`` only that very object; another of the same name counts as none.
        """
        options: dict[str, Any] = {"propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        try:
            await self._ask("DELETE", f"{self._path(kind)}/{name}", body=options)
        except APIError as error:
            if error.status == 404 or (uid and error.status == 409):
                return False
            raise
        return True

    async def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """An object by its name; ``None`` when there is none."""
        try:
            return await self._ask("GET", f"{self._path(kind)}/{name}")
        except APIError as error:
            if error.status == 404:
                return None
            raise

    async def list(
        self, kind: str, selector: str, *, fields: str = "", only_metadata: bool = False
    ) -> tuple[list[dict[str, Any]], str]:
        """All objects of a kind that a label selector names, as they are now, and the list's version.

        An empty selector names all; ``fields`` is a field selector. Complete or an exception. With ``only_metadata`` no contents are asked for.
        """
        found: list[dict[str, Any]] = []
        more = ""
        while True:
            query = [("limit", str(PAGE))]
            if selector:
                query.insert(0, ("labelSelector", selector))
            if fields:
                query.append(("fieldSelector", fields))
            if more:
                query.append(("continue", more))
            headers = {"Accept": _ONLY_METADATA} if only_metadata else None
            page = await self._ask("GET", self._path(kind), query=query, headers=headers)
            found += page["items"] or ()  # of nothing, only the metadata is null
            more = page["metadata"].get("continue", "")
            if not more:
                return found, page["metadata"]["resourceVersion"]

    async def watch(
        self, kind: str, selector: str, version: str, *, seconds: int, silence_seconds: float
    ) -> AsyncIterator[dict[str, Any]]:
        """Events since ``version``, first ``{"type": "OPEN"}`` once the server listens.

        Ends when the server ends it, after ``seconds`` at the latest; a silence longer than
        ``silence_seconds`` is an exception.
        """
        query = [
            ("labelSelector", selector),
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", version),
            ("timeoutSeconds", str(seconds)),
        ]
        limit = aiohttp.ClientTimeout(
            total=None, connect=REQUEST_SECONDS, sock_connect=REQUEST_SECONDS, sock_read=silence_seconds
        )
        answer = await self._send("GET", self._path(kind), query=query, limit=limit)
        try:
            await self._checked(answer)
            yield {"type": "OPEN"}
            rest = b""
            async for piece in answer.content.iter_any():
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield json.loads(line)
        finally:
            answer.close()

    async def close(self) -> None:
        """Let go of the connections."""
        if self._http is not None:
            http, self._http = self._http, None
            await http.close()
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()

    def _path(self, kind: str) -> str:
        return _PATHS[kind].format(namespace=self.namespace)

    async def _ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        async with asyncio.timeout(REQUEST_SECONDS):
            answer = await self._send(method, path, **more)
            try:
                await self._checked(answer)
                return json.loads(await answer.read())
            finally:
                answer.release()

    async def _send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: list[tuple[str, str]] | None = None,
        headers: dict[str, str] | None = None,
        limit: aiohttp.ClientTimeout | None = None,
    ) -> aiohttp.ClientResponse:
        client, http = self._connected()
        given = {"Accept": "application/json", "Content-Type": "application/json", **(headers or {})}
        await client.update_params_for_auth(given, [], ["BearerToken"])
        question = f"?{urlencode(query)}" if query else ""
        try:
            return await http.request(
                method,
                URL(f"{client.configuration.host}{path}{question}", encoded=True),
                data=None if body is None else json.dumps(body).encode(),
                headers=given,
                timeout=limit or _LIMIT,
                **self._how,
            )
        except NOT_NOW:
            self._away_at = self._clock()
            raise

    async def _checked(self, answer: aiohttp.ClientResponse) -> None:
        if answer.status < 400:
            return
        content = await answer.read()
        try:
            message = str(json.loads(content).get("message", ""))
        except (ValueError, AttributeError):
            message = content[:200].decode(errors="replace")
        if answer.status in (502, 503, 504):
            self._away_at = self._clock()
        back = self._away_at is not None and self._clock() - self._away_at < SETTLE_SECONDS
        wait = answer.headers.get("Retry-After", "")
        raise APIError(
            answer.status,
            message or answer.reason or "",
            float(wait) if wait.isdigit() else 0.0,
            # What a quota or a policy refuses is another word than who may not.
            settling=back and (answer.status == 401 or (answer.status == 403 and 'User "' in message)),
        )

    def _connected(self) -> tuple[ApiClient, aiohttp.ClientSession]:
        if self._client is None or self._http is None:
            client = self._client = self._make()
            configuration = client.configuration
            connector = client.rest_client.pool_manager.connector
            self._http = aiohttp.ClientSession(
                connector=connector, connector_owner=False, read_bufsize=_READ_BYTES
            )
            self._how = {
                "proxy": configuration.proxy or proxy_of(str(configuration.host)),
                "proxy_headers": configuration.proxy_headers,
                "server_hostname": configuration.tls_server_name,
            }
        return self._client, self._http


def proxy_of(url: str) -> str | None:
    """The proxy that the environment names for a URL; ``None`` = straight."""
    parts = urlsplit(url)
    if proxy_bypass(parts.hostname or ""):
        return None
    return getproxies().get(parts.scheme)
