"""Tiny data sets, runs trained in this process, and looking into what they left behind."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

from trainer import metrics, recipe
from trainer.errors import StoppedOnRequest
from trainer.recipe import Outcome, train
from trainer.runs import control
from trainer.runs.events import Event, read_events
from trainer.runs.store import Run

SIDE = 64
QUICK_PROMPT = {"prompt": "a red circle", "steps": 2, "width": 64, "height": 64}


class Watcher:
    """An event sink that remembers, and acts when an event of a kind and step passes by."""

    def __init__(self, actions: dict[tuple[str, int], Callable[[], None]] | None = None) -> None:
        self.events: list[dict[str, Any]] = []
        self._actions = dict(actions or {})

    def emit(self, kind: str, step: int = 0, **fields: Any) -> None:
        self.events.append({"type": kind, "step": step, **fields})
        action = self._actions.pop((str(fields.get("state", kind)), step), None)
        if action is not None:
            action()


def make_pictures(folder: Path, count: int = 3, side: int = SIDE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture = Image.new("RGB", (side, side), (40 + 60 * number, 200 - 50 * number, 90))
        ImageDraw.Draw(picture).ellipse([8, 8, 30 + 8 * number, 40], fill=(250, 30 * number, 0))
        picture.save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a big red circle, number {number}")
    return folder


def quick_settings(model: Path, steps: int) -> dict[str, Any]:
    """Sections of a run of a tiny model that takes moments."""
    return {
        "model": {"base": str(model)},
        "lora": {"rank": 2, "alpha": 2},
        "train": {"max_steps": steps, "batch_size": 1, "learning_rate": 1e-3},
    }


def train_here(run: Run, watcher: Watcher | None = None) -> Outcome:
    """Train in this process. Every step is told when it is done, so that ``watcher`` acts between it and the next."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "EVENT_SECONDS", 0.0)
        return train(run, workspace=run.workspace, events=watcher or Watcher())


def stop_at(run: Run, event: tuple[str, int]) -> None:
    """Train until an event, ask for a stop there, and expect it to be obeyed."""
    with pytest.raises(StoppedOnRequest):
        train_here(run, Watcher({event: lambda: control.ask(run.control_dir, "stop")}))


def at_step(number: int, happen: Callable[[], None]) -> Callable[..., Iterator[torch.Tensor]]:
    """``recipe.batch_losses`` where something happens in a step."""
    real, steps = recipe.batch_losses, itertools.count(1)

    def losses(*arguments: Any) -> Iterator[torch.Tensor]:
        if next(steps) == number:
            happen()
        yield from real(*arguments)

    return losses


def losses_of(run: Run) -> dict[int, float]:
    """The loss of every step; a step that was done twice must have had the same loss twice."""
    losses: dict[int, float] = {}
    for event in of_type(run, "metric"):
        assert losses.setdefault(event["step"], event["loss"]) == event["loss"], f"step {event['step']} differs"
    return losses


def of_type(run: Run, kind: str) -> list[Event]:
    return [event for event in read_events(run.events_path) if event["type"] == kind]


def states_of(run: Run) -> list[str]:
    return [event["state"] for event in of_type(run, "state")]
