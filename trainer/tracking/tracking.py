"""A run's events on their way to its trackers."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import PartialState

from trainer.config import Config
from trainer.errors import Problem
from trainer.files import read_json, write_json
from trainer.runs.events import Events
from trainer.session import Session
from trainer.tracking.backends import BACKENDS, Start
from trainer.tracking.plain_settings import plain_settings
from trainer.tracking.recorder import Numbers, Picture, Recorder

FOLDER = "trackers"
"""In a run's folder: what trackers keep there."""
_IDENTITY = "identity.json"


@contextmanager
def tracked(session: Session, config: Config) -> Iterator[None]:
    """Inside, the trackers of the settings hear the session's events. What goes wrong with one is warned of once."""
    if not config.trackers:
        yield
        return
    tracking, before = _Tracking(session, config), session.events
    session.events = Events(before, tracking)
    try:
        yield
    finally:
        session.events = before
        tracking.close()


class _Tracking:
    """An event sink. Trackers start with the training: only then it is known from which step it goes on."""

    def __init__(self, session: Session, config: Config) -> None:
        self._session = session
        self._config = config
        self._recorders: list[Recorder] | None = None
        self._told: set[str] = set()

    def emit(self, kind: str, step: int = 0, **fields: Any) -> None:
        if kind == "state" and fields["state"] == "training" and self._recorders is None:
            self._recorders = self._started(step)
        elif kind == "metric":
            self._put(Numbers(step, numbers("train", fields)))
        elif kind == "validation":
            self._put(Numbers(step, _validation(fields)))
        elif kind == "sample" and self._config.tracking.pictures:
            path = self._session.run.dir / fields["path"]
            self._put(Picture(step, f"preview {fields['index'] + 1}", path, fields["prompt"]))
        self._tell_problems()

    def close(self) -> None:
        """Let the trackers end."""
        for recorder in self._recorders or ():
            recorder.close()
        self._tell_problems()

    def _put(self, record: Numbers | Picture) -> None:
        for recorder in self._recorders or ():
            recorder.put(record)

    def _started(self, step: int) -> list[Recorder]:
        folder, config = self._session.run.dir / FOLDER, self._config
        identity = identity_of(folder, config.name)
        start = Start(
            folder=folder,
            project=config.tracking.project,
            name=identity["name"],
            id=identity["id"],
            step=step,
            settings=plain_settings(config),
        )
        return start_recorders(config, start, self._warn)

    def _tell_problems(self) -> None:
        """In the thread of the training, which is the only one that writes events."""
        for recorder in self._recorders or ():
            if recorder.problem is not None and recorder.problem.message not in self._told:
                self._told.add(recorder.problem.message)
                self._warn(recorder.problem)

    def _warn(self, problem: Problem) -> None:
        self._session.warn(problem.code, problem.message, problem.hint)


def start_recorders(config: Config, start: Start, warn: Callable[[Problem], None]) -> list[Recorder]:
    """The trackers of the settings, started; ``warn`` is told of those that are missing or stay offline."""
    PartialState()  # Accelerate's trackers ask it which process they are in
    recorders = []
    for name in dict.fromkeys(config.trackers):
        backend = BACKENDS[name]
        if find_spec(backend.package) is None:
            message = f"trackers: {name} needs the package {backend.package}, which is not installed."
            hint = f"`pip install {backend.package}` into the environment of this program, or leave it out."
            warn(Problem("tracker.missing", message, f"{hint} All goes on without it.", "trackers"))
            continue
        if notice := backend.notice():
            warn(Problem("tracker.offline", notice))
        recorders.append(Recorder(name, backend, start))
    return recorders


def identity_of(folder: Path, name: str) -> dict[str, str]:
    """Name and id under which trackers know the run, the same after a resume."""
    try:
        known = read_json(folder / _IDENTITY)
        return {"name": str(known["name"]), "id": str(known["id"])}
    except (OSError, ValueError, KeyError, TypeError):
        made = {"name": name, "id": secrets.token_hex(4)}
        write_json(folder / _IDENTITY, made)
        return made


def _validation(fields: dict[str, Any]) -> dict[str, float]:
    bands = {f"loss {band['from']}-{band['to']}": band["loss"] for band in fields["bands"]}
    return numbers("validation", {"loss": fields["loss"], "relative": fields["relative"], **bands})


def numbers(group: str, fields: dict[str, Any]) -> dict[str, float]:
    """``{"train/loss": 0.1}``: what is a finite number, under the name of its group."""
    return {
        f"{group}/{name}": float(value)
        for name, value in fields.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
