"""Everybody can use the page: no serious finding of axe-core, every control by keyboard, phones, light and dark."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import App, expect_to_fit, settled
from tests.browser.example_runs import example_run, open_tab
from tests.browser.test_dataset_tab import make_dataset, open_folder
from trainer.runs.store import Workspace

TABS = ("Dataset", "Train", "Runs", "Merge", "Generate", "Settings")
GRADIO: dict[tuple[str, str], str] = {}
"""Findings that are Gradio's: rule and a part of the selector, and why they stay."""
CONTROLS = "button, input, select, textarea, a[href], summary, [role=tab], [role=button]"
WITHOUT_KEYBOARD = """(controls) => [...document.querySelectorAll(controls)]
    .filter((node) => node.checkVisibility({ visibilityProperty: true }) && !node.disabled && node.tabIndex < 0)
    .map((node) => node.outerHTML.slice(0, 160))"""
FOCUS_UNSEEN = """() => {
    const node = document.activeElement;
    if (!node || node === document.body) return "";
    const around = [0, 1, 2].reduce((all) => [...all, all.at(-1).parentElement || all.at(-1)], [node]);
    const look = () => around.map((each) => {
        const { outline, boxShadow, borderColor, textDecoration } = getComputedStyle(each);
        return [outline, boxShadow, borderColor, textDecoration].join();
    }).join();
    const focused = look();
    node.blur();
    const blurred = look();
    node.focus();
    return focused === blurred ? node.outerHTML.slice(0, 160) : "";
}"""
"""The focused control, where nothing tells it from one that is not focused."""


@pytest.fixture(scope="module")
def filled(app: App) -> App:
    """A workspace with pictures and a finished run, so that no tab is empty."""
    make_dataset(app, "pictures", 3)
    example_run(Workspace(app.workspace), "A run", "finished")
    return app


def everything_open(page: Page, app: App, name: str) -> None:
    open_tab(page, name)
    if name == "Dataset":
        open_folder(page, app.workspace / "datasets" / "pictures")
    if name == "Train":
        page.get_by_role("checkbox", name="All settings").check()
    if name == "Runs":
        page.locator(".run-item").first.click()
    settled(page)
    unfold_all(page)


def unfold_all(page: Page) -> None:
    """Open every fold in sight, one after the other: each that is open counts no more."""
    folded = page.locator("button.label-wrap:not(.open)").filter(visible=True)
    while folds := folded.element_handles():
        for fold in folds:
            fold.click()
            page.wait_for_function("(fold) => fold.classList.contains('open')", arg=fold)
    settled(page)


def serious(page: Page, *rules: str) -> list[str]:
    """Serious and critical findings, one line each, without those that are Gradio's; only of these rules, if any."""
    found = []
    for violation in Axe().run(page, options={"runOnly": list(rules)} if rules else None).response["violations"]:
        for node in violation["nodes"] if violation["impact"] in ("serious", "critical") else ():
            target = str(node["target"])
            if not any(rule == violation["id"] and part in target for rule, part in GRADIO):
                found.append(f"{violation['id']}: {target} {node['html'][:160]}")
    return found


@pytest.mark.parametrize("name", TABS)
def test_axe_and_keyboard_find_nothing_on_any_tab(filled: App, page: Page, name: str) -> None:
    page.emulate_media(reduced_motion="reduce")  # colours are measured, not what they fade through
    everything_open(page, filled, name)
    assert serious(page) == []
    page.evaluate("atelier.setTheme('dark')")
    assert serious(page, "color-contrast") == []
    assert page.evaluate(WITHOUT_KEYBOARD, CONTROLS) == []
    page.set_viewport_size({"width": 390, "height": 844})
    expect_to_fit(page)
    page.set_viewport_size({"width": 1440, "height": 1000})


def test_the_audit_finds_what_is_wrong(filled: App, page: Page) -> None:
    page.evaluate("document.querySelector('.masthead').insertAdjacentHTML('beforeend', '<button id=bare></button>')")
    assert [finding for finding in serious(page) if finding.startswith("button-name: ['#bare']")]


def test_focus_is_seen_on_its_way_through_the_form(filled: App, page: Page) -> None:
    open_tab(page, "Train")
    expect(page.locator("#preset input")).to_be_visible()
    settled(page)
    page.locator("#preset input").focus()
    walked: list[Any] = []
    for _ in range(25):
        page.keyboard.press("Tab")
        walked.append(page.evaluate(FOCUS_UNSEEN))
    assert [unseen for unseen in walked if unseen] == []
    page.evaluate("document.activeElement.blur()")  # in a text field the key is only typed
    page.keyboard.press("/")
    expect(page.locator("#field-search")).to_be_focused()
