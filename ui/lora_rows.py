"""Rows of a LoRA and how strongly it is used, for the Merge and Generate tabs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from ui.context import AppContext
from ui.lora_choices import LoraShelf

ROWS = 6
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


class LoraRows:
    """File and weight per row; rows without a file do not count.

    Attributes:
        components: file, weight, file, weight ...: what ``read`` is given and ``show`` fills, followed by ``rows``.
        rows: the visibility of each row.
        files, weights: the components by kind.
        removed: the events after which a row is gone.
    """

    def __init__(self, context: AppContext, name: str, weight_label: str) -> None:
        self._shelf = LoraShelf(context.workspace)
        self.files: list[gr.Dropdown] = []
        self.weights: list[gr.Slider] = []
        self.rows: list[gr.Row] = []
        removers: list[gr.Button] = []
        choices = self._shelf.choices()
        for number in range(ROWS):
            with gr.Row(visible=number == 0, elem_classes=["lora-row"]) as row:
                self.files.append(self._file(name, number, choices))
                self.weights.append(self._weight(name, number, weight_label))
                remove = gr.Button("×", size="sm", min_width=36, scale=0, elem_classes=["remove"])
                removers.append(remove)
            self.rows.append(row)
        add = gr.Button("Add a LoRA", size="sm", elem_classes=["fold"], elem_id=f"{name}-add-lora")
        self.components = [part for pair in zip(self.files, self.weights, strict=True) for part in pair]
        add.click(self._add, self.files, self.rows, **QUIET)
        self.removed = [
            button.click(self._remover(number), self.components, self.outputs, **QUIET)
            for number, button in enumerate(removers)
        ]
        self._offer(context)

    @property
    def outputs(self) -> list[Any]:
        """What ``show`` fills."""
        return [*self.components, *self.rows]

    def read(self, values: Sequence[Any]) -> list[tuple[str, float]]:
        """The (file, weight) pairs of rows that name a file."""
        pairs = zip(values[0::2], values[1::2], strict=True)
        return [(str(file).strip(), float(weight or 0)) for file, weight in pairs if file and str(file).strip()]

    def show(self, uses: Sequence[tuple[str, float]]) -> list[Any]:
        """Updates of ``outputs`` that show these; the choices go along, so that each file is shown by its name."""
        choices = self._shelf.choices(fresh=True)
        filled = [*uses[:ROWS], *[("", 1.0)] * (ROWS - len(uses))]
        updates: list[Any] = []
        for file, weight in filled:
            updates += [gr.update(value=file or None, choices=choices), weight]
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

    def _add(self, *files: Any) -> list[Any]:
        used = max((number for number, file in enumerate(files) if file), default=-1) + 1
        return [gr.update(visible=number <= max(used, 1)) for number in range(ROWS)]

    def _remover(self, number: int) -> Any:
        def remove(*values: Any) -> list[Any]:
            kept = [value for index, value in enumerate(values) if index // 2 != number]
            return self.show(self.read(kept))

        return remove

    def _offer(self, context: AppContext) -> None:
        """New LoRAs join the lists of files by themselves."""
        seen = gr.Textbox("", visible=False)

        def poll(known: str) -> list[Any] | None:
            choices = self._shelf.choices()
            now = str(hash(tuple(choices)))
            return None if now == known else [now, *(gr.update(choices=choices) for _ in self.files)]

        context.page.poll(poll, [seen], [seen, *self.files])
