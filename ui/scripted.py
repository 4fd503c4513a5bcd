"""Components that a script and style sheets of ``assets`` make, for what Gradio has no component for."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from ui.theme import asset

_numbers = itertools.count()


def scripted(
    elem_id: str,
    *,
    css: Sequence[str],
    js: Sequence[str],
    value: Any = None,
    asks: Sequence[Callable[..., Any]] = (),
    render: bool = True,
) -> gr.HTML:
    """A component of scripts and style sheets, named without their endings: ``charts/plot``.

    Its template stays empty: values must not go through one, as Gradio evaluates what a template gives as a
    JavaScript template string. The scripts share one scope, in the order given; ``props.value`` is what the program
    sent last, and ``await server.name(asked)`` calls one of the functions they may ask.
    """
    return gr.HTML(
        {} if value is None else value,
        html_template="",
        css_template="\n".join(asset(f"{name}.css") for name in css),
        js_on_load="\n".join(asset(f"{name}.js") for name in js),
        apply_default_css=False,
        padding=False,
        elem_id=elem_id,
        server_functions=list(asks) or None,
        render=render,
    )


def kept(value: str = "") -> gr.HTML:
    """A text that an open page keeps out of sight, such as the version of what a panel shows. Pollers read only these.

    The page's one timer reads them in the browser, without an event of Gradio: see ``assets/pulse.js``, which knows
    each by its ``key``. They are not rendered where they are made: the shell puts them first on the page.
    """
    key = f"kept-{next(_numbers)}"
    return gr.HTML(
        value,
        html_template="",
        js_on_load=f"atelier.kept.set('{key}', () => props.value);",
        apply_default_css=False,
        padding=False,
        render=False,
        key=key,
    )
