"""Events as a person at a terminal reads them."""

from __future__ import annotations

import io

from trainer.terminal import TerminalEvents


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_file_gets_few_progress_lines() -> None:
    out = io.StringIO()
    events = TerminalEvents(out)
    for done in range(1001):
        events.emit("progress", what="encoding pictures", done=done, total=1000)
    lines = out.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[-1] == "encoding pictures 1000/1000"
    events.emit("progress", what="nothing", done=0, total=0)
    assert out.getvalue().endswith("nothing 0/0\n")


def test_a_terminal_has_one_live_line_that_messages_do_not_overwrite() -> None:
    out = _Terminal()
    events = TerminalEvents(out)
    events.emit("progress", what="x", done=1, total=2)
    events.emit("metric", 7, loss=0.123456, lr=1e-4, step_ms=80.4)
    events.emit("warning", message="Low disk.", hint="Free some.")
    text = out.getvalue()
    assert "\rx" not in text
    assert "step 7  loss 0.1235  lr 1.00e-04  80 ms" in text
    assert text.endswith("\nwarning: Low disk. Free some.\n")
    assert text.count("\n") == 2


def test_the_time_left_is_told_where_it_is_known() -> None:
    out = io.StringIO()
    events = TerminalEvents(out)
    events.emit("progress", what="merging", done=0, total=10, seconds_left=None)
    events.emit("progress", what="merging", done=5, total=10, seconds_left=12.3)
    assert out.getvalue().splitlines() == ["merging 0/10", "merging 5/10, 12 s left"]


def test_what_matters_is_told_and_the_rest_is_not() -> None:
    out = io.StringIO()
    events = TerminalEvents(out)
    events.emit("state", state="training")
    events.emit("sample", path="a.png")
    events.emit("checkpoint", path="c")
    events.emit("error", message="It broke.")
    events.emit("metric", loss=1.0, lr=1.0, step_ms=1.0)
    events.emit("metric", vram_bytes=5)
    events.emit("validation", loss=0.5)
    assert out.getvalue().splitlines() == ["training", "sample: a.png", "checkpoint: c"]
