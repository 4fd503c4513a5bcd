"""Handlers of the events that lead from one tab to another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from ui import demo_tour
from ui.context import AppContext
from ui.messages import tells_problems
from ui.tabs.train import TrainTab
from ui.welcome import Welcome


def try_demo(context: AppContext, concept: str, card: Welcome, train: TrainTab) -> Callable[[], list[Any]]:
    """Start the demo; the Train form shows the settings it is started with."""

    @tells_problems
    def start() -> list[Any]:
        run = demo_tour.start(context.workspace, concept)
        filled = train.handlers.fill(run.config())
        return [run.id, *card.updates(context.workspace), *(filled[block] for block in train.handlers.filled)]

    return start


def to_runs(run_id: str) -> Any:
    """Switch to the Runs tab when a run was started."""
    return gr.Tabs(selected="runs") if run_id else gr.skip()
