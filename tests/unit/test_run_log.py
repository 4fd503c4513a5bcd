"""Searching a run's log."""

from __future__ import annotations

from pathlib import Path

from trainer.config import Config
from trainer.runs.store import Workspace
from ui.runs.desk import RunsDesk
from ui.runs.log import MOST_LINES, matching_lines, search


def test_lines_that_hold_all_words_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one TWO\n10%\r50%\r100% two ready\nbroken \xff two one\n" + b"x" * 9000 + b" one two")
    count, lines = matching_lines(path, "two one")
    assert (count, lines[0], len(lines[2])) == (3, "one TWO", 2000)
    assert matching_lines(path, "ready") == (1, ["100% two ready"]), "what was overwritten is not found"
    assert matching_lines(path, "50%") == (0, [])


def test_the_last_of_many(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"line {number}\n" for number in range(MOST_LINES + 7)))
    count, lines = matching_lines(path, "line")
    assert (count, len(lines), lines[-1]) == (MOST_LINES + 7, MOST_LINES, f"line {MOST_LINES + 6}")


def test_only_logs_of_runs_are_searched(tmp_path: Path) -> None:
    run = Workspace(tmp_path).create_run(Config())
    run.log_path.write_text("hello\n")
    desk = RunsDesk(run.workspace)
    assert search(desk, {"run": run.id, "words": "HELLO"})["lines"] == ["hello"]
    for asked in ({"run": f"../runs/{run.id}", "words": "h"}, {"run": "", "words": ""}, {}, None, {"run": run.id}):
        assert search(desk, asked)["problem"]
