"""Commands that need the hub or all floors: up, part, status, user, token, clusters, sweep, doctor.

Imports stand inside the functions, so that ``galilean --help`` does not load half of JupyterHub. Whoever may
read ``<state>/secrets`` may use these commands; that is the whole of their access control.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Annotated, Any, TypeVar

import typer

from galilean.errors import UserError, mark
from galilean.settings import Settings, load_settings
from galilean.terminal import say, say_aside

T = TypeVar("T")
user_app = typer.Typer(help="Accounts.", no_args_is_help=True)
clusters_app = typer.Typer(help="Virtual clusters that are held or wait.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable.")]


def register(root: typer.Typer) -> None:
    """Add the commands."""
    from galilean.commands.of_environments import add_environment_commands
    from galilean.commands.of_machines import add_machine_commands
    from galilean.commands.of_object_stores import add_object_store_commands
    from galilean.commands.of_people import add_dataset_commands, add_project_commands
    from galilean.commands.of_workbenches import add_workbench_commands
    from hub_config.backup.commands import register as register_backup
    from hub_config.database_commands import register as register_database
    from hub_config.decided_commands import register as register_decided
    from hub_config.disk_commands import register as register_disks
    from hub_config.people_commands import people_app
    from hub_config.project_commands import project_app
    from hub_config.storage_commands import dataset_app
    from hub_config.storage_commands import register as register_storage

    root.command()(up)
    root.command()(part)
    root.command()(status)
    root.command()(token)
    root.command()(sweep)
    root.command()(firewall)
    root.command()(seccomp)
    root.command()(doctor)
    register_backup(root)
    register_database(root)
    register_decided(root)
    register_storage(root)
    register_disks(root)
    add_project_commands(project_app, _portal_here)
    add_dataset_commands(dataset_app, _portal_here)
    add_environment_commands(root, _portal_here)
    add_workbench_commands(root, _portal_here)
    add_object_store_commands(root, _portal_here)
    add_machine_commands(root, _portal_here)
    root.add_typer(user_app, name="user")
    root.add_typer(people_app, name="people")
    root.add_typer(project_app, name="project")
    root.add_typer(clusters_app, name="clusters")


def _portal_here() -> str:
    """The portal of the settings that this machine has."""
    from hub_config.build import browser_url, portal_host, portal_prefix

    settings = load_settings()
    host = portal_host(settings)
    return host + portal_prefix(settings) if host else browser_url(settings)


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def up() -> None:
    """Run the product in the foreground.

    Ctrl-C releases every cluster and stops; SIGTERM stops and leaves clusters running for the next start.
    """
    from hub_config.start import up as start

    start(lambda line: print(line, flush=True))  # noqa: T201


def part(
    name: Annotated[str, typer.Argument(help="hub, proxy, portal, metering, release or queue.")],
) -> None:
    """Be one part of the product in the foreground: what each container of the chart runs.

    SIGTERM ends it and leaves clusters running. The database must be at the schema of this version.
    """
    from hub_config.start import part as become

    become(name)


def status(as_json: AsJson = False) -> None:
    """Say which parts run. Exit code 1 when the product does not run or a part is down."""
    from hub_config.supervisor import read_status

    found: Any = read_status(load_settings().state)
    if as_json:
        typer.echo(json.dumps(found))
    elif found is None:
        say(mark("Galilean does not run here."))
    else:
        for name, part in found["parts"].items():
            line = mark("{part} {state} process {pid}")
            if part["restarts"]:
                line = mark("{part} {state} process {pid}, restarted {times} times")
            say(
                line,
                part=f"{name:10}",
                state=f"{part['state']:9}",
                pid=part["pid"] or "-",
                times=part["restarts"],
            )
    if found is None or any(part["state"] != "running" for part in found["parts"].values()):
        raise typer.Exit(1)


@user_app.callback()
def user() -> None:
    """Accounts."""


@user_app.command("add")
def user_add(
    name: Annotated[str, typer.Argument(help="User name.")],
    role: Annotated[str, typer.Option(help="Role of the settings, such as student.")],
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="The account may exist: set its password, add the role.")
    ] = False,
) -> None:
    """Make an account with a role, at once when the hub runs, else at its next start."""
    settings = load_settings()
    if role not in settings.roles:
        raise UserError(
            404,
            mark("There is no role “{role}”. There are: {known}."),
            role=role,
            known=", ".join(settings.roles),
        )
    if password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    if not password or len(password.encode()) > 72:
        raise UserError(400, mark("A password of 1 to 72 bytes is needed."))
    name = name.strip().lower()
    if not name or "/" in name or len(name) > 64 or not name.isprintable():
        raise UserError(400, mark("“{name}” cannot be a user name."), name=name[:64])
    if len(password) < 8:
        say_aside(mark("Note: the password is shorter than what people may choose themselves (8)."))
    if _run(_add_now(settings, name, role, password, update)):
        say(mark("{name} has an account now, with the role {role}."), name=name, role=role)
        return
    from hub_config.secrets import WaitingAccount, hash_password, leave_account

    settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    leave_account(
        settings.state,
        WaitingAccount(name=name, password_hash=hash_password(password), role=role, replace=update),
    )
    say(
        mark("{name} will have an account with the role {role} when Galilean starts: it does not run now."),
        name=name,
        role=role,
    )


async def _add_now(settings: Settings, name: str, role: str, password: str, update: bool) -> bool:
    from urllib.parse import quote

    from hub_config.roles import group_of
    from hub_config.start import command_hub

    try:
        hub = command_hub(settings)
    except UserError:
        return False
    try:
        path = quote(name, safe="")
        try:
            await hub.request("POST", f"/users/{path}")
        except UserError as error:
            if error.status == 503:
                return False
            if error.status != 409:  # the hub may know the person from elsewhere
                raise
        try:
            await hub.request(
                "PUT", f"/galilean/passwords/{path}", json={"password": password, "replace": update}
            )
        except UserError as error:
            if error.status != 409:
                raise
            raise UserError(
                409,
                mark("There is an account “{name}” already. To set its password and add the role: --update."),
                name=name,
            ) from error
        await hub.add_to_group(group_of(role), name)
    finally:
        await hub.close()
    return True


def token(
    name: Annotated[str, typer.Argument(help="User name.")],
    days: Annotated[int, typer.Option(help="Ends after so many days; 0 = never.")] = 0,
) -> None:
    """Print a new API token of a person: it may do what the person may."""
    typer.echo(_run(_token(load_settings(), name.strip().lower(), days)))


async def _token(settings: Settings, name: str, days: int) -> str:
    from urllib.parse import quote

    from hub_config.start import command_hub

    hub = command_hub(settings)
    path = quote(name, safe="")
    body: dict[str, Any] = {"note": "galilean token"}
    if days > 0:
        body["expires_in"] = days * 86400
    try:
        try:
            await hub.request("GET", f"/users/{path}")
        except UserError as error:
            if error.status == 404:
                raise UserError(404, mark("There is no account “{name}”."), name=name) from error
            if error.status == 503:
                raise _not_running() from error
            raise
        return (await hub.request("POST", f"/users/{path}/tokens", json=body)).json()["token"]
    finally:
        await hub.close()


def _not_running() -> UserError:
    return UserError(503, mark("Galilean does not run here. Start it: make up."))


@clusters_app.callback()
def clusters() -> None:
    """Virtual clusters that are held or wait."""


@clusters_app.command("list")
def clusters_list(as_json: AsJson = False) -> None:
    """List every cluster that waits, starts, runs or is being released, and what it really uses."""
    from galilean.clock import utcnow
    from galilean.db import Database
    from services.portal.online import read_held, rows_of, whole_rows

    database = Database(_migrated(load_settings()).database_url)
    try:
        with database.read() as conn:
            rows = whole_rows(conn, rows_of(*read_held(conn), utcnow()))
    finally:
        database.close()
    if as_json:
        typer.echo(json.dumps([_cluster_as_json(row) for row in rows]))
        return
    if not rows:
        say(mark("Nothing is held."))
    for row in rows:
        _say_cluster(row)


def _cluster_as_json(row: Any) -> dict[str, Any]:
    run = row.run
    return {
        "id": run.id,
        "user": run.user,
        "server": run.server,
        "project": f"{run.project_owner}/{run.project_slug}",
        "state": run.word,
        "nodes": run.nodes,
        "cpu": run.cpu_millicores / 1000,
        "memory": run.memory_bytes,
        "gpu": run.gpu,
        "ready_at": _iso(run.ready_at),
        "cpu_now_percent": None if row.cpu_now is None else round(100 * row.cpu_now, 1),
        "gpu_now_percent": None if row.gpu_now is None else round(100 * row.gpu_now, 1),
        "idle_since": _iso(row.idle_since),
        "last_seen_at": _iso(row.seen_at),
        "release": run.release_policy,
        "release_at": _iso(run.release_at),
        "release_why": run.release_why,
    }


def _say_cluster(row: Any) -> None:
    from galilean.amounts import format_bytes, plain_number

    run = row.run
    say(
        mark("{id}  {state} {user}: {project}  {nodes} × {cores} cores, {memory}  since {since}"),
        id=run.id,
        state=f"{run.word:9}",
        user=run.user,
        project=f"{run.project_owner}/{run.project_slug}",
        nodes=run.nodes,
        cores=plain_number(run.cpu_millicores / 1000),
        memory=format_bytes(run.memory_bytes),
        since=_moment(run.ready_at),
    )
    if run.word == "running":
        say(
            mark("    CPU {cpu}, GPU {gpu}, idle since {idle}; last seen {seen}; {policy}: goes back {back}"),
            cpu="-" if row.cpu_now is None else f"{row.cpu_now:.0%}",
            gpu="-" if row.gpu_now is None else f"{row.gpu_now:.0%}",
            idle=_moment(row.idle_since),
            seen=_moment(row.seen_at),
            policy=run.release_policy,
            back=_moment(run.release_at),
        )


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _moment(at: datetime | None) -> str:
    return "-" if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"


@clusters_app.command("release")
def clusters_release(
    run_id: Annotated[str, typer.Argument(metavar="ID", help="As the list shows it.")] = "",
    every: Annotated[
        bool, typer.Option("--all", help="Every cluster, as before the product is taken away.")
    ] = False,
    reason: Annotated[
        str, typer.Option("--reason", help="What its person is told, at most 300 letters.", metavar="TEXT")
    ] = "",
) -> None:
    """Release a cluster: now, or as soon as the hub is back. Exit code 1 when some of `--all` are left."""
    if every == bool(run_id):
        raise typer.BadParameter("name one cluster by its ID, or say --all")
    if every and reason:
        raise typer.BadParameter("--reason is told to the person of one cluster; --all tells nobody")
    settings = _migrated(load_settings())
    if not every:
        run_id = run_id.strip().upper()
        say(_run(_release(settings, run_id, " ".join(reason.split())[:300])), id=run_id)
        return
    from hub_config.start import release_all

    left = _run(release_all(settings, typer.echo))
    say(mark("{left} are left, their release is asked for.") if left else mark("Nothing is held."), left=left)
    if left:
        raise typer.Exit(1)


@clusters_app.command("restart")
def clusters_restart(
    run_id: Annotated[str, typer.Argument(metavar="ID", help="As the list shows it.")],
    rank: Annotated[int, typer.Argument(metavar="NODE", help="Its number: 0 for node-0.", min=0)],
    reset: Annotated[
        bool,
        typer.Option("--reset", help="Bring the node back to its image; only work and data sets stay."),
    ] = False,
) -> None:
    """Make one node of a running cluster anew; the others go on. Exit code 1 when it does not come back."""
    settings = _migrated(load_settings())
    said, params, well = _run(_renew(settings, run_id.strip().upper(), rank, "reset" if reset else "restart"))
    say(said, **params)
    if not well:
        raise typer.Exit(1)


async def _renew(settings: Settings, run_id: str, rank: int, how: str) -> tuple[str, dict[str, object], bool]:
    from galilean.clock import utcnow
    from galilean.db import Database
    from spawner import attempts, records

    database = Database(settings.database_url)
    try:
        row = await database.run(
            lambda conn: attempts.ask(conn, run_id, rank, how, by="command", now=utcnow())
        )
        for _ in range(1800):
            nodes = (await database.run_read(records.intervals, [run_id]))[run_id]
            now = next(node for node in records.present(nodes) if node.rank == rank)
            told = now.explanation or {}
            if now.attempt < row.attempt or now.gone_at is not None:
                message = str(told.get("message") or mark("Node {rank} did not come back."))
                return message, {"rank": rank, **(told.get("params") or {})}, False
            if now.ready_at is not None:
                return mark("Node {rank} answers again."), {"rank": rank}, True
            await asyncio.sleep(0.1)
        return mark("Node {rank}: it is asked for and goes on by itself."), {"rank": rank}, True
    finally:
        database.close()


async def _release(settings: Settings, run_id: str, why: str) -> str:
    from galilean.clock import utcnow
    from galilean.db import Database
    from hub_config.start import command_hub
    from services.portal.api.clusters import note_release
    from spawner import records
    from spawner.states import Status

    database = Database(settings.database_url)
    hub = command_hub(settings)
    try:
        run = await database.run_read(records.get, run_id)
        if run is None:
            raise UserError(
                404, mark("There is no cluster {id}. See: galilean clusters list."), id=run_id[:40]
            )
        if run.released_at is not None:
            return mark("{id} is released already.")
        # In its row first, so that a hub that is away carries it out later.
        await database.run(note_release, run, by="command", others=True, why=why, now=utcnow())
        if run.status != Status.QUEUED:
            with contextlib.suppress(UserError):
                await hub.stop(run.user, run.server)
        for _ in range(300):
            now = await database.run_read(records.get, run_id)
            if now is None or now.released_at is not None:
                return mark("{id} is released.")
            await asyncio.sleep(0.1)
        return mark("{id}: the release is asked for and goes on by itself.")
    finally:
        await hub.close()
        database.close()


def sweep(
    remove: Annotated[bool, typer.Option("--remove", help="Also remove what is found.")] = False,
    older_than: Annotated[
        int, typer.Option(help="Seconds: what is younger may be on its way and is left alone.", min=0)
    ] = 60,
    as_json: AsJson = False,
) -> None:
    """Compare what runs with what should. Exit code 1 when something does not fit and is left."""
    report = _run(_sweep(_migrated(load_settings()), remove, timedelta(seconds=older_than)))
    if as_json:
        typer.echo(json.dumps(report.as_dict()))
    elif report.clean:
        say(mark("Everything that runs should run, and everything that should runs."))
    else:
        for orphan in report.orphans:
            say(mark("orphan  {user}/{server} node {rank} of run {run}"), **orphan)
        for ghost in report.ghosts:
            say(mark("ghost   run {run}: nothing of it exists"), run=ghost)
        if remove:
            say(
                mark("{removed} removed, {closed} closed."),
                removed=report.removed,
                closed=len(report.closed),
            )
        else:
            say(mark("Nothing was changed. To remove: galilean sweep --remove"))
    for error in report.errors:
        typer.echo(error, err=True)
    left = len(report.orphans) - report.removed + len(report.ghosts) - len(report.closed)
    if left > 0 or report.errors:
        raise typer.Exit(1)


async def _sweep(settings: Settings, remove: bool, young: timedelta) -> Any:
    from galilean.db import Database
    from spawner.backends import inventory_of
    from spawner.sweeper import Sweeper

    database = Database(settings.database_url)
    inventory: Any = inventory_of(settings, by_hand=remove)
    try:
        sweeper = Sweeper(database, inventory, young=young)
        report = await sweeper.sweep(remove=False)
        if remove and not report.clean:
            # A row is closed only after two complete looks found nothing of it.
            await asyncio.sleep(1)
            report = await sweeper.sweep(remove=True)
        return report
    finally:
        if hasattr(inventory, "close"):  # connections, where it has any
            await inventory.close()
        database.close()


def firewall() -> None:
    """Print the rules that keep containers off this machine's own services: galilean firewall | sudo nft -f -

    With backend docker. `galilean up` puts them in by itself where it runs as root.
    """
    from hub_config.addresses import Addresses
    from hub_config.docker import rules_of
    from hub_config.ports import keep_ports

    settings = load_settings()
    if settings.backend != "docker":
        raise UserError(400, mark("Only the docker backend has rules of its own (backend: docker)."))
    typer.echo(rules_of(settings, Addresses(settings, keep_ports(settings.state))), nl=False)


def seccomp() -> None:
    """Print the seccomp profile of nodes in which containers are started: for machines of Kubernetes.

    Put it on every machine below the kubelet's folder `seccomp`, and name it in kubernetes.containers_seccomp. Docker
    gets it by itself.
    """
    from spawner.docker.seccomp import profile

    typer.echo(json.dumps(profile(), indent=2))


def _migrated(settings: Settings) -> Settings:
    """The settings of an installation that has a database; nothing is made by merely asking."""
    file = settings.state / "galilean.sqlite"
    if not settings.database.url and not file.exists():
        raise UserError(
            503, mark("Galilean was never started on {state}. Start it: make up."), state=str(settings.state)
        )
    return settings


def doctor(as_json: AsJson = False) -> None:
    """Say what of this machine is missing and how to get it. Exit code 1 when something must be done."""
    from hub_config.doctor import examine

    findings = examine(load_settings(), dict(os.environ))
    if as_json:
        typer.echo(json.dumps([finding.as_dict() for finding in findings]))
    else:
        for finding in findings:
            typer.echo(f"{finding.sign} {finding.what}: {finding.found}")
            if finding.cure:
                typer.echo(f"    {finding.cure}")
    if any(finding.level == "bad" for finding in findings):
        raise typer.Exit(1)
