"""How handlers tell problems."""

from __future__ import annotations

import logging

import gradio as gr
import pytest

from trainer.errors import Problem, UserError
from ui.messages import as_html, as_text, inform, tells_problems, warn

TWO = UserError.many([Problem("a", "The <b>rank</b> is 0.", "Use 1."), Problem("b", "No folder.")])


@tells_problems
def handler(kind: str) -> str:
    """Says hello."""
    if kind == "user":
        raise TWO
    if kind == "bug":
        raise ZeroDivisionError("secret detail")
    return f"hello {kind}"


def test_what_works_is_left_alone() -> None:
    assert handler("you") == "hello you"
    assert handler.__doc__ == "Says hello."


def test_every_problem_is_in_the_note_and_escaped() -> None:
    with pytest.raises(gr.Error) as caught:
        handler("user")
    assert "The &lt;b&gt;rank&lt;/b&gt; is 0. Use 1." in caught.value.message
    assert "No folder." in caught.value.message
    assert not caught.value.print_exception


def test_notes_are_text(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    for kind in ("Info", "Warning"):
        monkeypatch.setattr(gr, kind, lambda text, **_: shown.append(text))
    inform("training of <img src=x>")
    warn("<b> & co")
    assert shown == ["training of &lt;img src=x&gt;", "&lt;b&gt; &amp; co"]


def test_a_bug_goes_to_the_log_and_not_to_the_page(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "lora_atelier"), pytest.raises(gr.Error) as caught:
        handler("bug")
    assert "secret detail" not in caught.value.message
    assert "secret detail" in caplog.text and "handler failed" in caplog.text


def test_texts_beside_a_field() -> None:
    assert as_text(TWO) == "The <b>rank</b> is 0. Use 1.\nNo folder."
    assert as_html(TWO).count("<li>") == 2 and "<b>" not in as_html(TWO)
