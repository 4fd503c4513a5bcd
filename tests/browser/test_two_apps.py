"""Two apps on one workspace, each with its page: what both change is all kept, and nothing is done twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.conftest import App, wait_until_open
from tests.browser.example_runs import example_run, open_tab
from tests.browser.test_dataset_tab import caption_box, cards, eventually, field, make_dataset, open_folder, text_of
from tests.browser.test_queue_page import expect_waiting, panel
from tests.running_app import free_port, start_app
from trainer.config import Config
from trainer.runs import actions
from trainer.runs.queue import pause, queued_runs
from trainer.runs.settings import read_settings
from trainer.runs.store import Run, Workspace


@pytest.fixture(scope="module")
def second_app(app: App) -> Iterator[App]:
    port = free_port()
    running = App(app.workspace, port, start_app(app.workspace, port))
    yield running
    running.process.kill()
    running.process.wait()


@pytest.fixture
def other(second_app: App, browser: BrowserContext) -> Iterator[Page]:
    """The page of the second app; for the browser it is another site."""
    opened = browser.new_page()
    opened.goto(second_app.url)
    wait_until_open(opened)
    yield opened
    opened.close()


def chosen(page: Page, run: Run) -> None:
    """Open a run on the Runs tab."""
    open_tab(page, "Runs")
    page.locator(f".run-item[data-pick='{run.id}']").click()
    expect(page.locator("#run-head h2")).to_have_text(run.read().name)


def test_runs_and_the_queue(page: Page, other: Page, workspace: Workspace) -> None:
    """One run started in both, both reorder the queue, and one deletes what the other has open."""
    pause(workspace)
    waiting = [workspace.create_run(Config(name=name)) for name in ("a", "b", "c")]
    again = example_run(workspace, "again", "stopped", steps=40)
    for each in (page, other):
        chosen(each, again)
    buttons = [each.locator("#run-resume").element_handle() for each in (page, other)]
    for button in buttons:
        button.evaluate("button => button.click()")  # the second page may show already that it waits
    for each in (page, other):
        expect_waiting(each, "a", "b", "c", "again")
    eventually(lambda: again.read().state == "queued")

    panel(page).get_by_role("button", name="Start first: c", exact=True).press("Enter")
    panel(other).get_by_role("button", name="Start later: a", exact=True).press("Enter")
    eventually(lambda: queued_runs(workspace)[0] == waiting[2])
    for each in (page, other):
        expect(panel(each).locator("li.waiting .name").first).to_have_text("c")
        expect(panel(each).locator("li.waiting")).to_have_count(4)

    chosen(other, waiting[1])
    actions.delete(waiting[1])
    for each in (page, other):
        expect(each.locator(f".run-item[data-pick='{waiting[1].id}']")).to_have_count(0)
    chosen(other, again)
    chosen(page, again)


def test_a_caption_that_both_have_open(app: App, page: Page, other: Page) -> None:
    """Who saves second is told, and chooses."""
    folder = make_dataset(app, "both", 2)
    for each in (page, other):
        open_tab(each, "Dataset")
        open_folder(each, folder)
        cards(each).first.click()
        expect(caption_box(each)).to_have_value(text_of(folder, 0).rstrip("\n"))
    caption_box(page).fill("mine")
    caption_box(other).fill("theirs")
    caption_box(page).press("Control+Enter")
    eventually(lambda: text_of(folder, 0).strip() == "mine")
    caption_box(other).press("Control+Enter")
    clash = other.get_by_role("button", name="Keep mine")
    expect(clash).to_be_visible()
    assert text_of(folder, 0).strip() == "mine"
    clash.click()
    eventually(lambda: text_of(folder, 0).strip() == "theirs")


def test_settings_that_both_change(page: Page, other: Page, workspace: Workspace, tmp_path: Path) -> None:
    """Each was opened before the other's change."""
    folders = [tmp_path / name for name in ("first", "second")]
    for each, folder in zip((page, other), folders, strict=True):
        folder.mkdir()
        open_tab(each, "Settings")
        field(each, "new-folder").fill(str(folder))
    for each in (page, other):
        each.locator("#add-folder").click()
    eventually(lambda: sorted(read_settings(workspace).folders) == [str(folder) for folder in folders])
