"""Text of strangers on the page runs nothing: what runs, LoRA files, pictures, captions, settings and folders say."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Page, expect

from tests.browser.conftest import App, toast
from tests.browser.example_runs import example_run, open_tab, tell, write_example_lora
from tests.browser.test_dataset_tab import cards, field, open_folder, unfold
from tests.browser.test_generate_form_page import drop
from tests.browser.test_merge_tab import choose, open_tool
from trainer.lora.file import LoraFile, read_lora, write_lora
from trainer.runs.store import Run, Workspace

HOSTILE = '<img src=x onerror="window.hacked=1"> ${window.hacked=2} {{window.hacked}} <script>window.hacked=3</script>'
LINKS = '[a](javascript:window.hacked=4) <a href="javascript:window.hacked=5">b</a> <iframe srcdoc="<p>x"></iframe>'
STYLE = "<svg onload=window.hacked=6> <style>body{display:none}</style> <form action=http://x.invalid><input autofocus>"
STRANGE = f"{HOSTILE} {LINKS} {STYLE}"
FILE_NAME = "<img src=x onerror=window.hacked=7> ${window.hacked=8} {{x}} [a](javascript:b) 'q' &amp;"
RUN_NAME = "name ${window.hacked=9} {{window.hacked}} &lt;img src=x onerror=hacked&gt; 'q'"
"""With what it may hold: a run whose name is no file name is a broken one."""
TOLD_BY_FILES = (
    "ss_output_name", "ss_base_model_version", "ss_sd_model_name", "ss_network_module", "ss_training_comment",
    "ss_tag_frequency", "ss_optimizer", "modelspec.title", "modelspec.author", "modelspec.tags", "modelspec.license",
    "modelspec.description", "modelspec.trigger_phrase", "modelspec.date", "unknown",
)  # fmt: skip


@pytest.fixture(autouse=True)
def quiet_page(page: Page) -> Iterator[None]:
    """No test ends with a dialog that was opened, or an address elsewhere that was asked."""
    dialogs: list[str] = []
    asked: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: asked.append(request.url))
    yield
    nothing_ran(page)
    assert dialogs == []
    assert not [url for url in asked if not url.startswith(("http://127.0.0.1:", "data:", "blob:"))]


@pytest.fixture(scope="module")
def run(workspace: Workspace) -> Run:
    """A failed run in which every text is hostile."""
    problem = {"code": "x", "message": f"message {HOSTILE}", "hint": f"hint {HOSTILE}", "field": HOSTILE}
    run = example_run(workspace, "plain", "failed", steps=8)
    run.update(name=RUN_NAME, note=f"note {HOSTILE}", device=f"device {HOSTILE}", error=f"error {HOSTILE}")
    run.log_path.write_text(f"log {HOSTILE}\n\x1b[31m\x1b]0;{HOSTILE}\x07\n", encoding="utf-8")
    tell(run, {"type": "warning", **problem}, {"type": "error", **problem})
    return run


def test_what_a_run_says_is_text(page: Page, run: Run) -> None:
    open_tab(page, "Runs")
    page.locator(".run-item").first.click()
    expect(page.locator("#run-head h2")).to_have_text(RUN_NAME)
    expect(page.locator("#run-head")).to_contain_text(f"device {HOSTILE}")
    expect(page.locator("#run-head")).to_contain_text(f"error {HOSTILE}")
    page.get_by_role("button", name=re.compile(r"^Log\b")).click()
    expect(page.locator("#run-log pre")).to_contain_text(f"log {HOSTILE}")
    expect(page.get_by_text("message <img").first).to_be_attached()
    nothing_ran(page)


@pytest.fixture(scope="module")
def lora(workspace: Workspace) -> Path:
    """A good LoRA of which everything that can be told is hostile, its name and its metadata."""
    path = write_example_lora(workspace.models_dir / f"{FILE_NAME}.safetensors")
    file = read_lora(path)
    told = dict.fromkeys(TOLD_BY_FILES, STRANGE)
    write_lora(path, LoraFile(file.layers, {**file.metadata, **told, STRANGE: STRANGE}), precision=None)
    return path


def test_what_a_lora_file_says_is_text(page: Page, lora: Path) -> None:
    """In the list of LoRAs, at first sight, and in the report of a job."""
    open_tool(page, "Inspect")
    choose(page, "inspect-lora", lora.stem)
    expect(page.locator("#inspect-plan")).to_contain_text("kohya")
    page.locator("#inspect-save").click()
    outcome = page.locator("#inspect-outcome")
    expect(outcome).to_contain_text("<script>window.hacked=3</script>", timeout=180_000)
    for folded in outcome.locator("summary").all():
        folded.click()
    expect(outcome).to_contain_text('<a href="javascript:window.hacked=5">b</a>')
    nothing_ran(page)
    open_tool(page, "Combine")
    choose(page, "merge-lora-0", lora.stem)
    expect(page.locator("#merge-lora-0 input")).to_have_value(lora.stem)
    open_tab(page, "Generate")
    choose(page, "generate-lora-0", lora.stem)
    expect(page.locator("#generate-lora-0 input")).to_have_value(lora.stem)


@pytest.mark.parametrize("chunk", ["parameters", "lora_atelier", "Comment", "prompt", "workflow"])
def test_what_a_picture_says_is_text(page: Page, chunk: str, tmp_path: Path) -> None:
    """Settings in a picture that is dropped in: A1111's text, our own JSON that is none, and others' chunks."""
    told = PngInfo()
    settings = f"Steps: 3, Sampler: {FILE_NAME}, Seed: 7, Model: {FILE_NAME}, x: {HOSTILE}"
    text = f"{STRANGE}\nNegative prompt: {STRANGE}\n{settings}"
    told.add_text(chunk, text)
    Image.new("RGB", (64, 64)).save(tmp_path / "told.png", pnginfo=told)
    open_tab(page, "Generate")
    drop(page, "#generate-prompt", tmp_path / "told.png")
    if chunk == "parameters":
        expect(page.locator("#generate-prompt textarea")).to_have_value(STRANGE)
        expect(page.locator("#generate-negative textarea, #generate-negative input")).to_have_value(STRANGE)
        expect(toast(page, "Not on this machine")).to_contain_text("<img src=x onerror=window.hacked=7>")
    else:
        expect(page.locator(".toast-body").first).to_be_visible()


def test_settings_of_strangers_are_text(page: Page, tmp_path: Path) -> None:
    """Comments, keys and values of a file that is brought along; what is wrong with it is named."""
    file = tmp_path / "settings.yaml"
    lines = [f"# {STRANGE}", f"name: '{FILE_NAME.replace(chr(39), '')}'", "model: {base: demo}", f"? '{LINKS}'", ": 1"]
    file.write_text("\n".join(lines), encoding="utf-8")
    open_tab(page, "Train")
    page.locator("#import-settings input[type=file]").set_input_files(file)
    expect(page.locator("#train-problems")).to_contain_text("<img src=x onerror=window.hacked=7>")
    page.get_by_role("button", name="Settings as text").click()
    page.locator("#yaml textarea").fill(file.read_text(encoding="utf-8"))
    page.locator("#apply-yaml").click()
    expect(page.locator("#train-problems")).to_contain_text("Is not a setting.")


def test_names_of_folders_are_text(app: App, page: Page, workspace: Workspace, tmp_path: Path) -> None:
    """A data set by its name, with a table of tags; and a folder that Settings opens and closes."""
    folder = workspace.datasets_dir / FILE_NAME
    folder.mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(folder / f"{FILE_NAME}.png")
    (folder / f"{FILE_NAME}.txt").write_text(", ".join([HOSTILE, LINKS, STYLE]), encoding="utf-8")
    open_tab(page, "Dataset")
    open_folder(page, folder)
    cards(page).first.click()
    unfold(page, "dataset-tag-table")
    expect(page.locator("#dataset-tags .tag").filter(has_text="javascript:window.hacked=5").first).to_be_visible()
    nothing_ran(page)
    opened = tmp_path / FILE_NAME
    opened.mkdir()
    open_tab(page, "Settings")
    field(page, "new-folder").fill(str(opened))
    page.locator("#add-folder").click()
    expect(page.locator("#folders")).to_contain_text(FILE_NAME)
    field(page, "new-folder").fill(str(opened / STYLE))
    page.locator("#add-folder").click()
    expect(page.locator("#folder-problem")).to_contain_text("<svg onload=window.hacked=6>")
    shutil.rmtree(folder)


def nothing_ran(page: Page) -> None:
    """Scripts and pictures that were put in have had their time once the page answers another question."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    assert page.evaluate("window.hacked") is None
    for part in (
        "img[src='x']",
        "a[href^='javascript:']",
        "iframe[srcdoc]",
        "form[action*='x.invalid']",
        "svg[onload]",
    ):
        assert page.locator(part).count() == 0, part
    assert page.evaluate("getComputedStyle(document.body).display") != "none"
