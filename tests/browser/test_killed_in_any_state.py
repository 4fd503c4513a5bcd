"""Worker, app, trainer and browser, killed alone and together, whatever states two runs are in.

``LORA_ATELIER_FAULTS=all`` tries each pair of states with each choice of victims, a number each so-manieth; without,
the one with most to go wrong.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Playwright, sync_playwright

from tests.browser.conftest import App
from tests.browser.kill_scenes import PATIENCE_SECONDS, Scene, scene
from tests.browser.test_dataset_tab import eventually
from tests.recipe.tiny_runs import SIDE, losses_of, make_pictures, quick_settings
from tests.running_app import left_behind
from tests.tiny_models import tiny_model
from trainer.config import Config
from trainer.config_io import parse_config
from trainer.lora.file import read_lora
from trainer.runs.store import State

STATES: list[tuple[State, State]] = [
    ("queued", "queued"), ("starting", "queued"), ("preparing", "queued"), ("training", "queued"),
    ("stopping", "queued"), ("finished", "queued"), ("paused", "queued"), ("paused", "starting"),
    ("paused", "preparing"), ("paused", "training"), ("paused", "paused"), ("paused", "stopping"),
]  # fmt: skip
"""All that two runs on one device can be in, the second one after the first."""
VICTIMS = ("worker", "app", "trainer", "browser")
CHOICES = [choice for count in (1, 2, 4) for choice in combinations(VICTIMS, count)]
ALL = [(states, choice) for states in STATES for choice in CHOICES]
FEW: list[tuple[tuple[State, State], tuple[str, ...]]] = [(("paused", "starting"), VICTIMS)]
ASKED = os.environ.get("LORA_ATELIER_FAULTS", "")
TRIED = ALL[:: 1 if ASKED == "all" else int(ASKED)] if ASKED else FEW


@pytest.fixture(scope="module")
def config(app: App) -> Config:
    """A run that takes a moment."""
    values: dict[str, Any] = {
        **quick_settings(tiny_model("sd1", app.workspace / "models" / "tiny"), 8),
        "dataset": {
            "sources": [{"path": str(make_pictures(app.workspace / "datasets" / "three"))}],
            "resolution": SIDE,
            "buckets": {"min": 64, "step": 8},
        },
        "samples": {"every_steps": 0, "at_start": False},
    }
    return parse_config(values)


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


def test_the_table_has_every_pair() -> None:
    assert len(STATES) == len(set(STATES)) == 12
    assert len(CHOICES) == 11 and len(ALL) == 132 and set(FEW) <= set(ALL)


@pytest.mark.slow
@pytest.mark.parametrize(("states", "victims"), TRIED, ids=lambda names: "-".join(names))
def test_killed(
    app: App, playwright: Playwright, config: Config, tmp_path: Path, states: tuple[State, State], victims: list[str]
) -> None:
    with scene(app, playwright, tmp_path, config) as made:
        for run, state in zip(made.runs, states, strict=True):
            made.bring(run, state)
        assert tuple(run.read().state for run in made.runs) == states
        made.page()
        for victim in victims:
            made.kill(victim)
        made.start_what_is_gone()
        assert_true(made, dict(zip((run.id for run in made.runs), states, strict=True)))
        page = made.page()
        eventually(shows_what_is(page, made), PATIENCE_SECONDS)
        made.let_end()
        eventually(shows_what_is(page, made), PATIENCE_SECONDS)
        for run in made.runs:
            assert sorted(losses_of(run)) == list(range(1, run.read().max_steps + 1))
            assert read_lora(run.output_path).layers
        eventually(lambda: not left_behind(app.process, app.workspace), PATIENCE_SECONDS)


def assert_true(made: Scene, before: dict[str, State]) -> None:
    """What each run says is so: a killed one has failed, one that stands still is where it was."""
    for run in made.runs:
        info = run.status()
        if run.id in made.killed:
            assert (info.state, info.interrupted) == ("failed", "process")
        elif before[run.id] != "queued":
            assert info.state == before[run.id]


def shows_what_is(page: Page, made: Scene) -> Callable[[], bool]:
    """Whether the page's list has every run in the state that it is in."""

    def look() -> bool:
        pills = [page.locator(f".run-item[data-pick='{run.id}'] .pill.{run.status().state}") for run in made.runs]
        return all(pill.count() == 1 for pill in pills)

    return look
