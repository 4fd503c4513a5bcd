"""What open pages cost a training: step times with and without them, taken in turns during one run."""

from __future__ import annotations

import logging
import statistics
import time
from pathlib import Path

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
ORDER = (False, True, True, False) * 4
"""Whether the pages are open, part by part: what drifts, such as the machine's warmth, is on both sides alike."""
SETTLE_SECONDS = 20.0
PART_SECONDS = 20.0
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
    times: dict[bool, list[float]] = {False: [], True: []}
    for opened in ORDER:
        pages = [open_page(app, browser, hidden=number > 0) for number in range(TABS)] if opened else []
        time.sleep(SETTLE_SECONDS)
        times[opened].append(step_ms(training))
        for page in pages:
            page.close()
    ask(training.control_dir, "stop")
    without, along = statistics.mean(times[False]), statistics.mean(times[True])
    _log.info("step %.1f ms, with %d tabs %.1f ms, ratio %.4f: %s", without, TABS, along, along / without, times)
    assert along < without * (1 + MOST_COST)


def open_page(app: App, browser: BrowserContext, *, hidden: bool) -> Page:
    page = browser.new_page()
    page.goto(app.url)
    wait_until_open(page)
    open_tab(page, "Runs")
    if hidden:
        page.evaluate(LOOK_AWAY)
    return page


def step_ms(run: Run) -> float:
    """The median step time of the next part."""
    seen = len(of_type(run, "metric"))
    time.sleep(PART_SECONDS)
    return statistics.median(event["step_ms"] for event in of_type(run, "metric")[seen:])
