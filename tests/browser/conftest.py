"""The real page in a real browser: ``app.py`` on a free port with a workspace of its own, driven through Chromium."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, Playwright, expect, sync_playwright

from tests.running_app import ROOT, end_app, free_port, start_app
from trainer.runs.store import Workspace

MEASURES = "LORA_ATELIER_MEASURE" in os.environ
"""Whether the machine is idle, so that times can be held to what is promised; else only to what is absurd."""
SHOTS = ROOT / "test-results"
ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class App:
    """The page's process. ``restart`` ends it the hard way and starts it again on the same workspace."""

    workspace: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def restart(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = start_app(self.workspace, self.port)


def chromium() -> str:
    """The browser to drive; the test is skipped where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        pytest.skip("no Chromium on this machine")
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The app with an empty workspace, one for each test file."""
    chromium()
    workspace = tmp_path_factory.mktemp("workspace")
    port = free_port()
    running = App(workspace, port, start_app(workspace, port))
    yield running
    end_app(running.process, workspace)


@pytest.fixture(scope="module")
def workspace(app: App) -> Workspace:
    """The app's workspace. Whatever works in it is ended with the app."""
    return Workspace(app.workspace)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    with sync_playwright() as playwright:
        context = open_browser(playwright, tmp_path_factory.mktemp("profile"))
        yield context
        context.close()


def open_browser(playwright: Playwright, profile: Path, width: int = 1440) -> BrowserContext:
    """A browser with a profile of its own, its windows so wide."""
    context = playwright.chromium.launch_persistent_context(
        str(profile),
        executable_path=chromium(),
        headless=True,
        args=ARGS,
        viewport={"width": width, "height": 1000},
    )
    context.set_default_timeout(120_000)
    expect.set_options(timeout=120_000)  # a busy machine is no failure
    return context


@pytest.fixture
def page(app: App, browser: BrowserContext) -> Iterator[Page]:
    """A fresh browser tab on the app's page, ready to be used."""
    opened = browser.new_page()
    opened.goto(app.url)
    wait_until_open(opened)
    yield opened
    opened.close()


def wait_until_open(page: Page) -> None:
    """Until then the page takes no input."""
    page.get_by_role("tab", name="Train", exact=True).wait_for(state="attached")
    page.wait_for_function("() => document.body && !document.body.inert")


def settled(page: Page) -> None:
    """Wait until what was opened is drawn and takes what is typed."""
    page.wait_for_function("() => !document.querySelector('[data-coming]')")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def expect_to_fit(page: Page, width_px: int = 390) -> None:
    """Nothing reaches over the right edge of a screen this narrow, once the page has laid itself out for it."""
    settled(page)
    page.wait_for_function("width => document.documentElement.scrollWidth <= width", arg=width_px)


def toast(page: Page, text: str) -> Locator:
    """The note that says so. All errors are in one note, all warnings in another: never look for the only note."""
    return page.locator(".toast-body").filter(has_text=text)


def dismiss(page: Page, text: str) -> None:
    """Wait for the note that says so and close it, so that the next one is seen to come."""
    toast(page, text).locator(".toast-close").click()
    expect(toast(page, text)).to_have_count(0)


@pytest.fixture
def shot(page: Page) -> Callable[[str], Path]:
    """``shot("name")`` keeps a picture of the page under ``test-results/``."""

    def take(name: str) -> Path:
        path = SHOTS / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        page.screenshot(path=path, full_page=True)
        return path

    return take


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Hold a process, so that it cannot end while a slow machine brings a click to the page."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
