"""Requests to a running job: a file named after the request, dropped into ``control/`` by an atomic rename."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args

from trainer.files import read_json, write_json, write_text

Request = Literal["pause", "resume", "stop", "sample", "save"]
REQUESTS: tuple[Request, ...] = get_args(Request)
PROMPTS = "prompts.json"
"""Other preview prompts; unlike requests they are kept until a job takes them."""


def ask(control_dir: Path, request: Request) -> None:
    """Drop a request. Asking twice before the job looks is the same as asking once."""
    write_text(control_dir / request, "")


def waiting(control_dir: Path) -> set[Request]:
    """The requests waiting; they stay."""
    return {request for request in REQUESTS if (control_dir / request).exists()}


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


def give_prompts(control_dir: Path, prompts: list[dict[str, Any]]) -> None:
    """Have a job draw other previews from now on; a later list replaces one that was not taken yet."""
    write_json(control_dir / PROMPTS, prompts)


def waiting_prompts(control_dir: Path) -> Any:
    """The preview prompts that no job has taken yet; None without any."""
    with suppress(OSError, ValueError):
        return read_json(control_dir / PROMPTS)
    return None


def take_prompts(control_dir: Path) -> Any:
    """The preview prompts given since the last look; None without any, or where they cannot be read."""
    taken = control_dir / f".{PROMPTS}.taken"  # renamed first: prompts given meanwhile are not lost
    try:
        (control_dir / PROMPTS).replace(taken)
    except FileNotFoundError:
        return None
    try:
        with suppress(ValueError):
            return read_json(taken)
        return None
    finally:
        taken.unlink(missing_ok=True)
