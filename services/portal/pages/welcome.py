"""The centre's home page, for whoever comes by: what an administrator wrote, or the product's own.

What is written there is HTML with style and scripts, so it never stands in a page of ours: ``/welcome/page`` is a
document that its own policy puts into an opaque origin, whoever opens it from wherever. It can read nothing of the
visitor and ask nobody for anything; Bootstrap, its scripts and icons come from this site. ``/welcome`` shows it in
a frame, the sign-in page does, too.
"""

from __future__ import annotations

from typing import Any

from markupsafe import Markup
from tornado.web import RequestHandler

from galilean.messages import HomePage, Known, Messages
from galilean.web.context import Portal
from galilean.web.handlers import PageHandler

#: What runs in every such document: it tells its height, and follows the theme of the page around it.
BRIDGE = """
(() => {
  const root = document.documentElement;
  let told = false;
  const tell = () => parent.postMessage({ galilean: "height", height: Math.ceil(root.getBoundingClientRect().height) }, "*");
  const dark = (yes) => { root.dataset.bsTheme = yes ? "dark" : "light"; };
  dark(matchMedia("(prefers-color-scheme: dark)").matches);
  addEventListener("message", (event) => {
    if (event.source !== parent || event.data?.galilean !== "theme") return;
    const before = root.dataset.bsTheme;
    dark(event.data.theme === "dark");
    if (!told) { told = true; tell(); } else if (before !== root.dataset.bsTheme) tell();
  });
  new ResizeObserver(tell).observe(root);
  addEventListener("load", tell);
})();
"""


def said_of(portal: Portal) -> Known:
    """What the centre says to everybody, as this process knows it."""
    return portal.parts.setdefault("messages", Known(portal.db))


def frame_policy(hub_host: str = "") -> str:
    """The content security policy of what administrators wrote.

    Links may lead the whole window elsewhere when pressed, and open new tabs; nothing is loaded from elsewhere.
    """
    around = f" {hub_host}" if hub_host else ""
    return "; ".join(
        (
            "sandbox allow-scripts allow-popups allow-popups-to-escape-sandbox"
            " allow-top-navigation-by-user-activation",
            "default-src 'none'",
            "script-src 'self' 'unsafe-inline'",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "media-src data: blob:",
            "font-src 'self' data:",
            "form-action 'none'",
            "base-uri 'none'",
            f"frame-ancestors 'self'{around}",
        )
    )


def write_frame(handler: PageHandler, home: HomePage, messages: Messages, *, announce: bool = False) -> None:
    """Answer with the document of a home page.

    Parameters
    ----------
    handler
        Of the request.
    home, messages
        What the centre says.
    announce
        Whether announcements for visitors stand on top.
    """
    portal = handler.portal
    handler.set_header("Content-Security-Policy", frame_policy(portal.hub_host))
    handler.set_header("X-Content-Type-Options", "nosniff")
    handler.set_header("Referrer-Policy", "no-referrer")
    # The page around it may be the hub's, which has another origin where hosts are split.
    handler.clear_header("Cross-Origin-Opener-Policy")
    handler.set_header("Content-Type", "text/html; charset=utf-8")
    now = portal.clock()
    values = {
        **handler.base_namespace(),
        "home": home,
        "part": Markup,
        "css": style_text(home.css),
        "own_script": script_text(home.script),
        "announced": [
            (one.tone, one.said(handler.language)) for one in messages.now(now, visitors=True) if announce
        ],
        "script": Markup(BRIDGE),  # noqa: S704 - ours
        "sign_in_url": portal.hub_url + "login",
        "help_address": messages.help_url or portal.settings.site.help_url,
        "signup": portal.settings.signup,
    }
    handler.finish(portal.jinja.get_template("welcome_frame.html").render(values))


class WelcomeFrame(PageHandler):
    """The document; ``?beside`` is asked for by the sign-in page."""

    anonymous = True

    async def prepare(self) -> None:
        """Whoever asks gets the same: nobody is asked who they are."""
        from galilean.web import language

        language.current.set(language.language_of(self.request, default=self.portal.settings.site.language))
        self.person = None  # type: ignore[assignment]

    async def get(self) -> None:
        said = await said_of(self.portal).get()
        if self.get_query_argument("beside", "") and not said.home.beside_sign_in:
            # It tells no height, so it is not shown.
            self.set_header("Content-Security-Policy", frame_policy(self.portal.hub_host))
            self.finish("")
            return
        write_frame(self, said.home, said.messages, announce=True)


class Welcome(PageHandler):
    """The page around it."""

    anonymous = True

    async def get(self) -> None:
        await self.render_page("welcome.html", sign_in_url=self.portal.hub_url + "login")


async def extras(handler: PageHandler) -> dict[str, Any]:
    """Variables of ``page.html``: announcements, the message of the day, links of the footer."""
    portal = handler.portal
    messages = (await said_of(portal).get()).messages
    name = handler.person.name if handler.person else ""
    return {
        "announced": [
            (one.id, one.tone, one.said(handler.language))
            for one in messages.now(portal.clock(), visitors=handler.person is None)
        ],
        "message_of_the_day": messages.today_in(handler.language),
        "help_url": messages.help_url or portal.settings.site.help_url,
        "ticket_url": messages.ticket(page=handler.request.path, user=name) if messages.ticket_url else "",
    }


def script_text(value: str) -> Markup:
    """Somebody's JavaScript as it may stand in a script element: it cannot end the element."""
    return Markup(value.replace("</", "<\\/"))  # noqa: S704 - it is an administrator's, in a frame of its own


def style_text(value: str) -> Markup:
    """Somebody's CSS as it may stand in a style element."""
    return Markup(value.replace("</", "<\\/"))  # noqa: S704 - as above


def routes() -> list[tuple[str, type[RequestHandler]]]:
    """Addresses of this module, relative to the portal's prefix."""
    return [(r"/welcome", Welcome), (r"/welcome/page", WelcomeFrame)]
