"""A job's events as a person at a terminal wants to read them: one progress line, and plain lines for what matters."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, TextIO


class TerminalEvents:
    """Writes events to a text stream; on a terminal, progress stays on one line.

    Errors are left out: the command that ends with one tells it. A terminal that was closed, or a log whose disk is
    full, is not told; the work goes on.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._line_open = False
        self._last_tenth: tuple[str, int] | None = None

    def emit(self, kind: str, step: int = 0, **fields: Any) -> None:
        if kind == "progress":
            self._progress(str(fields["what"]), int(fields["done"]), int(fields["total"]), fields.get("seconds_left"))
        elif kind == "metric" and "loss" in fields:
            self._over(f"step {step}  loss {fields['loss']:.4f}  lr {fields['lr']:.2e}  {fields['step_ms']:.0f} ms")
        elif kind == "state":
            self._line(f"{fields['state']}")
        elif kind == "warning":
            self._line(f"warning: {fields['message']} {fields.get('hint', '')}".rstrip())
        elif kind == "evaluation":
            self._line(f"evaluation of step {step}: {_numbers(fields)}")
        elif kind in ("sample", "checkpoint"):
            self._line(f"{kind}: {fields['path']}")

    def _progress(self, what: str, done: int, total: int, seconds_left: float | None) -> None:
        text = f"{what} {done}/{total}" + (f", {seconds_left:.0f} s left" if seconds_left else "")
        if self._live:
            self._over(text)
            return
        tenth = (what, done * 10 // max(total, 1))  # a log file gets eleven lines, not thousands
        if tenth != self._last_tenth:
            self._last_tenth = tenth
            self._line(text)

    def _over(self, text: str) -> None:
        if not self._live:
            return
        self._write(f"\r\x1b[K{text}")
        self._line_open = True

    def _line(self, text: str) -> None:
        self._write(("\n" if self._line_open else "") + text + "\n")
        self._line_open = False

    def _write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)
            self._stream.flush()


def _numbers(fields: dict[str, Any]) -> str:
    """``drift 0.03  copies 0``: what was measured."""
    return "  ".join(f"{name} {value:.4g}" for name, value in fields.items() if isinstance(value, int | float))
