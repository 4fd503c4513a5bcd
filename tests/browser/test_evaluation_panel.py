"""Evaluating a real run on the Runs tab: started, cancelled, gone on with, read, and used."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import App, dismiss, wait_until_open
from tests.browser.example_runs import open_tab
from tests.recipe.tiny_runs import SIDE, make_pictures, train_here
from trainer.config_io import parse_config
from trainer.evaluating.results import evaluation_of
from trainer.runs.store import Run, Workspace

HOSTILE = "<img src=x onerror=window.hacked=1>"


@pytest.fixture(scope="module")
def run(app: App) -> Run:
    workspace = Workspace(app.workspace)
    pictures = make_pictures(workspace.datasets_dir / "circles")
    config = parse_config(
        {
            "name": "circles",
            "dataset": {"sources": [{"path": str(pictures)}], "resolution": SIDE, "buckets": {"min": 64, "step": 8}},
            "lora": {"rank": 2, "target": "attention"},
            "train": {"max_steps": 8, "learning_rate": 5e-3},
            "samples": {"every_steps": 0, "at_start": False, "prompts": [f"{HOSTILE} --s 1"]},
            "validation": {"split": 0.34, "every_steps": 4, "timesteps": 1},
            "output": {"save_every_steps": 4, "keep_best": True},
        }
    )
    run = workspace.create_run(config)
    train_here(run)
    return run


@pytest.fixture
def panel(page: Page, run: Run) -> Locator:
    open_tab(page, "Runs")
    page.get_by_role("button", name="Evaluation").click()
    panel = page.locator("#run-evaluation")
    expect(panel.get_by_role("button", name="Evaluate 2 checkpoints")).to_be_enabled()
    return panel


def test_wrong_values_are_told_and_start_nothing(page: Page, panel: Locator, run: Run) -> None:
    # What is measured, and of which checkpoints, is chosen; the time follows
    expect(panel.locator(".takes")).to_contain_text("Takes about")
    expect(panel.get_by_role("checkbox", name="Similarity")).to_be_disabled()
    expect(panel.get_by_role("checkbox", name="Drift")).to_be_checked()
    for name in ("Validation loss", "Drift", "Copies"):
        panel.get_by_role("checkbox", name=name).uncheck()
    expect(panel.get_by_role("button", name="Evaluate 2")).to_be_disabled()
    expect(panel.get_by_label("Pictures per checkpoint")).to_be_disabled()
    panel.get_by_role("checkbox", name="Copies").check()
    panel.get_by_text("Checkpoints: all 2").click()
    panel.get_by_role("button", name="None", exact=True).click()
    expect(panel.get_by_role("button", name="No checkpoint chosen")).to_be_disabled()
    panel.get_by_role("checkbox", name="Step 8").check()
    expect(panel.get_by_role("button", name="Evaluate 1 checkpoint")).to_be_enabled()
    panel.get_by_role("button", name="All", exact=True).click()

    panel.get_by_label("Pictures per checkpoint").fill("0")
    panel.get_by_role("button", name="Evaluate 2").click()
    dismiss(page, "pictures: 0 is not allowed")
    panel.get_by_label("Pictures per checkpoint").fill("1")
    panel.get_by_label("Model that looks at pictures").fill("/etc")
    panel.get_by_role("button", name="Evaluate 2").click()
    dismiss(page, "/etc is not open to the page")
    assert not evaluation_of(run.dir).dir.exists()


def test_it_is_started_cancelled_gone_on_with_and_names_the_best(
    page: Page, panel: Locator, run: Run, shot: Callable[[str], Path]
) -> None:
    panel.get_by_label("Pictures per checkpoint").fill("1")
    panel.get_by_role("button", name="Evaluate 2").click()
    expect(panel.get_by_role("progressbar", name="Evaluation")).to_be_visible()
    expect(panel.get_by_role("button", name="Evaluate 2")).to_be_disabled()
    panel.get_by_role("button", name="Cancel").click()
    expect(panel).to_contain_text("The evaluation was stopped")
    panel.get_by_role("button", name="Evaluate 2").click()
    expect(panel.locator("table")).to_be_visible(timeout=180_000)

    found = evaluation_of(run.dir).read_summary()
    assert found is not None and found.best in (4, 8)
    expect(panel.locator(".verdict")).to_contain_text(f"Best: step {found.best}. {found.why}")
    expect(panel.locator("tr.best th")).to_contain_text(f"Step {found.best}")
    losses = [f"{each.validation_loss:.4g}" for each in found.checkpoints]
    for loss, cell in zip(losses, panel.locator("tbody td:nth-child(2)").all_text_contents(), strict=True):
        assert float(cell) == pytest.approx(float(loss), rel=1e-3)
    expect(panel.locator(".figures figure")).not_to_have_count(0)

    expect(panel.locator(".pairs figure .prompt")).to_have_text(HOSTILE)
    assert page.evaluate("window.hacked") is None
    expect(panel.locator(".pairs img")).to_have_count(2)
    shown = "images => images.every(image => image.complete && image.naturalWidth > 0)"
    panel.locator(".pairs").scroll_into_view_if_needed()
    page.wait_for_function(f"() => ({shown})([...document.querySelectorAll('#run-evaluation .pairs img')])")
    panel.get_by_label("Checkpoint whose pictures are shown").select_option("Base model")
    assert "step-000000" in str(panel.locator(".pairs a").first.get_attribute("href"))
    shot("evaluation")

    page.reload()
    wait_until_open(page)
    open_tab(page, "Runs")
    page.get_by_role("button", name="Evaluation").click()
    expect(page.locator("#run-evaluation .verdict")).to_contain_text("Best: step")
    page.get_by_role("button", name="Generate with step 4").click()
    expect(page.get_by_role("tab", name="Generate", exact=True)).to_have_attribute("aria-selected", "true")
    expect(page.locator("#generate-lora-0 input")).to_have_value(re.compile("circles, step 4"))
