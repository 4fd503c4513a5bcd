"""A tracker in its thread: it fails, hangs and lags behind, and nobody else notices."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from trainer.tracking import recorder as recorder_file
from trainer.tracking.backends import Backend, Start
from trainer.tracking.recorder import Numbers, Picture, Recorder, without_secrets

START = Start(Path(), "project", "name", "id", 0, {})


class Tracker:
    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = False

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((step, values))
        if values.get("explode"):
            raise ConnectionError("no network")

    def finish(self) -> None:
        self.finished = True


def recorder_of(tracker: Any, start: Any = None) -> Recorder:
    return Recorder("test", Backend("x", start or (lambda start: tracker), lambda *arguments: None), START)


def test_all_is_recorded_in_order_before_the_end() -> None:
    tracker = Tracker()
    recorder = recorder_of(tracker)
    for step in range(500):
        recorder.put(Numbers(step, {"loss": step / 2}))
    recorder.close()
    assert tracker.logged == [(step, {"loss": step / 2}) for step in range(500)]
    assert tracker.finished and recorder.problem is None


def test_a_failure_ends_it_once_and_keeps_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "very-secret-key")

    def start(_: Start) -> Tracker:
        raise RuntimeError("login with very-secret-key was refused\nand more")

    recorder = recorder_of(None, start)
    recorder.close()
    assert recorder.problem is not None
    assert "RuntimeError: login with *** was refused." in recorder.problem.message
    assert "more" not in recorder.problem.message
    assert without_secrets("") == ""

    tracker = Tracker()
    recorder = recorder_of(tracker)
    for values in ({"loss": 1.0}, {"explode": 1.0}, {"loss": 2.0}):
        recorder.put(Numbers(1, values))
    recorder.close()
    assert [values for _, values in tracker.logged] == [{"loss": 1.0}, {"explode": 1.0}]
    assert recorder.problem is not None and "no network" in recorder.problem.message


def test_a_picture_that_is_gone_is_a_failure_like_any_other(tmp_path: Path) -> None:
    recorder = recorder_of(Tracker())
    recorder.put(Picture(1, "preview 1", tmp_path / "gone.png", "a cat"))
    recorder.close()
    assert recorder.problem is not None and "FileNotFoundError" in recorder.problem.message


def test_one_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_file, "END_SECONDS", 0.2)
    monkeypatch.setattr(recorder_file, "MOST_WAITING", 10)
    free = threading.Event()

    def start(_: Start) -> Tracker:
        free.wait(30)
        return Tracker()

    lagging, hanging = recorder_of(None, start), recorder_of(None, start)
    begun = time.monotonic()
    for step in range(100):
        lagging.put(Numbers(step, {"loss": 1.0}))
    lagging.close()
    hanging.close()
    free.set()
    assert time.monotonic() - begun < 20  # not the 30 s that they hang
    assert lagging.problem is not None and "too slow" in lagging.problem.message
    assert hanging.problem is not None and "did not finish" in hanging.problem.message
