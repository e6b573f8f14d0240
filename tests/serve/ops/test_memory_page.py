"""The memory page in a real browser. `LONGREC_MEMORY_PAGE=URL LONGREC_MEMORY_USER=ID` takes its picture of a server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recsys.types import Event, Item, User
from tests.serve.conftest import World
from tests.serve.fake import CATALOGUE, FakeEngine
from tests.serve.ops.conftest import WITH_PORT

playwright = pytest.importorskip("playwright.sync_api", reason="no browser driver: pip install 'longrec[browser]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

PICTURE = Path(__file__).parents[3] / "docs" / "pictures" / "memory_page.png"
EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        # Chromium's own sandbox wants rights that containers do not give.
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page on which everything that goes wrong is noted in `page.wrongs`."""
    made = browser.new_page(viewport={"width": 1280, "height": 900})
    made.wrongs = []
    made.on("console", lambda said: made.wrongs.append(said.text) if said.type == "error" else None)
    made.on("pageerror", lambda error: made.wrongs.append(str(error)))
    yield made
    made.close()


def evil_world(open_world: Callable[..., World], **config: Any) -> World:
    catalogue = {**CATALOGUE, "evil": Item(item_id="evil", title=EVIL)}
    world = open_world(FakeEngine(catalogue=catalogue), **config)
    events = [("item-1", 1.6e9), ("evil", 1.65e9), ("item-2", 1.7e9)]
    world.client.write_events([Event(user_id="ada", item_id=item, timestamp=at) for item, at in events])
    world.client.rank_items(User(user_id="ada"), ["item-2", "evil", "item-5"])
    return world


def ask(page: Any, world: World, user: str, text: str = "") -> None:
    page.goto(f"http://127.0.0.1:{world.server.admin_port}/")
    page.fill("#user", user)
    page.fill("#text", text)
    page.click("button[type=submit]")


def test_a_life_a_search_and_a_ranking_with_its_reasons(page: Any, open_world: Callable[..., World]) -> None:
    world = evil_world(open_world)
    ask(page, world, "ada")
    page.wait_for_selector("#memories li")
    assert page.locator("#memories > li .title").all_inner_texts() == ["Title 2", EVIL, "Title 1"]
    assert page.inner_text("#summary") == "3 events, 2020-09-13 to 2023-11-14"
    assert page.locator("#life rect").count() == 3
    page.click("text=Why?")
    page.wait_for_selector(".why table")
    assert "met" in page.inner_text(".why")
    page.fill("#text", "item-2")
    page.click("button[type=submit]")
    playwright.expect(page.locator("#memories > li")).to_have_count(1)
    assert page.inner_text("#life-title") == "Nearest memories"
    assert page.wrongs == []


def test_what_data_says_is_text_and_stays_text(page: Any, open_world: Callable[..., World]) -> None:
    world = evil_world(open_world)
    ask(page, world, "ada")
    page.wait_for_selector("#memories li")
    page.click("text=Why?")
    page.wait_for_selector(".why table")
    assert page.title() == "Memory"
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1
    # Even what would get into the page could not run: the policy allows no inline script.
    page.evaluate("""() => {
        const script = document.createElement('script');
        script.textContent = "document.title = 'owned'";
        document.body.append(script);
    }""")
    assert page.title() == "Memory"
    assert any("Content Security Policy" in wrong for wrong in page.wrongs)


def test_nobody_known_and_what_is_wrong_are_told(page: Any, open_world: Callable[..., World]) -> None:
    world = evil_world(open_world)
    ask(page, world, "nobody")
    playwright.expect(page.locator("#message")).to_have_text("Nothing is remembered of this user.")
    page.evaluate("document.getElementById('user').value = 'a\\0b'")
    page.click("button[type=submit]")
    page.wait_for_selector("#message.wrong")
    assert "user" in page.inner_text("#message")


def test_a_token_is_asked_for_where_one_is_needed(page: Any, open_world: Callable[..., World], tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text("t" * 40)
    world = evil_world(open_world, admin_http=replace(WITH_PORT, token_path=path))
    ask(page, world, "ada")
    page.wait_for_selector("#token-label:not([hidden])")
    page.fill("#token", "t" * 40)
    page.click("button[type=submit]")
    page.wait_for_selector("#memories li")


def test_dark_is_dark_and_both_can_be_read(page: Any, open_world: Callable[..., World]) -> None:
    world = evil_world(open_world)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        ask(page, world, "ada")
        page.wait_for_selector("#memories li")
        ground, ink, soft = page.evaluate("""() => {
            const body = getComputedStyle(document.body);
            return [body.backgroundColor, body.color, getComputedStyle(document.querySelector('time')).color];
        }""")
        assert (_brightness(ground) < 0.2) == (scheme == "dark")
        assert _contrast(ground, ink) >= 7
        assert _contrast(ground, soft) >= 4.5


def _brightness(colour: str) -> float:
    """Relative luminance, by WCAG."""
    channels = [int(each) / 255 for each in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    darker, lighter = sorted((_brightness(one), _brightness(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.skipif("LONGREC_MEMORY_PAGE" not in os.environ, reason="takes a picture; LONGREC_MEMORY_PAGE names a page")
def test_picture(page: Any) -> None:
    page.goto(os.environ["LONGREC_MEMORY_PAGE"])
    page.fill("#user", os.environ["LONGREC_MEMORY_USER"])
    page.click("button[type=submit]")
    page.wait_for_selector("#memories li")
    page.click("text=Why?")
    page.wait_for_selector(".why table")
    page.screenshot(path=PICTURE)
    assert page.wrongs == []
