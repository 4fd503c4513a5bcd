"""Requests to a running job: a file named after the request, dropped into ``control/`` by an atomic rename."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from trainer.files import write_text

Request = Literal["pause", "resume", "stop", "sample", "save"]
REQUESTS: tuple[Request, ...] = get_args(Request)


def ask(control_dir: Path, request: Request) -> None:
    """Drop a request. Asking twice before the job looks is the same as asking once."""
    write_text(control_dir / request, "")


def take(control_dir: Path) -> set[Request]:
    """The requests waiting; each is removed as it is taken."""
    taken: set[Request] = set()
    for request in REQUESTS:
        try:
            (control_dir / request).unlink()
        except FileNotFoundError:
            continue
        taken.add(request)
    return taken


def clear(control_dir: Path) -> None:
    """Forget requests meant for an earlier process."""
    take(control_dir)
