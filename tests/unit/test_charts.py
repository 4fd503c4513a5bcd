"""Charts and the parts of the Runs tab: right coordinates, and nobody's text becomes markup."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from trainer.config import Config
from trainer.runs.store import Workspace
from trainer.studio import Answer
from ui import media, picture_html, run_html
from ui.charts import loss_chart, small_chart, ticks
from ui.run_list import RunListReader
from ui.run_view import Curve, RunReader, make_curve


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (0, 1, 5, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (3, 97, 5, [20, 40, 60, 80]),
        (0.052, 0.201, 5, [0.1, 0.15, 0.2]),
        (7, 7, 5, [7]),
    ],
)
def test_round_ticks(low: float, high: float, most: int, expected: list[float]) -> None:
    assert ticks(low, high, most) == pytest.approx(expected)


def test_points_are_where_they_belong() -> None:
    chart = loss_chart(make_curve([(10, 1.0), (20, 3.0), (30, 1.0)], smooth=True), [(20, 2.0), (99, 5.0)])
    raw = re.search(r'class="raw"[^>]*points="([^"]+)"', chart)
    assert raw is not None
    points = [tuple(map(float, pair.split(","))) for pair in raw[1].split()]
    assert [x for x, _ in points] == [0, 500, 1000]
    assert points[0][1] == points[2][1] > points[1][1] >= 0
    assert 'class="validation" data-name="validation" points="500.0,' in chart
    assert loss_chart(Curve()) == small_chart("x", Curve(), "") == ""


def test_one_wild_value_does_not_flatten_the_rest() -> None:
    points = [(step, 0.1 if step != 50 else 1e6) for step in range(1, 201)]
    high = re.search(r'data-high="([^"]+)"', loss_chart(make_curve(points)))
    assert high is not None and float(high[1]) < 1


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
    parts = [run_html.head_line(view), run_html.notes(view), run_html.log_text(view)]
    parts += [run_html.sample_wall(workspace, view), run_html.run_list([view.info], [], "")]
    parts.append(picture_html.status(Answer(id="x", state="failed", error=[{"message": evil, "hint": evil}])))
    for part in parts:
        assert "<img src=x" not in part
    assert "a &amp; b" in parts[0] and "&lt;img src=x" in parts[0]


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


def test_a_pair_names_what_it_shows(tmp_path: Path) -> None:
    pictures = [str(tmp_path / name) for name in ("a.png", "b.png")]
    shown = picture_html.pair(Workspace(tmp_path), Answer(id="x", pictures=pictures), "neon × 0.5")
    assert shown.index("Without</figcaption>") < shown.index("neon × 0.5</figcaption>")
