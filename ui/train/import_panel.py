"""Settings of other trainers on the Train tab: a file or a text becomes the form's, and a report stays beside it."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath

import gradio as gr

from trainer.config import Config
from trainer.config_paths import paths_in
from trainer.errors import Problem, UserError
from trainer.files import write_json
from trainer.imports.base import Imported, Line, Report
from trainer.imports.reading import companions_in, import_path, import_text, is_own_text, read_text
from ui import train_view
from ui.context import AppContext
from ui.train.import_report import report_html

ENDINGS = [".json", ".toml", ".yaml", ".yml", ".txt", ".sh", ".bat", ".ps1", ".safetensors"]
_LAST_REPORT = "last_import.json"


class ImportPanel:
    """A card with a button for files of other trainers, and what became of the last one."""

    def __init__(self) -> None:
        with gr.Column(elem_classes=["card"], elem_id="import-settings"):
            title = "Open settings of another trainer"
            self.file = gr.UploadButton(title, size="sm", file_types=ENDINGS, elem_id="import-file")
            gr.HTML(
                "<p>kohya_ss, sd-scripts, OneTrainer, ai-toolkit, or a LoRA that says how it was made. "
                "A command line can be pasted under Settings as text.</p>",
                elem_classes=["quiet"],
                padding=False,
            )
            self.report = gr.HTML("", elem_id="import-report", padding=False)


def settings_in_file(context: AppContext, path: Path, name: str) -> Imported | None:
    """What an uploaded file of another trainer says; None for one of ours. Raises UserError.

    Files that it names are read where the page may: an upload has no folder of its own.
    """
    if path.suffix.lower() == ".safetensors":
        return import_path(path)
    return settings_in_text(context, read_text(path), name)


def settings_in_text(context: AppContext, text: str, name: str) -> Imported | None:
    """What a text of another trainer says; None for settings of ours. Raises UserError."""
    return None if is_own_text(text) else import_text(text, name, companion=lambda file: _companion(context, file))


def _companion(context: AppContext, name: str) -> str | None:
    try:
        path = context.allowed(name) if Path(name).is_absolute() else None
    except (UserError, OSError, ValueError):
        return None
    return companions_in(path.parent)(path.name) if path else None


def keep_report(context: AppContext, report: Report, name: str) -> str:
    """The report as HTML; it is there after a reload, too."""
    write_json(context.workspace.dir / _LAST_REPORT, {"name": name, "report": dataclasses.asdict(report)})
    return report_html(report, name)


def last_report(context: AppContext) -> str:
    """The report of the last import; empty before the first, and where its file is damaged."""
    try:
        kept = json.loads((context.workspace.dir / _LAST_REPORT).read_text(encoding="utf-8"))
        values = dict(kept["report"])
        kind = str(values.pop("kind"))
        lists = {key: [Line(**line) for line in lines] for key, lines in values.items()}
        return report_html(Report(kind, **lists), str(kept["name"]))
    except (OSError, ValueError, TypeError, KeyError):
        return ""


def missing_paths(context: AppContext, config: Config) -> tuple[Problem, ...]:
    """Each folder and file of an imported config that is not there, by its field."""
    try:
        train_view.check_paths(context, config)
    except UserError as error:
        return tuple(_in_words(error.problems, dict(paths_in(config.model_dump(mode="json")))))
    return ()


def _in_words(problems: Iterable[Problem], given: dict[str, str]) -> Iterable[Problem]:
    """The same, saying so where a path is of another system and could not be here at all."""
    for problem in problems:
        path = given.get(problem.field, "")
        if os.name != "nt" and PureWindowsPath(path).drive:
            message = f"{problem.field}: {path} is a path of Windows, and of another computer."
            yield Problem("path.missing", message, "Choose where it is on this one.", problem.field)
        else:
            yield problem
