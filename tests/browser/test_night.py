"""A night in short: many runs, and two browsers that pause, stop, kill and extend them as chance has it.

``LORA_ATELIER_SOAK=60`` queues that many runs and takes about two hours; the usual number is small. The actions are
drawn from a seed; when each of them comes, the machine decides.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil
import pytest
from playwright.sync_api import BrowserContext, Page, TimeoutError, expect, sync_playwright

from tests.browser.conftest import App, open_browser, wait_until_open
from tests.browser.example_runs import open_tab
from tests.browser.test_dataset_tab import eventually
from tests.browser.test_queue_page import start_training
from tests.recipe.tiny_runs import losses_of, make_pictures
from tests.running_app import left_behind
from trainer.checkpoint_folders import checkpoint_at, is_valid
from trainer.lora.file import read_lora
from trainer.runs.store import ALIVE, ENDED, Run, Workspace

THOROUGH = "LORA_ATELIER_SOAK" in os.environ
RUNS = int(os.environ.get("LORA_ATELIER_SOAK", "2"))
ACTIONS = 4 * RUNS
QUIET_SECONDS = 900
"""A run of which nothing is heard for so long hangs."""
HANDLES, GROWTH = 8, 0.1
"""Files more that the app may have open at the end, and the share that its memory may have grown by since a quarter."""
BUTTONS = {
    "training": ("pause", "stop", "save", "sample", "kill"),
    "paused": ("resume", "stop", "kill"),
    "queued": ("leave-queue",),
    "stopped": ("resume", "extend"),
    "failed": ("resume", "extend"),
    "finished": ("extend",),
}
"""What chance may do with a run in each state; ``kill`` is no button."""


@dataclass
class Night:
    """What goes on: the pages of both browsers, and what was done to whom."""

    workspace: Workspace
    pages: list[Page]
    random: random.Random
    killed: set[str] = field(default_factory=set)

    def act(self) -> None:
        """Do something that a random run's state allows. It may have changed when the click comes, as for people."""
        run = self.random.choice(self.workspace.runs())
        allowed = BUTTONS.get(run.status().state)
        if allowed is None:
            return
        what = self.random.choice(allowed)
        if what == "kill":
            self.kill(run)
        else:
            self.press(run, what)

    def kill(self, run: Run) -> None:
        """End a run's trainer the hard way."""
        pid = run.read().pid
        if pid is not None:
            self.killed.add(run.id)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def press(self, run: Run, button: str) -> None:
        """Choose a run in one of the browsers, and press a button of it if it is there."""
        page = self.random.choice(self.pages)
        eventually(lambda: _shown(page, run), QUIET_SECONDS)
        more = str(self.random.randint(1, 5)) if button == "extend" else ""
        with contextlib.suppress(TimeoutError):
            if more:
                page.locator("#run-extend-by input").fill(more, timeout=5_000)
            page.locator(f"#run-{button}").click(timeout=5_000)

    def let_end(self) -> None:
        """Bring every run to its end: pauses are lifted, what was stopped or killed goes on."""
        deadline = time.monotonic() + QUIET_SECONDS
        heard = self._heard()
        while pending := [run for run in self.workspace.runs() if run.status().state != "finished"]:
            for run in pending:
                if run.status().state in ("paused", "stopped", "failed"):
                    self.press(run, "resume")
            time.sleep(0.5)
            if self._heard() != heard:
                heard, deadline = self._heard(), time.monotonic() + QUIET_SECONDS
            assert time.monotonic() < deadline, [(run.id, run.status().state) for run in pending]

    def _heard(self) -> list[tuple[str, int]]:
        return [(run.status().state, run.read().step) for run in self.workspace.runs()]


@pytest.fixture(scope="module")
def browsers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[BrowserContext]]:
    """Two browsers, which know nothing of each other."""
    with sync_playwright() as playwright:
        contexts = [open_browser(playwright, tmp_path_factory.mktemp("profile"), width) for width in (1440, 1000)]
        yield contexts
        for context in contexts:
            context.close()


@pytest.mark.slow
def test_whatever_is_done_to_them_every_run_comes_to_its_end(
    app: App, workspace: Workspace, browsers: list[BrowserContext]
) -> None:
    night = Night(workspace, [_opened(context, app) for context in browsers], random.Random(11))
    pictures = make_pictures(workspace.dir / "datasets" / "three")
    process = psutil.Process(app.process.pid)
    handles, memory = process.num_fds(), 0
    for number in range(RUNS):
        page = night.pages[number % 2]
        start_training(page, f"run {number}", pictures, "demo")
        if number >= RUNS // 4 and not memory:
            memory = process.memory_info().rss
        for _ in range(ACTIONS // RUNS if number >= 1 else 0):
            night.act()
            _wait_for_some_work(workspace, night.random.uniform(0.5, 6))
        states = [run.status().state for run in workspace.runs()]
        sys.stderr.write(f"{number + 1} runs, {states.count('finished')} finished, {process.num_fds()} files open\n")
    for run in workspace.runs():
        _assert_true(run, night.killed)
    night.let_end()
    for run in workspace.runs():
        _assert_true(run, night.killed)
        assert run.read().state == "finished"
    eventually(lambda: not left_behind(app.process, workspace.dir))  # the last trainer tells its end before it is gone
    assert not [child for child in process.children() if child.status() == psutil.STATUS_ZOMBIE]
    assert process.num_fds() <= handles + HANDLES
    if THOROUGH:
        assert process.memory_info().rss < (1 + GROWTH) * memory


def _opened(context: BrowserContext, app: App) -> Page:
    page = context.new_page()
    page.goto(app.url)
    wait_until_open(page)
    open_tab(page, "Runs")
    return page


def _shown(page: Page, run: Run) -> bool:
    """Choose a run; a click may meet the one beside it, where a new run has just moved the list."""
    page.locator(f".run-item[data-pick='{run.id}']").click()
    with contextlib.suppress(AssertionError):
        expect(page.locator("#run-head h2")).to_have_text(run.read().name, timeout=20_000)
        return True
    return False


def _wait_for_some_work(workspace: Workspace, seconds: float) -> None:
    """So long, but no longer than there is something to wait for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(run.status().state in ALIVE for run in workspace.runs()):
        time.sleep(0.1)


def _assert_true(run: Run, killed: set[str]) -> None:
    """A run that has ended did what it says, and has what it should have."""
    info = run.status()
    if info.state not in ENDED:
        return
    assert info.pid is None or not psutil.pid_exists(info.pid)
    if info.state == "failed":
        assert run.id in killed and info.interrupted == "process", info.error
    if info.state == "stopped" and info.step:
        assert is_valid(checkpoint_at(run.checkpoints_dir, info.step))
    if info.state == "finished":
        assert info.step == info.max_steps
        assert sorted(losses_of(run)) == list(range(1, info.step + 1))
        assert read_lora(run.output_path).layers
