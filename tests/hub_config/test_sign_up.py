"""Sign up, wait, be granted; sign in; what nobody may sign up as."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from galilean.errors import UserError
from galilean.mail import send_soon
from galilean.rights import initial
from galilean.settings import Settings
from hub_config.authenticator import WrongPasswords, check_name
from hub_config.secrets import WaitingAccount, hash_password, leave_account
from hub_config.wiring import tell_admins
from services.people.waiting import list_accounts
from tests.hub_config.conftest import SiteFactory, fill

pytestmark = pytest.mark.hub


async def sign_up(
    browser: httpx.AsyncClient, name: str, password: str = "winter is coming"
) -> httpx.Response:
    return await fill(browser, "/hub/signup", username=name, signup_password=password)


async def sign_in(browser: httpx.AsyncClient, name: str, password: str) -> httpx.Response:
    return await fill(browser, "/hub/login", username=name, password=password)


async def test_a_new_account_is_signed_in_and_waits_for_a_role(site_of: SiteFactory) -> None:
    site = await site_of()
    async with site.browser() as browser:
        answer = await sign_up(browser, "Eva.Li")
        assert answer.status_code == 302
        assert answer.headers["location"] == "/services/portal/"
        home = await browser.get("/hub/token")
        assert home.status_code == 200
        assert "eva.li" in home.text
    waiting = [a.name for a in await list_accounts(site.command, initial(site.settings)) if a.waits]
    assert waiting == ["eva.li"]
    async with site.browser() as browser:
        assert (await sign_in(browser, "eva.li", "winter is coming")).status_code == 302


@pytest.mark.parametrize(
    ("name", "password", "status", "says"),
    [
        ("admin", "winter is coming", 409, "taken"),
        ("root", "winter is coming", 409, "taken"),
        ("hub", "winter is coming", 409, "taken"),
        ("boss", "winter is coming", 409, "taken"),
        ("known", "winter is coming", 409, "taken"),
        ("eva", "short", 400, "at least 8"),
        ("eva", "password", 400, "guess"),
        ("winteriscoming", "winteriscoming", 400, "guess"),
        ("eva", "冬" * 30, 400, "at most 72"),
        ("-eva", "winter is coming", 400, "user name"),
        ("e/va", "winter is coming", 400, "user name"),
        ("eva li", "winter is coming", 400, "user name"),
        ("", "winter is coming", 400, "user name"),
        ("x" * 33, "winter is coming", 400, "user name"),
    ],
)
async def test_what_nobody_may_sign_up_with_is_told_in_words(
    site_of: SiteFactory, name: str, password: str, status: int, says: str
) -> None:
    site = await site_of({"signup": {"admins": ["boss"]}})
    await site.person("known", "teacher")  # from elsewhere: whoever signed it up would be a teacher
    async with site.browser() as browser:
        answer = await sign_up(browser, name, password)
        assert answer.status_code == status
        assert says in answer.text
        assert "jupyterhub-session-id" not in answer.cookies


async def test_the_same_name_cannot_be_signed_up_twice_even_at_once(site_of: SiteFactory) -> None:
    site = await site_of()
    async with site.browser() as one, site.browser() as two:
        answers = await asyncio.gather(
            sign_up(one, "eva", "the first of two"), sign_up(two, "eva", "the second one")
        )
        assert sorted(answer.status_code for answer in answers) == [302, 409]


async def test_sign_up_can_be_closed(site_of: SiteFactory) -> None:
    site = await site_of({"signup": {"open": False}})
    async with site.browser() as browser:
        assert (await browser.get("/hub/signup")).status_code == 404
        assert "signup" not in (await browser.get("/hub/login")).text


async def test_a_form_without_its_token_makes_nothing(site_of: SiteFactory) -> None:
    site = await site_of()
    async with site.browser() as browser:
        answer = await browser.post(
            "/hub/signup",
            data={"username": "eva", "signup_password": "winter is coming"},
            headers={
                "Sec-Fetch-Mode": "navigate",
                "Sec-Fetch-Site": "cross-site",
                "Sec-Fetch-Dest": "document",
            },
        )
        assert answer.status_code == 403
    assert not [a for a in await list_accounts(site.command, initial(site.settings)) if a.name == "eva"]


async def test_pages_speak_the_visitor_s_language(site_of: SiteFactory) -> None:
    site = await site_of()
    async with site.browser("zh-CN,zh;q=0.9") as browser:
        page = await browser.get("/hub/login")
        assert '<html lang="zh-CN">' in page.text or "登录" in page.text
        assert "登录" in page.text
        answer = await sign_in(browser, "nobody", "nothing at all")
        assert answer.status_code == 403
        assert "密码" in answer.text
    async with site.browser("en") as browser:
        assert "Sign in" in (await browser.get("/hub/login")).text


async def test_guessing_a_password_has_to_wait_and_is_told_so(site_of: SiteFactory) -> None:
    site = await site_of()
    await site.person("eva", "student")
    await site.command.request("PUT", "/galilean/passwords/eva", json={"password": "winter is coming"})
    async with site.browser() as browser:
        for _ in range(8):
            assert (await sign_in(browser, "eva", "wrong")).status_code == 403
        answer = await sign_in(browser, "eva", "winter is coming")
        assert answer.status_code == 403
        assert "Too many wrong passwords" in answer.text


def test_wrong_passwords_are_forgotten_after_the_wait_and_by_a_right_one() -> None:
    now = [0.0]
    wrong = WrongPasswords(2, 60, lambda: now[0])
    wrong.wrong("eva")
    assert wrong.must_wait("eva") == 0
    wrong.wrong("eva")
    assert wrong.must_wait("eva") == 60
    assert wrong.must_wait("tom") == 0
    now[0] = 61
    assert wrong.must_wait("eva") == 0
    wrong.wrong("eva")
    assert wrong.must_wait("eva") == 0
    wrong.right("eva")
    for number in range(20_000):
        wrong.wrong(f"made-up-{number}")
    assert len(wrong._last) <= 10_000


async def test_one_changes_one_s_own_password_with_the_present_one(site_of: SiteFactory) -> None:
    site = await site_of()
    async with site.browser() as browser:
        await sign_up(browser, "eva")
        answer = await fill(
            browser, "/hub/change-password", old_password="not it", new_password="spring has come"
        )
        assert answer.status_code == 403
        answer = await fill(
            browser, "/hub/change-password", old_password="winter is coming", new_password="spring has come"
        )
        assert answer.status_code == 200
    async with site.browser() as browser:
        assert (await sign_in(browser, "eva", "winter is coming")).status_code == 403
        assert (await sign_in(browser, "eva", "spring has come")).status_code == 302


async def test_only_administrators_set_the_password_of_others(site_of: SiteFactory) -> None:
    site = await site_of()
    eva = await site.person("eva", "teacher")
    with pytest.raises(UserError) as refused:
        await eva.request("PUT", "/galilean/passwords/admin", json={"password": "mine now, haha"})
    assert refused.value.status == 403
    with pytest.raises(UserError) as refused:
        await site.command.request("PUT", "/galilean/passwords/nobody", json={"password": "x"})
    assert refused.value.status == 404


async def test_accounts_that_wait_for_the_hub_are_made_once_and_a_changed_password_stays(
    site_of: SiteFactory,
) -> None:
    site = await site_of()
    state = site.settings.state
    leave_account(
        state, WaitingAccount(name="tom", password_hash=hash_password("first word"), role="student")
    )
    site = await site_of()
    async with site.browser() as browser:
        assert (await sign_in(browser, "tom", "first word")).status_code == 302
    assert not list((state / "secrets" / "accounts").glob("*.json"))
    assert (await site.command.user("tom"))["groups"] == ["galilean:student"]
    await site.command.request("PUT", "/galilean/passwords/tom", json={"password": "second word"})
    leave_account(
        state, WaitingAccount(name="tom", password_hash=hash_password("first word"), role="student")
    )
    site = await site_of()
    async with site.browser() as browser:
        assert (await sign_in(browser, "tom", "first word")).status_code == 403
        assert (await sign_in(browser, "tom", "second word")).status_code == 302


async def test_the_hub_s_own_home_and_spawn_form_lead_to_the_portal(site_of: SiteFactory) -> None:
    site = await site_of()
    async with site.browser() as browser:
        await sign_up(browser, "eva")
        for path in ("/hub/home", "/hub/spawn", "/hub/spawn/eva"):
            answer = await browser.get(path)
            assert (answer.status_code, answer.headers["location"]) == (302, "/services/portal/")
        answer = await browser.get("/hub/spawn/eva/heat")
        assert answer.headers["location"].startswith("/services/portal/")
        assert "heat" in answer.headers["location"]
        root = await browser.get("/hub/")
        assert root.headers["location"] == "/services/portal/"


def test_names_that_are_kept_are_kept_in_any_case() -> None:
    assert check_name("eva", {"boss"}) == "eva"
    assert check_name("2026123", set()) == "2026123"
    with pytest.raises(UserError):
        check_name("boss", {"boss"})


class Post:
    """A mail server that takes everything."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.done = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 post\r\n")
        text: list[str] | None = None
        while raw := await reader.readline():
            line = raw.decode().rstrip("\r\n")
            if text is not None and line != ".":
                text.append(line)
            elif text is not None:
                self.messages.append("\n".join(text))
                text = None
                writer.write(b"250 taken\r\n")
            elif line.upper() == "DATA":
                text = []
                writer.write(b"354 go on\r\n")
            elif line.upper() == "QUIT":
                writer.write(b"221 bye\r\n")
                self.done.set()
            else:
                writer.write(b"250 ok\r\n")
        writer.close()


async def test_administrators_get_a_mail_when_a_server_is_set() -> None:
    post = Post()
    server = await asyncio.start_server(post, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = Settings.model_validate(
        {"mail": {"host": "127.0.0.1", "port": port, "admins": ["ops@example.edu"]}, "site": {"name": "Io"}}
    )
    tell_admins(settings)("eva")
    async with asyncio.timeout(10):
        await post.done.wait()
    server.close()
    (message,) = post.messages
    assert "To: ops@example.edu" in message
    assert "Io: eva waits for a role" in message


async def test_a_mail_server_that_is_away_hinders_nobody() -> None:
    settings = Settings.model_validate({"mail": {"host": "127.0.0.1", "port": 1, "admins": ["a@b.cd"]}})
    assert await send_soon(settings.mail, to=["a@b.cd"], subject="x", text="y") is False
    assert await send_soon(Settings().mail, to=["a@b.cd"], subject="x", text="y") is False
