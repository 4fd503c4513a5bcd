"""The parts of the Runs tab: nobody's text becomes markup."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from trainer.config import Config
from trainer.data.image_files import open_picture
from trainer.runs.store import Workspace, this_process
from ui import media, picture_html, run_html
from ui.run_list import RunList, RunListReader
from ui.run_view import RunReader


def test_text_of_others_stays_text(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    run = workspace.create_run(Config(name="a & b"))
    evil = "<img src=x onerror=alert(1)>"
    run.update(state="failed", error=evil, step=3)
    run.log_path.write_text(evil)
    warning = {"type": "warning", "message": evil, "hint": evil}
    sample = {"type": "sample", "step": 0, "path": "samples/step-000000-p00-s1.png", "prompt": evil}
    run.events_path.write_text("".join(json.dumps(event) + "\n" for event in (warning, sample)))
    view = RunReader(run).view()
    parts = [run_html.head_line(view), run_html.notes(view)]
    parts.append(run_html.run_list(RunList(1, (view.info,), ()), ""))
    parts.append(picture_html.problems([{"message": evil, "hint": evil}]))
    for part in parts:
        assert "<img src=x" not in part
    assert "a &amp; b" in parts[0] and "&lt;img src=x" in parts[0]


def test_the_time_left_is_told_as_sure_as_it_is(tmp_path: Path) -> None:
    """Nothing before a few steps, about in the first tenth, then without. Steps of 2 s; saving at the end like two."""
    settings = {"samples": {"every_steps": 0}, "output": {"save_every_steps": 0}, "train": {"max_steps": 100}}
    run = Workspace(tmp_path).create_run(Config.model_validate({"name": "x", **settings}))
    words = []
    for steps in (2, 8, 12):
        run.update(state="training", step=steps, **this_process())
        told = [{"type": "metric", "step": step, "time": 2.0 * step} for step in range(1, steps + 1)]
        run.events_path.write_text("".join(json.dumps(event) + "\n" for event in told))
        words.append(run_html.time_left(RunReader(run).view()))
    assert words == ["working out the time left", "about 3 min 08 s left", "3 min 00 s left"]


def test_an_end_before_the_last_step_is_explained(tmp_path: Path) -> None:
    run = Workspace(tmp_path).create_run(Config(name="x"))
    told = {}
    for state, step in (("finished", 40), ("finished", 100), ("stopped", 40)):
        run.update(state=state, step=step, max_steps=100)
        told[state, step] = "ended early, as validation got no better" in run_html.head_line(RunReader(run).view())
    assert told == {("finished", 40): True, ("finished", 100): False, ("stopped", 40): False}


def test_run_list_is_read_again_only_when_it_changed(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    reader = RunListReader(workspace)
    assert reader.read().infos == ()
    first, second = (workspace.create_run(Config(name=name)) for name in ("one", "two"))
    first.update(queued=2.0, created=1.0)
    second.update(queued=1.0, created=2.0)
    runs = reader.read()
    assert ([info.name for info in runs.infos], runs.queue) == (["two", "one"], (second.id, first.id))
    assert reader.read() is runs
    (workspace.runs_dir / "not-a-run").mkdir()
    assert reader.read() is runs
    second.update(state="finished")
    assert reader.read().queue == (first.id,)
    assert RunListReader(workspace).read().version != runs.version  # a page outlives the program that it asked


def test_thumbnails_are_small_and_made_once(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    big, small = tmp_path / "big.png", tmp_path / "small.png"
    Image.new("RGB", (1024, 512)).save(big)
    Image.new("RGB", (128, 128)).save(small)
    assert media.thumbnail(workspace, small) == small
    made = media.thumbnail(workspace, big)
    assert Image.open(made).size == (256, 128)
    stamp = made.stat().st_mtime_ns
    assert media.thumbnail(workspace, big).stat().st_mtime_ns == stamp


def test_a_thumbnail_is_never_that_of_the_picture_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, path = Workspace(tmp_path), tmp_path / "a.png"
    Image.new("RGB", (512, 512), "red").save(path)
    os.utime(path, ns=(1, 1))

    def opened(path: Path) -> Image.Image:
        image = open_picture(path)
        monkeypatch.undo()
        Image.new("RGB", (512, 512), "blue").save(path.with_name("b.png"))
        path.with_name("b.png").replace(path)
        return image

    monkeypatch.setattr(media, "open_picture", opened)
    media.thumbnail(workspace, path)
    with Image.open(media.thumbnail(workspace, path)) as small:
        red, _, blue = small.convert("RGB").getextrema()
    assert red[1] < 50 and blue[0] > 200
