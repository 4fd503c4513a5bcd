"""The queue with real clicks and real training on the demo model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.browser.conftest import App, expect_to_fit, toast, wait_until_open
from tests.browser.example_runs import example_run, open_tab
from tests.browser.test_dataset_tab import eventually
from tests.listed_gpus import list_two_gpus
from tests.recipe.tiny_runs import SIDE, make_pictures
from tests.running_app import free_port, processes_of, start_app
from trainer.config import Config
from trainer.demo import MODEL_DIR
from trainer.runs.queue import pause, queued_runs, read_queue
from trainer.runs.store import Workspace

SLOW_MS = 400_000
STEPS = 3


@pytest.fixture(scope="module")
def pictures(app: App) -> Path:
    return make_pictures(app.workspace / "datasets" / "three")


def panel(page: Page) -> Locator:
    return page.locator("#run-queue")


def expect_waiting(page: Page, *names: str) -> None:
    expect(panel(page).locator("li.waiting .name")).to_have_text(list(names))


def press(page: Page, name: str) -> None:
    panel(page).get_by_role("button", name=name, exact=True).click()


def start_training(page: Page, name: str, pictures: Path, base: str, steps: int = STEPS) -> None:
    """Fill the Train form by its text, and press Start training, which leads to the Runs tab."""
    settings = {
        "name": name,
        "model": {"base": base},
        "dataset": {"sources": [{"path": str(pictures)}], "resolution": SIDE, "buckets": {"min": 64, "step": 8}},
        "lora": {"rank": 4, "alpha": 2},
        "train": {"max_steps": steps, "batch_size": 2},
        "samples": {"every_steps": 0, "at_start": False},
    }
    open_tab(page, "Train")
    box = page.locator("#yaml textarea")
    if not box.is_visible():
        page.get_by_role("button", name="Settings as text").click()
    box.fill(yaml.safe_dump(settings))
    page.locator("#apply-yaml").click()
    expect(page.locator("#field-name").locator("input, textarea").first).to_have_value(name)
    page.locator("#start").click()
    expect(page.get_by_role("tab", name="Runs", exact=True)).to_have_attribute("aria-selected", "true")


def test_three_runs_the_middle_one_failing(
    app: App, page: Page, workspace: Workspace, pictures: Path, shot: Callable[[str], Path]
) -> None:
    """Paused, queued, put into another order, one taken out, the app restarted, one damaged, the worker killed."""
    base = shutil.copytree(MODEL_DIR, workspace.models_dir / "copy")
    example_run(workspace, "before")
    open_tab(page, "Runs")
    press(page, "Pause the queue")
    expect(panel(page)).to_contain_text("Paused: what is going goes on, nothing further starts.")
    for name in ("damaged", "third", "first"):
        start_training(page, name, pictures, str(base) if name == "damaged" else "demo")
        if name == "damaged":
            expect(toast(page, "The queue is paused")).to_be_visible()
        if name == "third":
            workspace.create_run(Config(name="unwanted"))
    expect_waiting(page, "damaged", "third", "unwanted", "first")

    panel(page).get_by_role("button", name="Start first: first").press("Enter")
    expect_waiting(page, "first", "damaged", "third", "unwanted")
    expect(panel(page).locator(".spoken")).to_have_text("first is now number 1 of 4.")
    expect(panel(page).get_by_role("button", name="Start first: first")).to_be_focused()
    panel(page).get_by_role("button", name="Start earlier: third").press("Enter")
    expect_waiting(page, "first", "third", "damaged", "unwanted")
    panel(page).locator("li.waiting").nth(3).drag_to(panel(page).locator("li.waiting").nth(1))
    expect_waiting(page, "first", "unwanted", "third", "damaged")
    panel(page).get_by_role("button", name="Start later: third").press("Enter")
    expect_waiting(page, "first", "unwanted", "damaged", "third")
    press(page, "Take out of the queue: unwanted")
    expect_waiting(page, "first", "damaged", "third")
    page.locator(".run-item", has_text="unwanted").click()
    page.locator("#run-resume").click()
    expect_waiting(page, "first", "damaged", "third", "unwanted")
    expect(page.locator("#run-stop")).to_be_hidden()
    page.locator("#run-leave-queue").click()
    expect_waiting(page, "first", "damaged", "third")
    shot("queue")

    page.goto("about:blank")  # an open page would reload itself, in the middle of the next line
    app.restart()
    page.goto(app.url)
    open_tab(page, "Runs")
    expect_waiting(page, "first", "damaged", "third")
    assert read_queue(workspace).paused
    runs = queued_runs(workspace)
    (base / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"not a model any more")
    press(page, "Let the queue go on")
    expect(panel(page).locator("li.going .name")).to_have_text("first", timeout=SLOW_MS)
    expect_waiting(page, "damaged", "third")
    kill_worker(workspace)

    pills = [page.locator(f".run-item[data-pick='{run.id}'] .pill") for run in runs]
    for pill, state in zip(pills, ("Finished", "Failed", "Finished"), strict=True):
        expect(pill).to_have_text(state, timeout=SLOW_MS)
    expect(panel(page)).to_contain_text("Nothing is going or waiting.")
    assert [run.read().state for run in runs] == ["finished", "failed", "finished"]
    assert [run.read().step for run in runs] == [STEPS, 0, STEPS]
    assert all(run.output_path.is_file() for run in (runs[0], runs[2]))
    assert str(base) in (runs[1].read().error or "")
    times = [(run.read().started or 0, run.read().ended or 0) for run in runs]
    assert times == sorted(times)
    assert all(before[1] <= after[0] for before, after in pairwise(times))


def test_an_interrupted_run_goes_back_by_one_click(page: Page, workspace: Workspace, pictures: Path) -> None:
    """A run whose process was killed is resumed to its end; another one is left as it is."""
    done = next(run for run in workspace.runs() if run.read().name == "third")
    done.update(state="training", step=0, max_steps=STEPS, pid=2**22 + 5, pid_started=1.0)
    open_tab(page, "Runs")
    expect(panel(page)).to_contain_text("third was interrupted, by a restart or by force.")
    press(page, "Leave it")
    expect(panel(page)).not_to_contain_text("was interrupted")
    assert done.read().state == "failed"
    done.update(state="training", pid=2**22 + 5, pid_started=1.0)
    press(page, "Put it back")
    expect(page.locator(f".run-item[data-pick='{done.id}'] .pill")).to_have_text("Finished", timeout=SLOW_MS)


def test_names_are_text_and_a_phone_shows_it_all(page: Page, workspace: Workspace, shot: Callable[[str], Path]) -> None:
    """A click on a row whose run has ended meanwhile is told to be too late, and changes nothing."""
    page.set_viewport_size({"width": 390, "height": 844})
    open_tab(page, "Runs")
    press(page, "Pause the queue")
    expect(panel(page)).to_contain_text("Paused")
    run = example_run(workspace, "${1+1} & {{x}} very long name of a run that does not fit a phone", "queued", steps=0)
    expect_waiting(page, run.read().name)
    expect_to_fit(page)
    shot("queue-phone")
    late = panel(page).locator(f"[data-key='remove {run.id}']").element_handle()
    run.update(state="stopped")
    late.evaluate("button => button.click()")  # the page may have taken the row away by now
    expect(toast(page, "not waiting")).to_be_visible()
    expect(panel(page).locator("li.waiting")).to_have_count(0)
    press(page, "Let the queue go on")


def test_a_run_can_be_sent_to_another_device(
    browser: BrowserContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a driver that lists two GPUs; the queue is paused, so that nothing starts."""
    list_two_gpus(monkeypatch, tmp_path, "Fast", "Slow")
    workspace = Workspace(tmp_path / "workspace")
    pause(workspace)
    run = workspace.create_run(Config(name="mine"))
    port = free_port()
    process = start_app(workspace.dir, port)
    page = browser.new_page()
    try:
        page.goto(f"http://127.0.0.1:{port}")
        wait_until_open(page)
        open_tab(page, "Runs")
        devices = panel(page).get_by_label("Train mine on")
        expect(devices.locator("option")).to_have_text(
            ["any free GPU", "Fast (0)", "Slow (1)", "all 2 GPUs together", "the processor"]
        )
        devices.select_option("cuda:1")
        eventually(lambda: run.read().wanted_device == "cuda:1")
        page.reload()
        open_tab(page, "Runs")
        expect(devices).to_have_value("cuda:1")
        open_tab(page, "Train")
        expect(page.locator("#train-device input")).to_have_value("Train on any free GPU")
    finally:
        page.close()
        process.kill()
        process.wait()


def kill_worker(workspace: Workspace) -> None:
    """End the queue's worker the hard way, while its trainer goes on."""
    (worker,) = processes_of(workspace.dir, "worker")
    worker.kill()
