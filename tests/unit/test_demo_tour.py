"""Trying the demo: what is made, and what the card says at each stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.data.folders import collect
from trainer.runs.store import Run, Workspace, this_process
from ui import demo_tour, welcome


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.fixture
def started(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The demo put into the queue, without a worker that would take it."""
    monkeypatch.setattr(demo_tour, "enqueue", lambda workspace, config: workspace.create_run(config))
    return demo_tour.start(workspace, "neon")


@pytest.mark.parametrize("concept", ["neon", "robot"])
def test_the_demo_has_its_pictures_seen_as_often_as_the_plain_ones(workspace: Workspace, concept: str) -> None:
    config = demo_tour.demo_config(workspace, concept)
    pictures = collect(config.dataset).pictures
    own = sum(picture.repeats for picture in pictures if not picture.is_regularization)
    plain = sum(picture.repeats for picture in pictures if picture.is_regularization)
    assert own == plain == 2 * demo_tour.PICTURES
    assert all(picture.has_caption for picture in pictures)
    assert config.output.trigger is not None
    assert config.output.trigger in demo_tour.prompt_of(concept)
    assert any(config.output.trigger in prompt.prompt for prompt in config.samples.prompts)


def test_the_pictures_are_made_once(workspace: Workspace) -> None:
    demo_tour.demo_config(workspace, "neon")
    first = {path: path.stat().st_mtime_ns for path in workspace.datasets_dir.rglob("*.png")}
    demo_tour.demo_config(workspace, "neon")
    assert {path: path.stat().st_mtime_ns for path in workspace.datasets_dir.rglob("*.png")} == first


def test_a_newcomer_is_offered_the_demo_and_others_are_not(workspace: Workspace) -> None:
    tour = demo_tour.read_tour(workspace)
    assert tour.shown and tour.stage == "offer"
    workspace.create_run(demo_tour.demo_config(workspace, "neon"))
    assert not demo_tour.read_tour(workspace).shown
    demo_tour.offer(workspace)
    assert demo_tour.read_tour(workspace).shown


@pytest.mark.parametrize(
    ("state", "stage", "words"),
    [
        ("queued", "waiting", "Training starts in a moment"),
        ("preparing", "preparing", "Getting ready"),
        ("training", "training", "step 40 of 700"),
        ("paused", "training", "step 40 of 700"),
        ("finished", "finished", "knows the neon style now"),
        ("stopped", "stopped", "ended early"),
        ("failed", "stopped", "out of memory"),
    ],
)
def test_the_card_follows_the_run(workspace: Workspace, started: Run, state: str, stage: str, words: str) -> None:
    started.update(state=state, step=40, error="out of memory" if state == "failed" else None, **this_process())
    tour = demo_tour.read_tour(workspace)
    assert (tour.stage, tour.shown) == (stage, True)
    assert words in welcome.card_html(tour)


def test_the_card_changes_its_key_with_what_it_shows(workspace: Workspace, started: Run) -> None:
    keys = []
    for changes in [{"state": "training", "step": 1}, {"step": 2}, {"state": "finished"}]:
        started.update(**changes, **this_process())
        keys += [demo_tour.read_tour(workspace).key, demo_tour.read_tour(workspace).key]
    assert len(set(keys)) == 3


def test_the_card_is_put_away_and_brought_back_with_the_run(workspace: Workspace, started: Run) -> None:
    started.update(state="training", **this_process())
    demo_tour.hide(workspace)
    assert not demo_tour.read_tour(workspace).shown
    demo_tour.offer(workspace)
    assert demo_tour.read_tour(workspace).run == started


def test_after_its_end_the_demo_is_offered_anew(workspace: Workspace, started: Run) -> None:
    started.update(state="finished")
    demo_tour.offer(workspace)
    assert demo_tour.read_tour(workspace).stage == "offer"


def test_a_deleted_run_is_no_trouble(workspace: Workspace, started: Run) -> None:
    started.update(state="finished")
    workspace.delete_run(started)
    assert demo_tour.read_tour(workspace).stage == "offer"
