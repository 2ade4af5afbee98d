"""Mail with TLS and a password: to the server that the settings name, and to no other."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from galilean.mail import send, send_soon
from galilean.settings import Mail

PASSWORD = "correct horse"
IN_THREAD = partial(asyncio.to_thread, send)


@dataclass
class Server:
    """A mail server that offers STARTTLS and takes what comes.

    Attributes
    ----------
    certificate, key
        Its own, for ``name``.
    offers
        What it says it can, before and after TLS.
    heard
        Each line, and whether it came by TLS.
    """

    certificate: Path
    key: Path
    offers: tuple[str, ...] = ("STARTTLS", "AUTH PLAIN LOGIN")
    refuses_password: bool = False
    heard: list[tuple[str, bool]] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        secret = False
        writer.write(b"220 post\r\n")
        letter = False
        try:
            while raw := await reader.readline():
                line = raw.decode().rstrip("\r\n")
                self.heard.append((line, secret))
                word = line.upper().split(" ")[0]
                if letter:
                    if line == ".":
                        letter = False
                        writer.write(b"250 taken\r\n")
                elif word == "EHLO":
                    said = ["post", *(offer for offer in self.offers if not (secret and offer == "STARTTLS"))]
                    lines = [
                        f"250{'-' if n < len(said) else ' '}{text}\r\n" for n, text in enumerate(said, 1)
                    ]
                    writer.write("".join(lines).encode())
                elif word == "STARTTLS":
                    writer.write(b"220 go ahead\r\n")
                    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
                    context.load_cert_chain(self.certificate, self.key)
                    await writer.start_tls(context)
                    secret = True
                elif word == "AUTH":
                    writer.write(b"535 no\r\n" if self.refuses_password else b"235 welcome\r\n")
                elif word == "DATA":
                    letter = True
                    writer.write(b"354 go on\r\n")
                elif word == "QUIT":
                    writer.write(b"221 bye\r\n")
                else:
                    writer.write(b"250 ok\r\n")
        except (OSError, ssl.SSLError):  # who does not trust us hangs up
            pass
        finally:
            writer.close()

    @property
    def words(self) -> list[str]:
        return [line.split(" ")[0].upper() for line, _ in self.heard]


@pytest.fixture
def certified(tmp_path: Path) -> Callable[[str], tuple[Path, Path]]:
    """A certificate for a name that signs itself, and its key."""

    def certify(name: str) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(who)
            .issuer_name(who)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        crt, pem = tmp_path / f"{name}.crt", tmp_path / f"{name}.key"
        crt.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pem.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return crt, pem

    return certify


async def sent(
    server: Server,
    tmp_path: Path,
    *,
    trusts: Path | None,
    password: str = PASSWORD,
    how: Callable[..., Awaitable[bool]] = IN_THREAD,
) -> bool:
    """Whether a letter was handed over by somebody who trusts this certificate, or whom the machine trusts."""
    listening = await asyncio.start_server(server, "127.0.0.1", 0)
    secret = tmp_path / "password"
    secret.write_text(password + "\n", encoding="utf-8")
    settings = Mail(
        host="localhost",
        port=listening.sockets[0].getsockname()[1],
        starttls=True,
        ca_file="" if trusts is None else str(trusts),
        username="galilean",
        password_file=str(secret),
    )
    try:
        return await how(settings, to=["eva@example.edu"], subject="热", text="hello")
    finally:
        listening.close()


async def test_password_and_letter_go_by_tls_alone(
    certified: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    server = Server(*certified("localhost"))
    assert await sent(server, tmp_path, trusts=server.certificate)
    assert [line.split(" ")[0].upper() for line, secret in server.heard if not secret] == ["EHLO", "STARTTLS"]
    (auth,) = [line for line, _ in server.heard if line.upper().startswith("AUTH PLAIN")]
    assert base64.b64decode(auth.split(" ")[2]).decode() == f"\0galilean\0{PASSWORD}"
    assert "hello" in [line for line, _ in server.heard]


@pytest.mark.parametrize(
    ("name", "trusted", "said"),
    [("localhost", False, "self-signed"), ("other.example.edu", True, "mismatch")],
)
async def test_a_server_that_cannot_prove_its_name_learns_nothing(
    certified: Callable[[str], tuple[Path, Path]], tmp_path: Path, name: str, trusted: bool, said: str
) -> None:
    server = Server(*certified(name))
    with pytest.raises(ConnectionError, match=f"the certificate of localhost: .*{said}"):
        await sent(server, tmp_path, trusts=server.certificate if trusted else None)
    assert server.words == ["EHLO", "STARTTLS"]


async def test_a_server_that_offers_no_tls_any_more_learns_nothing(
    certified: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    server = Server(*certified("localhost"), offers=("AUTH PLAIN",))
    with pytest.raises(ConnectionError, match="localhost offers no STARTTLS"):
        await sent(server, tmp_path, trusts=server.certificate)
    assert "AUTH" not in server.words and "MAIL" not in server.words


async def test_a_server_that_takes_no_password_is_said_to_be_so(
    certified: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    server = Server(*certified("localhost"), offers=("STARTTLS",))
    with pytest.raises(ConnectionError, match="localhost takes no password"):
        await sent(server, tmp_path, trusts=server.certificate)


async def test_a_wrong_password_is_said_without_the_password(
    certified: Callable[[str], tuple[Path, Path]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(*certified("localhost"), refuses_password=True)
    assert not await sent(server, tmp_path, trusts=server.certificate, how=send_soon)
    assert "535" in caplog.text and "horse" not in caplog.text


async def test_a_password_that_cannot_be_sent_keeps_the_letter(
    certified: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    """A ``ValueError`` would mean that this letter can never go."""
    server = Server(*certified("localhost"))
    with pytest.raises(ConnectionError, match="ASCII"):
        await sent(server, tmp_path, trusts=server.certificate, password="电池")
