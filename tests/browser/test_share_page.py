"""Sharing a run on the Runs tab with clicks: what would be sent is shown, sent as shown, stopped, and told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import App, dismiss
from tests.browser.example_runs import example_run, open_tab
from tests.hub_server import TOKEN, Fault, Hub, hub_environment, hub_server
from trainer.runs.store import Run, Workspace

REPO = "someone/neon"


@pytest.fixture(scope="module", autouse=True)
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub that the app is started with; the app hands its environment on to its jobs."""
    with hub_server() as running, pytest.MonkeyPatch.context() as patch:
        for name, value in hub_environment(running, tmp_path_factory.mktemp("home")).items():
            patch.setenv(name, value)
        yield running


@pytest.fixture(scope="module")
def run(hub: Hub, app: App) -> Run:
    return example_run(Workspace(app.workspace), "neon", steps=8, max_steps=8)


@pytest.fixture
def panel(page: Page, run: Run) -> Locator:
    open_tab(page, "Runs")
    page.get_by_role("button", name="Share on the Hugging Face Hub").click()
    panel = page.locator("#run-share")
    expect(panel.get_by_role("button", name="Show what would be sent")).to_be_enabled()
    return panel


def test_what_is_shown_is_sent(
    page: Page, panel: Locator, hub: Hub, run: Run, app: App, shot: Callable[[str], Path]
) -> None:
    panel.get_by_label("Repository, owner/name").fill("no name")
    panel.get_by_role("button", name="Show what would be sent").click()
    dismiss(page, "repo: must be owner/name")

    panel.get_by_label("Repository, owner/name").fill("")
    panel.get_by_label("Sample pictures").fill("1")
    panel.get_by_label("Your own words").fill("Made at <b>night</b>.")
    panel.get_by_role("button", name="Show what would be sent").click()
    expect(panel.locator(".verdict")).to_contain_text(
        f"Would be sent to a new repository {REPO}, which only you can see"
    )
    expect(panel.locator("li")).to_have_count(4)
    expect(panel.locator("li", has_text="neon.safetensors")).to_contain_text("MB")
    assert not hub.repositories
    shot("share-shown")

    hub.faults.append(Fault("/api/models/.*/preupload/.*", "POST", 403))
    panel.get_by_role("button", name=f"Send to {REPO}").click()
    expect(panel).to_contain_text(f"may not write to {REPO}")
    panel.get_by_role("button", name="Show what would be sent").click()
    panel.get_by_role("button", name=f"Send to {REPO}").click()
    expect(panel.locator(".verdict")).to_contain_text(f"Sent to the repository {REPO}")
    expect(panel.get_by_role("link", name="Open it")).to_have_attribute("href", f"{hub.address}/{REPO}")

    repository = hub.repositories[REPO]
    assert repository.private and repository.files["neon.safetensors"] == run.output_path.read_bytes()
    assert "Made at <b>night</b>." in repository.files["README.md"].decode()
    assert len([name for name in repository.files if name.startswith("samples/")]) == 1
    for path in app.workspace.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path


def test_sending_is_stopped_while_the_hub_asks_to_wait(page: Page, panel: Locator, hub: Hub) -> None:
    panel.get_by_label("Repository, owner/name").fill("someone/other")
    panel.get_by_role("button", name="Show what would be sent").click()
    hub.faults.append(Fault("/api/repos/create", "POST", 429, {"Retry-After": "500"}, times=9))
    panel.get_by_role("button", name="Send to someone/other").click()
    expect(panel).to_contain_text("takes no more requests from here for 500 s")
    panel.get_by_role("button", name="Cancel").click()
    expect(panel).to_contain_text("Sending was stopped")
    assert "someone/other" not in hub.repositories
