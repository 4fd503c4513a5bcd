"""The plan as a report: made from a real plan."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from trainer.config import Config
from trainer.errors import UserError
from trainer.plan_room import Holder, Room, given_room
from trainer.planner import plan
from trainer.runs.store import Workspace
from ui.plan.panel import forget_plan_file, new_plan_file, ordered_change
from ui.plan.report import report_html

GIB = 2**30


def planned(folder: Path, tmp_path: Path, room: Room | None = None, **sections: Any) -> dict[str, Any]:
    dataset = {"sources": [{"path": str(folder)}], "resolution": 128}
    config = Config.model_validate({"train": {"max_steps": 10}, "dataset": dataset, **sections})
    return dataclasses.asdict(plan(config, Workspace(tmp_path / "workspace"), room, fitted=True))


def picture(path: Path, size: tuple[int, int] = (128, 128), caption: str | None = "a cat") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(4):
        picture(tmp_path / f"pictures/{number}.png")
    return tmp_path / "pictures"


def test_a_real_plan_is_told(pictures: Path, tmp_path: Path) -> None:
    html = report_html(planned(pictures, tmp_path))
    assert "Ready to train" in html
    assert "<dt>Pictures</dt><dd>4</dd>" in html
    assert "128 × 128" in html and "1 bucket<" in html and 'data-shows="bucket:128x128"' in html
    assert "data-undo" not in html and "data-fit" not in html


def test_pictures_worth_a_look_are_counted_and_names_escaped(tmp_path: Path) -> None:
    picture(tmp_path / "pictures/a<b>.png", caption=None)
    picture(tmp_path / "pictures/good.png")
    (tmp_path / "pictures/broken.png").write_bytes(b"not a picture")
    html = report_html(planned(tmp_path / "pictures", tmp_path), undo="<i>all</i>")
    assert "1 picture left out" in html and "broken.png" in html and 'data-opens="note:skipped"' in html
    assert "1 picture without a caption" in html and "a&lt;b&gt;.png" in html
    assert "a<b>.png" not in html and "<i>all" not in html and "data-undo" in html


def test_memory_is_a_bar_of_its_parts_against_what_is_free(pictures: Path, tmp_path: Path) -> None:
    found = planned(pictures, tmp_path, Room("gpu", "RTX <3070>", 8 * GIB, 2 * GIB, (Holder("a<b", GIB, False),)))
    html = report_html(found)
    widths = [float(each) for each in re.findall(r'<i class="\w+" style="width:([\d.]+)%">', html)]
    needed = found["estimate"]["vram_bytes"]
    assert sum(widths) == pytest.approx(100 * needed / (2 * GIB), abs=0.01) and found["estimate"]["fits"]
    assert "2.0 GiB are free of 8.0 GiB on RTX &lt;3070&gt;" in html and "a&lt;b 1.0 GiB" in html
    assert html.count('aria-pressed="true"') == 1 and html.count("data-row=") == len(found["what_if"])


def test_what_does_not_fit_is_told_with_its_fixes(pictures: Path, tmp_path: Path) -> None:
    sections = {"model": {"base": "a/model"}, "train": {"batch_size": 8}}
    dataset = {"sources": [{"path": str(pictures)}], "resolution": 512, "buckets": {"enabled": False}}
    found = planned(pictures, tmp_path, given_room(8 * GIB), **sections, dataset=dataset)
    html = report_html(found)
    assert "does not fit" in html and "data-fit>" in html and 'data-warning="0" data-fix="0"' in html
    for place, fix in enumerate(found["warnings"][0]["fixes"]):
        assert fix["label"] in html
        assert ordered_change(found, {"warning": 0, "fix": place}) == (fix["label"], fix["changes"])
    assert ordered_change(found, {"fit": True})[1] == found["fitted"]["changes"]
    assert ordered_change(found, {"row": 3})[1] == found["what_if"][3]["changes"]


@pytest.mark.parametrize("asked", [{"warning": 9, "fix": 0}, {"fix": 0}, {"row": 999}, {"row": "x"}, {"fit": True}])
def test_a_change_that_a_plan_does_not_hold_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="no longer there"):
        ordered_change({"warnings": [], "what_if": []}, asked)


def test_the_time_line_shows_what_happens_when(pictures: Path, tmp_path: Path) -> None:
    sections = {"samples": {"prompts": ["a cat"], "every_steps": 5}, "output": {"save_every_steps": 2}}
    html = report_html(planned(pictures, tmp_path, **sections))
    assert "previews <b>3</b>" in html and "checkpoints <b>5</b>" in html
    assert 'style="left:50.00%" title="step 5"' in html and "<polyline" in html


def test_settings_of_checks_do_not_pile_up(tmp_path: Path) -> None:
    """One that has ended goes at once, what a closed page left behind with the next check; nothing else is touched."""
    left_behind, recent, other = (tmp_path / name for name in ("plan-1.yaml", "plan-2.yaml", "measurement.yaml"))
    for path in (left_behind, recent, other):
        path.write_text("name: x\n")
    for path in (left_behind, other):
        os.utime(path, (0, 0))
    new = new_plan_file(tmp_path)
    assert new.parent == tmp_path and new not in (left_behind, recent, other)
    assert sorted(tmp_path.iterdir()) == [other, recent]
    elsewhere = tmp_path / "mine" / "plan-3.yaml"
    elsewhere.parent.mkdir()
    elsewhere.write_text("name: x\n")
    forget_plan_file(tmp_path, ["plan", str(elsewhere), "--fit", str(other), str(recent)])
    assert sorted(tmp_path.iterdir()) == [other, elsewhere.parent] and elsewhere.is_file()
    forget_plan_file(tmp_path, ["plan", str(recent)])
