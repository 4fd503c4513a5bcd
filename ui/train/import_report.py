"""What became of another trainer's settings, as HTML: counts first, then the lists. No Gradio."""

from __future__ import annotations

import html

from trainer.imports.base import Line, Report
from ui.fields import CONFIG_FIELDS

_LISTS = (
    ("no_equivalent", "not taken over", "These have no equivalent here."),
    ("guessed", "taken over as nearly as it goes", "These differ a little from what they were there."),
    ("mapped", "taken over", "These mean the same here."),
    (
        "no_effect",
        "without effect",
        "Defaults, and how that program used its machine: they change nothing that is learned.",
    ),
)


def report_html(report: Report, name: str) -> str:
    """The report of the file or text ``name``; what needs a look comes first."""
    counts = [(len(getattr(report, key)), words) for key, words, _ in _LISTS]
    listed = ", ".join(f"<strong>{count}</strong> {words}" for count, words in counts if count)
    folds = "".join(_fold(getattr(report, key), words, about) for key, words, about in _LISTS)
    return (
        f'<div class="import-report"><p role="status"><strong>{html.escape(name)}</strong> '
        f"({html.escape(report.kind)}) fills the form: {listed or 'it says nothing'}.</p>{folds}</div>"
    )


def _fold(lines: list[Line], words: str, about: str) -> str:
    if not lines:
        return ""
    rows = "".join(map(_row, lines))
    title = f"{len(lines)} {words}"
    return f"<details><summary>{title}</summary><p>{about}</p><ul>{rows}</ul></details>"


def _row(line: Line) -> str:
    became = f" &rarr; <b>{html.escape(_label(line.setting))}</b> {html.escape(line.value)}" if line.setting else ""
    note = f"<small>{html.escape(line.note[:1].upper() + line.note[1:])}.</small>" if line.note else ""
    return f"<li><code>{html.escape(line.source)}</code> {html.escape(line.given)}{became}{note}</li>"


def _label(setting: str) -> str:
    """The setting as the form calls it; of a folder or a prompt, with its number from 1."""
    labels = {field.name: field.label for field in CONFIG_FIELDS}
    if setting in labels:
        return labels[setting]
    parts = setting.split(".")
    for place, part in enumerate(parts):
        parent = ".".join(parts[:place])
        if part.isdigit() and parent in labels:
            rest = " ".join(parts[place + 1 :]).replace("_", " ")
            return f"{labels[parent]} {int(part) + 1} {rest}".strip()
    return setting
