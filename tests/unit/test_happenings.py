"""What happened in a run, in sentences."""

from __future__ import annotations

from pathlib import Path

from trainer.config import Config
from trainer.runs.events import EventLog
from trainer.runs.store import Workspace
from ui.runs.events import happenings_html
from ui.runs.happenings import MOST, HappeningsReader


def test_events_become_sentences_newest_first(tmp_path: Path) -> None:
    run = Workspace(tmp_path).create_run(Config())
    log, reader = EventLog(run.events_path), HappeningsReader(run)
    assert reader.read() == (0, ())
    log.emit("state", 0, state="training")
    log.emit("metric", 1, loss=0.1)
    for prompt in ("a cat", "a dog"):
        log.emit("sample", 1, path="samples/x.png", prompt=prompt)
    log.emit("validation", 2, loss=0.12345, best=True)
    log.emit("checkpoint", 2, path="checkpoints/step-000002", best=True)
    log.emit("prompts", 3, prompts=["a <b>cat</b>", "a dog"])
    log.emit("warning", 3, message='the text "type": "metric" is quoted', hint="Do this.")
    log.emit("progress", 3, what="x", done=1, total=2)
    count, found = reader.read()
    assert count == 6
    assert [(one.step, one.kind, one.text) for one in found] == [
        (3, "warning", 'the text "type": "metric" is quoted Do this.'),
        (3, "plain", "Preview prompts changed: a <b>cat</b> | a dog"),
        (2, "plain", "Saved step-000002, the best so far"),
        (2, "plain", "Validation loss 0.1235, the best so far"),
        (1, "plain", "Previews drawn"),
        (0, "plain", "Trains"),
    ]
    shown = happenings_html(found)
    assert "a &lt;b&gt;cat&lt;/b&gt;" in shown and "<b>cat" not in shown
    assert "Nothing yet" in happenings_html(())


def test_only_the_last_ones_are_kept(tmp_path: Path) -> None:
    run = Workspace(tmp_path).create_run(Config())
    log, reader = EventLog(run.events_path), HappeningsReader(run)
    for step in range(MOST + 50):
        log.emit("checkpoint", step, path=f"checkpoints/step-{step:06d}")
    count, found = reader.read()
    assert (count, len(found), found[0].step) == (MOST + 50, MOST, MOST + 49)
    log.emit("state", 300, state="failed")
    assert reader.read()[1][0].text == "Failed"


def test_damaged_events_are_no_news(tmp_path: Path) -> None:
    run = Workspace(tmp_path).create_run(Config())
    run.events_path.write_text(
        '{"type": "state"}\n{"type": "prompts", "prompts": 3}\nnonsense\n'
        '{"type": "checkpoint", "time": "x", "step": "y"}\n'
    )
    _, found = HappeningsReader(run).read()
    assert [(one.time, one.step, one.text) for one in found] == [
        (0.0, 0, "Saved a checkpoint"),
        (0.0, 0, "Preview prompts changed: none"),
    ]
