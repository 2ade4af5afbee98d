"""The few answers of an API server that machines need, on a real socket, with patches that really merge."""

from __future__ import annotations

import copy
import json
from typing import Any

from kubernetes_asyncio.client import ApiClient, Configuration
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from services.machines.kube import MachineAPI

NAMESPACE = "galilean"


def node(name: str, **more: Any) -> dict[str, Any]:
    """A machine as the API server tells of it."""
    body = {
        "metadata": {
            "name": name,
            "resourceVersion": "1",
            "labels": {"kubernetes.io/hostname": name},
            "creationTimestamp": "2026-03-01T00:00:00Z",
        },
        "spec": {},
        "status": {
            "allocatable": {"cpu": "15500m", "memory": "60Gi", "nvidia.com/gpu": "2", "pods": "110"},
            "capacity": {"cpu": "16", "memory": "65536Mi", "nvidia.com/gpu": "2"},
            "conditions": [
                {"type": "MemoryPressure", "status": "False"},
                {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-03-02T09:00:00Z"},
            ],
            "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
            "nodeInfo": {"kubeletVersion": "v1.33.13"},
        },
    }
    return merge(body, more)


def pod(name: str, machine: str, **more: Any) -> dict[str, Any]:
    body = {
        "metadata": {"name": name, "labels": {}},
        "spec": {
            "nodeName": machine,
            "containers": [{"resources": {"requests": {"cpu": "250m", "memory": "256Mi"}}}],
        },
        "status": {"phase": "Running"},
    }
    return merge(body, more)


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    found = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merge(found.get(key), value)
    return found


class FakeAPI:
    """What is there, and what was asked for. ``budget`` pods cannot be evicted now."""

    def __init__(self) -> None:
        self.nodes: dict[str, dict[str, Any]] = {}
        self.pods: dict[str, dict[str, Any]] = {}
        self.secrets: list[dict[str, Any]] = []
        self.cluster_info: str | None = None
        self.budget: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.clients: list[MachineAPI] = []

    def add(self, *items: dict[str, Any]) -> None:
        for item in items:
            kind = self.pods if "nodeName" in item["spec"] else self.nodes
            kind[item["metadata"]["name"]] = item

    def start(self) -> MachineAPI:
        """Listen; a client of it."""
        sock, port = bind_unused_port()
        self.server = HTTPServer(
            Application(
                [
                    (r"/api/v1/nodes(?:/([^/]+))?", _Nodes, {"api": self}),
                    (r"/api/v1/namespaces/(galilean(?:-agents)?)/pods", _Pods, {"api": self}),
                    (r"/api/v1/namespaces/galilean/pods/([^/]+)/eviction", _Eviction, {"api": self}),
                    (r"/api/v1/namespaces/kube-system/secrets", _Secrets, {"api": self}),
                    (r"/api/v1/namespaces/kube-public/configmaps/cluster-info", _Info, {"api": self}),
                ],
                log_function=lambda handler: None,
            )
        )
        self.server.add_socket(sock)
        configuration = Configuration(host=f"http://127.0.0.1:{port}")
        self.clients.append(MachineAPI(NAMESPACE, lambda: ApiClient(configuration)))
        return self.clients[-1]


class _Base(RequestHandler):
    def initialize(self, api: FakeAPI) -> None:
        self.api = api

    def prepare(self) -> None:
        self.api.asked.append((self.request.method or "", self.request.uri or ""))

    def check_xsrf_cookie(self) -> None:
        pass

    def answer(self, body: Any, status: int = 200) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(body))

    def refuse(self, status: int, message: str = "no") -> None:
        self.answer({"kind": "Status", "message": message}, status)

    def answer_list(self, items: list[Any]) -> None:
        """In pages of two, whatever was asked for."""
        begin = int(self.get_argument("continue", "0"))
        page, rest = items[begin : begin + 2], items[begin + 2 :]
        more = {"continue": str(begin + 2)} if rest else {}
        self.answer({"items": page or None, "metadata": {"resourceVersion": "9", **more}})


class _Nodes(_Base):
    def get(self, name: str | None) -> None:
        if name is None:
            self.answer_list(list(self.api.nodes.values()))
        elif name in self.api.nodes:
            self.answer(self.api.nodes[name])
        else:
            self.refuse(404)

    def patch(self, name: str) -> None:
        assert self.request.headers["Content-Type"] == "application/merge-patch+json"
        body = json.loads(self.request.body)
        there = self.api.nodes[name]
        version = body.get("metadata", {}).get("resourceVersion")
        if version is not None and version != there["metadata"]["resourceVersion"]:
            self.refuse(409, "the object has been modified")
            return
        after = merge(copy.deepcopy(there), body)
        after["metadata"]["resourceVersion"] = str(int(there["metadata"]["resourceVersion"]) + 1)
        self.api.nodes[name] = after
        self.answer(after)

    def delete(self, name: str) -> None:
        if self.api.nodes.pop(name, None) is None:
            self.refuse(404)
        else:
            self.answer({"kind": "Status"})


class _Pods(_Base):
    def get(self, namespace: str) -> None:
        selector = self.get_argument("labelSelector", "")
        place = self.get_argument("fieldSelector", "").removeprefix("spec.nodeName=")
        found = [
            item
            for item in self.api.pods.values()
            if item["metadata"].get("namespace", NAMESPACE) == namespace
            and (not place or item["spec"]["nodeName"] == place)
            and (
                not selector or (selector.lstrip("!") in item["metadata"]["labels"]) is selector[0].isalpha()
            )
        ]
        self.answer_list(found)


class _Eviction(_Base):
    def post(self, name: str) -> None:
        if name in self.api.budget:
            self.refuse(429, "it would violate the pod's disruption budget")
        elif self.api.pods.pop(name, None) is None:
            self.refuse(404)
        else:
            self.answer({"kind": "Status"}, 201)


class _Secrets(_Base):
    def post(self) -> None:
        self.api.secrets.append(json.loads(self.request.body))
        self.answer(self.api.secrets[-1], 201)


class _Info(_Base):
    def get(self) -> None:
        if self.api.cluster_info is None:
            self.refuse(404)
        else:
            self.answer({"data": {"kubeconfig": self.api.cluster_info}})
