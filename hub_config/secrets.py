"""What must stay secret, made once at the first start and kept as files (SC-22, design §9).

One file per secret under ``<state>/secrets`` (directory 0700, files 0600), so that a secret never stands
in ``galilean.yaml``, in a log, in a process list or in git, and can be renewed by deleting its file.

The first administrator's password is made here too. It is *returned* once, for the terminal, and only its
hash is kept: an account that waits for the hub (:func:`leave_account`) is a file that the hub turns into a
real account when it starts. The same door serves ``galilean user add`` while the hub is down.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

import bcrypt

SERVICES = ("portal", "metering", "release", "queue", "command")
_NAMES = ("cookie", "proxy", "portal-cookie", *(f"token-{name}" for name in SERVICES))
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
    """

    cookie: str
    portal_cookie: str
    proxy: str
    tokens: dict[str, str]


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


def load_secrets(state: Path) -> Secrets:
    """All secrets of a state directory; what is missing is made.

    Raises
    ------
    OSError
        When the directory cannot be written.
    """
    directory = secrets_directory(state)
    values = {name: _one(directory / name) for name in _NAMES}
    return Secrets(
        cookie=values["cookie"],
        portal_cookie=values["portal-cookie"],
        proxy=values["proxy"],
        tokens={name: values[f"token-{name}"] for name in SERVICES},
    )


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
