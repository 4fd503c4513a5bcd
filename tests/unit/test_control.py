"""Requests to a running job."""

from __future__ import annotations

from pathlib import Path

from trainer.runs.control import REQUESTS, ask, clear, take


def test_requests_are_taken_once(tmp_path: Path) -> None:
    folder = tmp_path / "control"
    assert take(folder) == set()
    ask(folder, "pause")
    ask(folder, "pause")
    ask(folder, "sample")
    assert take(folder) == {"pause", "sample"}
    assert take(folder) == set()


def test_all_requests_of_the_design_exist() -> None:
    assert set(REQUESTS) == {"pause", "resume", "stop", "sample", "save"}


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".stop.x.tmp").write_text("a request being written")
    assert take(tmp_path) == set()
    assert len(list(tmp_path.iterdir())) == 2


def test_old_requests_are_forgotten(tmp_path: Path) -> None:
    ask(tmp_path, "stop")
    clear(tmp_path)
    assert take(tmp_path) == set()
