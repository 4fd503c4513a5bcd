"""The Generate tab's grids: axes to choose, the sheet that fills, and what can be done with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import gradio as gr

from trainer.errors import UserError
from trainer.grids.axes import KINDS
from trainer.grids.store import grid_of
from trainer.pictures import PictureSettings, parse_settings, read_settings
from trainer.runs.store import Run
from trainer.studio import Studio
from ui.context import AppContext
from ui.dataset.board import sent
from ui.generate.desk import LastUse
from ui.grids.desk import GridDesk
from ui.grids.offers import checkpoint_axes, offers
from ui.grids.routes import add_routes
from ui.messages import as_text, inform, tells_problems
from ui.scripted import kept, scripted
from ui.wiring import EVERY_TIME, IN_TURN, QUIET, TELLING

KIND_LIST = json.dumps([{"name": name, **asdict(kind)} for name, kind in KINDS.items()])


class GridPanel:
    """Laid out where it is made; ``wire`` connects it to the form whose settings the grids begin with.

    Attributes:
        sheet: the grid that is shown; its event ``use`` names a cell whose settings are wanted.
        filled: the outputs of ``compare_checkpoints``.
    """

    def __init__(self, context: AppContext, studio: Studio) -> None:
        self._context = context
        self._desk = GridDesk(context, studio)
        self._fills = 0
        with gr.Accordion(
            "Grid: compare values side by side", open=False, elem_id="grid-panel", elem_classes=["card", "as-text"]
        ) as self._fold:
            self._axes = scripted(
                "grid-axes",
                css=("grids/axes",),
                js=("dataset/dom", "grids/picker", "grids/axes"),
                value=self._filled(self._desk.last_axes()),
                asks=[self._offering()],
            )
            self.sheet = scripted(
                "grid-sheet", css=("grids/sheet",), js=("dataset/dom", "wall/large", "grids/viewer", "grids/sheet")
            )
        self._seen, self._chosen = kept(), kept()
        self._polled = [self._seen, self.sheet]
        self.filled = [self._fold, self._axes]
        context.page.poll(self._poll, [self._seen, self._chosen], self._polled)
        context.page.load(lambda: [self._filled(self._desk.last_axes())], outputs=[self._axes])
        add_routes(context)
        self._desk.wake()

    def wire(self, form: Sequence[Any], read: Callable[[Sequence[Any]], PictureSettings]) -> None:
        """Take the settings from a form.

        Args:
            form: its components.
            read: makes settings of their values, or raises UserError.
        """

        def weigh(event: gr.EventData, *values: Any) -> dict[str, Any]:
            asked = sent(event, "axes", "stamp")
            return self._judged(asked, lambda: self._desk.weigh(read(values), asked["axes"]))

        def start(event: gr.EventData, *values: Any) -> list[Any]:
            asked = sent(event, "axes", "stamp")
            made: list[str] = []

            def begin() -> dict[str, Any]:
                base = read(values)
                verdict = self._desk.weigh(base, asked["axes"])
                if not verdict["problems"]:
                    made.append(self._desk.start(base, asked["axes"]).id)
                return verdict

            judged = self._judged(asked, begin)
            return [judged, *(self._showing(made[0]) if made else [gr.skip() for _ in range(3)])]

        self._axes.weigh(weigh, form, self._axes, **QUIET)
        self._axes.start(tells_problems(start), form, [self._axes, self._chosen, *self._polled], **TELLING)
        self._wire_sheet()

    def compare_checkpoints(self, run: Run) -> list[Any]:
        """Updates of ``filled``: open, with every checkpoint of a run at several weights. Raises UserError."""
        return [gr.update(open=True), self._filled(checkpoint_axes(run))]

    @tells_problems
    def use_cell(self, event: gr.EventData) -> str:
        """The settings of the cell that an event names, for the form as it keeps them."""
        asked = sent(event, "grid", "cell")
        grid = grid_of(self._context.workspace, asked["grid"])
        for cell in grid.read().spec.cells():
            if cell.name == asked["cell"] and grid.is_drawn(cell):
                settings = parse_settings(read_settings(grid.picture(cell)))
                return LastUse(settings=settings, new_seed=False).model_dump_json()
        raise UserError("picture.unknown", "There is no such picture in this grid.", "It may not be drawn yet.")

    def _wire_sheet(self) -> None:
        outputs = [self._chosen, *self._polled]
        acts: dict[str, Callable[[str], object]] = {
            "go_on": self._desk.go_on,
            "cancel": self._desk.cancel,
            "remove": self._remove,
        }
        self.sheet.choose(self._acting(lambda grid_id: None), None, outputs, **IN_TURN, **EVERY_TIME)
        for name, act in acts.items():
            getattr(self.sheet, name)(self._acting(act), None, outputs, **TELLING)

    def _acting(self, act: Callable[[str], object]) -> Callable[..., list[Any]]:
        @tells_problems
        def handler(event: gr.EventData) -> list[Any]:
            grid_id = str(sent(event, "id")["id"])
            act(grid_id)
            return self._showing(grid_id)

        return handler

    def _remove(self, grid_id: str) -> None:
        self._desk.delete(grid_id)
        inform("The grid is in the bin, at the end of the Runs tab.")

    def _poll(self, seen: str, chosen: str) -> list[Any] | None:
        """The sheet and the list of grids where they are not what was ``seen``."""
        now, shown = self._desk.look(chosen)
        return None if now == seen else [now, {"text": self._desk.shown(shown)}]

    def _showing(self, grid_id: str) -> list[Any]:
        """Updates of what was chosen and of what is polled: this grid, or the newest where it is gone."""
        now, shown = self._desk.look(grid_id)
        return [shown, now, {"text": self._desk.shown(shown)}]

    def _filled(self, axes: dict[str, Any]) -> dict[str, Any]:
        """Axes for the page to take over in place of what is there."""
        self._fills += 1
        return {"kinds": KIND_LIST, "axes": axes, "stamp": self._fills, "verdict": None}

    def _judged(self, asked: dict[str, Any], judge: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What was asked for with a verdict; problems of the form are part of it."""
        try:
            verdict = judge()
        except UserError as error:
            verdict = {"words": "", "problems": [{"axis": "", "text": as_text(error)}]}
        return {"kinds": KIND_LIST, "axes": asked["axes"], "stamp": asked["stamp"], "verdict": verdict}

    def _offering(self) -> Callable[[Any], dict[str, str]]:
        def offered(asked: Any) -> dict[str, str]:
            kind = str(asked.get("kind")) if isinstance(asked, dict) else ""
            return {"text": json.dumps(offers(self._context.workspace, kind))}

        return offered
