"""The page as a whole: tabs, themes, narrow screens, nothing fetched from elsewhere, nobody else let in."""

from __future__ import annotations

import http.client
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from tests.browser.conftest import App, expect_to_fit, settled, wait_until_open
from tests.browser.test_dataset_tab import eventually
from tests.unit.queue_trainer import loaded_in
from trainer.runs.settings import AppSettings, read_settings, write_settings
from trainer.runs.store import Workspace

TYPES_AT_ONCE = """() => new MutationObserver(() => {
    const field = document.querySelector("#field-name textarea, #field-name input");
    if (window.typed || !field?.checkVisibility({ visibilityProperty: true })) return;
    window.typed = true;
    field.value = "typed at once";
    field.dispatchEvent(new Event("input", { bubbles: true }));
}).observe(document.body, { childList: true, attributes: true, subtree: true })"""
TABS = ["Dataset", "Train", "Runs", "Merge", "Generate", "Settings"]


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()
    settled(page)


def test_all_tabs_open_without_a_request_elsewhere_or_an_error(app: App, browser: BrowserContext) -> None:
    page = browser.new_page()
    requests: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(app.url)
    expect(page.get_by_role("tab")).to_have_text(TABS)
    for name in TABS:
        open_tab(page, name)
        expect(page.get_by_role("tab", name=name, exact=True)).to_have_attribute("aria-selected", "true")
    page.wait_for_timeout(2500)
    page.close()
    foreign = [url for url in requests if not url.startswith((f"{app.url}/", "data:", "blob:"))]
    assert len(requests) > 20
    assert foreign == []
    assert errors == []


def test_the_page_takes_no_input_before_it_is_filled_in(app: App, page: Page) -> None:
    """On a busy machine the answer with what was open last comes late, and would overwrite what was typed meanwhile."""
    held: list[Route] = []
    holding = True
    page.route(
        re.compile("/gradio_api/(run|queue)/"), lambda route: held.append(route) if holding else route.continue_()
    )
    page.goto(app.url)
    tab = page.get_by_role("tab", name="Train", exact=True)
    tab.wait_for(state="attached")
    page.wait_for_timeout(500)
    assert page.evaluate("document.body.inert")
    holding = False
    for route in held:
        route.continue_()
    wait_until_open(page)
    tab.click()
    expect(tab).to_have_attribute("aria-selected", "true")


def test_a_field_that_is_seen_keeps_what_is_typed(page: Page) -> None:
    """Gradio fills new fields twice, some frames apart: the first moment at which one can be seen is after that."""
    page.evaluate(TYPES_AT_ONCE)
    open_tab(page, "Train")
    page.wait_for_function("() => window.typed")
    settled(page)
    page.wait_for_timeout(500)
    assert page.locator("#field-name").locator("textarea, input").input_value() == "typed at once"


def test_a_newcomer_is_shown_what_to_do_first(page: Page, shot: Callable[[str], Path]) -> None:
    expect(page.locator("#try-demo")).to_be_visible()
    expect(page.locator("#demo-again")).to_be_hidden()
    expect(page.locator("#welcome")).to_contain_text("Nothing is downloaded")
    shot("first-visit")
    page.locator("#close-demo").click()
    expect(page.locator("#welcome")).to_be_hidden()
    page.reload()
    wait_until_open(page)
    page.locator("#demo-again").click()
    expect(page.locator("#welcome")).to_be_visible()


def test_the_look_is_chosen_in_the_settings_and_kept(app: App, page: Page, shot: Callable[[str], Path]) -> None:
    is_dark = "dark => document.body.classList.contains('dark') === dark"
    for theme in ("light", "dark"):
        open_tab(page, "Settings")
        page.locator("#theme input").click()
        page.get_by_role("option", name=theme.capitalize(), exact=True).click()
        page.wait_for_function(is_dark, arg=theme == "dark")
        eventually(lambda chosen=theme: read_settings(Workspace(app.workspace)).theme == chosen)
    page.reload()
    wait_until_open(page)
    page.wait_for_function(is_dark, arg=True)
    for name in TABS:
        open_tab(page, name)
        shot(f"{name.lower()}-dark")


def test_every_tab_fits_a_phone(page: Page, shot: Callable[[str], Path]) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    for name in TABS:
        open_tab(page, name)
        if name in ("Train", "Runs"):
            shot(f"{name.lower()}-phone")
        expect_to_fit(page)


def test_settings_tell_what_there_is_and_open_a_folder(page: Page, app: App, tmp_path: Path) -> None:
    open_tab(page, "Settings")
    expect(page.locator("#machine")).to_contain_text("Trains on")
    expect(page.locator("#disk")).to_contain_text("free")
    page.locator("#new-folder input, #new-folder textarea").fill("no/such/folder")
    page.locator("#add-folder").click()
    expect(page.locator("#folder-problem")).to_contain_text("not a full path")
    page.locator("#new-folder input, #new-folder textarea").fill(str(tmp_path))
    page.locator("#add-folder").click()
    expect(page.locator("#folders")).to_contain_text(str(tmp_path))
    expect(page.locator("#folder-problem")).not_to_contain_text("not a full path")


def test_optimizers_are_allowed_in_the_settings(page: Page, app: App) -> None:
    open_tab(page, "Settings")
    lines = page.locator("#allowed-optimizers textarea")
    lines.fill("RAdam")
    lines.blur()
    expect(page.get_by_text("is not the full name of a class")).to_be_visible()
    lines.fill("torch.optim.RAdam")
    lines.blur()
    expect(page.get_by_text("is not the full name of a class")).to_be_hidden()
    page.reload()
    open_tab(page, "Settings")
    expect(page.locator("#allowed-optimizers textarea")).to_have_value("torch.optim.RAdam")
    assert "torch.optim.RAdam" in (app.workspace / "settings.json").read_text()


@pytest.mark.parametrize("headers", [{"Host": "rebind.example"}, {"Origin": "https://evil.example"}])
def test_other_pages_cannot_drive_this_one(app: App, headers: dict[str, str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=10)
    connection.request("GET", "/config", headers=headers)
    assert connection.getresponse().status == 403
    connection.close()


def test_an_idle_page_asks_once_a_tick(page: Page) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))

    def asked_in_three_ticks() -> int:
        before = len(requests)
        page.wait_for_timeout(4500)
        return len(requests) - before

    assert any(2 <= asked_in_three_ticks() <= 4 for _ in range(5))  # a busy machine is still opening the page


def test_a_trainer_is_loaded_while_its_tab_is_looked_at(app: App, page: Page) -> None:
    def is_expected() -> bool:
        return any(app.workspace.glob("locks/expected-*"))

    page.locator("#close-demo").click()
    expect(page.locator("#welcome")).to_be_hidden()
    write_settings(Workspace(app.workspace), AppSettings())
    assert not is_expected(), "neither tab nor offer is looked at"
    open_tab(page, "Train")
    eventually(lambda: is_expected() and len(loaded_in(Workspace(app.workspace))) == 1)
    open_tab(page, "Settings")
    page.locator("#trainer-minutes input").fill("0")
    page.locator("#trainer-minutes input").press("Enter")
    eventually(lambda: loaded_in(Workspace(app.workspace)) == [])
