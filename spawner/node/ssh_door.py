"""ssh from outside: ``galilean/ssh``, a websocket on the node's own route that ends in an sshd (TI-19).

No port is opened for it. A connection passes the proxy as everything else does, with a token of the person's
in a header (never in an address, never a browser's cookie), and only the owner of the cluster comes in:
so whoever speaks here reaches this one node and nothing else. Behind that, sshd asks for one of the person's
own keys, which the portal is asked for at every connection: a key that was removed opens nothing, and no
answer opens nothing either. While somebody is connected the portal is asked again, and who came with a key,
or a token, that is no more is cut off.

sshd runs as the account of the node and ends with the connection. What it says of a login tells which key it
was. Forwarding is as the centre says: to ports of the node alone, to anywhere, or not at all. To a socket by its
path only where it may go anywhere: sshd's list of permitted targets names hosts and ports, and where there is one it
takes no path at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import re
import signal
import socket
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_server.auth.decorator import ws_authenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from tornado import web
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from spawner.node.place import DIRECTORY, RANK, SSHD_CONFIG, Place
from spawner.node.ssh import SECRET_VARIABLES, find_sshd

#: How often it is looked whether keys and tokens of those who are connected still hold.
LOOK_SECONDS = 10.0
#: Of one node at a time; every window of an editor is one.
CONNECTIONS_MOST = 32
PIECE_BYTES = 64 * 1024
HOST_KEY_HEADER, ACCOUNT_HEADER = "Galilean-Host-Key", "Galilean-Account"
_ACCEPTED = re.compile(rb"^Accepted publickey for .* (SHA256:[A-Za-z0-9+/]{43})\s*$")
_LOOPBACK = "localhost:* 127.0.0.1:* [::1]:*"

#: ``ask(used)`` → what the portal says; raises when it does not answer. ``used``: fingerprints that signed in.
Ask = Callable[[list[str]], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True)
class Allowed:
    """Whom the node lets in by ssh, and how far.

    Attributes
    ----------
    keys
        Fingerprint → line of ``authorized_keys``, without options.
    forward
        ``localhost``, ``anywhere`` or ``no``.
    """

    keys: Mapping[str, str] = field(default_factory=dict)
    forward: str = "no"

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Allowed:
        """From the portal's answer; a line that is more than a key is left out."""
        keys = {
            str(item["fingerprint"]): str(item["public"])
            for item in said.get("keys", ())
            if len(str(item["public"]).split()) == 2 and str(item["public"]).isprintable()
        }
        return cls(keys, str(said.get("forward", "no")))


def options(allowed: Allowed, keys_file: Path) -> list[str]:
    """What sshd is told for a connection from outside, over its configuration."""
    forwards = {"localhost": "local", "anywhere": "yes"}.get(allowed.forward, "no")
    said = {
        "AuthorizedKeysFile": f'"{keys_file}"',
        "AllowTcpForwarding": forwards,
        "AllowStreamLocalForwarding": "yes" if allowed.forward == "anywhere" else "no",
        "PermitOpen": "any" if allowed.forward == "anywhere" else _LOOPBACK,
        "GatewayPorts": "no",
        "X11Forwarding": "no",
        "PermitTunnel": "no",
        "PermitUserEnvironment": "no",
        "PermitUserRC": "no",
        "LoginGraceTime": "60",
        "MaxAuthTries": "20",
        "ClientAliveInterval": "30",
        "ClientAliveCountMax": "4",
        "LogLevel": "VERBOSE",
    }
    return [word for name, value in said.items() for word in ("-o", f"{name}={value}")]


def fingerprint_of(line: bytes) -> str:
    """The key that a line of sshd's log tells of; empty for any other line."""
    found = _ACCEPTED.match(line.strip())
    return found.group(1).decode() if found else ""


class Door:
    """Starts an sshd for each connection, and ends those whose key or token is gone.

    Parameters
    ----------
    environ
        The node's environment.
    ask
        Asks the portal for keys.
    """

    def __init__(self, environ: Mapping[str, str], ask: Ask, *, log: Any) -> None:
        self._environ = {name: value for name, value in environ.items() if name not in SECRET_VARIABLES}
        self._ask, self._log = ask, log
        self._rank = environ.get(RANK, "0")
        config = environ.get(SSHD_CONFIG)
        if not config and environ.get(DIRECTORY):
            config = str(Path(environ[DIRECTORY]) / "ssh" / f"sshd-{self._rank}.conf")
        self.config = Path(config) if config else None
        self.connections: set[Connection] = set()
        self._task: asyncio.Task[None] | None = None
        self._sshd = find_sshd()

    @property
    def there(self) -> bool:
        """Whether this node can be reached by ssh at all."""
        return self._sshd is not None and self.config is not None and self.config.is_file()

    def host_key(self) -> str:
        """The node's host key, as ``known_hosts`` has it behind the name."""
        if self.config is None:
            return ""
        try:
            return (self.config.parent / "known_hosts").read_text().strip().partition(" ")[2]
        except OSError:
            return ""

    async def connect(self, still: Callable[[], Awaitable[bool]]) -> Connection:
        """An sshd with a line to it.

        Parameters
        ----------
        still
            Whether whoever connects may still come in; raises when that cannot be said.

        Raises
        ------
        Away
            When nobody can say which keys hold.
        """
        assert self._sshd is not None
        assert self.config is not None
        try:
            allowed = Allowed.read(await self._ask([]))
        except Exception as error:
            raise Away(str(error)) from error
        folder = self.config.parent
        keys_file = folder / f"person-{self._rank}"
        await asyncio.to_thread(_write, keys_file, "".join(f"{line}\n" for line in allowed.keys.values()))
        connection = await Connection.open(
            [self._sshd, "-i", "-e", "-f", str(self.config), *options(allowed, keys_file)],
            self._environ,
            still,
        )
        self.connections.add(connection)
        connection.told.add_done_callback(lambda _: self._came(connection))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())
        return connection

    def forget(self, connection: Connection) -> None:
        """A connection has ended."""
        self.connections.discard(connection)

    def _came(self, connection: Connection) -> None:
        if not connection.told.cancelled() and (used := connection.told.result()):
            self._log.info("Somebody came by ssh with the key %s", used)
            task = asyncio.create_task(self._tell(used))
            self._telling = task

    async def _tell(self, used: str) -> None:
        with contextlib.suppress(Exception):  # when it was used is told the next time
            await self._ask([used])

    async def _watch(self) -> None:
        """Look after those who are connected, as long as somebody is."""
        while self.connections:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except Exception as error:
                self._log.warning("Who is connected by ssh was not looked after: %s", error)

    async def look(self) -> None:
        """Cut off who came with a key or a token that is no more; nobody, where that cannot be said."""
        if not self.connections:
            return
        allowed: Allowed | None = None
        with contextlib.suppress(Exception):
            allowed = Allowed.read(await self._ask([]))
        for connection in list(self.connections):
            used = connection.key
            gone = allowed is not None and bool(used) and used not in allowed.keys
            if not gone:
                try:
                    gone = not await connection.still()
                except Exception:
                    gone = False
            if gone:
                self._log.info("A connection by ssh was cut off: its key or token is no more")
                connection.end()


class Away(Exception):
    """The portal does not say which keys hold."""


class Connection:
    """One sshd and the socket to it."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        line: socket.socket,
        still: Callable[[], Awaitable[bool]],
    ) -> None:
        self._process, self._line, self.still = process, line, still
        self._loop = asyncio.get_running_loop()
        #: The key that signed in, once it has; empty when the connection ended before.
        self.told: asyncio.Future[str] = self._loop.create_future()
        self._reading = self._loop.create_task(self._read_log())
        self.ended = False

    @classmethod
    async def open(
        cls, command: list[str], environ: Mapping[str, str], still: Callable[[], Awaitable[bool]]
    ) -> Connection:
        """Start the sshd."""
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", 0o755, exist_ok=True)  # sshd refuses to run as root without it
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=asyncio.subprocess.PIPE,
                    env=dict(environ),
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        return cls(process, ours, still)

    @property
    def key(self) -> str:
        """Fingerprint of the key that signed in; empty before."""
        return self.told.result() if self.told.done() and not self.told.cancelled() else ""

    async def _read_log(self) -> None:
        """What sshd says: which key it was. All of it is read, so that it never waits for a reader."""
        assert self._process.stderr is not None
        try:
            while True:
                try:
                    line = await self._process.stderr.readline()
                except ValueError:  # longer than any line of sshd
                    continue
                if not line:
                    break
                if (found := fingerprint_of(line)) and not self.told.done():
                    self.told.set_result(found)
        finally:
            if not self.told.done():
                self.told.set_result("")

    async def send(self, content: bytes) -> None:
        """Hand bytes to sshd; waits while it does not take them."""
        await self._loop.sock_sendall(self._line, content)

    async def receive(self) -> bytes:
        """What sshd says next; empty at its end."""
        try:
            return await self._loop.sock_recv(self._line, PIECE_BYTES)
        except OSError:
            return b""

    def end(self) -> None:
        """End it; what was started through it and does not need it goes on, as with any lost connection."""
        if self.ended:
            return
        self.ended = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)

    async def close(self) -> None:
        """End it, and let go of what it held."""
        self.end()
        self._line.close()
        try:
            await asyncio.wait_for(self._process.wait(), 5)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        # A program that left its session may hold the other end of the log for ever.
        self._reading.cancel()


class SshSocket(WebSocketMixin, WebSocketHandler, JupyterHandler):
    """``galilean/ssh``: bytes of ssh in both directions."""

    auth_resource = "server"
    connection: Connection | None = None
    pump: asyncio.Task[None] | None = None

    def initialize(self, place: Place) -> None:
        self.place = place

    @property
    def door(self) -> Door | None:
        return self.settings.get("galilean_ssh")

    @ws_authenticated
    async def get(self, *args: Any, **kwargs: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        owner = os.environ.get("JUPYTERHUB_USER", "")
        if self.current_user is None:
            raise web.HTTPError(403)
        if owner and self.current_user.username != owner:
            raise web.HTTPError(403, reason="Only its owner comes into a node by ssh.")
        if "Origin" in self.request.headers:  # a browser, which has other doors
            raise web.HTTPError(403, reason="ssh is not spoken by pages.")
        if "token" in self.request.arguments or not self.token_authenticated:
            raise web.HTTPError(403, reason="ssh needs a token in the Authorization header.")
        if self.door is None or not self.door.there:
            raise web.HTTPError(501, reason="This node has no sshd.")
        if len(self.door.connections) >= CONNECTIONS_MOST:
            raise web.HTTPError(429, reason="Too many ssh connections to this node.")
        try:
            self.connection = await self.door.connect(self._still())
        except Away:
            raise web.HTTPError(503, reason="The portal does not say which keys hold.") from None
        self.set_header(HOST_KEY_HEADER, self.door.host_key())
        self.set_header(ACCOUNT_HEADER, pwd.getpwuid(os.geteuid()).pw_name)
        try:
            await super().get(*args, **kwargs)
        finally:
            if self.ws_connection is None:  # it was no websocket
                await self._let_go()

    def _still(self) -> Callable[[], Awaitable[bool]]:
        """Whether the token that came in still holds, asked of the hub anew."""
        hub_auth = getattr(self.identity_provider, "hub_auth", None)
        if hub_auth is None:

            async def always() -> bool:
                return True

            return always
        token = hub_auth.get_token(self)

        async def still() -> bool:
            model = await hub_auth.user_for_token(token, use_cache=False, sync=False)
            return bool(model) and bool(hub_auth.check_scopes(hub_auth.access_scopes, model))

        return still

    def open(self, *args: Any, **kwargs: Any) -> None:
        super().open(*args, **kwargs)
        self.set_nodelay(True)
        self.pump = asyncio.create_task(self._pump())

    async def _pump(self) -> None:
        assert self.connection is not None
        try:
            while content := await self.connection.receive():
                await self.write_message(content, binary=True)
        except WebSocketClosedError:
            return
        self.close(1000)

    async def on_message(self, message: str | bytes) -> None:
        """Bytes for sshd; the next message waits until it took them."""
        if isinstance(message, str) or self.connection is None:
            self.close(1003)
            return
        with contextlib.suppress(OSError):
            await self.connection.send(message)

    def on_close(self) -> None:
        super().on_close()
        self._closing = asyncio.create_task(self._let_go())

    async def _let_go(self) -> None:
        if self.pump is not None:
            self.pump.cancel()
        connection, self.connection = self.connection, None
        if connection is not None:
            if self.door is not None:
                self.door.forget(connection)
            await connection.close()

    def get_compression_options(self) -> None:
        return None


def portal_asks(fetch: Callable[..., Awaitable[tuple[int, Any]]], place: Place) -> Ask:
    """Ask the portal, as the node, which keys its owner has."""

    async def ask(used: list[str]) -> Mapping[str, Any]:
        body = {"server": place.server, "run": place.run, "rank": place.rank, "used": used}
        status, said = await fetch("POST", "/api/v1/node/ssh-keys", body, "en")
        if status == 409:  # this run has ended: nobody comes in any more
            return {"keys": []}
        if status != 200 or not isinstance(said, dict):
            raise ConnectionError(f"the portal answers {status}")
        return said

    return ask


def routes(base: str, place: Place) -> list[tuple[Any, ...]]:
    """Routes below the pattern of a node's prefix."""
    return [(f"{base}galilean/ssh", SshSocket, {"place": place})]


def _write(path: Path, content: str) -> None:
    """Put a file in place as a whole, for its owner alone, also when others do so at the same moment."""
    fd, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(fd, "w", encoding="ascii") as file:
            file.write(content)
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        raise
