"""Steps of edits on real files: moves cut short at every point, with undo and redo finishing them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.curation import steps
from trainer.curation.edit_log import EditLog
from trainer.curation.steps import HIDDEN, Move, Step, carry_out, new_file, put_in_place, set_aside, take_back


class Killed(BaseException):
    """Ends the program at a rename, as a kill would: nothing after it runs."""


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


@pytest.mark.parametrize("kill_at", range(1, 8))
@pytest.mark.parametrize("cut_short", ["apply", "undo"])
def test_a_kill_at_any_rename_can_be_undone_and_finished(
    cut_short: str, kill_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _pictures(tmp_path)
    moves = _better_copies(folder)
    log = EditLog(tmp_path / "state", folder)
    if cut_short == "undo":
        log.apply("better", moves)
    _kill_at_rename(kill_at, monkeypatch)
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


def _kill_at_rename(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rename: Callable[[Path, Path], Path] = Path.rename
    count = 0

    def counted(source: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == number:
            raise Killed
        return rename(source, target)

    monkeypatch.setattr(steps.Path, "rename", counted)


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
