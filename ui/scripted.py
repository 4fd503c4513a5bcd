"""Components that a script and style sheets of ``assets`` make, for what Gradio has no component for."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
from gradio.blocks import Block

from ui.theme import asset

_TOLD = "told-"
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
    sent last, and ``await server.name(asked)`` calls one of the functions they may ask. Made here, components are told
    new values without an event of Gradio, which costs an open page a good part of a tenth of a second.
    """
    key = _new_key()
    return gr.HTML(
        {} if value is None else value,
        html_template="",
        css_template="\n".join(asset(f"{name}.css") for name in css),
        js_on_load=_script(key, *js),
        apply_default_css=False,
        padding=False,
        elem_id=elem_id,
        server_functions=list(asks) or None,
        render=render,
        key=key,
    )


def told_html(elem_id: str, *, js: Sequence[str] = ()) -> gr.HTML:
    """A piece of HTML, everything that people wrote escaped, which follows what changes all the time.

    The browser changes only what differs, so that what is focused or ticked in it stays so.
    """
    key = _new_key()
    return gr.HTML("", padding=False, elem_id=elem_id, js_on_load=_script(key, *js), key=key)


def kept(value: str = "") -> gr.HTML:
    """A text that an open page keeps out of sight, such as the version of what a panel shows. Pollers read only these.

    The page's one timer reads them in the browser, without an event of Gradio: see ``assets/pulse.js``, which knows
    each by its key. They are not rendered where they are made: the shell puts them first on the page.
    """
    key = _new_key()
    return gr.HTML(
        value,
        html_template="",
        js_on_load=_script(key),
        apply_default_css=False,
        padding=False,
        render=False,
        key=key,
    )


def told_key(part: Block) -> str | None:
    """The key by which the page's one timer tells a component made here its value; None for others."""
    key = getattr(part, "key", None)
    return key if isinstance(key, str) and key.startswith(_TOLD) else None


def _new_key() -> str:
    return f"{_TOLD}{next(_numbers)}"


def _script(key: str, *names: str) -> str:
    return "\n".join([f'const TOLD = "{key}";', *(asset(f"{name}.js") for name in ("told", *names))])
