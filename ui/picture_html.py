"""Pictures and how far they are, as HTML. No gradio in here."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from trainer.runs.store import Workspace
from trainer.studio import Answer
from ui.media import picture_url


def grid(workspace: Workspace, pictures: Sequence[Path], *, row: str, large: bool = False) -> str:
    """Pictures side by side; a click opens one, with its settings for use."""
    items = "".join(_picture(workspace, path, path.name, row, thumbnail=not large, use=True) for path in pictures)
    return f'<div class="picture-grid{" large" if large else ""}">{items}</div>'


def status(answer: Answer | None, waiting: int = 0) -> str:
    """What the studio is doing about a request, in words and as a bar."""
    if answer is None or answer.state in ("done", "cancelled"):
        return '<div class="status"></div>' if answer is None or answer.state == "done" else _line("Cancelled.")
    if answer.state == "failed":
        return problems(answer.error)
    if answer.state == "waiting":
        return _line("Starting the picture process" if waiting <= 1 else f"{waiting - 1} before this one")
    share = answer.step / answer.steps if answer.steps else 0.0
    words = answer.what.capitalize() or "Drawing"
    if answer.what == "drawing":
        words = f"Drawing, step {answer.step} of {answer.steps}"
    bar = (
        '<div class="progress" role="progressbar" aria-label="Drawing" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{share * 100:.0f}"><i style="width:{share:.1%}"></i></div>'
    )
    return f'<div class="status">{html.escape(words)}{bar}</div>'


def problems(found: Sequence[dict[str, str]]) -> str:
    """Problems as the studio and jobs tell them."""
    items = "".join(f"<li>{html.escape(_problem(problem))}</li>" for problem in found)
    return f'<ul class="problems" role="alert">{items}</ul>'


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """A small table of names and values."""
    body = "".join(f"<tr><th scope='row'>{html.escape(n)}</th><td>{html.escape(v)}</td></tr>" for n, v in rows)
    return f'<table class="facts-table"><tbody>{body}</tbody></table>'


def _picture(workspace: Workspace, path: Path, caption: str, row: str, *, thumbnail: bool, use: bool) -> str:
    large = html.escape(picture_url(workspace, path))
    small = html.escape(picture_url(workspace, path, thumbnail=thumbnail))
    words = html.escape(caption)
    name = html.escape(path.name)
    usable = f' data-use="{name}"' if use else ""
    return (
        f'<button type="button" data-large="{large}" data-row="{html.escape(row)}" data-name="{name}" '
        f'data-caption="{words}"{usable}><img src="{small}" alt="{words}" loading="lazy"></button>'
    )


def _line(words: str) -> str:
    return f'<div class="status">{html.escape(words)}</div>'


def _problem(problem: dict[str, str]) -> str:
    return f"{problem.get('message', '')} {problem.get('hint', '')}".strip()
