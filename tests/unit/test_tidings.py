"""What the page's title and notifications are told."""

from __future__ import annotations

from typing import Any

from trainer.runs.store import RunInfo
from ui.runs.tidings import MOST, TOLD_SECONDS, tidings

NOW = 10_000.0


def info(name: str, state: str, **more: Any) -> RunInfo:
    return RunInfo.model_validate({"id": name, "name": name, "state": state, "created": 1.0, **more})


def test_those_that_train_come_first_and_old_ones_are_left_out() -> None:
    infos = [
        info("waits", "queued", created=9.0),
        info("old", "finished", ended=NOW - TOLD_SECONDS - 1),
        info("just-failed", "failed", ended=NOW - 5, error="No memory.\nDetails", step=3, max_steps=8),
        info("trains", "training", step=4, max_steps=8),
        info("unended", "stopped"),
    ]
    told = tidings(infos, NOW)
    assert [one["id"] for one in told] == ["trains", "waits", "just-failed"]
    assert told[2] == {
        "id": "just-failed", "name": "just-failed", "state": "failed", "step": 3, "max_steps": 8, "error": "No memory.",
    }  # fmt: skip


def test_the_answer_stays_short() -> None:
    assert len(tidings([info(str(number), "queued") for number in range(100)], NOW)) == MOST
