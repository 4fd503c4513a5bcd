"""What is done on the page while the program has yet to answer: each order counts, and no answer undoes a later one."""

from __future__ import annotations

import json

from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.conftest import App, frozen, wait_until_open
from tests.browser.example_runs import example_run, open_tab
from tests.browser.held_events import AT_ONCE, held
from tests.browser.test_dataset_tab import eventually
from tests.browser.test_generate_history import wall
from tests.browser.test_train_tab import field, use_text
from tests.recipe.tiny_runs import make_pictures
from trainer.jobs import jobs
from trainer.pictures import save_png
from trainer.runs.settings import read_settings
from trainer.runs.store import Workspace


def open_train(page: Page) -> None:
    wait_until_open(page)
    open_tab(page, "Train")
    expect(page.locator("#changes")).to_contain_text("differ")


def test_stars_and_deletions_in_one_breath(page: Page, app: App) -> None:
    folder = app.workspace / "pictures"
    names = [f"{number:05d}-s{number}.png" for number in range(6)]
    for name in reversed(names):  # the newest stands first
        save_png(Image.new("RGB", (16, 12)), folder / name, {"prompt": "a star", "seed": 1})
    open_tab(page, "Generate")
    expect(wall(page)).to_have_count(6)
    with held(page):
        for number in (0, 1):
            wall(page).nth(number).locator(".open").focus()
            page.keyboard.press("f")
        for number in (2, 3):
            wall(page).nth(number).locator(".open").focus()
            page.keyboard.press("Delete")
    eventually(lambda: not any((folder / name).exists() for name in names[2:4]))
    eventually(lambda: set(json.loads((app.workspace / "favourites.json").read_text())) == set(names[:2]))
    expect(wall(page)).to_have_count(4)
    page.locator("#generate-bin summary").click()
    with held(page):
        for number in (0, 1):
            page.locator("#generate-bin").get_by_role("button", name="Restore").nth(number).dblclick()
    expect(wall(page)).to_have_count(6)
    expect(page.locator(".toast-body")).to_have_count(0)  # a double click is no second order


def test_the_plan_leaves_what_start_has_said(page: Page, workspace: Workspace) -> None:
    folder = make_pictures(workspace.dir / "datasets" / "three", side=128)
    open_train(page)
    use_text(page, f"dataset: {{resolution: 128, sources: [{{path: {folder}}}]}}")
    expect(page.locator("#step-maths")).to_contain_text("3 pictures")
    page.locator("#check").click()
    eventually(lambda: any(job.read().pid for job in jobs(workspace)))
    with frozen(jobs(workspace)[0].read().pid or 0):
        field(page, "lora.rank").fill("0")
        page.locator("#start").click()
        expect(page.locator("#train-problems")).to_contain_text("0 is not allowed")
    expect(page.locator("#plan-report")).to_contain_text("3 pictures")
    expect(page.locator("#train-problems")).to_contain_text("0 is not allowed")


def test_minutes_are_shown_as_they_were_kept(page: Page, app: App) -> None:
    open_tab(page, "Settings")
    minutes = page.locator("#studio-minutes input")
    minutes.fill("30")
    minutes.press("Enter")
    eventually(lambda: read_settings(Workspace(app.workspace)).studio_idle_minutes == 30)
    page.reload()
    wait_until_open(page)
    open_tab(page, "Settings")
    expect(minutes).to_have_value("30")


def test_the_button_says_the_number_that_was_typed_last(page: Page, workspace: Workspace) -> None:
    example_run(workspace, "typed", steps=10, max_steps=10)
    open_tab(page, "Runs")
    expect(page.locator("#run-head h2")).to_have_text("typed")
    with held(page, address=AT_ONCE):
        page.locator("#run-extend-by input").fill("25")
        page.locator("#run-extend-by input").fill("250")
    expect(page.get_by_role("button", name="Train on to step 260", exact=True)).to_be_visible()
