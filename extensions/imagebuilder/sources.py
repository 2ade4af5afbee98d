"""How registries are asked that somebody named: the rules of ``images`` in the settings, in one place."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

from extensions.imagebuilder import guard
from extensions.imagebuilder.looks import HUB, HUB_API, platform_of, trust_of
from extensions.imagebuilder.registry.access import Credentials
from extensions.imagebuilder.registry.client import Registry
from extensions.imagebuilder.registry.manifests import Platform
from galilean.reachable import Reachable
from galilean.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Sources:
    """How registries of parents are asked: the rules of ``images`` in the settings."""

    reachable: tuple[str, ...] = ()
    plain_http: tuple[str, ...] = ()
    tls: ssl.SSLContext | None = None
    platform: Platform = field(default_factory=lambda: Platform("linux", "amd64"))

    def open(self, name: str, login: Credentials | None) -> tuple[Registry, guard.Guard]:
        """A client that goes nowhere where people's registries may not be."""
        plain = name in self.plain_http
        watch = guard.Guard(Reachable.parse(self.reachable))
        host = HUB_API if name == HUB else name
        registry = Registry(
            f"{'http' if plain else 'https'}://{host}",
            None if plain else login,
            transport=watch.transport(self.tls),
        )
        return registry, watch


def sources_of(settings: Settings) -> Sources:
    """By the settings."""
    return Sources(
        reachable=settings.images.reachable,
        plain_http=settings.images.plain_http,
        tls=trust_of(settings),
        platform=platform_of(settings),
    )
