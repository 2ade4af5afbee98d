"""``galilean up`` and ``galilean part``: everything before the supervisor or the one part begins.

In this order: settings, the state directory and its lock, room on the disk, the proxy's program, the public
port, the inner ports, secrets, our database, the first administrator; then the parts. Whatever is missing is
said in a sentence and nothing is started.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import NoReturn

from galilean.clock import utcnow
from galilean.db import Database
from galilean.errors import UserError, mark
from galilean.hubapi import HubAPI
from galilean.migrate import missing, upgrade
from galilean.settings import Settings, load_settings
from galilean.terminal import sentence
from hub_config import registry
from hub_config.addresses import Addresses, given
from hub_config.backup.half import refuse_half_restored
from hub_config.build import browser_url, hub_api_url, hub_traits
from hub_config.parts import ALONE, all_parts, find_proxy, no_such_part, part_of
from hub_config.ports import is_free, keep_ports, read_ports
from hub_config.secrets import first_admin, given_admin, given_directory, load_secrets, needed_by
from hub_config.seeding import seed_database
from hub_config.supervisor import Lock, Supervisor

LEAST_FREE_BYTES = 200 * 2**20
RELEASE_SECONDS = 60.0


def config_file(environ: dict[str, str]) -> Path | None:
    """The settings file that is in use, as an absolute path."""
    named = environ.get("GALILEAN_CONFIG", "")
    path = Path(named) if named else Path("galilean.yaml")
    return path.absolute() if path.exists() else None


def prepare_state(state: Path) -> None:
    """Make the state directory, private.

    Raises
    ------
    UserError
        When it cannot be made or written, or the disk is nearly full.
    """
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        state.chmod(0o700)
        for name in ("run", "logs", "secrets", "volumes", "clusters"):
            (state / name).mkdir(exist_ok=True, mode=0o700)
        probe = state / "run" / ".writable"
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise disk_full(state, 0) from error
        raise UserError(
            503,
            mark("The state directory {state} cannot be written: {why}. Choose another with GALILEAN_STATE."),
            state=str(state),
            why=error.strerror or str(error),
        ) from error
    free = shutil.disk_usage(state).free
    if free < LEAST_FREE_BYTES:
        raise disk_full(state, free)


def disk_full(state: Path, free_bytes: int) -> UserError:
    """Said plainly."""
    return UserError(
        507,
        mark("The disk of {state} is full: {free} MB are free, 200 MB are needed. Free some space first."),
        state=str(state),
        free=free_bytes // 2**20,
    )


def check_public_port(settings: Settings, patience_seconds: float = 3.0) -> None:
    """Whether the proxy can listen; a proxy that is just ending gets a moment.

    Raises
    ------
    UserError
        409 when the port is taken.
    """
    until = monotonic() + patience_seconds
    while not is_free(settings.web.host, settings.web.port):
        if monotonic() > until:
            raise UserError(
                409,
                mark(
                    "Port {port} on {host} is taken by another program. Stop it, or choose another port: "
                    "PORT={other} make up."
                ),
                port=settings.web.port,
                host=settings.web.host,
                other=settings.web.port + 1,
            )
        sleep(0.2)


def check_kubeconfig() -> None:
    """Whether there is an account for Kubernetes; asks nobody.

    Raises
    ------
    UserError
        503 when there is none.
    """
    from kubernetes_asyncio.config import ConfigException
    from kubespawner.clients import load_config

    try:
        load_config()
    except ConfigException as error:
        raise UserError(
            503,
            mark("There is no account for Kubernetes: {why} KUBECONFIG names a file with one."),
            why=str(error),
        ) from error


def up(say: Callable[[str], None], environ: dict[str, str] | None = None) -> None:
    """Run the product until SIGINT or SIGTERM.

    Raises
    ------
    UserError, SettingsError
        What is wrong, before anything is started.
    """
    env = dict(os.environ) if environ is None else environ
    settings = load_settings(environ=env)
    prepare_state(settings.state)
    lock = Lock(settings.state)
    try:
        refuse_half_restored(settings.state)
        _up(settings, env, say)
    finally:
        lock.release()


def _up(settings: Settings, env: dict[str, str], say: Callable[[str], None]) -> None:
    proxy = find_proxy()
    if settings.web.port == 0:
        raise UserError(400, mark("web.port is 0: choose a port, so that people can find the product."))
    check_public_port(settings)
    addresses = _inner_addresses(settings)
    kept = given_directory(env)
    secrets = load_secrets(settings.state, kept)
    hub_traits(settings, secrets, addresses)  # what is wrong with them is said here and not in the hub's log
    before, after = upgrade(settings.database_url)
    if before and before != after:
        say(
            sentence(mark("The database went from revision {before} to {after}."), before=before, after=after)
        )
    seed_database(settings)
    _ensure_volumes(settings)
    say(sentence(mark("Galilean starts; its files are in {state}."), state=settings.state))
    if settings.backend == "process":
        say(
            sentence(
                mark(
                    "Nodes are processes of this machine, without isolation between people and without hard "
                    "limits."
                )
            )
        )
    if settings.backend == "docker":
        from hub_config.docker_ground import make_ready

        make_ready(settings, addresses, say)
        say(sentence(mark("Nodes are containers of this machine.")))
        if registry.is_own(settings):
            registry.prepare(settings, secrets, addresses)
        elif not registry.can_save(settings):
            say(
                sentence(
                    mark(
                        "Nodes cannot be saved as images: install Debian's docker-registry, or name a registry "
                        "(images.registry)."
                    )
                )
            )
        if os.geteuid() not in (0, int(settings.docker.account.partition(":")[0])):
            say(
                sentence(
                    mark(
                        "Galilean runs as another account than nodes do ({account}): they cannot write into "
                        "projects that are made so. Say docker.account, or run it as that one."
                    ),
                    account=settings.docker.account,
                )
            )
    if settings.backend == "kubernetes":
        check_kubeconfig()
        say(
            sentence(
                mark("Nodes are pods of the namespace {namespace}."), namespace=settings.kubernetes.namespace
            )
        )
        if os.geteuid() == 0:
            say(
                sentence(
                    mark(
                        "Galilean runs as root and nodes do not: they cannot write into projects that are made "
                        "so. Run it as the account with user id 1000, which nodes have."
                    )
                )
            )
    _make_first_admin(settings, kept, say)
    address = browser_url(settings)
    supervisor = Supervisor(
        all_parts(settings, secrets, addresses, proxy=proxy, config=config_file(env), environ=env),
        settings.state,
        say=say,
        release_all=lambda: release_all(settings, say),
        settled=lambda: say(
            sentence(mark("Ready: {address}   (Ctrl-C releases all clusters and stops)"), address=address)
        ),
    )
    asyncio.run(supervisor.run())


def part(name: str, environ: dict[str, str] | None = None) -> NoReturn:
    """Become one part of the product: the command of its container.

    The hub makes sure of what the others rely on (volumes, the first administrator) before it begins. The
    database must be there: ``galilean db upgrade`` before the hub, ``galilean db wait`` before the others.

    Raises
    ------
    UserError, SettingsError
        What is wrong.
    """
    env = dict(os.environ) if environ is None else environ
    if name not in ALONE:
        raise no_such_part(name)
    settings = load_settings(environ=env)
    kept = given_directory(env)
    secrets = load_secrets(settings.state, kept, names=needed_by(name))
    addresses = Addresses(settings, read_ports(settings.state))
    found = part_of(name, settings, secrets, addresses, config=config_file(env), environ=env)
    if name == "hub":
        if why := missing(settings.database_url):
            raise UserError(503, mark("The database is not ready: {why}. See: galilean db upgrade."), why=why)
        prepare_state(settings.state)
        refuse_half_restored(settings.state)
        _ensure_volumes(settings)
        _make_first_admin(settings, kept, lambda line: print(line, flush=True))  # noqa: T201
    os.execvpe(found.command[0], list(found.command), dict(found.environment))  # noqa: S606 - no shell is meant


def _ensure_volumes(settings: Settings) -> None:
    from services.catalog.volumes import ensure_volumes

    database = Database(settings.database_url)
    try:
        with database.write() as conn:
            ensure_volumes(conn, settings, utcnow())
    finally:
        database.close()


def _inner_addresses(settings: Settings, patience_seconds: float = 3.0) -> Addresses:
    said = given(settings)
    until = monotonic() + patience_seconds
    while True:
        try:
            more = registry.parts(settings)
            addresses = Addresses(settings, keep_ports(settings.state, but=said, more=more))
            for name in said:
                _check_free(addresses, name)
            return addresses
        except UserError:
            if monotonic() > until:
                raise
            sleep(0.2)


def _check_free(addresses: Addresses, name: str) -> None:
    address = addresses[name]
    if not is_free(address.host, address.port, setting=f"addresses.{name}"):
        raise UserError(
            409,
            mark("The address {url} of the part “{part}” is taken by another program."),
            url=address.url,
            part=name,
        )


def _make_first_admin(settings: Settings, kept: Path | None, say: Callable[[str], None]) -> None:
    if not settings.signup.admins or _signs_in_elsewhere(settings):
        return
    name = settings.signup.admins[0]
    if kept is not None:
        given_admin(settings.state, kept, name)
        return
    password = first_admin(settings.state, name)
    if password:
        told = sentence(
            mark(
                "  An administrator was made. This is shown only once:\n"
                "      user name  {name}\n"
                "      password   {password}"
            ),
            name=name,
            password=password,
        )
        say(f"\n{told}\n")


def _signs_in_elsewhere(settings: Settings) -> bool:
    return "authenticator_class" in settings.jupyterhub.get("JupyterHub", {})


def command_hub(settings: Settings) -> HubAPI:
    """The hub with the token of the commands; for whoever may read the secrets.

    Raises
    ------
    UserError
        503 when the product was never started on this state directory.
    """
    addresses = Addresses(settings, read_ports(settings.state))
    if "hub" not in addresses:
        raise UserError(
            503, mark("Galilean was never started on {state}. Start it: make up."), state=str(settings.state)
        )
    kept = given_directory(dict(os.environ))
    token = load_secrets(settings.state, kept, names=needed_by("command")).tokens["command"]
    return HubAPI(hub_api_url(settings, addresses), token)


async def release_all(settings: Settings, say: Callable[[str], None]) -> int:
    """Release every open run; how many are left when patience ends."""
    from spawner import records

    database = Database(settings.database_url)
    hub = command_hub(settings)
    deadline = monotonic() + RELEASE_SECONDS
    told = -1
    try:
        while True:
            rows = await database.run_read(records.all_open)
            if len(rows) != told and rows:
                say(sentence(mark("  {count} to release"), count=len(rows)))
            told = len(rows)
            if not rows or monotonic() > deadline:
                return len(rows)
            await asyncio.gather(*(release_run(database, hub, run, "shutdown", "") for run in rows))
            await asyncio.sleep(0.3)
    finally:
        await hub.close()
        database.close()


async def release_run(database: Database, hub: HubAPI, run: object, reason: str, asked_by: str) -> None:
    """Ask for the end of a run: in its row first, so that a hub that is away carries it out later."""
    from spawner import records

    assert isinstance(run, records.Run)
    await database.run(records.ask_stop, run.id, reason=reason, asked_by=asked_by, now=utcnow())
    with contextlib.suppress(UserError):  # a hub that is away, or a server it does not know (any more)
        await hub.stop(run.user, run.server)
