"""A run's settings changed and run again, and a run that is given more steps: what the page says of it, with clicks."""

from __future__ import annotations

import re

from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.conftest import App, wait_until_open
from tests.browser.example_runs import example_run, open_tab
from tests.browser.test_dataset_tab import make_dataset, open_folder
from tests.browser.test_train_form import choose, mark
from tests.browser.test_train_tab import field
from trainer.config import Config
from trainer.config_io import save_config
from trainer.curation.mask_files import mask_name
from trainer.curation.splitting import VALIDATION
from trainer.runs import queue
from trainer.runs.store import Run, Workspace


def first_run(app: App) -> Run:
    run = example_run(Workspace(app.workspace), "first", "stopped", steps=120, max_steps=500)
    pictures = make_dataset(app, "pictures", 2)
    settings = {"name": "first", "dataset": {"sources": [{"path": str(pictures)}]}, "lora": {"rank": 8}}
    save_config(Config.model_validate(settings), run.config_path)
    return run


def test_a_run_is_changed_and_the_new_one_says_in_what(page: Page, app: App) -> None:
    workspace, first = Workspace(app.workspace), first_run(app)
    queue.pause(workspace)
    open_tab(page, "Runs")

    # To which step it goes is said before the button is pressed
    expect(page.locator("#run-resume")).to_have_text("Resume to step 500")
    expect(page.locator("#run-extend")).to_have_text("Train on to step 220")
    page.locator("#run-extend-by input").fill("7")
    expect(page.locator("#run-extend")).to_have_text("Train on to step 127")

    # The form tells what differs from the run, also after a reload, and until a preset is chosen
    page.locator("#run-edit").click()
    changes = page.locator("#changes")
    expect(changes).to_contain_text("No settings differ from the run first.")
    expect(page.locator("#preset-about")).to_contain_text("The settings of the run first.")
    field(page, "lora.rank").fill("7")
    expect(changes).to_contain_text("1 setting differs from the run first.")
    expect(mark(page, "lora.rank")).to_contain_text("Back to 8")
    page.reload()
    wait_until_open(page)
    open_tab(page, "Train")
    expect(changes).to_contain_text("1 setting differs from the run first.")
    choose(page, "SD 1.5 style, 8 GB")
    expect(changes).to_contain_text("No settings differ from SD 1.5 style, 8 GB.")
    page.get_by_role("button", name="Bring back the settings from before").click()
    expect(changes).to_contain_text("1 setting differs from the run first.")
    expect(field(page, "lora.rank")).to_have_value("7")

    # The new run says what it was made of, and leads there
    page.locator("#start").click()
    about = page.locator("#run-about")
    expect(about).to_contain_text("Made of the settings of first. 1 setting differs:")
    expect(about.locator(".origin li")).to_have_text(re.compile("Rank.*7.*was 8"))
    second = next(run for run in workspace.runs() if run.id != first.id)
    assert second.read().changed_from == first.id
    about.get_by_role("button", name="Show the run first").click()
    expect(page.locator(f".run-item.selected[data-pick='{first.id}']")).to_be_visible()


def test_a_folder_for_a_form_with_mistakes_is_told_like_any_edit(page: Page, app: App) -> None:
    other = make_dataset(app, "other", 2)
    open_tab(page, "Train")
    choose(page, "SD 1.5 style, 8 GB")
    expect(page.locator("#changes")).to_contain_text("No settings differ")
    field(page, "lora.rank").fill("lots")
    expect(page.locator("#step-maths")).to_contain_text("1 setting needs a look")
    mask = other / mask_name("0000.png")
    mask.parent.mkdir(parents=True)
    Image.new("L", (40, 30), 255).save(mask)
    open_tab(page, "Dataset")
    open_folder(page, other)
    page.get_by_role("button", name="Train on these pictures").click()
    expect(field(page, "dataset.sources.0.path")).to_have_value(str(other))
    expect(field(page, "lora.rank")).to_have_value("lots")
    expect(page.locator("#changes")).to_contain_text("2 settings differ")
    expect(mark(page, "loss.masked")).to_contain_text("Back to off")


def test_a_preset_leaves_the_masks_and_validation_pictures_of_a_folder_in_use(page: Page, app: App) -> None:
    folder = make_dataset(app, "split", 3)
    mask = folder / mask_name("0000.png")
    mask.parent.mkdir(parents=True)
    Image.new("L", (40, 30), 255).save(mask)
    held_back = folder / VALIDATION
    held_back.mkdir()
    (folder / "0002.png").rename(held_back / "0002.png")
    open_tab(page, "Dataset")
    open_folder(page, folder)
    page.get_by_role("button", name="Train on these pictures").click()
    expect(field(page, "dataset.sources.0.path")).to_have_value(str(folder))
    for preset in ("SDXL character or person, 24 GB", "SD 1.5 style, 8 GB"):
        choose(page, preset)
        expect(page.locator("#changes")).to_contain_text(
            re.compile(f"differs? from {re.escape(preset)}"), timeout=30_000
        )
        expect(mark(page, "loss.masked")).to_contain_text("Back to off")
        expect(field(page, "validation.path")).to_have_value(str(held_back))
