"""The Merge tab in a real browser: the picture follows the slider, and saving keeps exactly that."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Page, expect

from tests.browser.conftest import MEASURES, dismiss, wait_until_open
from tests.browser.example_runs import example_run, open_tab, write_example_lora
from trainer.lora.file import read_lora
from trainer.pictures import read_settings
from trainer.runs.store import Run, Workspace
from trainer.single_file.header import read_header
from trainer.studio import Answer, Studio


@pytest.fixture(scope="module")
def run(workspace: Workspace) -> Run:
    write_example_lora(workspace.models_dir / "second.safetensors", seed=2)
    return example_run(workspace, "my-character", steps=8)


@pytest.fixture(autouse=True)
def as_never_used(workspace: Workspace) -> None:
    """Each test finds the tab as a newcomer does."""
    (workspace.dir / "last_combine.json").unlink(missing_ok=True)


def open_tool(page: Page, tool: str) -> None:
    open_tab(page, "Merge")
    page.get_by_role("tab", name=tool, exact=True).click()


def choose(page: Page, field: str, option: str) -> None:
    page.locator(f"#{field} input").click()
    page.get_by_role("option", name=option, exact=True).click()


def move(page: Page, row: int, ratio: str) -> None:
    box = page.locator(f"#merge-weight-{row} input[type=number]")
    box.fill(ratio)
    box.press("Enter")


A_MOMENT_NS = 1_000_000_000
"""A preview that is as good as drawn when the next is asked for is not cancelled any more."""
MOVE_TEN_TIMES = """async () => {
    const range = document.querySelector("#merge-weight-0 input[type=range]");
    for (let step = 0; step < 10; step++) {
        range.value = step / 10;
        range.dispatchEvent(new Event("input", { bubbles: true }));
        await new Promise((done) => setTimeout(done, 15));
    }
}"""


def files_in(*folders: Path) -> list[tuple[Path, int, int]]:
    """Every file with its time and size."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return sorted((path, path.stat().st_mtime_ns, path.stat().st_size) for path in files)


def answers(workspace: Workspace) -> dict[str, Answer]:
    studio = Studio(workspace, 1)
    return {path.stem: studio.answer(path.stem) for path in studio.answers_dir.glob("*-preview-*.json")}


def asked_ns(name: str) -> int:
    """When a preview of this name was asked for."""
    return int(name.partition("-")[0])


def ended_ns(workspace: Workspace, name: str) -> int:
    """When the answer to it was last written."""
    return (Studio(workspace, 1).answers_dir / f"{name}.json").stat().st_mtime_ns


def shown(page: Page, picture: str) -> bytes:
    """The bytes of the picture that is on the page: of class ``plain`` or ``drawn``."""
    address = page.locator(f"#merge-pair figure .{picture}").first.get_attribute("src")
    return page.request.get(f"{page.url.rstrip('/')}{address}").body()


def test_preview_follows_the_slider_and_saving_keeps_it(
    page: Page, run: Run, workspace: Workspace, shot: Callable[[str], Path]
) -> None:
    open_tab(page, "Runs")
    page.locator(".run-item", has_text="my-character").click()
    page.locator("#run-merge").click()
    caption = page.locator("#merge-pair figcaption").first
    expect(caption).to_have_text("my-character × 1", timeout=120_000)
    untouched = files_in(workspace.models_dir, workspace.runs_dir)
    waits = []
    for ratio in ("0.5", "-1", "1.5"):
        begun = time.monotonic()
        move(page, 0, ratio)
        expect(caption).to_have_text(f"my-character × {ratio}", timeout=120_000)
        waits.append(time.monotonic() - begun)
    assert statistics.median(waits) < (3 if MEASURES else 60)

    before = answers(workspace)
    page.evaluate(MOVE_TEN_TIMES)
    expect(caption).to_have_text("my-character × 0.9", timeout=120_000)
    expect(page.locator("#merge-pair .progress")).to_be_hidden()
    since = {name: answer for name, answer in answers(workspace).items() if name not in before}
    for name, following in itertools.pairwise(sorted(since)):
        assert since[name].state == "cancelled" or ended_ns(workspace, name) < asked_ns(following) + A_MOMENT_NS
    last = since[max(since)]
    assert last.state == "done"
    assert [shown(page, "plain"), shown(page, "drawn")] == [Path(path).read_bytes() for path in last.pictures]
    assert read_settings(Path(last.pictures[1]))["loras"][0]["weight"] == pytest.approx(0.9)

    page.locator("#merge-add-lora").click()
    page.locator("#merge-lora-1 input").fill(str(workspace.models_dir / "second.safetensors"))
    page.keyboard.press("Enter")
    move(page, 1, "-0.5")
    expect(caption).to_have_text("my-character × 0.9 + second × -0.5", timeout=120_000)
    assert files_in(workspace.models_dir, workspace.runs_dir) == untouched, "nothing is written before Save"
    page.locator("#merge-name textarea").fill("both")
    page.locator("#merge-save").click()
    expect(page.locator("#merge-outcome")).to_contain_text("Rank", timeout=120_000)
    shot("merge")

    first, second = read_lora(run.output_path), read_lora(workspace.models_dir / "second.safetensors")
    merged = read_lora(workspace.models_dir / "both.safetensors")
    for key, layer in merged.layers.items():
        wanted = 0.9 * first.layers[key].delta() - 0.5 * second.layers[key].delta()
        assert torch.allclose(layer.delta(), wanted, atol=2e-3 * float(wanted.abs().max()))

    page.locator("#merge-save").click()
    dismiss(page, "both.safetensors exists already")
    page.reload()
    open_tab(page, "Merge")
    expect(page.locator("#merge-outcome")).to_contain_text("both.safetensors")

    page.locator("#merge-use").click()
    expect(caption).to_have_text("both × 1", timeout=120_000)
    page.get_by_role("tab", name="Inspect", exact=True).click()
    choose(page, "inspect-lora", "both")
    expect(page.locator("#inspect-plan")).to_contain_text("my-character0.9")
    page.locator("#inspect-again").click()
    expect(caption).to_have_text("my-character × 0.9 + second × -0.5", timeout=120_000)
    page.locator("#merge-try").click()
    expect(page.locator("#generate-lora-0 input")).to_have_value("both")


def test_strengths_by_part_and_block(page: Page, run: Run, workspace: Workspace, shot: Callable[[str], Path]) -> None:
    open_tab(page, "Merge")
    choose(page, "merge-lora-0", "second")
    parts, caption = page.locator("#merge-parts-0"), page.locator("#merge-pair figcaption").first
    parts.locator("summary").click()
    parts.get_by_role("button", name="Blocks in: Image model").click()
    down = parts.get_by_role("slider", name="Strength: Down blocks", exact=True)
    expect(down).to_have_value("1")
    move(page, 0, "0.5")
    expect(down).to_have_value("0.5")  # what has no number of its own follows the whole
    down.press("ArrowLeft")
    middle = parts.get_by_role("spinbutton", name="Strength as a number: Middle block")
    middle.fill("-3.5")
    middle.press("Enter")
    as_text = parts.get_by_role("textbox", name="The same as text")
    expect(as_text).to_have_value("unet.down_blocks:0.45, unet.mid_block:-3.5")
    expect(caption).to_have_text("second × 0.5 (unet.down_blocks:0.45,unet.mid_block:-3.5)", timeout=120_000)
    expect(page.locator("#merge-plan")).to_contain_text("0.5, unet.down_blocks 0.45, unet.mid_block -3.5")
    parts.get_by_role("button", name="Reset: Middle block").click()
    expect(middle).to_have_value("0.5")
    parts.get_by_role("button", name="Blocks in: Down blocks").click()
    expect(parts.get_by_role("slider", name="Strength: Down blocks, Down 1")).to_have_value("0.45")
    shot("merge-parts")

    parts.get_by_role("combobox", name="Presets").select_option("Up blocks only")
    expect(as_text).to_have_value("unet.down_blocks:0, unet.mid_block:0")
    as_text.fill("MID:0.25, unet:x")
    as_text.press("Enter")
    expect(as_text).to_have_attribute("aria-invalid", "true")
    as_text.fill("MID:0.25, unet:2")
    as_text.press("Enter")
    expect(middle).to_have_value("0.25")
    expect(parts.get_by_role("slider", name="Strength: Up blocks")).to_have_value("2")
    expect(caption).to_have_text("second × 0.5 (MID:0.25,unet:2)", timeout=120_000)

    page.locator("#merge-name textarea").fill("by-block")
    page.locator("#merge-save").click()
    expect(page.locator("#merge-outcome")).to_contain_text("by-block.safetensors", timeout=120_000)
    second, saved = (read_lora(workspace.models_dir / f"{name}.safetensors") for name in ("second", "by-block"))
    for key, layer in saved.layers.items():
        wanted = (0.25 if "mid_block" in key else 2.0) * second.layers[key].delta()
        assert torch.allclose(layer.delta(), wanted, atol=2e-3 * float(wanted.abs().max()))

    before = answers(workspace)
    page.reload()
    wait_until_open(page)
    open_tab(page, "Merge")
    expect(page.locator("#merge-lora-0 input")).to_have_value("second")
    expect(page.locator("#merge-weight-0 input[type=number]")).to_have_value("0.5")
    expect(as_text).to_have_value("MID:0.25, unet:2")
    expect(page.locator("#merge-name textarea")).to_have_value("by-block")
    expect(caption).to_have_text("second × 0.5 (MID:0.25,unet:2)")
    assert answers(workspace) == before, "what is there is shown, and nothing is drawn again"
    field = page.get_by_role("textbox", name="Prompt 1 of the preview")
    field.fill("a green ring")
    field.press("Enter")
    expect(page.locator("#merge-pair .drawn")).to_have_attribute("alt", "With LoRAs: a green ring")

    parts.get_by_role("button", name="Reset all").click()
    expect(caption).to_have_text("second × 0.5", timeout=120_000)


def test_pictures_are_compared_and_prompts_come_and_go(page: Page, run: Run) -> None:
    open_tab(page, "Merge")
    choose(page, "merge-lora-0", "second")
    stage = page.locator("#merge-pair")
    captions = stage.locator("figcaption")
    expect(captions).to_have_text(["second × 1"], timeout=120_000)

    divider = stage.get_by_role("slider", name="Divider")
    cut = "() => getComputedStyle(document.querySelector('#merge-pair .plain')).clipPath"
    divider.press("End")
    assert page.evaluate(cut) in ("inset(0px)", "inset(0px 0% 0px 0px)")
    divider.press("ArrowLeft")
    expect(divider).to_have_attribute("aria-valuetext", "99 % without the LoRAs")
    box = stage.locator(".pair").first.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    assert abs(float(divider.input_value()) - 25) <= 1

    stage.get_by_role("button", name="Side by side").press("Enter")
    expect(divider).to_be_hidden()
    left, right = (stage.locator(f".pair .{name}").first.bounding_box() for name in ("plain", "drawn"))
    assert left is not None and right is not None and left["x"] + left["width"] <= right["x"]
    stage.get_by_role("button", name="Pictures of prompt 1 large").click()
    expect(page.locator("dialog[open] .pair img").first).to_be_visible()
    page.keyboard.press("Escape")

    stage.get_by_role("button", name="Add a prompt").click()
    page.keyboard.type("a green ring")
    page.keyboard.press("Enter")
    expect(captions).to_have_text(["second × 1", "second × 1"], timeout=120_000)
    for number in (3, 4):
        stage.get_by_role("button", name="Add a prompt").click()
        expect(stage.get_by_role("textbox", name=f"Prompt {number} of the preview")).to_be_focused()
    expect(stage.get_by_role("button", name="Add a prompt")).to_be_disabled()
    move(page, 0, "0.5")
    expect(captions).to_have_text(["second × 0.5", "second × 0.5", "", ""], timeout=120_000)
    addresses = stage.locator("figure .drawn").evaluate_all("(all) => all.map((each) => each.getAttribute('src'))")
    assert addresses[0] != addresses[1]
    stage.get_by_role("button", name="Remove prompt 1").click()
    expect(stage.get_by_role("textbox").first).to_have_value("a green ring")
    expect(captions).to_have_text(["second × 0.5", "", ""])
    stage.get_by_role("button", name="Divider", exact=True).click()  # kept in the browser for the tests after this one

    page.locator("#merge-lora-0 input").fill("/nowhere/x.safetensors")
    page.keyboard.press("Enter")
    expect(stage.get_by_role("alert")).to_contain_text("not open to the page")


def test_into_a_model_and_problems(page: Page, run: Run, workspace: Workspace) -> None:
    open_tab(page, "Merge")
    page.locator("#merge-save").click()
    dismiss(page, "No LoRA is chosen")
    choose(page, "merge-lora-0", "second")
    page.locator("#merge-target input").click()
    page.get_by_role("option", name="A model folder with them built in").click()
    expect(page.locator("#merge-plan")).to_contain_text("Layers changed")
    expect(page.locator("#merge-mode")).to_be_hidden()
    page.locator("#merge-name textarea").fill("../outside")
    page.locator("#merge-save").click()
    dismiss(page, "does not work as a file name")
    page.locator("#merge-name textarea").fill("whole-model")
    page.locator("#merge-save").click()
    expect(page.locator("#merge-outcome")).to_contain_text("whole-model", timeout=120_000)
    assert (workspace.models_dir / "whole-model" / "model_index.json").is_file()


def test_resize_and_inspect(page: Page, run: Run, workspace: Workspace, shot: Callable[[str], Path]) -> None:
    open_tool(page, "Resize")
    page.locator("#resize-save").click()
    dismiss(page, "No LoRA is chosen")
    choose(page, "resize-lora", "second")
    page.locator("#resize-rank input").fill("2")
    page.locator("#resize-name textarea").fill("smaller")
    expect(page.locator("#resize-plan")).to_contain_text("48 of 48")
    page.locator("#resize-save").click()
    expect(page.locator("#resize-outcome")).to_contain_text("Kept of the norm", timeout=180_000)
    expect(page.locator("#resize-outcome")).to_contain_text("2, was 4")
    expect(page.locator("#resize-outcome")).to_contain_text("Strength per block", timeout=180_000)
    before = read_lora(workspace.models_dir / "second.safetensors")
    after = read_lora(workspace.models_dir / "smaller.safetensors")
    for key, layer in after.layers.items():
        left, values, right = torch.linalg.svd(before.layers[key].delta(torch.float64))
        best = left[:, :2] * values[:2] @ right[:2]
        assert torch.allclose(layer.delta(torch.float64), best, atol=2e-3 * float(best.abs().max()))

    open_tool(page, "Inspect")
    choose(page, "inspect-lora", "smaller")
    expect(page.locator("#inspect-plan")).to_contain_text("sd1")
    page.locator("#inspect-save").click()
    outcome = page.locator("#inspect-outcome")
    expect(outcome).to_contain_text("Strength per block", timeout=180_000)
    outcome.locator("summary", has_text="Strength per block").click()
    expect(outcome.locator(".block-table tbody tr")).to_have_count(7)
    shot("merge-inspect")


def test_convert_and_extract(page: Page, run: Run, workspace: Workspace, shot: Callable[[str], Path]) -> None:
    open_tool(page, "Convert")
    choose(page, "convert-lora", "second")
    choose(page, "convert-to", "diffusers")
    page.locator("#convert-name textarea").fill("renamed")
    expect(page.locator("#convert-plan")).to_contain_text("kohya names")
    page.locator("#convert-save").click()
    expect(page.locator("#convert-outcome")).to_contain_text("kohya → diffusers", timeout=180_000)
    renamed = workspace.models_dir / "renamed.safetensors"
    assert all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in read_header(renamed).shapes)
    page.locator("#convert-save").click()
    dismiss(page, "renamed.safetensors exists already")

    open_tool(page, "Extract")
    tuned = workspace.models_dir / "whole-model"
    page.locator("#extract-tuned input").fill(str(tuned))
    page.keyboard.press("Enter")
    page.locator("#extract-rank input").fill("4")
    page.locator("#tool-extract button", has_text="More settings").click()
    page.locator("#extract-clamp input[type=number]").fill("1")
    page.locator("#extract-name textarea").fill("again")
    expect(page.locator("#extract-plan")).to_contain_text("rank 4")
    page.locator("#extract-save").click()
    expect(page.locator("#extract-outcome")).to_contain_text("again.safetensors", timeout=180_000)
    shot("merge-extract")
    second = read_lora(workspace.models_dir / "second.safetensors")
    found = read_lora(workspace.models_dir / "again.safetensors")
    for key, layer in second.layers.items():
        wanted = layer.delta()
        assert torch.allclose(found.layers[key].delta(), wanted, atol=5e-3 * float(wanted.abs().max()))
