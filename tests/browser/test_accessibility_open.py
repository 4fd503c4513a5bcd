"""What opens on a click can be used by everybody: comparison, evaluation, queue, plan, dialogs, tools; on phones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.conftest import App
from tests.browser.example_runs import example_run, open_tab
from tests.browser.test_accessibility import CONTROLS, FOCUS_UNSEEN, WITHOUT_KEYBOARD, serious, unfold_all
from tests.browser.test_dataset_tab import make_dataset, open_folder
from tests.browser.test_train_tab import field
from trainer.config import Config
from trainer.evaluating.results import Drawn, Evaluated, Evaluation, Nearest, evaluation_of
from trainer.evaluating.settings import parse_evaluation
from trainer.pictures import save_png
from trainer.runs import queue
from trainer.runs.store import Run, Workspace

TOUCH_PX = 24
TOO_SMALL = """([controls, least]) => [...document.querySelectorAll(controls)]
    .filter((node) => node.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && !node.disabled)
    .filter((node) => !(node.matches("a") && node.closest("p, li, small")))
    .map((node) => [node, (node.closest(node.role === "combobox" ? ".wrap" : "label") || node).getBoundingClientRect()])
    .filter(([node, box]) => box.width > 1 && Math.min(box.width, box.height) < least - 0.5)
    .map(([node, box]) => `${Math.round(box.width)}x${Math.round(box.height)} ${node.outerHTML.slice(0, 130)}`)"""
"""Controls that a finger misses (WCAG 2.2, 2.5.8); links within a sentence are excepted there too."""
CUT_OFF = """() => [...document.querySelectorAll("main *, .gradio-container *")]
    .filter((node) => node.checkVisibility({ visibilityProperty: true }) && node.getBoundingClientRect().width > 1)
    .filter((node) => node.getBoundingClientRect().right > innerWidth + 1 || node.getBoundingClientRect().left < -1)
    .filter((node) => {
        for (let at = node.parentElement; at; at = at.parentElement) {
            if (["auto", "scroll"].includes(getComputedStyle(at).overflowX)) return false;
            if (getComputedStyle(at).clip !== "auto") return false;
        }
        return getComputedStyle(node).clip === "auto";
    })
    .map((node) => node.outerHTML.slice(0, 130))"""
"""What stands beyond the edge of the screen, and cannot be scrolled to within a part of its own."""
NAME_OF = """() => {
    const at = document.activeElement;
    return at && at !== document.body ? at.outerHTML.slice(0, 200) : "";
}"""


@pytest.fixture(scope="module")
def filled(app: App) -> App:
    """Two runs to compare, one of them evaluated, and two that wait in a paused queue."""
    workspace = Workspace(app.workspace)
    make_dataset(app, "pictures", 3)
    queue.pause(workspace)
    for name in ("waits", "waits too"):
        workspace.create_run(Config(name=name))
    example_run(workspace, "other", "stopped", max_steps=500)
    evaluate(example_run(workspace, "evaluated"))
    return app


def evaluate(run: Run) -> None:
    folder = evaluation_of(run.dir)
    folder.pictures.mkdir(parents=True)
    for name in ("drawn.png", "near.png"):
        save_png(Image.new("RGB", (64, 64), "red"), folder.pictures / name, {})
    near = Nearest(picture="near.png", source="cat.png", similarity=0.9, copied=True)
    drawn = [Drawn(picture="drawn.png", prompt="a cat", seed=1, nearest=near)]
    rows = [
        Evaluated(step=step, key="k", validation_loss=0.5 - step / 1000, drift=step / 5000, copies=0, drawn=drawn)
        for step in (0, 60, 120)
    ]
    settings = parse_evaluation({"pictures": 1})
    found = Evaluation(key="k", settings=settings, checkpoints=rows, best=120, why="It is.", hints=["Look."])
    folder.write_summary(found)


def narrow(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(300)  # the page lays itself out anew


def findings(page: Page) -> list[str]:
    """Everything that is wrong in what is open, in light and dark colours, by keyboard, and on a phone."""
    found = serious(page)
    page.evaluate("atelier.setTheme('dark')")
    found += serious(page, "color-contrast")
    page.evaluate("atelier.setTheme('light')")
    found += [f"no keyboard: {each}" for each in page.evaluate(WITHOUT_KEYBOARD, CONTROLS)]
    return found


def findings_on_a_phone(page: Page) -> list[str]:
    narrow(page)
    wide = page.evaluate("document.documentElement.scrollWidth")
    found = [f"{wide} px wide"] if wide > 390 else []
    found += [f"cut off: {each}" for each in page.evaluate(CUT_OFF)]
    return found + [f"small: {each}" for each in page.evaluate(TOO_SMALL, [CONTROLS, TOUCH_PX])]


def test_runs_with_everything_open(filled: App, page: Page, shot: Callable[[str], Path]) -> None:
    page.emulate_media(reduced_motion="reduce")
    open_tab(page, "Runs")
    page.locator(".run-item", has_text="evaluated").click()
    expect(page.locator("#run-head h2")).to_have_text("evaluated")
    unfold_all(page)
    page.locator("#run-evaluation .pairs").wait_for()
    shot("runs-everything-open")
    found = findings(page)
    walked = walk(page)
    unreached = [control for control in page.evaluate(f"({VISIBLE_CONTROLS})", CONTROLS) if control not in walked]
    found += [f"not reached by Tab: {control}" for control in unreached]

    # A tick by Space, a run by Enter, a step of the previews by an arrow
    page.get_by_role("checkbox", name="Compare other").press("Space")
    page.get_by_role("checkbox", name="Compare evaluated").press("Space")
    expect(page.locator("#run-compare h2")).to_have_text("Comparing 2 runs")
    expect(page.locator("#run-compare")).to_contain_text("0.38 at step 120")
    slider = page.get_by_role("slider", name="Step of the previews")
    before = slider.get_attribute("aria-valuetext")
    slider.press("ArrowLeft")
    expect(slider).not_to_have_attribute("aria-valuetext", str(before))
    found += findings(page)
    shot("runs-compared")
    page.get_by_role("button", name="Close comparison").press("Enter")
    picture = page.locator("#sample-wall .sw-picture").first
    of_evaluated = str(picture.locator("img").get_attribute("src"))
    page.locator(".run-item", has_text="other").press("Enter")
    expect(page.locator("#run-head h2")).to_have_text("other")

    # A picture in full size
    expect(picture.locator("img")).not_to_have_attribute("src", of_evaluated)
    picture.press("Enter")
    dialog = page.locator("dialog[open]")
    expect(dialog).to_be_visible()
    found += findings(page)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert "sw-picture" in page.evaluate(NAME_OF), "the focus is where it was"

    found += findings_on_a_phone(page)
    shot("runs-phone-open")
    page.get_by_role("checkbox", name="Compare other").check()
    page.get_by_role("checkbox", name="Compare evaluated").check()
    expect(page.locator("#run-compare h2")).to_be_visible()
    found += findings_on_a_phone(page)
    shot("runs-compared-phone")
    assert found == []


VISIBLE_CONTROLS = """(controls) => [...document.querySelectorAll(controls)]
    .filter((node) => node.checkVisibility({ visibilityProperty: true }) && !node.disabled && node.type !== "radio")
    .filter((node) => node.closest("#tab-runs"))
    .map((node) => node.outerHTML.slice(0, 200))"""


def walk(page: Page) -> list[str]:
    """Every control on the way from the row of tabs to the end; fails where the focus is not seen."""
    page.get_by_role("tab", name="Runs", exact=True).focus()
    walked: list[str] = []
    unseen: list[str] = []
    for _ in range(250):
        page.keyboard.press("Tab")
        at = page.evaluate(NAME_OF)
        if not at:
            break
        walked.append(at)
        unseen.append(page.evaluate(FOCUS_UNSEEN))
    assert [each for each in unseen if each] == []
    return walked


def test_train_with_the_plan_and_the_differences_open(filled: App, page: Page, shot: Callable[[str], Path]) -> None:
    page.emulate_media(reduced_motion="reduce")
    open_tab(page, "Train")
    field(page, "dataset.sources.0.path").fill(str(filled.workspace / "datasets" / "pictures"))
    field(page, "lora.rank").fill("7")
    expect(page.locator("#changes")).to_contain_text("differ")
    page.locator("#changes summary").click()
    page.locator("#check").click()
    expect(page.locator("#plan-report")).to_contain_text("steps", timeout=180_000)
    shot("train-plan-open")
    found = findings(page) + findings_on_a_phone(page)
    shot("train-plan-phone")
    assert found == []


def test_a_merge_with_everything_open(filled: App, page: Page, shot: Callable[[str], Path]) -> None:
    page.emulate_media(reduced_motion="reduce")
    open_tab(page, "Merge")
    page.locator("#merge-lora-0 input").click()
    page.get_by_role("option", name="evaluated").first.click()
    stage, parts = page.locator("#merge-pair"), page.locator("#merge-parts-0")
    expect(stage.locator("figcaption").first).to_contain_text("evaluated", timeout=180_000)
    stage.get_by_role("button", name="Add a prompt").press("Enter")
    parts.locator("summary").press("Enter")
    parts.get_by_role("button", name="Blocks in: Image model").press("Enter")
    parts.get_by_role("button", name="Blocks in: Up blocks").press("Enter")
    parts.get_by_role("slider", name="Strength: Middle block").press("ArrowRight")
    unfold_all(page)
    found = findings(page)
    shot("merge-everything-open")
    for control in (stage.get_by_role("slider").first, parts.get_by_role("slider").last):
        control.press("ArrowLeft")
        found += [f"focus unseen: {each}" for each in [page.evaluate(FOCUS_UNSEEN)] if each]
    stage.get_by_role("button", name="Pictures of prompt 1 large").press("Enter")
    found += [f"large: {each}" for each in serious(page)]
    page.keyboard.press("Escape")
    found += findings_on_a_phone(page)
    shot("merge-phone-open")
    assert found == []


def test_tools_of_merge_and_dialogs_of_the_dataset(filled: App, page: Page) -> None:
    page.emulate_media(reduced_motion="reduce")
    found: list[str] = []
    open_tab(page, "Merge")
    tools = page.locator("#tab-merge .tools > .tab-wrapper [role=tab]")
    for tool in [name for name in tools.all_inner_texts() if name]:
        page.locator("#tab-merge").get_by_role("tab", name=tool, exact=True).first.click()
        unfold_all(page)
        found += [f"{tool}: {each}" for each in findings(page)]
    open_tab(page, "Dataset")
    open_folder(page, filled.workspace / "datasets" / "pictures")
    page.locator("#dataset-grid .ds-keys").click()
    found += serious(page)
    page.keyboard.press("Escape")
    page.locator("#dataset-grid .ds-card").first.click()
    for name in ("Crop", "Mask"):
        page.locator("#dataset-grid .ds-open-tools").get_by_role("button", name=name, exact=True).click()
        page.locator("#dataset-grid .ds-stage").wait_for()
        by_delete = "ds-remove"  # a tag is removed by the Delete key on the tag itself
        found += [f"{name}: {each}" for each in findings(page) if by_delete not in each]
        page.keyboard.press("Escape")
    assert found == []
