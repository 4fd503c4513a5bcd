"""Rows of a LoRA and how strongly it is used, for the Merge and Generate tabs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from trainer.errors import UserError
from ui.context import AppContext
from ui.lora_blocks import blocks_of
from ui.lora_choices import LoraShelf, RowUse, check_lora
from ui.lora_hub import HubPicker
from ui.messages import as_text
from ui.scripted import kept, scripted
from ui.wiring import QUIET

ROWS = 6
TELL_FILE = "(file, parts) => [{ ...parts, file }]"
TELL_WEIGHT = "(weight, parts) => [{ ...parts, weight }]"
"""Tell the sliders for parts and blocks, in the browser alone, what the rest of their row says."""


class LoraRows:
    """File, weight and weights by part per row; rows without a file do not count.

    Attributes:
        components: file, weight, parts, file ...: what ``read`` is given and ``show`` fills, followed by ``rows``.
        rows: the visibility of each row.
        files, weights, parts: the components by kind. The value of parts has their ``text`` for ``strengths.py``.
        changed: the events after which a row came or went by a press of a button.
        hub: brings LoRAs of the hub into the rows; with ``offers_model`` it tells the model that one was made for.
    """

    def __init__(self, context: AppContext, name: str, weight_label: str, *, offers_model: bool = False) -> None:
        self._shelf = LoraShelf(context.workspace)
        self._context = context
        self.files: list[gr.Dropdown] = []
        self.weights: list[gr.Slider] = []
        self.parts: list[gr.HTML] = []
        self.rows: list[gr.Row] = []
        removers: list[gr.Button] = []
        choices = self._shelf.choices()
        for number in range(ROWS):
            with gr.Row(visible=number == 0, elem_classes=["lora-row"]) as row:
                self.files.append(self._file(name, number, choices))
                self.weights.append(self._weight(name, number, weight_label))
                removers.append(gr.Button("×", size="sm", min_width=36, scale=0, elem_classes=["remove"]))
                self.parts.append(self._parts(name, number))
            self.rows.append(row)
        with gr.Row(elem_classes=["actions"]):
            add = gr.Button("Add a LoRA", size="sm", elem_classes=["fold"], elem_id=f"{name}-add-lora")
        self.hub = HubPicker(context, name, offers_model=offers_model)
        self.components = [each for row in zip(self.files, self.weights, self.parts, strict=True) for each in row]
        for file, weight, parts in zip(self.files, self.weights, self.parts, strict=True):
            file.change(None, [file, parts], parts, js=TELL_FILE, **QUIET)
            weight.change(None, [weight, parts], parts, js=TELL_WEIGHT, **QUIET)
        add.click(self._add, self.files, self.rows, **QUIET)
        removed = [
            button.click(self._remover(number), self.components, self.outputs, **QUIET)
            for number, button in enumerate(removers)
        ]
        put = self.hub.put.success(self._put, [self.hub.chosen, *self.components], self.outputs, **QUIET)
        self.changed = [*removed, put]
        self._offer(context)

    @property
    def moves(self) -> list[Any]:
        """The events after which the rows say something else, by a person's hand."""
        moved = [weight.input for weight in self.weights]
        chosen = [file.input for file in self.files]
        return [*moved, *chosen, *(parts.edit for parts in self.parts)]

    @property
    def outputs(self) -> list[Any]:
        """What ``show`` fills."""
        return [*self.components, *self.rows]

    def read(self, values: Sequence[Any]) -> list[RowUse]:
        """What the rows that name a file say."""
        rows = zip(values[0::3], values[1::3], values[2::3], strict=True)
        return [
            RowUse(str(file).strip(), float(weight or 0), str((parts or {}).get("text", "")).strip())
            for file, weight, parts in rows
            if file and str(file).strip()
        ]

    def values(self, uses: Sequence[RowUse]) -> list[Any]:
        """What ``read`` reads these from."""
        filled = [*uses[:ROWS], *[RowUse("", 1.0)] * (ROWS - len(uses))]
        parts = [{"text": use.parts, "file": use.file, "weight": use.weight} for use in filled]
        return [value for use, own in zip(filled, parts, strict=True) for value in (use.file or None, use.weight, own)]

    def show(self, uses: Sequence[RowUse]) -> list[Any]:
        """Updates of ``outputs`` that show these; the choices go along, so that each file is shown by its name."""
        choices = self._shelf.choices(fresh=True)
        values = self.values(uses)
        updates: list[Any] = []
        for file, weight, parts in zip(values[0::3], values[1::3], values[2::3], strict=True):
            updates += [gr.update(value=file, choices=choices), _within(weight), parts]
        return [*updates, *(gr.update(visible=number < max(1, len(uses))) for number in range(ROWS))]

    def _file(self, name: str, number: int, choices: list[tuple[str, str]]) -> gr.Dropdown:
        return gr.Dropdown(
            choices,
            value=None,
            label="LoRA",
            allow_custom_value=True,
            interactive=True,
            elem_id=f"{name}-lora-{number}",
            elem_classes=["field"],
        )

    def _weight(self, name: str, number: int, label: str) -> gr.Slider:
        return gr.Slider(
            -2,
            2,
            value=1,
            step=0.05,
            label=label,
            interactive=True,
            buttons=[],
            elem_id=f"{name}-weight-{number}",
            elem_classes=["field"],
        )

    def _parts(self, name: str, number: int) -> gr.HTML:
        return scripted(
            f"{name}-parts-{number}",
            css=["loras/parts"],
            js=["dataset/dom", "loras/parts"],
            value={"text": ""},
            asks=[self._blocks()],
        )

    def _blocks(self) -> Callable[[Any], dict[str, Any]]:
        """What the sliders ask: which parts and blocks a ``file`` has."""

        def blocks(asked: Any) -> dict[str, Any]:
            try:
                return blocks_of(check_lora(self._context, str(asked["file"])))
            except UserError as error:
                return {"problem": as_text(error)}

        return blocks

    def _add(self, *files: Any) -> list[Any]:
        used = max((number for number, file in enumerate(files) if file), default=-1) + 1
        return [gr.update(visible=number <= max(used, 1)) for number in range(ROWS)]

    def _put(self, name: str, *values: Any) -> list[Any]:
        """One LoRA more; the last row is given up for it where all are taken."""
        return self.show([*self.read(values)[: ROWS - 1], RowUse(name, 1.0)])

    def _remover(self, number: int) -> Any:
        def remove(*values: Any) -> list[Any]:
            kept = [value for index, value in enumerate(values) if index // 3 != number]
            return self.show(self.read(kept))

        return remove

    def _offer(self, context: AppContext) -> None:
        """New LoRAs join the lists of files by themselves."""
        seen = kept()

        def poll(known: str) -> list[Any] | None:
            choices = self._shelf.choices()
            now = str(hash(tuple(choices)))
            return None if now == known else [now, *(gr.update(choices=choices) for _ in self.files)]

        context.page.poll(poll, [seen], [seen, *self.files])


def _within(weight: float) -> Any:
    """A weight for its slider, which grows where it has to: Gradio refuses what lies beyond its ends."""
    return gr.update(value=weight, minimum=min(-2, weight), maximum=max(2, weight))
