"""One certificate authority for the lab, and a certificate for each part, made by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path

_EXTENSIONS = """basicConstraints=CA:FALSE
keyUsage=digitalSignature,keyEncipherment
extendedKeyUsage=serverAuth,clientAuth
"""


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class Authority:
    """Makes ``<name>.crt`` and ``<name>.key`` in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key("ca")
        _openssl(
            "req", "-x509", "-new", "-key", str(self.key("ca")), "-subj", "/CN=galilean-lab", "-days", "3",
            "-out", str(self.crt("ca")),
        )  # fmt: skip
        self._key("service-accounts")
        _openssl("pkey", "-in", str(self.key("service-accounts")), "-pubout",
                 "-out", str(folder / "service-accounts.pub"))  # fmt: skip

    def crt(self, name: str) -> Path:
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def _key(self, name: str) -> None:
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(self.key(name)))

    def issue(
        self, name: str, common_name: str, *, organisation: str = "", hosts: tuple[str, ...] = ()
    ) -> None:
        """A certificate for a client (its name and group) or a server (its host names and addresses)."""
        self._key(name)
        subject = (f"/O={organisation}" if organisation else "") + f"/CN={common_name}"
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        names = ",".join(("IP:" if host[0].isdigit() else "DNS:") + host for host in hosts)
        extensions.write_text(_EXTENSIONS + (f"subjectAltName={names}\n" if names else ""))
        _openssl("req", "-new", "-key", str(self.key(name)), "-subj", subject, "-out", str(request))
        _openssl(
            "x509", "-req", "-in", str(request), "-CA", str(self.crt("ca")), "-CAkey", str(self.key("ca")),
            "-CAcreateserial", "-days", "3", "-extfile", str(extensions), "-out", str(self.crt(name)),
        )  # fmt: skip

    def kubeconfig(self, name: str, server: str) -> Path:
        """A kubeconfig for the client ``name``."""
        path = self.folder / f"{name}.kubeconfig"
        path.write_text(
            f"""apiVersion: v1
kind: Config
clusters: [{{name: lab, cluster: {{server: "{server}", certificate-authority: "{self.crt("ca")}"}}}}]
users: [{{name: me, user: {{client-certificate: "{self.crt(name)}", client-key: "{self.key(name)}"}}}}]
contexts: [{{name: lab, context: {{cluster: lab, user: me}}}}]
current-context: lab
"""
        )
        path.chmod(0o600)
        return path
