"""``events.jsonl``: what a job tells the world, one JSON object a line, appended and never rewritten."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import orjson

from trainer.files import end_torn_line, is_full

Event = dict[str, Any]

_METRIC = b'"type": "metric"'  # as ``EventLog`` writes it; in a text its quotes would be escaped
_PART_BYTES = 2_000_000


class EventSink(Protocol):
    """Where a job's events go: a file, a terminal, or several."""

    def emit(self, kind: str, step: int = 0, **fields: Any) -> None:
        """Tell one event: state, progress, metric, validation, sample, checkpoint, warning or error."""


class EventLog:
    """Appends events to a file. Each event is one ``write`` of one line, so that a reader never sees two mixed.

    Events that a full disk has no room for are kept, and written when there is room. Several threads may tell some.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        end_torn_line(path)
        self._file = path.open("ab", buffering=0)
        self._waiting = b""
        self._lock = threading.Lock()

    def emit(self, kind: str, step: int = 0, **fields: Any) -> None:
        event = {"time": time.time(), "type": kind, "step": step, **fields}
        line = json.dumps(_finite(event), ensure_ascii=False, allow_nan=False) + "\n"
        with self._lock:
            self._waiting += line.encode()
            try:
                while self._waiting:
                    self._waiting = self._waiting[self._file.write(self._waiting) or 0 :]
            except OSError as error:
                if not is_full(error):
                    raise

    def close(self) -> None:
        self._file.close()


class Events:
    """Several sinks as one."""

    def __init__(self, *sinks: EventSink) -> None:
        self._sinks = sinks

    def emit(self, kind: str, step: int = 0, **fields: Any) -> None:
        for sink in self._sinks:
            sink.emit(kind, step, **fields)


class EventTail:
    """Reads what was appended since the last look. A half-written last line is left for the next look.

    Without ``metrics`` the events that tell a step's numbers, nearly all of a long run, are passed over unread.
    """

    def __init__(self, path: Path, *, metrics: bool = True) -> None:
        self._path = path
        self._offset = 0
        self._metrics = metrics

    def read(self) -> list[Event]:
        """New events, oldest first; empty where there is no file yet. Lines that are not JSON objects are skipped."""
        return [event for part in self.parts() for event in part]

    def parts(self) -> Iterator[list[Event]]:
        """``read`` in parts of a few thousand events, so that a long file never lies in memory as a whole.

        Whoever stops in between finds the rest at the next look.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                while lines := file.readlines(_PART_BYTES):
                    if not lines[-1].endswith(b"\n"):
                        lines.pop()
                    self._offset += sum(map(len, lines))
                    wanted = lines if self._metrics else [line for line in lines if _METRIC not in line]
                    yield [event for line in wanted if (event := _parse(line)) is not None]
        except FileNotFoundError:
            return


def read_events(path: Path) -> list[Event]:
    """All events of a file."""
    return EventTail(path).read()


def paths_told(path: Path) -> set[str]:
    """The files and folders that the events of a file tell of: previews and checkpoints."""
    return {event["path"] for event in EventTail(path, metrics=False).read() if "path" in event}


def last_events(path: Path, most_bytes: int) -> list[Event]:
    """The events in the last so many bytes of a file; none where it cannot be read."""
    try:
        with path.open("rb") as file:
            begin = max(0, os.fstat(file.fileno()).st_size - most_bytes)
            file.seek(begin)
            lines = file.read().split(b"\n")
    except OSError:
        return []
    return [event for line in lines[begin > 0 :] if (event := _parse(line)) is not None]


def _parse(line: bytes) -> Event | None:
    try:
        event = orjson.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "type" in event else None


def _finite(value: Any) -> Any:
    """JSON has no NaN or infinity: they become the strings ``nan``, ``inf`` and ``-inf``."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
