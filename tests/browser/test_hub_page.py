"""LoRAs of the hub on the Generate and Merge tabs: got by name, chosen from several, used with the model they name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download
from playwright.sync_api import Page, expect

from tests.browser.conftest import dismiss
from tests.browser.example_runs import open_tab, write_example_lora
from tests.hub_server import Hub, hub_environment, hub_server, use_hub

REPO = "someone/neon"


@pytest.fixture(scope="module", autouse=True)
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub that the app is started with; the app hands its environment on to its jobs."""
    folder = tmp_path_factory.mktemp("repository")
    write_example_lora(folder / "neon.safetensors")
    write_example_lora(folder / "neon-early.safetensors", seed=2)
    (folder / "README.md").write_text("---\nbase_model: someone/base\n---\n")
    with hub_server() as running, pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        use_hub(patch, running.address, home / "hub")
        for name, value in hub_environment(running, home, token=None).items():
            patch.setenv(name, value)
        running.add(REPO, folder)
        yield running


def test_a_lora_is_got_by_its_name_and_drawn_with(page: Page, hub: Hub, shot: Callable[[str], Path]) -> None:
    open_tab(page, "Generate")
    panel = page.locator("#generate-hub")
    panel.get_by_text("From the Hugging Face Hub").click()
    name = panel.get_by_label("LoRA on the Hugging Face Hub")
    name.fill("neon")
    panel.get_by_role("button", name="Get", exact=True).click()
    dismiss(page, "does not name a LoRA")
    name.fill("someone/gone")
    panel.get_by_role("button", name="Get", exact=True).click()
    expect(panel).to_contain_text("not a model on the hub")

    name.fill(REPO)
    name.press("Enter")
    expect(panel.locator("li")).to_have_count(2)
    panel.get_by_role("button", name=f"Get {REPO}/neon.safetensors").click()
    panel.get_by_role("button", name="Use it").click()
    expect(page.locator("#generate-lora-0 input")).to_have_value(re.compile("neon"))
    shot("hub-lora")
    panel.get_by_role("button", name="Use this model").click()
    expect(page.locator("#generate-model input")).to_have_value("someone/base")

    page.locator("#generate-model input").fill("demo")
    page.locator("#generate-model input").press("Enter")
    page.locator("#generate-prompt textarea").fill("a red star")
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.locator("#generate-work img").first).to_be_visible(timeout=180_000)
    assert hub.downloaded() == {"neon.safetensors", "README.md"}


def test_downloads_are_deleted_when_ticked(page: Page, shot: Callable[[str], Path]) -> None:
    hf_hub_download(REPO, "README.md")
    open_tab(page, "Settings")
    expect(page.locator("#hub-account")).to_contain_text("There is no access token")
    page.get_by_role("button", name="Ask the Hub who that is").click()
    expect(page.locator("#hub-account")).to_contain_text("no access token of the Hugging Face Hub")
    page.get_by_role("button", name="Delete what is ticked").click()
    dismiss(page, "Nothing is ticked")
    page.get_by_role("checkbox", name=REPO).check()
    shot("hub-caches")
    page.get_by_role("button", name="Delete what is ticked").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("checkbox", name=REPO)).to_have_count(0)
