"""The log of a run: its end to follow, the whole of it to search and to download."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import gradio as gr

from trainer.errors import UserError
from ui import media
from ui.run_view import standing
from ui.runs.board import Panel, RunsBoard
from ui.runs.desk import RunsDesk, Shown
from ui.scripted import scripted

MOST_LINES = 500
_LONGEST_LINE = 2000


def build(board: RunsBoard) -> None:
    """Lay the log out, folded."""

    def search_log(asked: Any) -> dict[str, Any]:
        return search(board.desk, asked)

    with gr.Accordion("Log", open=False, elem_classes=["card", "as-text"]):
        log = scripted("run-log", css=("runs/panel",), js=("dataset/dom", "runs/log"), asks=[search_log])
    board.add(Panel("log", [log], lambda shown: shown.view.log, lambda shown: [_told(shown)]))


def matching_lines(path: Path, words: str) -> tuple[int, list[str]]:
    """How many lines of a log hold all the words, and the last ``MOST_LINES`` of them. Letters' case does not count."""
    wanted = words.casefold().split()
    count, found = 0, deque[str](maxlen=MOST_LINES)
    with path.open(encoding="utf-8", errors="replace", newline="\n") as lines:
        for raw in lines:
            line = standing(raw.rstrip("\n"))
            if all(word in line.casefold() for word in wanted):
                count += 1
                found.append(line[:_LONGEST_LINE])
    return count, list(found)


def search(desk: RunsDesk, asked: Any) -> dict[str, Any]:
    """What the script of the panel asks for: ``run`` and ``words``. Answers ``problem`` where there is no such log."""
    try:
        count, lines = matching_lines(desk.run(str(asked["run"])).log_path, str(asked["words"]))
    except (UserError, OSError, KeyError, TypeError):
        return {"problem": "There is no log.", "lines": [], "count": 0}
    return {"count": count, "lines": lines, "more": count > len(lines)}


def _told(shown: Shown) -> dict[str, Any]:
    return {"run": shown.run.id, "text": shown.view.log, "url": media.log_url(shown.run.id)}
