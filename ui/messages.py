"""How the page tells a problem: a note at the top, or text beside what is wrong."""

from __future__ import annotations

import functools
import html
import logging
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

import gradio as gr

from trainer.errors import Problem, UserError

LOG = logging.getLogger("lora_atelier")

P = ParamSpec("P")
R = TypeVar("R")


def tells_problems(handler: Callable[P, R]) -> Callable[P, R]:
    """Decorate an event handler: a UserError becomes a note on the page, and nothing chained by ``.success`` runs.

    Anything unexpected goes to the page's log with its traceback; the page shows one sentence.
    """

    @functools.wraps(handler)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return handler(*args, **kwargs)
        except UserError as error:
            raise note(error.problems) from error
        except gr.Error:
            raise
        except Exception as error:
            LOG.exception("%s failed", handler.__qualname__)
            raise gr.Error(
                "This did not work, and it is not your fault. The page's log tells more: Settings shows where it is.",
                title="Unexpected problem",
                print_exception=False,
            ) from error

    return guarded


def note(problems: Iterable[Problem]) -> gr.Error:
    """The problems as a note that stays until it is closed. Gradio shows notes as HTML, so all text is escaped."""
    lines = [f"<p>{html.escape(str(problem))}</p>" for problem in problems]
    return gr.Error("".join(lines), duration=None, title="Please check", print_exception=False)


def inform(text: str, *, title: str = "Info", seconds: float = 4) -> None:
    """Show a note that goes by itself. Gradio shows notes as HTML, so the text is escaped."""
    gr.Info(html.escape(text), title=title, duration=seconds)


def warn(text: str) -> None:
    """Show a warning that stays until it is closed, escaped as in ``inform``."""
    gr.Warning(html.escape(text), duration=None)


def as_text(error: UserError) -> str:
    """All problems as plain text, one a line."""
    return "\n".join(str(problem) for problem in error.problems)


def as_html(error: UserError) -> str:
    """All problems as a list for a ``gr.HTML`` beside what is wrong; empty components hide themselves."""
    items = "".join(f"<li>{html.escape(str(problem))}</li>" for problem in error.problems)
    return f'<ul class="problems" role="alert">{items}</ul>'
