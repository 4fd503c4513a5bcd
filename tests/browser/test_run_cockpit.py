"""What can be asked of a run, with real clicks: one real training is driven through all of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import dismiss
from tests.browser.example_runs import example_run, open_tab
from tests.browser.test_dataset_tab import eventually
from tests.recipe.tiny_runs import losses_of, make_pictures, of_type
from trainer.checkpoint_folders import LORA, checkpoint_at, checkpoints
from trainer.config import Config
from trainer.runs.bin import Bin
from trainer.runs.store import Run, Workspace
from trainer.runs.worker import enqueue

SLOW_MS = 240_000
HEARS_NOTIFICATIONS = """
window.told = [];
window.Notification = class { constructor(title, more) { window.told.push(`${title}: ${more.body}`); } };
window.Notification.permission = "default";
window.Notification.requestPermission = async () => (window.Notification.permission = "granted");
"""
LOOK_AWAY = "Object.defineProperty(document, 'visibilityState', { get: () => 'hidden', configurable: true })"
LOOK_AGAIN = "delete document.visibilityState"


@pytest.fixture
def long_run(workspace: Workspace, tmp_path: Path) -> Run:
    """A real training of far more steps than it will be let do."""
    settings = {
        "name": "walk",
        "dataset": {"resolution": 64, "sources": [{"path": str(make_pictures(tmp_path / "pictures"))}]},
        "lora": {"rank": 4},
        "train": {"max_steps": 5000, "batch_size": 1},
        "samples": {"prompts": ["a red circle --s 2"], "at_start": False, "every_steps": 0},
        "output": {"save_every_steps": 0, "keep_last": 20},
    }
    return enqueue(workspace, Config.model_validate(settings))


def state(page: Page, words: str) -> None:
    expect(page.locator("#run-head .pill")).to_have_text(words, timeout=SLOW_MS)


def press(page: Page, name: str) -> None:
    page.locator(f"#run-{name}").click()


def unfold(page: Page, title: str) -> None:
    page.locator(".run-main .label-wrap", has_text=title).click()


def row(page: Page, step: int) -> Locator:
    return page.locator(f"#run-checkpoints li[data-step='{step}']")


def choose(page: Page, name: str) -> None:
    page.locator(".run-item", has_text=name).first.click()
    expect(page.locator("#run-head h2")).to_have_text(name)


def test_one_run_through_all_that_can_be_asked(
    page: Page, workspace: Workspace, long_run: Run, shot: Callable[[str], Path], tmp_path: Path
) -> None:
    page.add_init_script(HEARS_NOTIFICATIONS)
    page.reload()
    open_tab(page, "Runs")
    state(page, "Training")
    expect(page).to_have_title(re.compile(r"^\d+ % · walk · LoRA Atelier$"))

    # Other prompts while it trains, drawn at once
    unfold(page, "Preview prompts")
    unfold(page, "What happened")
    field = page.get_by_role("textbox", name="Preview prompts, one a line")
    expect(field).to_have_value("a red circle --s 2")
    field.fill("a square --w 63")
    page.get_by_role("button", name="Use these", exact=True).click()
    dismiss(page, "width")
    field.fill("a blue square --s 2\na <i>cat</i> --s 2 --d 7")
    page.get_by_role("button", name="Use these and sample now").click()
    expect(page.locator("#run-events")).to_contain_text("Preview prompts changed: a blue square | a <i>cat</i>")
    expect(page.locator("#sample-wall")).to_contain_text("a <i>cat</i>")
    assert [prompt.seed for prompt in long_run.config().samples.prompts] == [42, 7]

    # Save now; a name and a note while it trains
    press(page, "save")
    unfold(page, "Checkpoints")
    expect(page.locator("#run-checkpoints li")).to_have_count(1)
    page.get_by_role("button", name="Rename, add a note").click()
    page.get_by_label("Name", exact=True).fill("a/b")
    page.get_by_label("Note", exact=True).fill("goes <b>well</b>")
    page.locator("#run-about").get_by_role("button", name="Save", exact=True).click()
    dismiss(page, "file name")
    page.get_by_label("Name", exact=True).fill("Walked far")
    page.locator("#run-about").get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#run-head h2")).to_have_text("Walked far")
    expect(page.locator("#run-about .note")).to_have_text("goes <b>well</b>")

    # A pause and its end; then a stop that nobody is looking at
    press(page, "pause")
    state(page, "Paused")
    expect(page).to_have_title("Paused · Walked far · LoRA Atelier")
    press(page, "resume")
    state(page, "Training")
    page.get_by_role("button", name="Tell me when a run ends").click()
    expect(page.locator("#run-notify")).to_contain_text("Do not tell me any more")
    shot("run-cockpit")
    press(page, "stop")
    page.evaluate(LOOK_AWAY)  # the rest of the page rests then
    page.wait_for_function("() => window.told.length > 0")
    assert page.evaluate("() => window.told") == [f"Stopped: Walked far: {long_run.read().step} steps"]
    expect(page).to_have_title("Stopped · Walked far · LoRA Atelier")
    page.evaluate(LOOK_AGAIN)
    state(page, "Stopped")
    stopped_at = long_run.read().step
    assert long_run.output_path.name == "Walked far.safetensors"
    assert long_run.output_path.is_file()

    # A new run from the first checkpoint, exactly there
    saved = [int(path.name.removeprefix("step-")) for path in checkpoints(long_run.checkpoints_dir)]
    assert len(saved) >= 3, "saved, paused, stopped"
    first = saved[0]
    row(page, first).get_by_role("button", name="Go on from here").click()
    page.get_by_label("Steps in all").fill(str(first + 2))
    page.get_by_role("button", name="Start it").click()
    expect(page.locator("#run-about")).to_contain_text(f"Goes on from {long_run.id} step {first}")
    state(page, "Finished")
    branch = next(run for run in workspace.runs() if run.id != long_run.id)
    assert list(losses_of(branch)) == [first + 1, first + 2]
    assert losses_of(branch)[first + 1] == losses_of(long_run)[first + 1]
    assert [prompt.seed for prompt in branch.config().samples.prompts] == [42, 7]
    assert long_run.read().step == stopped_at

    # The stopped run goes on for two steps more, with the new prompts
    page.locator(f".run-item[data-pick='{long_run.id}']").click()
    state(page, "Stopped")
    with page.expect_download() as download:
        row(page, first).get_by_role("link", name="Download").click()
    download.value.save_as(tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (
        checkpoint_at(long_run.checkpoints_dir, first) / LORA
    ).read_bytes()
    assert download.value.suggested_filename == f"Walked far-{first:06d}.safetensors"
    press(page, "resume")
    state(page, "Training")
    before = len(of_type(long_run, "sample"))
    press(page, "sample")
    eventually(lambda: len(of_type(long_run, "sample")) == before + 2, SLOW_MS / 1000)
    press(page, "stop")
    state(page, "Stopped")
    drawn = [event["prompt"] for event in of_type(long_run, "sample")]
    assert set(drawn[before:]) == {"a blue square", "a <i>cat</i>"}


def test_the_bin_takes_and_gives_back(page: Page, workspace: Workspace) -> None:
    run = example_run(workspace, "unwanted", steps=120)
    rubbish = Bin(workspace.dir)
    open_tab(page, "Runs")
    choose(page, "unwanted")
    unfold(page, "Checkpoints")
    row(page, 120).get_by_role("button", name="Delete").click()
    expect(page.locator("#run-checkpoints .question")).to_contain_text("a resume would begin anew")
    page.locator("#run-checkpoints").get_by_role("button", name="Cancel").click()
    assert rubbish.items() == []
    row(page, 120).get_by_role("button", name="Delete").click()
    page.locator("#run-checkpoints").get_by_role("button", name="Move to the bin").click()
    expect(page.locator("#run-checkpoints")).to_contain_text("None saved yet")
    page.locator("#run-bin summary").click()
    expect(page.locator("#run-bin li")).to_contain_text("unwanted, step 120")
    page.locator("#run-bin").get_by_role("button", name="Restore").click()
    expect(row(page, 120)).to_be_visible()
    expect(page.locator("#run-bin li")).to_have_count(0)

    press(page, "delete")
    page.locator(".confirm").get_by_role("button", name="Keep it").click()
    assert run.dir.exists()
    press(page, "delete")
    page.locator(".confirm").get_by_role("button", name="Move to the bin").click()
    expect(page.locator(".run-item", has_text="unwanted")).to_have_count(0)
    assert not run.dir.exists()
    page.locator("#run-bin").get_by_role("button", name="Restore").click()
    expect(page.locator("#run-head h2")).to_have_text("unwanted")
    assert run.output_path.is_file()

    press(page, "delete")
    page.locator(".confirm").get_by_role("button", name="Move to the bin").click()
    page.get_by_role("button", name="Empty the bin").click()
    page.locator("#run-bin .question").get_by_role("button", name="Delete").click()
    expect(page.locator("#run-bin li")).to_have_count(0)
    assert list(rubbish.dir.iterdir()) == []


def test_the_log_is_searched_followed_and_kept(page: Page, workspace: Workspace, tmp_path: Path) -> None:
    run = example_run(workspace, "talker", "paused", steps=10)
    lines = [f"line {number} <b>loud</b>" for number in range(4000)]
    run.log_path.write_text("Something Odd happened\n" + "\n".join(lines) + "\n")
    open_tab(page, "Runs")
    choose(page, "talker")
    unfold(page, "Log")
    log = page.locator("#run-log pre")
    expect(log).to_contain_text("line 3999 <b>loud</b>")
    at_end = "(log) => log.scrollTop + log.clientHeight >= log.scrollHeight - 4"
    page.wait_for_function(at_end, arg=log.element_handle())
    page.get_by_role("searchbox", name="Search the whole log").fill("odd some")
    expect(log).to_have_text("Something Odd happened")
    expect(page.locator("#run-log [role=status]")).to_have_text("1 line")
    page.get_by_role("searchbox", name="Search the whole log").fill("loud")
    expect(page.locator("#run-log [role=status]")).to_have_text("the last 500 of 4000 lines")
    with page.expect_download() as download:
        page.locator("#run-log").get_by_role("link", name="Download").click()
    download.value.save_as(tmp_path / "log")
    assert (tmp_path / "log").read_bytes() == run.log_path.read_bytes()
    assert download.value.suggested_filename == "talker.log"


def test_a_checkpoint_goes_to_generate(page: Page, workspace: Workspace) -> None:
    run = example_run(workspace, "drawn-with", steps=120)
    open_tab(page, "Runs")
    choose(page, "drawn-with")
    unfold(page, "Checkpoints")
    row(page, 120).get_by_role("button", name="Generate with this").click()
    expect(page.get_by_role("tab", name="Generate", exact=True)).to_have_attribute("aria-selected", "true")
    chosen = page.locator("#tab-generate input").filter(visible=True)
    page.wait_for_function(
        "(name) => [...document.querySelectorAll('input')].some((one) => one.value.includes(name))",
        arg=f"{run.read().name}, step 120",
    )
    expect(chosen.first).to_be_visible()
