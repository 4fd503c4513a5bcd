"""A run that another machine trains, behind a real SSH server, as the page's user has it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import App, wait_until_open
from tests.browser.example_runs import open_tab
from tests.browser.test_dataset_tab import eventually
from tests.browser.test_queue_page import start_training
from tests.recipe.tiny_runs import losses_of, make_pictures
from tests.running_app import processes_of
from tests.ssh_server import SshServer
from tests.tiny_models import tiny_model
from trainer.lora.file import read_lora
from trainer.remote import hosts
from trainer.runs.store import Run, Workspace

SECONDS = 240.0
ENDLESS = 100_000
"""Steps of a run that goes on until it is stopped, however fast the machine is."""


@pytest.fixture(scope="module")
def there(ssh_server: SshServer, workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Our folder on the other machine, which the workspace knows; what works in it is ended."""
    folder = tmp_path_factory.mktemp("machine") / "its folder"
    hosts.add(workspace, ssh_server.host(folder))
    yield folder
    for process in processes_of(folder):
        process.kill()


def test_started_watched_cut_off_and_found_again(
    app: App, there: Path, page: Page, workspace: Workspace, ssh_server: SshServer, shot: Callable[[str], Path]
) -> None:
    pictures = make_pictures(workspace.dir / "datasets" / "three")
    page.reload()
    wait_until_open(page)
    open_tab(page, "Train")
    page.locator("#train-device input").click()
    page.get_by_role("option", name="Train on gpubox, over SSH").click()
    start_training(page, "far away", pictures, str(tiny_model("sd1", workspace.models_dir / "tiny")), steps=ENDLESS)
    head = page.locator("#run-head")
    expect(head.locator(".pill")).to_have_text("Training", timeout=SECONDS * 1000)
    expect(head).to_contain_text("on gpubox")
    expect(head).to_contain_text(re.compile(r"step [1-9]\d* of"), timeout=SECONDS * 1000)
    shot("remote-training")
    run = workspace.runs()[0]
    theirs = Run(there / "workspace" / "runs" / run.id)

    ssh_server.cut_off()
    expect(head).to_contain_text("No answer from gpubox since", timeout=SECONDS * 1000)
    expect(head.locator(".pill")).to_have_text("Training")
    shot("remote-cut-off")
    (follower,) = processes_of(workspace.dir, "resume")
    follower.kill()
    eventually(lambda: [other for other in processes_of(workspace.dir, "resume") if other != follower], SECONDS)
    expect(head).to_contain_text("No answer from gpubox since", timeout=SECONDS * 1000)
    ssh_server.start()

    expect(head.locator(".pill")).to_have_text("Training", timeout=SECONDS * 1000)  # nobody has pressed Resume
    page.locator("#run-stop").click()
    expect(head.locator(".pill")).to_have_text("Stopped", timeout=SECONDS * 1000)
    assert run.read().step == theirs.read().step > 1
    assert list(losses_of(run)) == list(range(1, run.read().step + 1))
    assert read_lora(run.output_path).layers and run.output_path.read_bytes() == theirs.output_path.read_bytes()
    eventually(lambda: not processes_of(workspace.dir, "resume"), SECONDS)


def test_a_phone_sees_what_there_is(there: Path, page: Page, shot: Callable[[str], Path]) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    open_tab(page, "Settings")
    card = page.locator("#other-machines")
    card.scroll_into_view_if_needed()
    expect(card).to_contain_text("gpubox")
    expect(card).to_contain_text("trainer remote add NAME user@machine")
    shot("remote-settings")
