"""The Runs tab in a real browser: it tells the truth, stays live, and does what its buttons say."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import MEASURES, App, expect_to_fit, settled, toast
from tests.browser.example_runs import example_run, metrics, open_tab, preview, tell
from tests.browser.held_events import held
from trainer.runs.control import PROMPTS
from trainer.runs.store import Run, Workspace

FRESH_MS = 5000 if MEASURES else 60_000
"""How soon the page shows what a trainer wrote."""


@pytest.fixture(scope="module")
def finished(workspace: Workspace) -> Run:
    return example_run(workspace, "my-character")


@pytest.fixture
def training(workspace: Workspace) -> Iterator[Run]:
    """A run whose process lives and does nothing: the test writes what a trainer would."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    started = psutil.Process(process.pid).create_time()
    run = example_run(workspace, "still-going", "training", steps=40, pid=process.pid, pid_started=started)
    yield run
    process.kill()
    process.wait()
    workspace.delete_run(run)


def open_runs(page: Page) -> None:
    open_tab(page, "Runs")


def choose(page: Page, name: str) -> None:
    page.locator(".run-item", has_text=name).first.click()
    expect(page.locator("#run-head h2")).to_have_text(name)


def test_nothing_yet_says_what_to_do(page: Page) -> None:
    open_runs(page)
    expect(page.locator("#runs-empty")).to_contain_text("Start training")


def test_a_live_run_moves_and_survives_a_reload(
    page: Page, finished: Run, training: Run, shot: Callable[[str], Path]
) -> None:
    open_runs(page)
    choose(page, "still-going")
    expect(page.locator("#run-head .pill")).to_have_text("Training")
    expect(page.locator("#run-head .facts")).to_contain_text("step 40 of 120")
    expect_points(page, 40)
    expect(page.locator("#sample-wall .sw-picture img")).to_have_count(10)
    expect(page.locator("#sample-wall")).to_contain_text("<b>on</b> grey")  # text, not markup

    tell(training, *metrics(training, 41, 90))
    preview(training, 90)
    training.update(step=90)
    expect(page.locator("#run-head .facts")).to_contain_text("step 90 of 120", timeout=FRESH_MS)
    expect_points(page, 90)
    expect(page.locator("#sample-wall .sw-picture img")).to_have_count(12)
    shot("runs")

    page.reload()
    open_runs(page)
    expect(page.locator("#run-head h2")).to_have_text("still-going")
    choose(page, "my-character")
    page.reload()
    open_runs(page)
    expect(page.locator("#run-head h2")).to_have_text("my-character")


def test_zoom_is_kept_while_the_curve_grows(page: Page, training: Run) -> None:
    open_runs(page)
    choose(page, "still-going")
    drawing = page.locator("#run-charts .chart.large .drawing")
    expect_points(page, 40)
    drawing.scroll_into_view_if_needed()
    settled(page)
    box = drawing.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 50)
    expect(page.locator("#run-charts .chart.large .readout")).to_contain_text(re.compile(r"step (20|21).*loss 0\.\d+"))
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 60, steps=4)
    page.mouse.up()
    expect(page.locator("#run-charts .unzoom")).to_be_visible()
    expect_points(page, "(9|10|11|12)")
    tell(training, *metrics(training, 41, 60))
    training.update(step=60)
    expect(page.locator("#run-head .facts")).to_contain_text("step 60", timeout=FRESH_MS)
    expect_points(page, "(9|10|11|12)")
    page.locator("#run-charts .unzoom").click()
    expect(page.locator("#run-charts .unzoom")).to_be_hidden()
    expect_points(page, 60)


def test_requests_reach_the_run(page: Page, training: Run) -> None:
    open_runs(page)
    choose(page, "still-going")
    for button, request in (
        ("Pause", "pause"),
        ("Sample now", "sample"),
        ("Save now", "save"),
        ("Stop and save", "stop"),
    ):
        page.get_by_role("button", name=button, exact=True).click()
        wait_for(training.control_dir / request)
    training.update(state="paused")
    expect(page.get_by_role("button", name="Resume", exact=True)).to_be_visible(timeout=FRESH_MS)
    expect(page.get_by_role("button", name="Pause", exact=True)).to_be_hidden()
    page.get_by_role("button", name="Resume", exact=True).click()
    wait_for(training.control_dir / "resume")


def test_prompts_stay_as_they_are_typed(page: Page, training: Run) -> None:
    open_runs(page)
    choose(page, "still-going")
    page.get_by_role("button", name="Preview prompts").click()
    panel = page.locator("#run-prompts")
    prompts, sample = panel.locator("textarea"), panel.get_by_role("button", name="Use these and sample now")
    with held(page):
        prompts.fill("a cat")
        panel.get_by_role("button", name="Use these", exact=True).click()
        prompts.press("End")
        prompts.press_sequentially(", sitting")
    wait_for(training.control_dir / PROMPTS)
    expect(toast(page, "1 prompt for the next previews.")).to_be_visible()
    training.update(state="paused")
    expect(sample).to_be_hidden(timeout=FRESH_MS)
    expect(prompts).to_have_value("a cat, sitting")
    expect(prompts).to_be_focused()
    training.update(state="training")
    expect(sample).to_be_visible(timeout=FRESH_MS)


def test_a_dead_process_shows_as_failed(page: Page, workspace: Workspace) -> None:
    run = example_run(workspace, "died", "paused", steps=10)
    run.log_path.write_text("out of memory\n")
    run.update(state="training", pid=2**22 + 5, pid_started=time.time())  # last: an open page looks at it at once
    open_runs(page)
    choose(page, "died")
    expect(page.locator("#run-head .pill")).to_have_text("Failed")
    expect(page.locator("#run-head .problems")).to_contain_text("out of memory")


def test_large_view_and_download(page: Page, finished: Run, tmp_path: Path) -> None:
    open_runs(page)
    choose(page, "my-character")
    page.locator("#sample-wall .sw-picture img").nth(1).click()
    dialog = page.locator("dialog[open]")
    expect(dialog.locator("p")).to_have_text("Step 30: a red star on a blue background, neon")
    page.keyboard.press("ArrowRight")
    expect(dialog.locator("p")).to_contain_text("Step 60:")
    dialog.get_by_role("button", name="Close").click()
    with page.expect_download() as download:
        page.get_by_text("Download the LoRA").click()
    download.value.save_as(tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == finished.output_path.read_bytes()
    assert download.value.suggested_filename == "my-character.safetensors"


def test_run_again_shows_the_new_run_and_extending_queues(page: Page, workspace: Workspace) -> None:
    """The run has no pictures to train on, so that its trainer ends at once, with a reason."""
    run = example_run(workspace, "once-more", steps=10, max_steps=10)
    open_runs(page)
    choose(page, "once-more")
    page.get_by_role("button", name="Run again", exact=True).click()
    expect(page.locator(".run-item", has_text="once-more")).to_have_count(2)
    expect(page.locator(".run-item.selected")).not_to_have_attribute("data-pick", run.id)
    again = Run(workspace.runs_dir / str(page.locator(".run-item.selected").get_attribute("data-pick")))
    assert again.config() == run.config()
    expect(page.locator("#run-head .pill")).to_have_text("Failed", timeout=240_000)
    page.locator(f".run-item[data-pick='{run.id}']").click()
    expect(page.locator("#run-head .pill")).to_have_text("Finished")  # it is the run shown
    page.locator("#run-extend-by input").fill("25")
    page.get_by_role("button", name="Train on to step 35", exact=True).click()
    expect(page.locator("#run-head .pill")).not_to_have_text("Finished")
    info = run.read()
    assert 35 in (info.extend_to, info.max_steps)  # the trainer, once it has begun, takes over what was asked for


def test_only_pictures_of_the_run_are_served(page: Page, app: App, finished: Run) -> None:
    (finished.samples_dir / ".hidden.png").write_bytes(b"x")
    (finished.samples_dir / "link.png").symlink_to(finished.info_path)
    samples = f"{app.url}/atelier/runs/{finished.id}/samples"
    assert page.request.get(f"{samples}/step-000000-p00-s42.png").status == 200
    for name in ("run.json", "..%2f..%2frun.json", "..%2frun.png", ".hidden.png", "link.png", "missing.png"):
        assert page.request.get(f"{samples}/{name}").status == 404, name
    assert page.request.get(f"{app.url}/atelier/runs/..%2f{finished.id}/lora").status == 404
    foreign = page.request.get(f"{samples}/step-000000-p00-s42.png", headers={"Origin": "http://evil.example"})
    assert foreign.status == 403


def test_phone(page: Page, finished: Run, shot: Callable[[str], Path]) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.reload()
    open_runs(page)
    choose(page, "my-character")
    expect_to_fit(page)
    shot("runs-phone")


def expect_points(page: Page, count: int | str) -> None:
    """How many points the loss has; a number or a pattern."""
    expect(page.locator("#run-charts .chart.large .line.raw")).to_have_attribute(
        "data-points", re.compile(f"^{count}$")
    )


def wait_for(path: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} was not asked for"
        time.sleep(0.05)
