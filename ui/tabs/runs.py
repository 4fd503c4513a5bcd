"""The Runs tab: every run and the queue, one run in full, and what can be asked of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ui import media, run_html, run_routes
from ui.context import AppContext
from ui.runs import (
    about,
    actions,
    charts,
    checkpoints,
    compare,
    evaluation,
    events,
    head,
    log,
    notes,
    previews,
    prompts,
    queue,
    share,
    tidings,
    trash,
)
from ui.runs import list as run_list
from ui.runs.board import Panel, RunsBoard
from ui.runs.desk import RunsDesk


@dataclass(frozen=True)
class RunsTab:
    """What other tabs use.

    Attributes:
        selected: id of the run that is shown.
        generate, merge, edit: "Generate with this", "Merge with this" and "Change and run again".
        grid: "Compare checkpoints".
        evaluation: of the checkpoints; its event ``generate`` tells ``run`` and ``step``.
        show: handler that selects a run, for ``shown`` as outputs.
        shown: see ``show``.
        checkpoints: the list of checkpoints; its event ``generate`` tells ``run`` and ``step``.
        lora_of: the LoRA of a run by id: the finished one, else the newest checkpoint's. Raises UserError.
    """

    selected: gr.HTML
    generate: gr.Button
    merge: gr.Button
    grid: gr.Button
    edit: gr.Button
    evaluation: gr.HTML
    show: Callable[[str], list[Any]]
    shown: list[Any]
    checkpoints: gr.HTML
    lora_of: Callable[[str], Path]


def build(context: AppContext) -> RunsTab:
    """Lay the tab out, panel by panel, and have them follow the files."""
    media.add_routes(context)
    run_routes.add_routes(context)
    desk = RunsDesk(context.workspace)
    with gr.Column(elem_classes=["runs-page"]):
        board = RunsBoard(desk)
        empty = gr.HTML(run_html.NOTHING_YET, padding=False, elem_id="runs-empty")
        queue.build(board)
        with gr.Row(elem_classes=["runs-layout"], visible=False) as layout:
            with gr.Column(scale=0, min_width=280, elem_classes=["runs-side"]):
                run_list.build(board)
                tidings.build(context, board)
            with gr.Column(scale=1, min_width=320, elem_classes=["run-main"]):
                compare.build(board)
                head.build(board)
                about.build(board)
                buttons = actions.build(board)
                charts.build(board)
                previews.build(board)
                prompts.build(board)
                notes.build(board)
                saved = checkpoints.build(board)
                evaluated = evaluation.build(context, board)
                share.build(context, board)
                events.build(board)
                log.build(board)
        trash.build(board)
    _show_either(board, empty, layout)
    board.wire(context)
    return RunsTab(
        selected=board.selected,
        generate=buttons.generate,
        merge=buttons.merge,
        grid=buttons.grid,
        edit=buttons.edit,
        evaluation=evaluated,
        show=lambda run_id: [board.select(run_id)],
        shown=[board.chosen],
        checkpoints=saved,
        lora_of=desk.lora_of,
    )


def _show_either(board: RunsBoard, empty: gr.HTML, layout: gr.Row) -> None:
    """What to do first while there are no runs, the runs from then on."""

    def updates(nothing: bool) -> list[Any]:
        return [gr.update(visible=nothing), gr.update(visible=not nothing)]

    board.add_overall(
        Panel("any", [empty, layout], lambda all_: all_.shown is None, lambda all_: updates(all_.shown is None))
    )
