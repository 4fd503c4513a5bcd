"""The plan as a report: made from a real plan."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from PIL import Image

from trainer.config import Config
from trainer.planner import plan
from trainer.runs.store import Workspace
from ui.plan.report import report_html


def report(folder: Path, tmp_path: Path) -> str:
    config = Config.model_validate(
        {"dataset": {"sources": [{"path": str(folder)}], "resolution": 128}, "train": {"max_steps": 10}}
    )
    return report_html(dataclasses.asdict(plan(config, Workspace(tmp_path / "workspace"))))


def picture(path: Path, size: tuple[int, int] = (128, 128), caption: str | None = "a cat") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption)


def test_a_real_plan_is_told(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / f"pictures/{number}.png")
    html = report(tmp_path / "pictures", tmp_path)
    assert "Ready to train" in html
    assert "<dt>Pictures</dt><dd>3</dd>" in html
    assert "128 × 128" in html and "1 bucket<" in html


def test_pictures_worth_a_look_are_named_and_escaped(tmp_path: Path) -> None:
    picture(tmp_path / "pictures/a<b>.png", caption=None)
    picture(tmp_path / "pictures/good.png")
    (tmp_path / "pictures/broken.png").write_bytes(b"not a picture")
    html = report(tmp_path / "pictures", tmp_path)
    assert "1 picture left out" in html and "broken.png" in html
    assert "1 picture without a caption" in html and "a&lt;b&gt;.png" in html
    assert "a<b>.png" not in html
