"""People's own public keys for ssh: what is one, and which ones somebody has (TI-19).

A key is read by a real parser and written anew from what was read, so nothing of the line that was sent gets
into a file of sshd: no option (``command=``, ``cert-authority``, ``environment=``), no second line, no comment.
Certificates, DSA, short and oversized RSA keys are refused. The private half that somebody pastes by mistake
is refused too, and neither kept nor logged.

A key of a hardware token (``sk-…``) is taken as any other.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from datetime import datetime

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from sqlalchemy import Connection, delete, insert, select, update
from ulid import ULID

from galilean import audit
from galilean.errors import UserError, mark
from services.people.tables import ssh_keys

#: What sshd of today takes.
KINDS = {
    "ssh-ed25519": "ED25519",
    "ecdsa-sha2-nistp256": "ECDSA",
    "ecdsa-sha2-nistp384": "ECDSA",
    "ecdsa-sha2-nistp521": "ECDSA",
    "sk-ssh-ed25519@openssh.com": "ED25519-SK",
    "sk-ecdsa-sha2-nistp256@openssh.com": "ECDSA-SK",
    "ssh-rsa": "RSA",
}
RSA_LEAST_BITS, RSA_MOST_BITS = 2048, 16384
#: An RSA key of 16384 bits has about 2750 characters.
TEXT_MOST = 8192
NAME_MOST = 80
#: As sshd separates; other spaces are part of a word.
_GAP = re.compile(r"[ \t]+")
_WORD = re.compile(r"[!-~]+")


@dataclass(frozen=True, kw_only=True)
class PublicKey:
    """A public key.

    Attributes
    ----------
    kind
        ``ED25519``, ``RSA`` …
    public
        ``type base64``, as a file of sshd has it.
    fingerprint
        ``SHA256:…`` as ssh shows it.
    comment
        What stood behind it; only ever a name for people.
    """

    kind: str
    public: str
    fingerprint: str
    comment: str = ""


@dataclass(frozen=True, kw_only=True)
class KeptKey:
    """A key of somebody's."""

    id: str
    user: str
    name: str
    kind: str
    fingerprint: str
    public: str
    added_at: datetime
    used_at: datetime | None = None


def parse(text: str) -> PublicKey:
    """The key that a line is.

    Raises
    ------
    UserError
        400 that says what is wrong with it.
    """
    if len(text) > TEXT_MOST:
        raise UserError(400, mark("That is longer than any public key."))
    line = text.strip()
    if "PRIVATE KEY" in line:
        raise UserError(
            400,
            mark(
                "That is a private key. Keep it to yourself, and treat it as lost if you sent it anywhere: "
                "what belongs here is the file that ends in .pub."
            ),
            reason="private",
        )
    if not line or len(line.splitlines()) != 1:
        raise UserError(400, mark("Write one public key: the one line of a file that ends in .pub."))
    words = _GAP.split(line, 2)
    kind = KINDS.get(words[0])
    if kind is None:
        if words[0] in ("ssh-dss",) or words[0].endswith("-cert-v01@openssh.com"):
            raise UserError(
                400,
                mark("Keys of the kind {kind} are not taken. Make one with ssh-keygen -t ed25519."),
                kind=words[0],
            )
        raise UserError(
            400,
            mark(
                "A public key begins with its kind, such as ssh-ed25519. Options before it, such as command=, "
                "are not taken."
            ),
        )
    if len(words) < 2 or not _WORD.fullmatch(words[1]):
        raise UserError(400, mark("This key is not whole."))
    try:
        blob = base64.b64decode(words[1], validate=True)
        found = load_ssh_public_key(f"{words[0]} {words[1]}".encode())
    except (ValueError, binascii.Error, UnsupportedAlgorithm):
        raise UserError(400, mark("This key is not whole.")) from None
    if isinstance(found, RSAPublicKey) and not RSA_LEAST_BITS <= found.key_size <= RSA_MOST_BITS:
        raise UserError(
            400,
            mark("An RSA key has {least} to {most} bits; this one has {bits}."),
            least=RSA_LEAST_BITS,
            most=RSA_MOST_BITS,
            bits=found.key_size,
        )
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    comment = words[2] if len(words) > 2 else ""
    return PublicKey(
        kind=kind,
        public=f"{words[0]} {base64.b64encode(blob).decode()}",
        fingerprint=f"SHA256:{digest}",
        comment=name_of(comment),
    )


def name_of(text: str) -> str:
    """A name for a key, as it is kept."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())[:NAME_MOST]


def keys_of(conn: Connection, user: str) -> list[KeptKey]:
    """Somebody's keys, the oldest first."""
    rows = conn.execute(select(ssh_keys).where(ssh_keys.c.user == user).order_by(ssh_keys.c.id)).mappings()
    return [KeptKey(**row) for row in rows]


def add(
    conn: Connection, user: str, text: str, name: str, *, most: int, address: str, now: datetime
) -> KeptKey:
    """Keep a key. Call in a serialised transaction: keys are counted first.

    Raises
    ------
    UserError
        400 for what is none, 409 for one that is there or one too many.
    """
    key = parse(text)
    mine = keys_of(conn, user)
    if any(kept.fingerprint == key.fingerprint for kept in mine):
        raise UserError(409, mark("You have this key already."), reason="exists")
    if len(mine) >= most:
        raise UserError(409, mark("Nobody keeps more than {most} keys. Remove one first."), most=most)
    kept = KeptKey(
        id=str(ULID()),
        user=user,
        name=name_of(name) or key.comment or key.kind,
        kind=key.kind,
        fingerprint=key.fingerprint,
        public=key.public,
        added_at=now,
    )
    conn.execute(insert(ssh_keys).values(**vars(kept)))
    audit.write(
        conn, at=now, actor=user, action="ssh_key.add", subject=user, address=address,
        after={"name": kept.name, "kind": kept.kind, "fingerprint": kept.fingerprint},
    )  # fmt: skip
    return kept


def remove(conn: Connection, user: str, key_id: str, *, actor: str, address: str, now: datetime) -> None:
    """Take a key away; one that is not there is success."""
    row = conn.execute(
        select(ssh_keys).where(ssh_keys.c.id == key_id, ssh_keys.c.user == user)
    ).mappings().first()  # fmt: skip
    if row is None:
        return
    conn.execute(delete(ssh_keys).where(ssh_keys.c.id == key_id))
    audit.write(
        conn, at=now, actor=actor, action="ssh_key.remove", subject=user, address=address,
        before={"name": row["name"], "kind": row["kind"], "fingerprint": row["fingerprint"]},
    )  # fmt: skip


def used(conn: Connection, user: str, fingerprints: list[str], now: datetime) -> None:
    """Note that keys were used just now."""
    if fingerprints:
        conn.execute(
            update(ssh_keys)
            .where(ssh_keys.c.user == user, ssh_keys.c.fingerprint.in_(fingerprints))
            .values(used_at=now)
        )
