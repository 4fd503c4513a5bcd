"""Asking a person at the terminal."""

from __future__ import annotations

import sys

from trainer.errors import StoppedOnRequest, UserError


def confirm(told: str, question: str) -> None:
    """Tell something and ask whether to go on.

    Raises UserError where nobody can be asked, and StoppedOnRequest for anything but a yes.
    """
    sys.stderr.write(f"{told}\n")
    if not sys.stdin.isatty():
        raise UserError("cli.ask", "Nobody can be asked here.", "Give --yes to go on without asking.")
    sys.stderr.write(f"{question} [y/N] ")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise StoppedOnRequest("nothing was done")
