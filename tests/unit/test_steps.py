"""Steps of edits on real files: moves cut short at every point, with undo and redo finishing them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.curation import steps
from trainer.curation.edit_log import EditLog
from trainer.curation.steps import HIDDEN, Move, Step, carry_out, new_file, put_in_place, set_aside, take_back


class Killed(BaseException):
    """Ends the program before a file gets, loses or changes a name, as a kill would: nothing after it runs."""


def _pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for name in ("a.png", "b.png", "sub/a.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"old {name}", encoding="utf-8")
    return folder


def _better_copies(folder: Path) -> list[Step]:
    found: list[Step] = []
    for name in ("a.png", "b.png", "sub/a.png", "new.png"):
        written = new_file(folder, name)
        written.write_text(f"new {name}", encoding="utf-8")
        found.append(put_in_place(folder, name, written))
    return found


def _held(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and HIDDEN not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in files}


OLD = {name: f"old {name}" for name in ("a.png", "b.png", "sub/a.png")}
NEW = {name: f"new {name}" for name in ("a.png", "b.png", "new.png", "sub/a.png")}


def test_a_better_copy_takes_the_place_and_goes_back(tmp_path: Path) -> None:
    folder = _pictures(tmp_path)
    moves = _better_copies(folder)
    assert [move.name for move in moves] == ["a.png", "b.png", "sub/a.png", "new.png"]
    for _ in range(2):
        assert {move.state(folder) for move in moves} == {"before"}
        assert carry_out(folder, moves) == {}
        assert _held(folder) == NEW
        assert {move.state(folder) for move in moves} == {"after"}
        assert take_back(folder, moves) == {}
        assert _held(folder) == OLD


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("kill_at", range(1, 8))
@pytest.mark.parametrize("cut_short", ["apply", "undo"])
def test_a_kill_at_any_point_can_be_undone_and_finished(
    cut_short: str, kill_at: int, links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _pictures(tmp_path)
    moves = _better_copies(folder)
    log = EditLog(tmp_path / "state", folder)
    if cut_short == "undo":
        log.apply("better", moves)
    _before_each(_killing_at(kill_at), monkeypatch, links)
    with pytest.raises(Killed):
        log.apply("better", moves) if cut_short == "apply" else log.undo()
    monkeypatch.undo()
    everything = {**OLD, **NEW}
    assert all(everything[name] == text or OLD.get(name) == text for name, text in _held(folder).items())

    log = EditLog(tmp_path / "state", folder)
    assert log.undo().conflicts == ()
    assert _held(folder) == OLD
    assert log.redo().conflicts == ()
    assert _held(folder) == NEW
    log.undo()
    assert _held(folder) == OLD


def test_a_picture_that_is_replaced_is_never_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _pictures(tmp_path)
    log = EditLog(tmp_path / "state", folder)
    seen: list[bool] = []
    _before_each(lambda: seen.append(set(OLD) <= set(_held(folder))), monkeypatch)
    log.apply("better", _better_copies(folder))
    log.undo()
    assert len(seen) == 2 * 7
    assert all(seen)


def _killing_at(number: int) -> Callable[[], None]:
    count = itertools.count(1)

    def kill() -> None:
        if next(count) == number:
            raise Killed

    return kill


def _before_each(act: Callable[[], None], monkeypatch: pytest.MonkeyPatch, links: bool = True) -> None:
    """Call ``act`` before each change of a file's name; ``links``: whether a file can have a second one."""

    def wrapped(change: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *values: Any, **options: Any) -> Any:
            if not str(path).endswith((".jsonl", ".tmp")):  # of the log
                act()
            return change(path, *values, **options)

        return call

    def no_links(*_values: Any, **_options: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(steps.os, "link", wrapped(os.link) if links else no_links)
    for name in ("rename", "replace", "unlink"):
        monkeypatch.setattr(steps.Path, name, wrapped(getattr(Path, name)))


def test_set_aside_leaves_no_empty_folders_behind(tmp_path: Path) -> None:
    folder = _pictures(tmp_path)
    moves = set_aside(["a.png", "sub/a.png"])
    carry_out(folder, moves)
    assert _held(folder) == {"b.png": "old b.png"}
    assert (folder / moves[1].target).read_text(encoding="utf-8") == "old sub/a.png"
    take_back(folder, moves)
    assert _held(folder) == OLD
    assert list((folder / HIDDEN / "aside").iterdir()) == []


@pytest.mark.parametrize(
    ("there", "state"),
    [
        ({"s", "t"}, "before"),
        ({"s", "d"}, "between"),
        ({"t", "d"}, "after"),
        ({"s"}, "other"),
        ({"t"}, "other"),
        ({"d"}, "other"),
        ({"s", "t", "d"}, "other"),
        (set(), "other"),
    ],
)
def test_the_state_of_a_move_that_displaces(there: set[str], state: str, tmp_path: Path) -> None:
    for name in there:
        (tmp_path / name).touch()
    assert Move("s", "t", "d").state(tmp_path) == state


@pytest.mark.parametrize(
    ("there", "state"), [({"s"}, "before"), ({"t"}, "after"), ({"s", "t"}, "other"), ((), "other")]
)
def test_the_state_of_a_plain_move(there: set[str], state: str, tmp_path: Path) -> None:
    for name in there:
        (tmp_path / name).touch()
    assert Move("s", "t").state(tmp_path) == state


def test_a_link_that_leads_nowhere_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    (tmp_path / "t").symlink_to(tmp_path / "nowhere")
    assert Move("s", "t").state(tmp_path) == "other"
    assert isinstance(carry_out(tmp_path, [Move("s", "t")])["s"], FileExistsError)
    assert (tmp_path / "t").is_symlink()


def test_a_move_that_fails_puts_back_what_it_displaced(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("old", encoding="utf-8")
    moves = [Move("gone", "t", f"{HIDDEN}/aside/1/t")]
    assert isinstance(carry_out(tmp_path, moves)["gone"], FileNotFoundError)
    assert (tmp_path / "t").read_text(encoding="utf-8") == "old"


def test_files_that_another_program_moved_are_left_alone(tmp_path: Path) -> None:
    folder = _pictures(tmp_path)
    log = EditLog(tmp_path / "state", folder)
    log.apply("aside", set_aside(["a.png", "b.png"]))
    (folder / "a.png").write_text("theirs", encoding="utf-8")
    outcome = log.undo()
    assert (outcome.written, outcome.conflicts) == (1, ("a.png",))
    assert (folder / "a.png").read_text(encoding="utf-8") == "theirs"
    kept = list((folder / HIDDEN).rglob("a.png"))
    assert [path.read_text(encoding="utf-8") for path in kept] == ["old a.png"]
