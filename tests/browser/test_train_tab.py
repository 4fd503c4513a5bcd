"""The Train tab in a real browser: what is typed stays, what is wrong is told at its place, search finds."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import App


@pytest.fixture(autouse=True)
def train_tab(page: Page) -> None:
    page.get_by_role("tab", name="Train", exact=True).click()
    field(page, "train.seed").wait_for()
    expect(page.locator("#step-maths")).not_to_be_empty()  # what stood in the form last is there


@pytest.fixture(scope="module")
def pictures(app: App) -> Path:
    """Five pictures with captions in the workspace."""
    folder = app.workspace / "datasets" / "five"
    folder.mkdir(parents=True)
    for number in range(5):
        Image.new("RGB", (128, 128), (40 * number, 80, 120)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("a plain square")
    return folder


def field(page: Page, name: str) -> Locator:
    return page.locator(f"#field-{name.replace('.', '-')}").locator("input, textarea").first


def use_text(page: Page, text: str, *, taken: bool = True) -> None:
    """Settings as YAML into the form: every other setting goes back to its default. ``taken``: whether it is right."""
    box = page.locator("#yaml textarea")
    if not box.is_visible():
        page.get_by_role("button", name="Settings as text").click()
    box.fill(text)
    page.locator("#apply-yaml").click()
    if taken:
        expect(box).not_to_have_value(text)  # then the whole form stands there, written out


def test_what_is_typed_is_there_after_a_reload(page: Page, pictures: Path) -> None:
    use_text(page, "name: before")
    expect(field(page, "name")).to_have_value("before")
    field(page, "name").fill("my reload test")
    field(page, "dataset.sources.0.path").fill(str(pictures))
    field(page, "dataset.sources.0.repeats").fill("10")
    field(page, "train.batch_size").fill("4")
    page.locator("#field-train-gradient_checkpointing input").click()
    page.get_by_role("option", name="all", exact=True).click()
    page.locator("#field-lora-train input").click()
    page.get_by_role("option", name="both", exact=True).click()
    field(page, "samples.prompts").fill("a cat --w 128 --d 7\na dog")
    field(page, "train.learning_rate").fill("1e-5x")
    page.keyboard.press("Tab")
    expect(page.locator("#step-maths")).to_contain_text("1 setting needs a look")
    page.reload()
    page.get_by_role("tab", name="Train", exact=True).click()
    expect(field(page, "name")).to_have_value("my reload test")
    expect(field(page, "train.learning_rate")).to_have_value("1e-5x")
    expect(field(page, "dataset.sources.0.path")).to_have_value(str(pictures))
    expect(field(page, "samples.prompts")).to_have_value("a cat --w 128 --d 7\na dog")
    expect(field(page, "train.gradient_checkpointing")).to_have_value("all")
    expect(field(page, "lora.train")).to_have_value("both")
    field(page, "train.learning_rate").fill("1e-5")
    expect(page.locator("#step-maths")).to_contain_text("5 pictures, 50 with repeats / 4 a step = about 13 steps")
    expect(page.locator("#yaml textarea")).to_have_count(0)
    page.get_by_role("button", name="Settings as text").click()
    expect(page.locator("#yaml textarea")).to_have_value(holding("learning_rate: 1.0e-05"))


def holding(part: str) -> re.Pattern[str]:
    return re.compile(re.escape(part))


def test_wrong_values_are_told_at_their_fields_all_at_once(
    page: Page, app: App, pictures: Path, shot: Callable[[str], Path]
) -> None:
    use_text(page, f"dataset: {{sources: [{{path: {pictures}}}], resolution: 128}}")
    expect(field(page, "dataset.resolution")).to_have_value("128")
    field(page, "train.learning_rate").fill("fast")
    field(page, "lora.rank").fill("0")
    page.locator("#fold-train").click()
    field(page, "train.clip_skip").fill("99")
    page.locator("#fold-train").click()
    expect(field(page, "train.clip_skip")).to_be_hidden()
    page.locator("#start").click()
    for name, words in [
        ("train-learning_rate", "'fast' is not allowed; allowed is a number"),
        ("lora-rank", "0 is not allowed; allowed is 1 or more"),
        ("train-clip_skip", "99 is not allowed; allowed is 12 or less"),
    ]:
        expect(page.locator(f"#field-{name} .field-problem")).to_contain_text(words)
        expect(page.locator(f"#field-{name} [aria-invalid=true]")).to_be_visible()
    expect(page.locator("#train-problems li")).to_have_count(3)
    expect(field(page, "lora.rank")).to_be_focused()
    shot("train-problems")
    field(page, "train.learning_rate").fill("1e-4")
    expect(page.locator("#field-train-learning_rate .field-problem")).to_have_count(0)
    expect(page.locator("#train-problems li")).to_have_count(2)
    assert not (app.workspace / "runs").exists() or not list((app.workspace / "runs").iterdir())


def test_a_folder_outside_is_refused_at_its_row(page: Page) -> None:
    use_text(page, "dataset: {sources: [{path: /etc}]}", taken=False)
    expect(field(page, "dataset.sources.0.path")).to_have_value("/etc")
    page.locator("#check").click()
    expect(page.locator("#field-dataset-sources-0-path .field-problem")).to_contain_text("not open to the page")


def test_search_finds_by_other_trainers_names(page: Page) -> None:
    search = page.get_by_role("searchbox", name="Search settings")
    search.fill("network_dim")
    expect(field(page, "lora.rank")).to_be_visible()
    expect(field(page, "train.seed")).to_be_hidden()
    expect(page.locator("#field-search-count")).to_have_text("1 setting")
    search.fill("min snr")
    expect(field(page, "loss.min_snr_gamma")).to_be_visible()
    search.fill("")
    expect(field(page, "train.seed")).to_be_visible()
    expect(field(page, "loss.min_snr_gamma")).to_be_hidden()


def test_a_preset_sets_everything_but_name_and_folders(page: Page, pictures: Path) -> None:
    use_text(
        page,
        f"{{name: mine, dataset: {{sources: [{{path: {pictures}}}]}}, train: {{seed: 7}}, lora: {{dropout: 0.5}}}}",
    )
    expect(field(page, "train.seed")).to_have_value("7")
    page.locator("#preset input").click()
    page.get_by_role("option", name="SD 1.5 style, 8 GB", exact=True).click()
    expect(field(page, "lora.rank")).to_have_value("32")
    expect(field(page, "train.seed")).to_have_value("42")
    expect(field(page, "lora.dropout")).to_have_value("0")
    expect(field(page, "dataset.sources.0.path")).to_have_value(str(pictures))
    expect(page.locator("#preset-about")).to_contain_text("Only the UNet learns")
    page.reload()
    page.get_by_role("tab", name="Train", exact=True).click()
    expect(page.locator("#preset input")).to_have_value("SD 1.5 style, 8 GB")
    expect(page.locator("#preset-about")).to_contain_text("Only the UNet learns")


def test_the_check_tells_what_would_be_trained(page: Page, pictures: Path, shot: Callable[[str], Path]) -> None:
    use_text(page, f"dataset: {{sources: [{{path: {pictures}, repeats: 2}}], resolution: 128}}")
    expect(page.locator("#step-maths")).to_contain_text("5 pictures")
    page.locator("#check").click()
    expect(page.locator("#plan-report")).to_contain_text(
        "5 pictures x 2 repeats / 1 = 10 steps an epoch", timeout=120_000
    )
    shot("train-check")


def test_text_that_is_no_config_is_told(page: Page) -> None:
    use_text(page, "train: {learning_rat: 1}", taken=False)
    expect(page.locator("#train-problems")).to_contain_text("Did you mean train.learning_rate?")
    use_text(page, "just words", taken=False)
    expect(page.locator("#train-problems")).to_contain_text("What stands here holds text, not settings")
