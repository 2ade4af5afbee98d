"""Jupyter's kernel manager and kernel connection, with one listener each (:mod:`spawner.node.headless`)."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from jupyter_client.session import Session
from jupyter_server.services.kernels.connection.base import deserialize_msg_from_ws_v1
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager

from spawner.node.headless import CLEAN_CLOSES, Headless

#: What is kept for a page that may come back; of more, nothing: it reads the file.
BUFFER_BYTES = 32 * 2**20
V1 = "v1.kernel.websocket.jupyter.org"


class NodeKernelManager(AsyncMappingKernelManager):
    """Listens to every kernel from its start."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.headless = Headless()

    # ------------------------------------------------------------------------------------------ listening

    def start_watching_activity(self, kernel_id: str) -> None:
        super().start_watching_activity(kernel_id)
        kernel = self._kernels[kernel_id]
        self._close_stream(kernel)
        protocol = Session(config=kernel.session.config, key=kernel.session.key)
        stream = kernel._galilean_stream = kernel.connect_iopub()

        def heard(parts: list[Any]) -> None:
            _, fed = protocol.feed_identities(parts)
            message = protocol.deserialize(fed, content=False)
            self.headless.heard(
                kernel_id,
                message["header"]["msg_type"],
                (message.get("parent_header") or {}).get("msg_id", ""),
                lambda: protocol.unpack(message["content"]),
            )

        stream.on_recv(heard)
        self.headless.watch(kernel_id, stream)
        if not getattr(kernel, "_galilean_heeds", False):
            kernel._galilean_heeds = True
            for event, state in (("restart", "starting"), ("dead", "dead")):
                self.add_restart_callback(kernel_id, partial(self._died, kernel_id, kernel, state), event)

    def _died(self, kernel_id: str, kernel: Any, state: str) -> None:
        self.headless.ended(kernel_id, restarts=True)
        # Jupyter's server takes the state from what a kernel says. The last word of one that died at work is "busy",
        # and of its successor's first words it hears only what comes after its ear is connected again: often nothing.
        kernel.execution_state = state

    def stop_watching_activity(self, kernel_id: str) -> None:
        self._close_stream(self._kernels[kernel_id])
        super().stop_watching_activity(kernel_id)

    @staticmethod
    def _close_stream(kernel: Any) -> None:
        stream = getattr(kernel, "_galilean_stream", None)
        if stream is not None and not stream.closed():
            stream.on_recv(None)
            stream.close()
        kernel._galilean_stream = None

    async def _async_restart_kernel(self, kernel_id: str, now: bool = False) -> Any:
        self.headless.ended(kernel_id, restarts=True)
        return await super()._async_restart_kernel(kernel_id, now=now)

    restart_kernel = _async_restart_kernel  # type: ignore[assignment]

    async def _async_shutdown_kernel(self, kernel_id: str, now: bool = False, restart: bool = False) -> Any:
        if not restart and kernel_id in self:
            await self.headless.forget(kernel_id)
        return await super()._async_shutdown_kernel(kernel_id, now=now, restart=restart)

    shutdown_kernel = _async_shutdown_kernel  # type: ignore[assignment]

    # ------------------------------------------------------------------------------------------ buffering

    def start_buffering(self, kernel_id: str, session_key: str, channels: dict[str, Any]) -> None:
        """Keep what is said for a page that is away: bounded, and with an ear for questions."""
        super().start_buffering(kernel_id, session_key, channels)
        info = self._kernel_buffers.get(kernel_id)
        if info is None or info["channels"] is not channels:
            return
        session = session_key.partition(":")[2]
        kernel = self.get_kernel(kernel_id)
        protocol = Session(config=kernel.session.config, key=kernel.session.key)
        info.update(bytes=0, full=False)

        def keep(channel: str, parts: list[Any]) -> None:
            if channel == "stdin":
                self._asked(kernel_id, session, protocol, parts)
            if info["full"]:
                return
            info["bytes"] += sum(len(part) for part in parts)
            info["buffer"].append((channel, parts))
            if info["bytes"] > BUFFER_BYTES:
                info["full"] = True
                info["buffer"].clear()

        for channel, stream in channels.items():
            stream.on_recv(partial(keep, channel))
        self.headless.keep_stdin(kernel_id, session, channels["stdin"], protocol)

    def stop_buffering(self, kernel_id: str) -> None:
        info = self._kernel_buffers.get(kernel_id) if kernel_id in self._kernel_buffers else None
        if info is not None and info["channels"]:
            session = info["session_key"].partition(":")[2]
            if self.headless.has_running(kernel_id, session):
                channels, info["channels"] = info["channels"], {}
                self.keep_channels(kernel_id, session, channels)
        super().stop_buffering(kernel_id)

    def keep_channels(self, kernel_id: str, session: str, channels: dict[str, Any]) -> None:
        """Hold channels open for executions under way; questions on them are answered, all else is dropped."""
        kernel = self.get_kernel(kernel_id)
        protocol = Session(config=kernel.session.config, key=kernel.session.key)

        def drop(channel: str, parts: list[Any]) -> None:
            if channel == "stdin":
                self._asked(kernel_id, session, protocol, parts)

        for channel, stream in channels.items():
            stream.on_recv(partial(drop, channel))
        self.headless.keep_stdin(kernel_id, session, channels["stdin"], protocol)
        self.headless.keep_channels(kernel_id, session, channels)

    def _asked(self, kernel_id: str, session: str, protocol: Session, parts: list[Any]) -> None:
        _, fed = protocol.feed_identities(parts)
        message = protocol.deserialize(fed)
        if message["header"]["msg_type"] == "input_request":
            self.headless.asked_nobody(kernel_id, session, message)


class NodeKernelConnection(ZMQChannelsWebsocketConnection):
    """Tells which cell a request is of, and when its page comes and goes."""

    @property
    def headless(self) -> Headless | None:
        return getattr(self.multi_kernel_manager, "headless", None)

    def connect(self) -> Any:
        info = self.multi_kernel_manager._kernel_buffers
        buffered: dict[str, Any] = info.get(self.kernel_id, {})  # a defaultdict: only looked at
        missed = buffered.get("session_key") != self.session_key or bool(buffered.get("full"))
        connected = super().connect()
        if connected is not None and self.headless is not None:
            self.headless.joined(self.kernel_id, self.session.session, self, missed=missed)
        return connected

    def disconnect(self) -> None:
        manager, headless, session = self.multi_kernel_manager, self.headless, self.session.session
        if headless is not None and self.channels and self.kernel_id in manager:
            others = manager._kernel_connections.get(self.kernel_id, 0) > 1
            if others and headless.has_running(self.kernel_id, session):
                channels, self.channels = self.channels, {}
                manager.keep_channels(self.kernel_id, session, channels)
        super().disconnect()
        if headless is not None:
            clean = self.websocket_handler.close_code in CLEAN_CLOSES
            headless.left(self.kernel_id, session, self, clean=clean)

    def handle_incoming_message(self, incoming_msg: Any) -> None:
        if self.headless is not None:
            try:
                self._note(incoming_msg)
            except (ValueError, KeyError, TypeError, AttributeError):
                pass  # not a message; Jupyter's own code says so
        super().handle_incoming_message(incoming_msg)

    def _note(self, incoming: Any) -> None:
        headless = self.headless
        if headless is None:
            return
        if self.subprotocol == V1:
            channel, parts = deserialize_msg_from_ws_v1(incoming)
            if channel not in ("shell", "stdin"):
                return
            header = json.loads(_bytes(parts[0]))
            if header["msg_type"] == "execute_request":
                metadata, content = json.loads(_bytes(parts[2])), json.loads(_bytes(parts[3]))
        elif isinstance(incoming, str):
            message = json.loads(incoming)
            header, metadata, content = message["header"], message.get("metadata") or {}, message["content"]
        else:
            return
        if header["msg_type"] == "execute_request":
            headless.sent(self.kernel_id, header, metadata, str(content.get("code", "")))
        elif header["msg_type"] == "input_reply":
            headless.asked_page(self.kernel_id, self.session.session, None)

    def handle_outgoing_message(self, stream: Any, outgoing_msg: list[Any]) -> None:
        channel = stream if isinstance(stream, str) else getattr(stream, "channel", None)
        if channel == "stdin" and self.headless is not None:
            _, fed = self.session.feed_identities(outgoing_msg)
            header, parent = (json.loads(_bytes(part)) for part in fed[1:3])
            message = {
                "header": header,
                "parent_header": parent,
                "metadata": {},
            }
            if message["header"].get("msg_type") == "input_request":
                self.headless.asked_page(self.kernel_id, self.session.session, message)
        super().handle_outgoing_message(stream, outgoing_msg)


def _bytes(part: Any) -> bytes:
    return bytes(part)
