"""The settings as text: exactly what will be trained, and the command that starts the same from a terminal."""

from __future__ import annotations

import gradio as gr

from ui.train.import_panel import ENDINGS


class TextPanel:
    """An accordion. ``yaml`` and ``command`` follow the form; ``apply`` and ``file`` go the other way."""

    def __init__(self) -> None:
        with gr.Accordion("Settings as text", open=False, elem_classes=["card", "as-text"]):
            self.yaml = gr.Textbox(
                label="YAML",
                info="Exactly what will be trained. Change it, or paste other settings or a command line, and use it.",
                lines=14,
                max_lines=30,
                buttons=["copy"],
                interactive=True,
                elem_id="yaml",
                elem_classes=["field", "mono"],
            )
            with gr.Row(elem_classes=["actions"]):
                self.apply = gr.Button("Use this text", size="sm", elem_id="apply-yaml")
                self.file = gr.UploadButton("Open a file", size="sm", file_types=ENDINGS, elem_id="open-yaml")
            self.command = gr.Textbox(
                label="The same from a terminal",
                lines=2,
                buttons=["copy"],
                interactive=False,
                elem_id="command",
                elem_classes=["field", "mono"],
            )
