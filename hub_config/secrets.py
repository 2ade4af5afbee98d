"""What must stay secret, made once at the first start and kept as files (SC-22, design §9).

One file per secret under ``<state>/secrets`` (directory 0700, files 0600), so that a secret never stands
in ``galilean.yaml``, in a log, in a process list or in git, and can be renewed by deleting its file.
``GALILEAN_SECRETS`` names a directory of the same files that somebody else keeps (a Secret of Kubernetes): it
is only read, a part reads only what it needs, and what is missing there is an error.

The first administrator's password is made here too. It is *returned* once, for the terminal, and only its
hash is kept: an account that waits for the hub (:func:`leave_account`) is a file that the hub turns into a
real account when it starts. The same door serves ``galilean user add`` while the hub is down.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import bcrypt

from galilean.errors import UserError, mark

SERVICES = ("portal", "metering", "release", "queue", "machines", "command")
NAMES = ("cookie", "proxy", "portal-cookie", *(f"token-{name}" for name in SERVICES))
#: What the image service, the registry beside it and the agents of Kubernetes' machines know.
OF_IMAGES = ("token-imagebuilder", "registry", "agent")
#: In a directory that is given, besides: the password of the first administrator.
ADMIN_PASSWORD = "admin-password"  # noqa: S105 - the name of a file
# Read aloud from a terminal: no look-alikes.
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """Every secret of one installation.

    Attributes
    ----------
    cookie
        The hub's cookie secret, 32 bytes as hexadecimal text.
    portal_cookie
        The same for the portal.
    proxy
        What hub and proxy say to one another.
    tokens
        API token of each external service of the hub, by its name.
    registry
        Password of the registry on this machine.
    agent
        By which agents on the machines of a Kubernetes know the image service.

    What a part does not need may be empty.
    """

    cookie: str
    portal_cookie: str
    proxy: str
    tokens: dict[str, str]
    registry: str = ""
    agent: str = ""


@dataclass(frozen=True, kw_only=True)
class WaitingAccount:
    """An account that the hub makes at its next start: only the password's hash is kept."""

    name: str
    password_hash: str
    role: str
    replace: bool = False


def secrets_directory(state: Path) -> Path:
    """``<state>/secrets``, made with mode 0700 when it is not there."""
    path = state / "secrets"
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.chmod(0o700)
    return path


def needed_by(part: str) -> tuple[str, ...]:
    """Names of the secrets that a part must know; the hub must know all but the portal's own."""
    if part == "hub":
        return tuple(name for name in NAMES if name != "portal-cookie")
    if part == "proxy":
        return ("proxy",)
    if part == "imagebuilder":
        return ("token-imagebuilder", "agent")
    return (f"token-{part}", "portal-cookie") if part == "portal" else (f"token-{part}",)


def given_directory(environ: Mapping[str, str]) -> Path | None:
    """The directory that ``GALILEAN_SECRETS`` names."""
    named = environ.get("GALILEAN_SECRETS", "")
    return Path(named) if named else None


def load_secrets(state: Path, given: Path | None = None, *, names: Iterable[str] = NAMES) -> Secrets:
    """The secrets of an installation.

    Parameters
    ----------
    state
        Its directory; all that is missing there is made.
    given
        Instead of it, a directory that is only read.
    names
        Which to read there; the others are empty.

    Raises
    ------
    UserError
        503 when one is missing in ``given``.
    OSError
        When the directory cannot be written.
    """
    if given is not None:
        values = dict.fromkeys(NAMES, "") | {name: _given(given / name) for name in names}
    else:
        directory = secrets_directory(state)
        values = {name: _one(directory / name) for name in (*NAMES, *OF_IMAGES)}
    return Secrets(
        cookie=values["cookie"],
        portal_cookie=values["portal-cookie"],
        proxy=values["proxy"],
        tokens={
            name: values[f"token-{name}"] for name in (*SERVICES, "imagebuilder") if f"token-{name}" in values
        },
        registry=values.get("registry", ""),
        agent=values.get("agent", ""),
    )


def _given(path: Path) -> str:
    try:
        kept = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UserError(
            503,
            mark("The secret {path} cannot be read: {why}. It is looked for where GALILEAN_SECRETS says."),
            path=str(path),
            why=error.strerror or str(error),
        ) from error
    if not kept:
        raise UserError(503, mark("The secret {path} is empty."), path=str(path))
    return kept


def _one(path: Path) -> str:
    try:
        kept = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        kept = ""
    if not kept:
        kept = secrets.token_hex(32)
        write_private(path, kept + "\n")
    elif path.stat().st_mode & 0o077:
        path.chmod(0o600)
    return kept


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, all or nothing."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def make_password() -> str:
    """A password for a person to type: 16 letters and digits in groups, about 79 bits."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(4)) for _ in range(4))


def hash_password(password: str) -> str:
    """The bcrypt hash of a password. Takes a good part of a second on purpose: never on an event loop."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt()).decode("ascii")


def first_admin(state: Path, name: str) -> str | None:
    """Make the first administrator of a fresh installation.

    Returns
    -------
    str or None
        The password, to be printed once; ``None`` when there was one before.
    """
    done = secrets_directory(state) / "first-admin"
    if done.exists():
        return None
    password = make_password()
    leave_account(state, WaitingAccount(name=name, password_hash=hash_password(password), role="admin"))
    write_private(done, name + "\n")
    return password


def given_admin(state: Path, given: Path, name: str) -> bool:
    """Leave the first administrator for the hub, when a password is given; who has an account keeps it.

    Raises
    ------
    UserError
        400 when it is longer than the hash can tell apart.
    """
    try:
        password = (given / ADMIN_PASSWORD).read_text(encoding="utf-8").rstrip("\r\n")
    except FileNotFoundError:
        return False
    if not 0 < len(password.encode()) <= 72:
        raise UserError(400, mark("A password of 1 to 72 bytes is needed."))
    leave_account(state, WaitingAccount(name=name, password_hash=hash_password(password), role="admin"))
    return True


def leave_account(state: Path, account: WaitingAccount) -> None:
    """Leave an account for the hub to make when it starts."""
    directory = secrets_directory(state) / "accounts"
    directory.mkdir(exist_ok=True, mode=0o700)
    # The name of the file says nothing: a person may be called anything.
    path = directory / f"{account.name.encode().hex()[:120]}.json"
    write_private(path, json.dumps(asdict(account)) + "\n")


def waiting_accounts(state: Path) -> list[tuple[Path, WaitingAccount]]:
    """Accounts that wait for the hub, each with its file."""
    found: list[tuple[Path, WaitingAccount]] = []
    for path in sorted((state / "secrets" / "accounts").glob("*.json")):
        found.append((path, WaitingAccount(**json.loads(path.read_text(encoding="utf-8")))))
    return found
