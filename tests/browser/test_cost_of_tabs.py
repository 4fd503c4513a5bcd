"""What open pages cost a training: its step times while they live and while they are stopped, in turns in one run."""

from __future__ import annotations

import logging
import os
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import BrowserContext, Page

from tests.browser.conftest import MEASURES, App, wait_until_open
from tests.browser.example_runs import open_tab
from tests.browser.test_dataset_tab import eventually
from tests.recipe.tiny_runs import make_pictures, of_type
from trainer.config import Config
from trainer.runs.control import ask
from trainer.runs.store import Run, Workspace
from trainer.runs.worker import enqueue

_log = logging.getLogger(__name__)

TABS = 10
MOST_COST = 0.02
SETTLE_SECONDS = 75.0
"""A page that has just opened compiles and collects its garbage for most of a minute."""
TURNS = 36
TURN_SECONDS = 4.0
CATCH_UP_SECONDS = 1.0
"""After a turn's begin, in which pages that were stopped do at once what they had left out."""
LOOK_AWAY = "Object.defineProperty(document, 'visibilityState', { get: () => 'hidden', configurable: true })"


@pytest.fixture
def training(app: App, tmp_path: Path) -> Run:
    settings = {
        "name": "measured",
        "dataset": {"resolution": 64, "sources": [{"path": str(make_pictures(tmp_path / "pictures"))}]},
        "lora": {"rank": 4},
        "train": {"max_steps": 1_000_000, "batch_size": 1},
        "samples": {"every_steps": 0},
        "output": {"save_every_steps": 0},
    }
    return enqueue(Workspace(app.workspace), Config.model_validate(settings))


@pytest.mark.slow
@pytest.mark.skipif(not MEASURES, reason="needs a machine at rest: set LORA_ATELIER_MEASURE")
def test_ten_open_tabs_cost_a_training_next_to_nothing(app: App, browser: BrowserContext, training: Run) -> None:
    """As in a browser's window, one of them is looked at and the others are behind it."""
    eventually(lambda: len(of_type(training, "metric")) > 30, 240)
    for number in range(TABS):
        open_page(app, browser, hidden=number > 0)
    time.sleep(SETTLE_SECONDS)
    differences, times = [], []
    for turn in range(TURNS):
        lives_first = turn % 2 == 1  # what drifts, such as the machine's warmth, is on both sides alike
        first, second = part(training, lives=lives_first), part(training, lives=not lives_first)
        living, stopped = (first, second) if lives_first else (second, first)
        differences.append(living / stopped - 1)
        times.append(stopped)
    ask(training.control_dir, "stop")
    cost = statistics.median(differences)  # of means: a turn that something else on the machine disturbed counts little
    low, _, high = statistics.quantiles(differences, n=4)
    told = "step %.1f ms, %d tabs cost %.4f of it, half of the turns between %.4f and %.4f"
    _log.info(told, statistics.median(times), TABS, cost, low, high)
    assert cost < MOST_COST


def open_page(app: App, browser: BrowserContext, *, hidden: bool) -> Page:
    page = browser.new_page()
    page.goto(app.url)
    wait_until_open(page)
    open_tab(page, "Runs")
    if hidden:
        page.evaluate(LOOK_AWAY)
    return page


def part(run: Run, *, lives: bool) -> float:
    """The mean step time of the next seconds, in which the browser lives or does not run at all."""
    if lives:
        return step_ms(run)
    with stopped_browser():
        return step_ms(run)


def step_ms(run: Run) -> float:
    time.sleep(CATCH_UP_SECONDS)
    seen = len(of_type(run, "metric"))
    time.sleep(TURN_SECONDS)
    return statistics.mean(event["step_ms"] for event in of_type(run, "metric")[seen:])


@contextmanager
def stopped_browser() -> Iterator[None]:
    """Inside, the browser takes no processor time, and asks the app for nothing."""
    processes = [each for each in psutil.Process().children(recursive=True) if "chrom" in each.name()]
    assert processes
    _signal(processes, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(processes, signal.SIGCONT)


def _signal(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        os.kill(process.pid, number)
