"""The page of `forebay ops` in a headless browser: `make e2e-page`, with Chromium on PATH."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

import forebay
from forebay.coordinator.server.embedded import EmbeddedServer
from tests.contract.chat_domain import MODEL, item
from tests.support_scripts import AIMD

PATIENCE_MS = 20_000
KINDS = {
    "light": {"viewport": {"width": 1280, "height": 900}},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "tablet": {"viewport": {"width": 800, "height": 1000}},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True},
}
WHEN_SHOWN = """text => new Promise(resolve => {
    const rows = document.querySelector("#models tbody");
    const look = () => rows.textContent.includes(text) && resolve(Date.now() / 1000);
    new MutationObserver(look).observe(rows, {subtree: true, childList: true, characterData: true});
    look();
})"""
"""Resolves, to seconds since 1970, when the table of models has the text."""


@contextmanager
def ops(url: str, port: int = 0) -> Iterator[str]:
    """Run `forebay ops` for the length of a block; yield its URL."""
    command = [sys.executable, "-m", "forebay", "ops", "--url", url, "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().removeprefix("listening on ").strip()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode == 0


@asynccontextmanager
async def browsing() -> AsyncIterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "chromium is not on PATH; on Debian: apt-get install chromium"
    async with async_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = await playwright.chromium.launch(executable_path=chromium, args=sandbox)
        yield browser
        await browser.close()


async def opened(browser: Browser, at: str, **kind: Any) -> tuple[Page, list[str]]:
    """Open the page; also return the list to which its errors are added."""
    page, errors = await browser.new_page(**kind), list[str]()
    page.set_default_timeout(PATIENCE_MS)
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    await page.goto(at)
    return page, errors


async def refuse_once(requests: Any) -> None:
    lease = await requests.acquire(item())
    limited = forebay.RequestOutcomeKind.RATE_LIMITED
    await requests.release(
        lease, forebay.RequestReleaseOutcome(kind=limited, retry_after_seconds=0.001)
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_the_page_shows_a_window_that_falls_after_429s(tmp_path: Path, kind: str) -> None:
    with EmbeddedServer(tmp_path) as own, ops(own.url) as at:
        async with forebay.connect(own.url) as requests, browsing() as browser:
            await requests.register(MODEL, "main", 40, AIMD)
            await requests.release(await requests.acquire(item()), forebay.SUCCESS)
            page, errors = await opened(browser, at, **KINDS[kind])
            row = page.locator("#models tbody tr")
            await expect(row).to_contain_text("40 of 40", timeout=PATIENCE_MS)
            shown_at = asyncio.create_task(page.evaluate(WHEN_SHOWN, "30 of 40"))
            await refuse_once(requests)
            began = time.time()
            print(f"{kind}: the page showed the cut after {await shown_at - began:.2f} s")
            await expect(page.locator("#events")).to_contain_text("request limit decreased")
            await row.click()
            await expect(page.locator("#facts")).to_contain_text("heartbeat", timeout=PATIENCE_MS)
            for part in ("document.documentElement", "document.querySelector('#detail')"):
                wide, shown = await page.evaluate(f"[{part}.scrollWidth, {part}.clientWidth]")
                assert wide <= shown, part
            ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (ground == "rgb(255, 255, 255)") == (kind != "dark")
            assert errors == []


async def test_the_keyboard_opens_a_model_and_a_hostile_name_is_text(tmp_path: Path) -> None:
    hostile = "<img src=x onerror=document.title=1>"
    with EmbeddedServer(tmp_path) as own, ops(own.url) as at:
        async with forebay.connect(own.url) as requests, browsing() as browser:
            await requests.register(MODEL, "main", 1, AIMD)
            held = await requests.acquire(item())
            group = forebay.RequestGroupSpec(key=hostile)
            waiting = asyncio.create_task(requests.acquire(item(group=group)))
            page, errors = await opened(browser, at)
            await expect(page.locator("#models tbody tr")).to_be_visible(timeout=PATIENCE_MS)
            await page.keyboard.press("j")
            await page.keyboard.press("Enter")
            await expect(page.locator("#facts")).to_contain_text(hostile, timeout=PATIENCE_MS)
            await page.keyboard.press("Escape")
            await expect(page.locator("#detail")).to_be_hidden()
            await page.keyboard.press("/")
            await page.keyboard.type("nothing like it")
            await expect(page.locator("#models tbody tr")).to_have_count(0)
            assert await page.title() == "Forebay"
            assert errors == []
            waiting.cancel()
            await requests.release(held, forebay.SUCCESS)


async def test_the_page_outlives_its_server_and_forebay_ops_itself(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as own:
        with ops(own.url) as at:
            async with browsing() as browser:
                page, _ = await opened(browser, at)
                state = page.locator("#state")
                await expect(state).to_contain_text("live", timeout=PATIENCE_MS)
                own.kill()
                await expect(state).to_contain_text(
                    "no answer from the server", timeout=PATIENCE_MS
                )
                own.restart()
                await expect(state).to_contain_text("live", timeout=PATIENCE_MS)
        port = int(at.rpartition(":")[2])
        async with browsing() as browser:
            with ops(own.url, port):
                page, _ = await opened(browser, at)
                await expect(page.locator("#state")).to_contain_text("live", timeout=PATIENCE_MS)
            said = "forebay ops does not answer"
            await expect(page.locator("#state")).to_contain_text(said, timeout=PATIENCE_MS)
            with ops(own.url, port):
                await expect(page.locator("#state")).to_contain_text("live", timeout=PATIENCE_MS)
