"""Settings of other trainers in a real browser: the form is filled, the report tells of every key, and stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

SAMPLES = Path(__file__).resolve().parents[1] / "data" / "imports"


def field(page: Page, name: str) -> Locator:
    return page.locator(f"#field-{name.replace('.', '-')}").locator("input, textarea").first


def test_a_kohya_file_fills_the_form_and_its_report_stays(
    page: Page, shot: Callable[[str], Path], tmp_path: Path
) -> None:
    page.get_by_role("tab", name="Train", exact=True).click()
    expect(page.locator("#step-maths")).not_to_be_empty()
    values = json.loads((SAMPLES / "kohya_gui" / "sd15_character_reg.json").read_text())
    values["<img src=x onerror=window.hacked=1>"] = "<b>bold</b>"
    values |= {"train_data_dir": "C:\\lora\\img", "full_bf16": True}
    file = tmp_path / "my settings.json"
    file.write_text(json.dumps(values))
    page.locator("#import-settings input[type=file]").set_input_files(file)
    report = page.locator("#import-report")
    expect(report.get_by_role("status")).to_contain_text("my settings.json (kohya_ss GUI) fills the form")
    expect(field(page, "lora.rank")).to_have_value("32")
    expect(field(page, "lora.alpha")).to_have_value("16")
    expect(field(page, "train.optimizer")).to_have_value("adamw")
    # the folder of another computer is told at its place
    expect(page.locator("#field-dataset-sources-0-path .field-problem")).to_contain_text("a path of Windows")
    expect(page.locator("#field-dataset-sources-1-path .field-problem")).to_contain_text("not open to the page")
    lost = report.locator("details", has_text="not taken over").first
    expect(lost.locator("li").first).to_be_hidden()
    lost.locator("summary").click()
    expect(lost.locator("li code", has_text="<img src=x")).to_be_visible()
    expect(lost).to_contain_text("<b>bold</b>")
    report.locator("summary", has_text="as nearly as it goes").click()
    expect(report).to_contain_text("updates are rounded by chance")
    report.scroll_into_view_if_needed()
    shot("train-import")
    page.set_viewport_size({"width": 390, "height": 844})
    shot("train-import-390")
    page.set_viewport_size({"width": 1440, "height": 1000})
    page.reload()
    page.get_by_role("tab", name="Train", exact=True).click()
    expect(report).to_contain_text("my settings.json")
    expect(field(page, "lora.rank")).to_have_value("32")
    assert page.evaluate("window.hacked") is None

    page.get_by_role("button", name="Settings as text").click()
    page.locator("#yaml textarea").fill((SAMPLES / "command_line" / "windows_caret.txt").read_text())
    page.locator("#apply-yaml").click()
    expect(report.get_by_role("status")).to_contain_text("The text (sd-scripts command line)")
    expect(field(page, "lora.rank")).to_have_value("64")
    expect(field(page, "train.optimizer")).to_have_value("prodigy")

    file.write_text('{"training_method": "FINE_TUNE", "base_model_name": "x"}')
    page.locator("#import-settings input[type=file]").set_input_files(file)
    expect(page.locator("#train-problems")).to_contain_text("trains a whole model")
    expect(field(page, "lora.rank")).to_have_value("64")
