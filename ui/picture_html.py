"""Problems and facts as HTML. No gradio in here."""

from __future__ import annotations

import html
from collections.abc import Sequence


def problems(found: Sequence[dict[str, str]]) -> str:
    """Problems as the studio and jobs tell them."""
    items = "".join(f"<li>{html.escape(_problem(problem))}</li>" for problem in found)
    return f'<ul class="problems" role="alert">{items}</ul>'


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """A small table of names and values."""
    body = "".join(f"<tr><th scope='row'>{html.escape(n)}</th><td>{html.escape(v)}</td></tr>" for n, v in rows)
    return f'<table class="facts-table"><tbody>{body}</tbody></table>'


def _problem(problem: dict[str, str]) -> str:
    return f"{problem.get('message', '')} {problem.get('hint', '')}".strip()
