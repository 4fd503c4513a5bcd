"""Drawing the cells of a grid with a loaded model."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from trainer.devices import gpu_held
from trainer.drawing import OnStep
from trainer.errors import UserError
from trainer.generate import Painter, check_files, exact_settings
from trainer.grids.sheet import write_sheet
from trainer.grids.spec import Cell, GridSpec
from trainer.grids.store import Grid
from trainer.grids.tables import write_tables
from trainer.picture_pace import PicturePace
from trainer.pictures import PictureSettings, save_png
from trainer.runs.events import EventSink

PainterOf = Callable[[PictureSettings], Painter]
"""The model of these settings, loaded where it was not."""


def draw_cell(
    grid: Grid,
    spec: GridSpec,
    cell: Cell,
    painter_of: PainterOf,
    on_step: OnStep | None = None,
    pace: PicturePace | None = None,
) -> None:
    """Draw a cell into its file, with its exact settings; where that cannot be, write down why.

    Whatever is not the fault of the settings is raised, and what ``on_step`` raises.
    """
    try:
        settings = spec.settings_of(cell)
        check_files(settings)
        painter = painter_of(settings)
        painter.use(settings.loras)
        begun = time.monotonic()
        image = painter.draw(settings, settings.seed, on_step)
    except UserError as error:
        grid.fail(cell, error.problems)
        return
    if pace is not None:
        pace.note(settings, painter.size(settings), time.monotonic() - begun)
    save_png(image, grid.picture(cell), exact_settings(painter, settings, settings.seed).model_dump())


def draw_grid(grid: Grid, *, device: torch.device, events: EventSink, share_gpu: bool = False) -> None:
    """Draw the cells that are missing, then the sheet and the tables.

    Waits for a GPU that another job uses, unless ``share_gpu``.
    """
    spec = grid.read().spec
    held: list[Painter] = []

    def painter_of(settings: PictureSettings) -> Painter:
        if not held or held[0].model != settings.model:
            held.clear()  # before the next one is loaded: two may not fit
            held.append(Painter(settings.model, device, events))
        return held[0]

    grid.try_again()
    with gpu_held(device, "drawing of a grid", events, share=share_gpu):
        while (cell := grid.next_cell(spec)) is not None:
            draw_cell(grid, spec, cell, painter_of)
            progress = grid.progress(spec)
            events.emit("progress", what="drawing", done=progress.total - progress.left, total=progress.total)
    finish_grid(grid, spec)


def finish_grid(grid: Grid, spec: GridSpec) -> None:
    """Put the cells together: one sheet, and tables of their settings. Cells that are missing are left blank."""
    scale = write_sheet(grid, spec)
    write_tables(grid, spec, scale)
