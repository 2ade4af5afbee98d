"""The product with a host of its own for each person: the same tests' helpers, addressed by host.

Chromium takes every name below ``localhost`` for the machine itself; the machine's resolver need not, so
our own client connects to where the proxy listens and names the host in the request, as a browser would.
"""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path
from typing import Any

import httpx
import yaml
from jupyterhub.utils import subdomain_hook_idna

from tests.product.product import Product

DOMAIN = "hub.localhost"


class Here(httpx.HTTPTransport):
    """Connects to one machine, whatever the name in the address."""

    def __init__(self, host: str) -> None:
        super().__init__(verify=False)
        self.host = host

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        there = httpx.Request(
            request.method,
            request.url.copy_with(host=self.host),
            headers=request.headers,
            stream=request.stream,
            extensions=request.extensions,
        )
        return super().handle_request(there)


class ByHost(httpx.Client):
    """A path is asked at the host to which it belongs."""

    def __init__(self, port: int, scheme: str = "http", host: str = "127.0.0.1") -> None:
        super().__init__(transport=Here(host), timeout=60)
        self.port, self.scheme = port, scheme

    def request(self, method: str, url: Any, **more: Any) -> httpx.Response:
        return super().request(
            method, address(self.port, url, self.scheme) if str(url).startswith("/") else url, **more
        )


def host_of(user: str, port: int, scheme: str = "http") -> str:
    """The origin of a person's nodes."""
    return f"{scheme}://{subdomain_hook_idna(user, DOMAIN, 'user')}:{port}"


def address(port: int, path: str, scheme: str = "http") -> str:
    """The whole address of a path."""
    if path.startswith("/services/portal"):
        return f"{scheme}://portal--service.{DOMAIN}:{port}{path}"
    if path.startswith("/user/"):
        return host_of(path.split("/")[2], port, scheme) + path
    return f"{scheme}://{DOMAIN}:{port}{path}"


def split(product: Product, *, scheme: str = "http", host: str = "127.0.0.1") -> None:
    """Give everybody of an installation that was never started a host; its proxy listens at ``host``."""
    product.url = f"{scheme}://{DOMAIN}:{product.port}"
    settings = yaml.safe_load(product.config.read_text(encoding="utf-8"))
    settings["web"] = {**settings.get("web", {}), "subdomain_host": product.url}
    product.config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    product.http.close()
    product.http = ByHost(product.port, scheme, host)


class SplitProduct(Product):
    """A :class:`Product` with ``web.subdomain_host``, over https with a certificate of its own if asked."""

    def __init__(self, directory: Path, settings: dict[str, Any], *, scheme: str = "http") -> None:
        settings = copy.deepcopy(settings)
        if scheme == "https":
            certificate = {"ssl_cert": str(directory / "cert.pem"), "ssl_key": str(directory / "key.pem")}
            settings["jupyterhub"]["JupyterHub"].update(certificate)
            words = (
                f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={DOMAIN} -keyout key.pem -out cert.pem"
            )
            subprocess.run(["openssl", *words.split()], cwd=directory, check=True, capture_output=True)
        super().__init__(directory, settings)
        split(self, scheme=scheme)
