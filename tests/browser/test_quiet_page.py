"""What an open page costs and how old it may be: nothing is sent while nothing changes, and news come soon."""

from __future__ import annotations

import logging
import threading
import time

import psutil
import pytest
from playwright.sync_api import Page, Request, expect

from tests.browser.conftest import MEASURES, App
from tests.browser.example_runs import example_run, metrics, open_tab, tell
from trainer.metrics import EVENT_SECONDS
from trainer.runs.store import Run, Workspace

_log = logging.getLogger(__name__)

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


def test_steps_of_a_run_are_told_without_an_event_of_gradio(page: Page, run: Run) -> None:
    """What an event of it costs a page is what open pages would cost a training on the same machine."""
    alive = psutil.Process()
    going = example_run(
        Workspace(run.dir.parents[1]), "going", "training", steps=40, pid=alive.pid, pid_started=alive.create_time()
    )
    open_tab(page, "Runs")
    page.locator("#run-list").get_by_role("button", name="going").click()
    page.locator("#run-charts .large .line.raw[data-points='40']").wait_for(state="attached")
    page.wait_for_event("request", is_ask)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    tell(going, *metrics(going, 41, 60))
    going.update(step=60)
    page.locator("#run-charts .large .line.raw[data-points='60']").wait_for(state="attached")
    expect(page.locator("#run-head .facts")).to_contain_text("step 60")
    expect(page.locator("#run-list .run-item.selected")).to_contain_text("60 of")
    expect(page.locator("#run-queue .going .when")).to_contain_text("50 %")
    assert [url for url in requests if "/gradio_api/" in url and "/component_server" not in url] == []
    going.update(state="stopped", ended=going.read().created + 20)
    page.locator("#run-list").get_by_role("button", name="quiet").click()
    expect(page.locator("#run-head h2")).to_have_text("quiet")


def test_curves_out_of_sight_are_of_the_run_that_is_shown(page: Page, run: Run) -> None:
    """As a page that is printed has them: they are drawn once, and anew when they come into sight."""
    lowest = page.locator("#run-charts .chart.small .line").last
    page.set_viewport_size({"width": 390, "height": 500})
    open_tab(page, "Runs")
    lowest.wait_for(state="attached")
    expect(lowest).not_to_be_in_viewport()
    before = lowest.get_attribute("d")
    other = example_run(Workspace(run.dir.parents[1]), "other", steps=30)
    page.locator("#run-list").get_by_role("button", name="other").click()
    expect(lowest).not_to_have_attribute("d", str(before))
    drawn = str(lowest.get_attribute("d"))
    newest = page.locator("#run-charts .chart.large figcaption")
    told = newest.inner_text()
    tell(other, *metrics(other, 31, 60))
    expect(newest).not_to_have_text(told, use_inner_text=True)  # its number is of the newest step all the same
    expect(lowest).to_have_attribute("d", drawn)
    lowest.scroll_into_view_if_needed()
    expect(lowest).not_to_have_attribute("d", drawn)
    page.set_viewport_size({"width": 1440, "height": 1000})
    page.locator("#run-list").get_by_role("button", name="quiet").click()
    expect(page.locator("#run-head h2")).to_have_text("quiet")


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


WHEN_SHOWN = """([points, words]) => new Promise((done) => {
  const look = () => {
    const drawn = document.querySelector(`#run-charts .large .line.raw[data-points='${points}']`);
    if (drawn && document.querySelector("#run-head .facts").textContent.includes(words)) done(Date.now() / 1000);
  };
  const everything = { subtree: true, childList: true, attributes: true, characterData: true };
  new MutationObserver(look).observe(document.body, everything);
})"""


def test_what_is_shown_is_soon_the_newest(page: Page, run: Run) -> None:
    """The time from a step's event until its loss stands in the head and its point on the curve."""
    open_tab(page, "Runs")
    page.locator("#run-charts .large .line.raw[data-points='120']").wait_for(state="attached")
    ages = []
    for step in range(121, 121 + (24 if MEASURES else 2)):
        (event,) = metrics(run, step, step)
        delay = step % 8 * 0.2  # at any time between two questions of the page
        teller = threading.Timer(delay, tell, (run, event))
        begun = time.time() + delay
        teller.start()
        ages.append(page.evaluate(WHEN_SHOWN, [step, f"loss {event['loss']:.4f}"]) - begun)
    _log.info("seconds until shown: %s", [round(age, 2) for age in ages])
    assert max(ages) < MOST_AGE_SECONDS - EVENT_SECONDS + (0 if MEASURES else LOADED)
