"""Fetching a data set of the Hugging Face hub, or one that its library saved, as a new dataset of the workspace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from trainer.curation.importing import library_path
from trainer.curation.intake import dataset_folder
from trainer.curation.picture_sets import count_of
from trainer.data.datasets_library import HUB_PREFIX
from ui.context import AppContext
from ui.dataset.board import ONE_BY_ONE, Board
from ui.dataset.desk import DatasetDesk
from ui.dataset.fields import text
from ui.lora_tools.desk import Order, ToolDesk
from ui.lora_tools.panel import panel, wire
from ui.messages import tells_problems
from ui.picture_html import facts
from ui.scripted import kept


def build(context: AppContext, desk: DatasetDesk, board: Board) -> None:
    """Lay the panel out and wire it."""
    with gr.Accordion("Fetch from Hugging Face", open=False, elem_id="dataset-import"):
        with gr.Column(elem_classes=["fields"]):
            info = "owner/name of the hub, with @revision if need be; or a saved folder or Parquet on this machine."
            path = text("Data set", "import-path", info, "owner/name")
            name = text("Name of the new dataset", "import-name", None, "my-dataset")
            split = text("Split", "import-split", "Empty: train, or the only one.")
            captions = text("Column of the captions", "import-captions", "Empty: text, caption or prompt.")
            images = text("Column of the pictures", "import-images", "Empty: the first of that kind.")
        with gr.Column(elem_classes=["tool"]):
            shared = panel("import", "Fetch")
        open_button = gr.Button("Open it", elem_id="import-open", elem_classes=["fit"], visible=False)
    tool = ToolDesk(context.workspace, "import", report)
    fields = [path, name, split, captions, images]
    wire(context, shared, tool, lambda *values: order(context, *values), lambda *values: "", fields)

    made = kept()

    def offer(made: str) -> list[Any] | None:
        out = str((tool.result() or {}).get("out", ""))
        return None if out == made else [out, gr.update(visible=bool(out))]

    @tells_problems
    def open_result(made: str) -> list[Any]:
        return board.updates(desk.open(made))

    context.page.poll(offer, [made], [made, open_button])
    open_button.click(open_result, made, board.outputs, **ONE_BY_ONE)


def order(context: AppContext, *values: Any) -> Order:
    """The job for these values. Raises UserError for what is no data set, and places that are not open to the page."""
    given, name, split, captions, images = (str(value or "").strip() for value in values)
    if given.startswith(("~", ".")) or Path(given).is_absolute():
        context.allowed(given)  # before anybody looks what lies there
    path = library_path(given)
    if not path.startswith(HUB_PREFIX):
        path = str(context.allowed(path))
    out = dataset_folder(context.workspace.datasets_dir, name)
    command = ["import", path, f"--name={name}", f"--workspace={context.workspace.dir}"]
    options = {"split": split, "caption-column": captions, "image-column": images}
    command += [f"--{option}={value}" for option, value in options.items() if value]
    return Order(command, f"Fetch {name}", out)


def report(result: dict[str, Any]) -> str:
    """What the finished command answered."""
    counts = [("Pictures", str(result["pictures"])), ("Captions", str(result["captions"]))]
    empty = [("Rows without a picture", count_of(result["empty"], "row"))] if result["empty"] else []
    return f'<div class="saved"><b>It is here.</b>{facts([("Folder", result["out"]), *counts, *empty])}</div>'
