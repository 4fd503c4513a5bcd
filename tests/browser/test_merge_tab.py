"""The Merge tab in a real browser: the picture follows the slider, and saving keeps exactly that."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Page, expect

from tests.browser.conftest import MEASURES, App, dismiss
from tests.browser.example_runs import example_run, open_tab, write_example_lora
from trainer.lora.file import read_lora
from trainer.runs.store import Run, Workspace
from trainer.single_file.header import read_header
from trainer.studio import Studio


@pytest.fixture(scope="module")
def workspace(app: App) -> Iterator[Workspace]:
    workspace = Workspace(app.workspace)
    yield workspace
    Studio(workspace, 1).let_go()


@pytest.fixture(scope="module")
def run(workspace: Workspace) -> Run:
    write_example_lora(workspace.models_dir / "second.safetensors", seed=2)
    return example_run(workspace, "my-character", steps=8)


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


def test_preview_follows_the_slider_and_saving_keeps_it(
    page: Page, run: Run, workspace: Workspace, shot: Callable[[str], Path]
) -> None:
    open_tab(page, "Runs")
    page.locator(".run-item", has_text="my-character").click()
    page.locator("#run-merge").click()
    caption = page.locator("#merge-pair figcaption").last
    expect(caption).to_have_text("my-character × 1", timeout=120_000)
    waits = []
    for ratio in ("0.5", "-1", "1.5"):
        begun = time.monotonic()
        move(page, 0, ratio)
        expect(caption).to_have_text(f"my-character × {ratio}", timeout=120_000)
        waits.append(time.monotonic() - begun)
    assert statistics.median(waits) < (3 if MEASURES else 60)
    for step in range(10):
        move(page, 0, f"{step / 10}")
    expect(caption).to_have_text("my-character × 0.9", timeout=120_000)
    answered = [path.stem for path in Studio(workspace, 1).answers_dir.glob("*-preview-*.json")]
    states = {name: Studio(workspace, 1).answer(name).state for name in answered}
    assert states[max(states)] == "done"

    page.locator("#merge-add-lora").click()
    page.locator("#merge-lora-1 input").fill(str(workspace.models_dir / "second.safetensors"))
    page.keyboard.press("Enter")
    move(page, 1, "-0.5")
    expect(caption).to_have_text("my-character × 0.9 + second × -0.5", timeout=120_000)
    assert not (workspace.models_dir / "both.safetensors").exists()  # nothing is written before Save
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
