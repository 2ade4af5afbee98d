"""Code in a node, as a notebook runs it: a kernel by the node's own API, one cell, its output."""

from __future__ import annotations

import json
import uuid
from typing import Any

from websockets.sync.client import connect

from tests.product.product import Person


def in_node(
    person: Person, server: str, source: str, rank: int = 0, *, origin: str = "", sock: Any = None
) -> str:
    """What a cell prints on a node; an error of the cell fails the test.

    ``origin`` and ``sock``: where nodes have hosts of their own, which only a browser finds.
    """
    product = person.product
    between = f"node-{rank}/" if rank else ""
    base = f"/user/{person.name}/{server}/{between}api/kernels"
    kernel = person.api("POST", base, json={}).raise_for_status().json()["id"]
    session = uuid.uuid4().hex
    header = {"msg_id": uuid.uuid4().hex, "session": session, "username": "", "msg_type": "execute_request"}
    content = {"code": source, "silent": False, "store_history": False, "allow_stdin": False}
    message = {
        "header": {**header, "version": "5.3"},
        "parent_header": {},
        "metadata": {},
        "content": content,
        "channel": "shell",
        "buffers": [],
    }
    said: list[str] = []
    try:
        with connect(
            f"{(origin or product.url).replace('http', 'ws', 1)}{base}/{kernel}/channels?session_id={session}",
            additional_headers={"Authorization": f"token {person.token}"},
            open_timeout=90,
            sock=sock,
        ) as channel:
            channel.send(json.dumps(message))
            while True:
                told = json.loads(channel.recv(timeout=120))
                if told["parent_header"].get("msg_id") != header["msg_id"]:
                    continue
                kind = told["msg_type"]
                if kind == "stream":
                    said.append(told["content"]["text"])
                assert kind != "error", "\n".join(told["content"]["traceback"])
                if kind == "status" and told["content"]["execution_state"] == "idle":
                    return "".join(said)
    finally:
        person.api("DELETE", f"{base}/{kernel}")
