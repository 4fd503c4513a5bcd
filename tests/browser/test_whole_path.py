"""The main job from the first click to the last picture, on the demo model, with clicks only."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageChops
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import App, settled
from tests.browser.test_dataset_tab import eventually
from trainer.config_io import PRESETS_DIR, load_config
from trainer.runs.events import read_events
from trainer.runs.store import Run, Workspace

SLOW_MS = 900_000
LOSS_POINTS, SAMPLES = 20, 2
SHORT_STEPS = 150  # so many that a slow page can stop it after the first twenty
PRESET_STEPS = load_config(PRESETS_DIR / "demo_style.yaml").train.max_steps


class RunsPage:
    """What a person reads on the Runs tab."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def expect_state(self, words: str, timeout: float = SLOW_MS) -> None:
        expect(self.page.locator("#run-head .pill")).to_have_text(words, timeout=timeout)

    def press(self, name: str) -> None:
        self.page.locator(f"#run-{name}").click()

    @property
    def step(self) -> int:
        found = re.search(r"step (\d+)", self.page.locator("#run-head").inner_text())
        assert found, self.page.locator("#run-head").inner_text()
        return int(found.group(1))

    def wait_for_step(self, step: int) -> None:
        self.page.wait_for_function(
            "step => Number((document.querySelector('#run-head')?.innerText.match(/step (\\d+)/) || [])[1]) >= step",
            arg=step,
            timeout=SLOW_MS,
        )

    def expect_curve(self, points: int) -> None:
        """The raw loss line is drawn through at least so many points."""
        self.page.wait_for_function(
            "count => (document.querySelector('#run-charts svg .raw')?.getAttribute('d') || '')"
            ".match(/-?[\\d.]+,-?[\\d.]+/g)?.length >= count",
            arg=points,
        )

    @property
    def samples(self) -> Locator:
        return self.page.locator("#sample-wall .sw-picture img")


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def the_run(app: App) -> Run:
    return Workspace(app.workspace).runs()[0]


def set_weight(page: Page, tab_name: str, value: str) -> None:
    """Move the first slider through its number box, as a person typing there does."""
    box = page.locator(f"#{tab_name}-weight-0 input[type=number]")
    box.fill(value)
    box.press("Enter")


def test_from_the_first_click_to_the_last_picture(
    app: App, page: Page, docs_shot: Callable[[str], None], request: pytest.FixtureRequest
) -> None:
    runs = RunsPage(page)
    steps = PRESET_STEPS if request.config.getoption("--docs-images") else SHORT_STEPS

    # Try the demo: one button, and the run is there
    docs_shot("start")
    page.locator("#try-demo").click()
    expect(page.get_by_role("tab", name="Runs", exact=True)).to_have_attribute("aria-selected", "true")
    runs.expect_state("Training")

    # Loss and samples arrive while it trains
    runs.wait_for_step(LOSS_POINTS)
    page.wait_for_function(
        "count => document.querySelectorAll('#sample-wall .sw-picture img').length >= count",
        arg=SAMPLES,
        timeout=SLOW_MS,
    )
    assert the_run(app).read().state == "training"
    runs.expect_curve(LOSS_POINTS)
    expect_loaded(runs.samples.nth(1))

    # The app is killed and started again: training went on, the new page shows the run whole
    step_before, trainer = runs.step, the_run(app).read().pid
    page.goto("about:blank")  # an open page would reload itself, in the middle of the next line
    app.restart()
    page.goto(app.url)
    tab(page, "Runs")
    runs.wait_for_step(step_before + 1)
    assert the_run(app).read().pid == trainer
    runs.expect_curve(LOSS_POINTS)
    expect(runs.samples.nth(SAMPLES - 1)).to_be_attached()

    # Pause holds the step, resume goes on from it
    runs.press("pause")
    runs.expect_state("Paused")
    paused_at = the_run(app).read().step
    page.reload()
    tab(page, "Runs")
    runs.expect_state("Paused")
    assert the_run(app).read().step == paused_at
    runs.press("resume")
    runs.expect_state("Training")
    runs.wait_for_step(paused_at + 2)

    # Stop and save: everything is kept
    first = the_run(app)
    assert stopped_at(app, runs, PRESET_STEPS) < PRESET_STEPS

    # Change and run again: the form holds the run's settings, and one of them is changed
    runs.press("edit")
    max_steps = page.locator("#field-train-max_steps").locator("input, textarea").first
    expect(max_steps).to_have_value(str(PRESET_STEPS))
    max_steps.fill(str(steps))
    expect(page.locator("#step-maths")).to_contain_text(f"{steps} steps")
    page.locator("#start").click()
    eventually(lambda: the_run(app).id != first.id and the_run(app).read().step >= LOSS_POINTS, SLOW_MS / 1000)
    stopped = stopped_at(app, runs, steps)

    # Extend: the same run goes on from exactly there, for five steps more
    page.locator("#run-extend-by input").fill("5")
    page.keyboard.press("Tab")
    runs.press("extend")
    runs.wait_for_step(stopped + 1)
    docs_shot("runs")
    runs.expect_state("Finished")
    run = the_run(app)
    assert run.read().step == run.read().max_steps == stopped + 5
    done = [event["step"] for event in read_events(run.events_path) if event["type"] == "metric" and "loss" in event]
    assert done == list(range(1, stopped + 6)), "every step once, none lost and none done twice"
    docs_shot("runs-finished")

    # Merge: the preview follows the slider, then it is saved
    runs.press("merge")
    drawn, caption = page.locator("#merge-pair .drawn"), page.locator("#merge-pair figcaption")
    expect(caption).to_contain_text("× 1", timeout=SLOW_MS)
    expect_loaded(drawn)
    whole = drawn.get_attribute("src")
    set_weight(page, "merge", "0.4")
    expect(caption).to_contain_text("× 0.4", timeout=SLOW_MS)
    assert drawn.get_attribute("src") != whole
    expect_loaded(drawn)
    docs_shot("merge")
    page.locator("#merge-save").click()
    expect(page.locator("#merge-outcome")).to_contain_text("my-merge", timeout=SLOW_MS)
    saved = list(Workspace(app.workspace).models_dir.rglob("my-merge.safetensors"))
    assert len(saved) == 1

    # Generate with the LoRA at two weights: two different pictures of the same seed
    tab(page, "Runs")
    runs.press("generate")
    page.get_by_role("checkbox", name="A new seed each time").uncheck()
    pictures = [generated(app, page, weight) for weight in ("1", "0")]
    assert ImageChops.difference(*pictures).getbbox() is not None
    docs_shot("generate")
    for name in ("Dataset", "Train", "Settings"):
        tab(page, name)
        settled(page)
        docs_shot(name.lower())


def stopped_at(app: App, runs: RunsPage, steps: int) -> int:
    """Stop the newest run, one of so many steps; the step that it ended at, with everything saved there."""
    run = the_run(app)
    expect(runs.page.locator("#run-head .facts")).to_contain_text(f"of {steps}")
    runs.press("stop")
    runs.expect_state("Stopped")
    step = run.read().step
    assert run.output_path.is_file()
    assert (run.checkpoints_dir / f"step-{step:06d}" / "manifest.json").is_file()
    return step


def generated(app: App, page: Page, weight: str) -> Image.Image:
    """Press Generate with the first LoRA at this weight; the newest picture."""
    folder = Workspace(app.workspace).pictures_dir
    before = set(folder.rglob("*.png"))
    set_weight(page, "generate", weight)
    shown = page.evaluate("() => document.querySelector('#generate-result [data-large] img')?.src ?? ''")
    page.locator("#generate").click()
    page.wait_for_function(
        "old => { const i = document.querySelector('#generate-result [data-large] img'); return i && i.src !== old; }",
        arg=shown,
        timeout=SLOW_MS,
    )
    expect_loaded(page.locator("#generate-result [data-large] img").first)
    (new,) = set(folder.rglob("*.png")) - before
    return Image.open(new).convert("RGB")


def expect_loaded(picture: Locator) -> None:
    """A picture that is really shown, not a broken link."""
    picture.scroll_into_view_if_needed()
    picture.page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=picture.element_handle())


@pytest.fixture
def docs_shot(page: Page, shot: Callable[[str], Path], request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Keep a screenshot under ``test-results/``, and with ``--docs-images`` under ``docs/images/`` too."""

    def take(name: str) -> None:
        page.mouse.move(0, 0)
        page.evaluate("() => document.querySelector('.place').textContent = 'workspace'")
        path = shot(f"path-{name}")
        if request.config.getoption("--docs-images"):
            target = Path(__file__).resolve().parents[2] / "docs" / "images" / f"{name}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(path) as picture:
                picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=128).save(target, optimize=True)

    return take
