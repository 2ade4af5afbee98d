"""One Jinja extension for two environments: the portal's and the hub's.

For the hub: ``c.JupyterHub.jinja_environment_options = {"extensions": [GalileanExtension]}``,
``c.JupyterHub.template_paths`` with :data:`TEMPLATES`, ``hub_template_vars(settings)`` in
``c.JupyterHub.template_vars``, and ``c.JupyterHub.tornado_settings = {"transforms": [language_transform(…)]}``.
Every hub page says ``{% extends "page.html" %}`` and so stands in our frame; ours extends the hub's own,
``templates/page.html``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from jinja2 import (
    BaseLoader,
    ChoiceLoader,
    Environment,
    FileSystemLoader,
    PrefixLoader,
    StrictUndefined,
    pass_context,
)
from jinja2.ext import InternationalizationExtension
from jinja2.runtime import Context
from markupsafe import Markup

from galilean import glossary
from galilean.errors import mark
from galilean.settings import Settings
from galilean.web import formats, language
from galilean.web.assets import STATIC, Assets

TEMPLATES = Path(__file__).parent / "templates"


def hub_data_files() -> Path:
    """``share/jupyterhub`` of the installed JupyterHub: its templates and static files."""
    from jupyterhub._data import DATA_FILES_PATH

    return Path(DATA_FILES_PATH)


def site_assets() -> Assets:
    """Our static files, npm's, and the hub's under ``hub/``."""
    return Assets({"": STATIC, "hub/": hub_data_files() / "static"})


class GalileanExtension(InternationalizationExtension):
    """Translations by the language of the request, our filters, ``icon()`` and ``asset()``."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        assets = site_assets()

        @pass_context
        def asset(context: Context, name: str) -> str:
            prefix = (
                context.get("assets_prefix") or (context.get("portal_url") or "/services/portal/") + "static/"
            )
            return assets.url(prefix, name)

        @pass_context
        def js_modules(context: Context) -> dict[str, Any]:
            """Import map: ``import … from "galilean/toasts"`` finds the file by its content's address."""
            names = sorted(path.stem for path in (STATIC / "js").glob("*.js"))
            return {"imports": {f"galilean/{name}": asset(context, f"js/{name}.js") for name in names}}

        environment.install_gettext_callables(  # type: ignore[attr-defined]
            language.translate, language.translate_plural, newstyle=True
        )
        environment.filters.update(formats.FILTERS)
        environment.globals.update(
            assets=assets,
            asset=asset,
            js_modules=js_modules,
            js_words=js_words,
            icon=assets.icon,
            ticking=formats.ticking,
            growing=formats.growing,
            html_language=language.html_language,
            term=_term,
            other_language=language.other_language,
            product_version=metadata.version("galilean"),
        )


def _term(key: str, shown: str) -> Markup:
    return glossary.term(key, shown, language.current.get())


class _NoncedHubTemplates(FileSystemLoader):
    """The hub's own templates, whose inline scripts get the nonce of our policy."""

    def get_source(self, environment: Environment, template: str) -> Any:
        source, name, fresh = super().get_source(environment, template)
        return re.sub(r"<script\b", '<script nonce="{{ csp_nonce }}"', source), name, fresh


def js_words() -> dict[str, str]:
    """The few sentences that scripts show, in the language of the request."""
    return {english: language.translate(english) for english in _JS_WORDS}


_JS_WORDS = (
    mark("Connection lost {seconds} s ago, trying again. Your clusters run on."),
    mark("You are not signed in any more. The page loads again."),
    mark("Something went wrong. Try again."),
    mark("The portal does not answer. Your clusters run on; try again in a few seconds."),
    mark("just now"),
    mark("Undo"),
    mark("Close"),
    mark("{n} selected"),
    mark("Copied"),
    mark("Look"),
    mark("Shall your browser tell you before a cluster goes back, also while you look at something else?"),
    mark("Yes, tell me"),
)


def portal_environment(
    template_paths: Sequence[Path] = (), static: Mapping[str, Path] = MappingProxyType({})
) -> Environment:
    """The environment of the portal: the rooms' templates, then ours, then the hub's.

    Parameters
    ----------
    template_paths
        The rooms' own.
    static
        The rooms' static files: prefix of the name → directory.
    """
    hub = _NoncedHubTemplates(hub_data_files() / "templates")
    loaders: list[BaseLoader] = [FileSystemLoader([*template_paths, TEMPLATES]), hub]
    environment = Environment(
        # The hub's convention: "templates/page.html" is the hub's own, also where ours has the same name.
        loader=ChoiceLoader([PrefixLoader({"templates": hub}), *loaders]),
        autoescape=True,
        extensions=[GalileanExtension],
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        cache_size=400,
    )
    assets: Assets = environment.globals["assets"]  # type: ignore[assignment]
    for prefix, root in static.items():
        assets.add(prefix, root)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "ensure_ascii": False}
    return environment


def hub_template_vars(settings: Settings) -> dict[str, Any]:
    """What ``page.html`` needs to be told when the hub renders it (no callables: the hub would call them)."""
    portal_url = portal_public_url(settings)
    return {
        "portal_url": portal_url,
        "assets_prefix": portal_url + "static/",
        "site_name": settings.site.name,
        "help_url": settings.site.help_url,
        "shared_domain": shared_domain(settings),
    }


def shared_domain(settings: Settings) -> str:
    """Domain of cookies that hub and portal both read (language, theme); empty when they are one host."""
    return urlsplit(settings.web.subdomain_host).hostname or ""


def portal_public_url(settings: Settings) -> str:
    """Address of the portal for browsers: a path, or a whole address when hosts are split."""
    path = settings.web.base_url + "services/portal/"
    if not settings.web.subdomain_host:
        return path
    parts = urlsplit(settings.web.subdomain_host)
    return f"{parts.scheme}://portal--service.{parts.netloc}{path}"
