"""What the Runs tab shows is what the run folder says."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.config import Config
from trainer.runs.store import Run, RunInfo, Workspace, this_process
from ui import run_view
from ui.curves import Stretch
from ui.run_list import RunListReader
from ui.run_view import RunReader, RunReaders, duration, file_size, log_tail, readers_of, speed


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


def curves_of(reader: RunReader, **asked: Any) -> dict[str, Any]:
    return json.loads(reader.curves(Stretch(**asked)))


def test_a_resumed_runs_last_word_counts(run: Run) -> None:
    tell(run, metric(1, 1.0), metric(2, 2.0), metric(3, 3.0), {"type": "state", "state": "training"}, metric(3, 0.5))
    reader = RunReader(run)
    assert reader.view().latest["loss"] == 0.5
    curves = curves_of(reader)
    assert (curves["steps"], curves["series"]["loss"]["mean"]) == ([1, 2, 3], [1.0, 2.0, 0.5])
    assert [(part["steps"], part["loss"]) for part in curves["overlaps"]] == [([3], [3.0])]
    assert curves["resumes"]["steps"] == [3]


def test_validations_of_steps_that_are_done_anew_do_not_count_meanwhile(run: Run) -> None:
    tell(run, *[metric(step, 1.0) for step in range(1, 7)])
    tell(run, *[{"type": "validation", "step": step, "loss": 1 / step} for step in (2, 4, 6)])
    tell(run, {"type": "state", "step": 4, "state": "training"})
    reader = RunReader(run)
    assert curves_of(reader)["validation"]["steps"] == [2, 4]
    assert reader.figures().best_validation == (4, 0.25)


def test_curves_are_made_once_and_anew_when_something_was_told(run: Run) -> None:
    tell(run, metric(1, 1.0), metric(2, 2.0), {"type": "validation", "step": 2, "loss": 0.25})
    reader = RunReader(run)
    first = reader.curves(Stretch())
    assert reader.curves(Stretch()) is first
    assert json.loads(first)["validation"] == {"steps": [2], "elapsed": [0.55], "values": [0.25]}
    tell(run, metric(3, 3.0))
    assert curves_of(reader)["steps"] == [1, 2, 3]
    assert curves_of(reader, first=2.0, last=2.0)["steps"] == [2]


def test_what_a_run_comes_to(run: Run) -> None:
    reader = RunReader(run)
    reader.view()
    assert reader.figures() == run_view.Figures(None, None, 0.0)
    tell(run, *[metric(step, 0.5) for step in range(1, 11)])
    tell(run, {"type": "validation", "step": 5, "loss": 0.2}, {"type": "validation", "step": 10, "loss": 0.3})
    reader.view()
    figures = reader.figures()
    assert (figures.loss, figures.best_validation) == (pytest.approx(0.5), (5, 0.2))
    assert figures.seconds == pytest.approx(9 * 0.5 + 0.05)  # ten steps, the first of which began 50 ms before its end


def test_speed_and_time_left(run: Run) -> None:
    tell(run, metric(1, 1.0, time=0.0), {"type": "state", "state": "paused"}, {"type": "state", "state": "training"})
    tell(run, *[metric(step, 1.0) for step in range(2, 41)])
    view = RunReader(run).view()
    assert view.steps_per_second == pytest.approx(2.0)
    assert view.seconds_left == pytest.approx(31.0)  # 60 steps, and a checkpoint at the end, guessed as two
    tell(run, {"type": "state", "state": "paused", "step": 40})
    run.update(state="paused")
    assert RunReader(run).view().seconds_left is None
    run.update(state="finished")
    ended = RunReader(run).view()
    assert (ended.steps_per_second, ended.seconds_left) == (None, None)


def test_same_object_until_something_changes(run: Run) -> None:
    reader = RunReader(run)
    first = reader.view()
    assert reader.view() is first
    tell(run, metric(1, 1.0))
    second = reader.view()
    assert second is not first and second != first
    run.log_path.write_text("hello\n")
    assert reader.view().log == "hello"
    written = run.log_path.stat()
    run.log_path.write_text("hello\nagain\n")
    os.utime(run.log_path, ns=(written.st_atime_ns, written.st_mtime_ns))
    assert reader.view().log == "hello\nagain"


def step_of_reader(run: Run) -> Callable[[], int]:
    reader = RunReader(run)
    return lambda: reader.view().info.step


def step_of_list(run: Run) -> Callable[[], int]:
    reader = RunListReader(run.workspace)
    return lambda: reader.read().infos[0].step


@pytest.mark.parametrize("follow", [step_of_reader, step_of_list])
def test_what_is_written_just_after_a_run_was_read_shows_at_the_next_look(
    follow: Callable[[Run], Callable[[], int]], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.update(state="stopped")
    read, step = Run.status, follow(run)

    def status(looked_at: Run) -> RunInfo:
        info = read(looked_at)
        monkeypatch.undo()
        run.update(step=90)
        return info

    monkeypatch.setattr(Run, "status", status)
    assert [step(), step()] == [40, 90]


def test_a_dead_process_is_told(run: Run) -> None:
    run.update(pid=2**22 + 1, pid_started=time.time())
    run.log_path.write_text("Killed\n")
    view = RunReader(run).view()
    assert view.info.state == "failed"
    assert "Killed" in (view.info.error or "")


def test_wrong_events_are_left_out(run: Run) -> None:
    tell(run, metric(1, 1.0), {"type": "metric", "step": 2, "loss": "nan"}, {"type": "metric", "step": 3, "loss": True})
    tell(run, {"type": "sample", "path": "../../etc/passwd"}, {"type": "sample", "path": 3}, {"type": "odd"})
    with run.events_path.open("a") as file:
        file.write('{"type": "metric", "step": 4, "lo')
    reader = RunReader(run)
    assert (reader.view().wall_version, reader.wall().steps) == ("0", [])
    curves = curves_of(reader)
    assert (curves["steps"], curves["series"]["loss"]["mean"]) == ([1, 2, 3], [1.0, None, None])
    assert curves["series"]["loss"]["bad"] == {"count": 1, "steps": [2]}


def test_steps_that_are_no_steps_do_no_harm(run: Run) -> None:
    tell(run, metric(1, 1.0), metric(-5, 2.0), {**metric(1, 3.0), "step": "x"}, {**metric(1, 4.0), "step": 10**30})
    assert curves_of(RunReader(run))["series"]["loss"]["mean"] == [4.0]


def test_sample_wall(run: Run) -> None:
    for step in (0, 50, 100):
        for number, prompt in enumerate(["a star", "a ring"]):
            if (step, number) != (50, 1):
                path = f"samples/step-{step:06d}-p{number:02d}-s42.png"
                tell(run, {"type": "sample", "step": step, "path": path, "prompt": prompt, "seed": 42, "time": 7.5})
    reader = RunReader(run)
    assert reader.view().wall_version == "5"
    wall = reader.wall()
    assert (wall.prompts, wall.steps) == (["a star", "a ring"], [0, 50, 100])
    assert [cell and cell.name for cell in wall.cells[1]] == [
        "step-000000-p01-s42.png",
        None,
        "step-000100-p01-s42.png",
    ]
    assert wall.cells[0][0] == run_view.Sample("step-000000-p00-s42.png", "a star", 7.5)


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


def test_readers_are_shared_and_dropped_when_nobody_looks(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    readers = RunReaders()
    assert readers.of(run) is readers.of(Run(run.dir))
    first = readers.of(run)
    readers.forget(run)
    second = readers.of(run)
    assert second is not first
    second.view()
    readers.sweep()
    assert readers.of(run) is second
    monkeypatch.setattr(run_view, "UNSEEN_SECONDS", -1.0)
    readers.sweep()
    assert readers.of(run) is not second
    assert readers_of(run.dir) is readers_of(run.dir)


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
    assert len(curves_of(reader)["steps"]) <= 500
    assert time.process_time() - begun < 2  # about 0.6 on an idle machine
    begun = time.process_time()
    reader.view()
    assert time.process_time() - begun < 0.05
