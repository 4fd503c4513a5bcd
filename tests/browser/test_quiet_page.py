"""What an open page costs and how old it may be: nothing is sent while nothing changes, and news come soon."""

from __future__ import annotations

import time

import pytest
from playwright.sync_api import Page, Request

from tests.browser.conftest import App
from tests.browser.example_runs import example_run, metrics, open_tab, tell
from trainer.runs.store import Run, Workspace

LOOKS = 4
MOST_AGE_SECONDS = 2.0
LOADED = 10.0
"""How much longer the age may be where others are at work; measured on an idle machine the plain limit holds."""


@pytest.fixture(scope="module")
def run(app: App) -> Run:
    return example_run(Workspace(app.workspace), "quiet")


def is_ask(request: Request) -> bool:
    return "/component_server" in request.url


COUNTS_FRAMES = """
window.frames_asked = 0;
const schedule = window.requestAnimationFrame.bind(window);
window.requestAnimationFrame = (callback) => { window.frames_asked++; return schedule(callback); };
"""


def test_a_page_on_which_nothing_changes_asks_and_is_sent_nothing(page: Page, run: Run) -> None:
    page.add_init_script(COUNTS_FRAMES)
    page.reload()
    open_tab(page, "Runs")
    page.locator("#run-charts .large .line.smooth").wait_for(state="attached")
    for _ in range(LOOKS):  # what is filled on opening has come
        page.wait_for_event("request", is_ask)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.evaluate("""() => {
        window.changes = 0;
        new MutationObserver(list => (window.changes += list.length)).observe(
            document.querySelector(".runs-page"),
            { subtree: true, childList: true, attributes: true, characterData: true });
    }""")
    for _ in range(LOOKS):
        page.wait_for_event("request", is_ask)
    assert [url for url in requests if "/component_server" not in url and "/runs/now" not in url] == []
    assert page.evaluate("window.changes") == 0
    page.evaluate("window.frames_asked = 0")
    page.wait_for_timeout(1000)
    assert page.evaluate("window.frames_asked") <= 2, "a loop of frames is going on"


def test_a_hidden_page_asks_nothing_and_asks_at_once_when_it_is_seen(page: Page, run: Run) -> None:
    open_tab(page, "Runs")
    page.wait_for_event("request", is_ask)
    asks: list[str] = []
    page.evaluate("Object.defineProperty(document, 'visibilityState', { get: () => 'hidden', configurable: true })")
    page.wait_for_timeout(2000)  # what was asked before is answered
    page.on("request", lambda request: asks.append(request.url) if is_ask(request) else None)
    page.wait_for_timeout(4000)
    assert asks == []
    with page.expect_request(is_ask):
        page.evaluate("delete document.visibilityState; document.dispatchEvent(new Event('visibilitychange'))")


def test_what_is_shown_is_soon_the_newest(page: Page, run: Run) -> None:
    """The time from a step's event until its loss stands in the head and its point on the curve."""
    open_tab(page, "Runs")
    page.locator("#run-charts .large .line.raw[data-points='120']").wait_for(state="attached")
    (event,) = metrics(run, 121, 121)
    tell(run, event)
    begun = time.monotonic()
    page.locator("#run-charts .large .line.raw[data-points='121']").wait_for(state="attached")
    page.locator("#run-head .facts", has_text=f"loss {event['loss']:.4f}").wait_for()
    assert time.monotonic() - begun < MOST_AGE_SECONDS + LOADED
