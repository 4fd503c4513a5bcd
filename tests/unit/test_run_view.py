"""What the Runs tab shows is what the run folder says."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from trainer.config import Config
from trainer.runs.store import Run, Workspace, this_process
from ui import run_html
from ui.run_view import (
    MAX_POINTS,
    RunReader,
    RunReaders,
    duration,
    ema,
    file_size,
    log_tail,
    make_curve,
    make_wall,
    speed,
    thinned,
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Workspace(tmp_path).create_run(Config(name="star"))
    run.update(state="training", step=40, max_steps=100, started=1000.0, **this_process())
    return run


def tell(run: Run, *events: dict[str, Any]) -> None:
    with run.events_path.open("a") as file:
        file.writelines(json.dumps({"time": 0, "step": 0} | event) + "\n" for event in events)


def metric(step: int, loss: float, **more: Any) -> dict[str, Any]:
    return {"type": "metric", "step": step, "loss": loss, "lr": 1e-4, "step_ms": 50.0, "time": 1000 + step * 0.5} | more


def test_a_resumed_runs_last_word_counts(run: Run) -> None:
    tell(run, metric(1, 1.0), metric(2, 2.0), metric(3, 3.0), {"type": "state", "state": "training"}, metric(3, 0.5))
    curve = RunReader(run).curve("loss")
    assert curve.steps == []  # nothing is read before the first view
    reader = RunReader(run)
    assert reader.view().latest["loss"] == 0.5
    assert (reader.curve("loss").steps, reader.curve("loss").values) == ([1, 2, 3], [1.0, 2.0, 0.5])


def test_speed_and_time_left(run: Run) -> None:
    tell(run, metric(1, 1.0, time=0.0), {"type": "state", "state": "paused"}, {"type": "state", "state": "training"})
    tell(run, *[metric(step, 1.0) for step in range(2, 41)])
    view = RunReader(run).view()
    assert view.steps_per_second == pytest.approx(2.0)
    assert view.seconds_left == pytest.approx(30.0)
    run.update(state="finished")
    ended = RunReader(run).view()
    assert (ended.steps_per_second, ended.seconds_left) == (None, None)


def test_same_object_until_something_changes(run: Run) -> None:
    reader = RunReader(run)
    first = reader.view()
    assert reader.view() is first
    tell(run, metric(1, 1.0))
    second = reader.view()
    assert second is not first and second.version != first.version
    time.sleep(0.01)
    run.log_path.write_text("hello\n")
    assert reader.view().log == "hello"


def test_a_dead_process_is_told(run: Run) -> None:
    run.update(pid=2**22 + 1, pid_started=1.0)
    run.log_path.write_text("Killed\n")
    view = RunReader(run).view()
    assert view.info.state == "failed"
    assert "Killed" in (view.info.error or "")


def test_a_hundred_thousand_points_stay_few(run: Run) -> None:
    points = [(step, 1.0 + (step % 2) * 2) for step in range(1, 100_001)]
    curve = make_curve(points, smooth=True)
    assert len(curve.steps) == MAX_POINTS
    assert curve.steps[-1] == 100_000
    assert set(curve.values) == {2.0}
    assert (min(curve.low), max(curve.high)) == (1.0, 3.0)
    assert curve.smooth[-1] == pytest.approx(2.0, abs=0.02)


def test_zooming_shows_each_point_and_the_same_smooth_line() -> None:
    points = [(step, float(step)) for step in range(1, 5001)]
    whole, part = make_curve(points, smooth=True), make_curve(points, 101, 300, smooth=True)
    assert part.values == [float(step) for step in range(101, 301)]
    assert part.smooth[part.steps.index(200)] == whole.smooth[whole.steps.index(200)]


def test_smooth_line_by_hand() -> None:
    assert ema([]) == []
    assert ema([4.0]) == [4.0]
    keep = 2 / 3  # five values: 1 - 2 / (5 + 1)
    assert ema([1.0, 2.0]) == pytest.approx([1.0, (keep * 1.0 + 2.0) / (keep + 1)])


def test_wrong_events_are_left_out(run: Run) -> None:
    tell(run, metric(1, 1.0), {"type": "metric", "step": 2, "loss": "nan"}, {"type": "metric", "step": 3, "loss": True})
    tell(run, {"type": "sample", "path": "../../etc/passwd"}, {"type": "sample", "path": 3}, {"type": "odd"})
    with run.events_path.open("a") as file:
        file.write('{"type": "metric", "step": 4, "lo')
    reader = RunReader(run)
    assert reader.view().wall.steps == []
    assert reader.curve("loss").steps == [1]


def test_sample_wall(run: Run) -> None:
    for step in (0, 50, 100):
        for number, prompt in enumerate(["a star", "a ring"]):
            if (step, number) != (50, 1):
                path = f"samples/step-{step:06d}-p{number:02d}-s42.png"
                tell(run, {"type": "sample", "step": step, "path": path, "prompt": prompt, "seed": 42})
    wall = RunReader(run).view().wall
    assert (wall.prompts, wall.steps) == (["a star", "a ring"], [0, 50, 100])
    assert wall.cells[1] == ["step-000000-p01-s42.png", None, "step-000100-p01-s42.png"]


def test_wide_walls_keep_first_and_last() -> None:
    wall = make_wall({(0, step): (f"{step}", "p") for step in range(0, 1000, 10)})
    assert (len(wall.steps), wall.steps[0], wall.steps[-1]) == (12, 0, 990)
    assert thinned([1, 2, 3], 5) == [1, 2, 3]


def test_progress_notes_and_checkpoints(run: Run) -> None:
    tell(run, {"type": "progress", "what": "encoding pictures", "done": 3, "total": 24})
    warning = {"type": "warning", "code": "x", "message": "cat.png cannot be read.", "hint": "Remove it."}
    tell(run, warning, warning)
    whole, half = run.checkpoints_dir / "step-000050", run.checkpoints_dir / "step-000100"
    for folder in (whole, half):
        folder.mkdir()
        (folder / "lora.safetensors").write_bytes(b"12345")
    (whole / "manifest.json").write_text("{}")
    best = {"type": "checkpoint", "path": "checkpoints/step-000050", "best": True}
    tell(run, {**best, "step": 20}, {**best, "step": 50}, {**best, "step": 100, "best": False})
    view = RunReader(run).view()
    assert [checkpoint.best for checkpoint in view.checkpoints] == [True]
    assert "best by validation" in run_html.checkpoints(view)
    assert view.progress == ("encoding pictures", 3, 24)
    assert [note.message for note in view.notes] == ["cat.png cannot be read."]
    assert [(checkpoint.step, checkpoint.size_bytes) for checkpoint in view.checkpoints] == [(50, 7)]
    tell(run, {"type": "state", "state": "training"})
    assert RunReader(run).view().progress is None


def test_log_tail(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    assert log_tail(path) == ""
    path.write_text("x" * 50_000 + "\n\r\x1b[Kstep 1\r\x1b[Kstep 2\nend\n")
    assert log_tail(path).splitlines()[-2:] == ["step 2", "end"]
    path.write_text("\n".join(map(str, range(1000))))
    assert log_tail(path).splitlines() == [str(number) for number in range(800, 1000)]


def test_readers_are_shared(run: Run) -> None:
    readers = RunReaders()
    assert readers.of(run) is readers.of(Run(run.dir))
    first = readers.of(run)
    readers.forget(run)
    assert readers.of(run) is not first


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (duration(44.6), "45 s"),
        (duration(200), "3 min 20 s"),
        (duration(7500), "2 h 05 min"),
        (speed(3.21), "3.21 steps/s"),
        (speed(0.25), "4 s/step"),
        (file_size(10), "1 kB"),
        (file_size(36_100_000), "36.1 MB"),
        (file_size(2_000_000_000), "2.0 GB"),
    ],
)
def test_words(given: str, shown: str) -> None:
    assert given == shown


def test_reading_a_hundred_thousand_events_is_quick(run: Run) -> None:
    with run.events_path.open("w") as file:
        file.writelines(json.dumps(metric(step, 1.0)) + "\n" for step in range(100_000))
    reader = RunReader(run)
    begun = time.process_time()
    reader.view()
    reader.curve("loss", smooth=True)
    assert time.process_time() - begun < 3
    begun = time.process_time()
    reader.view()
    assert time.process_time() - begun < 0.05
