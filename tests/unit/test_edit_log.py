"""Undo and redo of edits: across reloads, processes, windows, kills and changes by other programs."""

from __future__ import annotations

import codecs
import errno
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest

from tests.unit.dataset_samples import as_nobody, folder_for_everyone
from trainer.curation import edit_log, steps
from trainer.curation.edit_log import EditLog
from trainer.curation.steps import Change, Move, set_aside
from trainer.data.caption_files import read_caption
from trainer.errors import UserError


def _folder(tmp_path: Path, **captions: str) -> tuple[Path, EditLog]:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, text in captions.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder, EditLog(tmp_path / "state", folder)


def _texts(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.txt"))}


def test_undo_and_redo_across_a_reload(tmp_path: Path) -> None:
    folder, log = _folder(tmp_path, a="cat\nsecond line", b="cat")
    log.apply("replace", [Change("a.txt", "cat\nsecond line", "dog\nsecond line"), Change("b.txt", "cat", "dog")])
    log.apply("new", [Change("c.txt", None, "bird")])
    assert _texts(folder) == {"a": "dog\nsecond line", "b": "dog", "c": "bird"}

    log = EditLog(tmp_path / "state", folder)
    assert log.titles() == ("new", "")
    assert log.undo().written == 1
    assert log.undo().written == 2
    assert _texts(folder) == {"a": "cat\nsecond line", "b": "cat"}
    assert log.undo().title == ""
    assert log.titles() == ("", "replace")
    assert log.redo().title == "replace"
    assert log.redo().title == "new"
    assert log.redo().title == ""
    assert _texts(folder) == {"a": "dog\nsecond line", "b": "dog", "c": "bird"}


def test_a_new_edit_forgets_what_was_undone(tmp_path: Path) -> None:
    folder, log = _folder(tmp_path, a="1")
    log.apply("first", [Change("a.txt", "1", "2")])
    log.undo()
    log.apply("second", [Change("a.txt", "1", "3")])
    assert log.titles() == ("second", "")
    assert log.undo().written == 1
    assert _texts(folder) == {"a": "1"}


def test_captions_changed_elsewhere_are_left_alone_and_named(tmp_path: Path) -> None:
    folder, log = _folder(tmp_path, a="1", b="1")
    (folder / "a.txt").write_text("mine", encoding="utf-8")
    outcome = log.apply("edit", [Change("a.txt", "1", "2"), Change("b.txt", "1", "2")])
    assert (outcome.written, outcome.conflicts) == (1, ("a.txt",))
    (folder / "b.txt").write_text("mine too", encoding="utf-8")
    outcome = log.undo()
    assert (outcome.written, outcome.conflicts) == (0, ("b.txt",))
    assert _texts(folder) == {"a": "mine", "b": "mine too"}


def test_an_edit_killed_half_way_can_be_undone_or_finished(tmp_path: Path) -> None:
    folder, log = _folder(tmp_path, a="1", b="1")
    log.apply("edit", [Change("a.txt", "1", "2"), Change("b.txt", "1", "2")])
    (folder / "b.txt").write_text("1", encoding="utf-8")  # as if killed before the second caption
    assert log.undo().written == 1
    assert _texts(folder) == {"a": "1", "b": "1"}
    assert log.redo().written == 2


def test_a_torn_last_line_is_not_read(tmp_path: Path) -> None:
    folder, log = _folder(tmp_path, a="1")
    log.apply("edit", [Change("a.txt", "1", "ü")])
    edit = next((tmp_path / "state").glob("*.jsonl"))
    edit.write_bytes(edit.read_bytes() + json.dumps(["b.txt", None, "ü"], ensure_ascii=False).encode()[:-3])
    assert log.undo().written == 1
    assert _texts(folder) == {"a": "1"}


def test_a_job_can_grow_an_edit_and_be_undone_as_one(tmp_path: Path) -> None:
    folder, log = _folder(tmp_path, a="keep")
    with log.growing("captions by a model") as write:
        assert log.titles() == ("", "")
        assert write(Change("b.txt", None, "one"))
        assert write(Change("c.txt", None, "two\u2028lines"))
        assert not write(Change("a.txt", None, "never"))
    assert log.titles() == ("captions by a model", "")
    assert log.undo().written == 2
    assert _texts(folder) == {"a": "keep"}


def test_old_edits_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edit_log, "KEPT_EDITS", 5)
    _, log = _folder(tmp_path, a="0")
    for number in range(8):
        log.apply(f"edit {number}", [Change("a.txt", str(number), str(number + 1))])
    assert len(list((tmp_path / "state").glob("*.jsonl"))) == 6
    assert [log.undo().title for _ in range(7)] == [f"edit {number}" for number in (7, 6, 5, 4, 3, 2)] + [""]


@pytest.mark.parametrize(
    "data",
    [
        codecs.BOM_UTF8 + "größe".encode(),
        "größe, cat\r\n".encode("utf-16"),
        "größe, cat".encode("utf-16-le"),
        "größe".encode("cp1252"),
        "ねこ, 女の子".encode("shift_jis"),
        b"one\r\ntwo\nthree\rfour",
        b"",
        b"\n\n",
        b"plain\r\n",
    ],
)
def test_undo_brings_back_every_byte(data: bytes, tmp_path: Path) -> None:
    folder, log = _folder(tmp_path)
    path = folder / "a.txt"
    path.write_bytes(data)
    text = read_caption(path)
    outcome = log.apply("edit", [Change("a.txt", text, f"{text}, more")])
    assert path.read_bytes().decode("utf-8").replace("\r\n", "\n").rstrip("\n").endswith(", more")
    plain = data in (b"", b"\n\n", b"plain\r\n", b"one\r\ntwo\nthree\rfour")
    assert [name for name, _ in outcome.recoded] == ([] if plain else ["a.txt"])
    log = EditLog(tmp_path / "state", folder)
    assert log.undo().recoded == ()
    assert path.read_bytes() == data
    log.redo()
    assert read_caption(path) == f"{text}, more"
    log.undo()
    assert path.read_bytes() == data
    for after in (None, "one line", "two\nlines\n\n", ""):
        log.apply("again", [Change("a.txt", text, after)])
        assert read_caption(path) == after
        log.undo()
        assert path.read_bytes() == data


def test_an_edit_that_changes_nothing_leaves_what_can_be_redone(tmp_path: Path) -> None:
    _, log = _folder(tmp_path, a="1")
    log.apply("first", [Change("a.txt", "1", "2")])
    log.undo()
    outcome = log.apply("late", [Change("a.txt", "0", "9")])
    assert (outcome.written, outcome.conflicts) == (0, ("a.txt",))
    assert log.titles() == ("", "first")


def test_steps_of_an_edit_touch_different_files(tmp_path: Path) -> None:
    folder, log = _folder(tmp_path, a="1")
    with pytest.raises(ValueError, match=r"a\.txt"):
        log.apply("edit", [Change("a.txt", "1", "2"), *set_aside(["a.txt"])])
    assert _texts(folder) == {"a": "1"}
    assert log.history() == []


def test_the_history_can_be_gone_through(tmp_path: Path) -> None:
    folder, log = _folder(tmp_path, a="0", b="0")
    for number in range(4):
        log.apply(f"edit {number}", [Change("a.txt", str(number), str(number + 1))])
    log.apply("both", [Change("a.txt", "4", "5"), Change("b.txt", "0", "5")])
    assert [(past.number, past.title, past.steps) for past in log.history()] == [
        (5, "both", 2), (4, "edit 3", 1), (3, "edit 2", 1), (2, "edit 1", 1), (1, "edit 0", 1)
    ]  # fmt: skip
    assert abs(log.history()[0].time - time.time()) < 60
    assert [outcome.title for outcome in log.go_to(2)] == ["both", "edit 3", "edit 2"]
    assert _texts(folder) == {"a": "2", "b": "0"}
    assert [past.in_effect for past in log.history()] == [False, False, False, True, True]
    assert [outcome.title for outcome in log.go_to(5)] == ["edit 2", "edit 3", "both"]
    assert _texts(folder) == {"a": "5", "b": "5"}
    log.go_to(0)
    assert _texts(folder) == {"a": "0", "b": "0"}
    assert log.go_to(0) == []


def test_what_a_window_never_saw_is_not_taken_back(tmp_path: Path) -> None:
    folder, log = _folder(tmp_path, a="0", b="0")
    log.apply("mine", [Change("a.txt", "0", "1")], by="me")
    seen = log.version()
    EditLog(tmp_path / "state", folder).apply("theirs", [Change("b.txt", "0", "1")], by="them")
    assert log.version() != seen
    for act in (log.undo, log.redo, lambda seen, by: log.go_to(0, seen, by)):
        with pytest.raises(UserError, match="theirs"):
            act(seen, "me")
    assert _texts(folder) == {"a": "1", "b": "1"}
    assert log.undo(log.version(), "me").title == "theirs"
    log.apply("mine again", [Change("b.txt", "0", "2")], by="me")
    assert log.undo(seen, "me").title == "mine again"  # the page's own edit, whose answer it has not seen yet


def test_a_job_goes_on_after_an_undo_in_an_edit_of_its_own(tmp_path: Path) -> None:
    folder, log = _folder(tmp_path)
    with log.growing("job") as write:
        write(Change("a.txt", None, "1"))
        assert EditLog(tmp_path / "state", folder).undo().written == 1
        write(Change("b.txt", None, "2"))
    assert _texts(folder) == {"b": "2"}
    assert log.undo().written == 1
    assert _texts(folder) == {}


def test_a_job_and_the_page_edit_at_once(tmp_path: Path) -> None:
    folder, log = _folder(tmp_path)

    def work(name: str) -> None:
        with EditLog(tmp_path / "state", folder).growing(f"job {name}") as write:
            for number in range(40):
                write(Change(f"{name}{number}.txt", None, name))

    threads = [Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for number in range(20):
        log.apply(f"page {number}", [Change(f"page{number}.txt", None, "page")])
    for thread in threads:
        thread.join()
    assert len(_texts(folder)) == 100
    assert sum(outcome.written for outcome in log.go_to(0)) == 100
    assert _texts(folder) == {}


def test_a_log_that_is_held_too_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edit_log, "_LOCK_SECONDS", 0.05)
    _, log = _folder(tmp_path, a="0")
    log.apply("edit", [Change("a.txt", "0", "1")])
    with log._lock(), pytest.raises(UserError, match="right now"):
        log.undo()
    assert log.undo().written == 1


def test_files_that_cannot_be_written_are_named_and_the_others_done() -> None:
    with folder_for_everyone() as base:
        folder = base / "pictures"
        folder.mkdir(mode=0o777)
        folder.chmod(0o777)
        for name in ("a.txt", "locked.txt", "sub/b.txt", "sub/c.png", "secret.txt"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("1", encoding="utf-8")
        (folder / "locked.txt").chmod(0o444)
        (folder / "secret.txt").chmod(0o000)
        (folder / "sub").chmod(0o555)
        names = ["a.txt", "locked.txt", "sub/b.txt", "secret.txt"]
        with as_nobody():
            log = EditLog(base / "state", folder)
            outcome = log.apply("edit", [*(Change(name, "1", "2") for name in names), *set_aside(["sub/c.png"])])
            texts = {name: (folder / name).read_text(encoding="utf-8") for name in names if name != "secret.txt"}
            assert outcome.written == 1
            assert {name for name, _ in outcome.failed} == {"locked.txt", "sub/b.txt", "sub/c.png", "secret.txt"}
            assert set(dict(outcome.failed).values()) == {"Permission denied"}
            assert texts == {"a.txt": "2", "locked.txt": "1", "sub/b.txt": "1"}
            assert log.undo().written == 1
            assert (folder / "a.txt").read_text(encoding="utf-8") == "1"


def test_many_files_are_changed_moved_and_brought_back_with_little_work(tmp_path: Path) -> None:
    folder, log = _folder(tmp_path, **{f"{number:04}": "a cat" for number in range(200)})
    for number in range(200):
        (folder / f"{number:04}.png").touch()
    started = time.process_time()
    log.apply("replace", [Change(f"{number:04}.txt", "a cat", "a dog") for number in range(200)])
    log.apply("aside", set_aside(f"{number:04}.png" for number in range(200)))
    assert not list(folder.glob("*.png"))
    assert [outcome.written for outcome in log.go_to(0)] == [200, 200]
    assert [outcome.written for outcome in log.go_to(2)] == [200, 200]
    assert [outcome.written for outcome in log.go_to(0)] == [200, 200]
    assert len(list(folder.glob("*.png"))) == 200
    assert _texts(folder)["0199"] == "a cat"
    assert time.process_time() - started < 10  # of CPU, whatever else the machine does; about 2 were measured
    assert [path.name for path in (folder / ".atelier").iterdir()] in ([], ["aside"])


def test_moves_go_back_in_the_order_of_edits(tmp_path: Path) -> None:
    folder, log = _folder(tmp_path, a="1")
    log.apply("rename", [Move("a.txt", "b.txt")])
    log.apply("change", [Change("b.txt", "1", "2")])
    log.apply("rename again", [Move("b.txt", "sub/c.txt")])
    log.go_to(0)
    assert _texts(folder) == {"a": "1"}
    log.go_to(3)
    assert (folder / "sub" / "c.txt").read_text(encoding="utf-8") == "2"


EDITOR = """
import os, sys
from pathlib import Path
from trainer.curation.edit_log import EditLog
from trainer.curation.steps import Change, set_aside
log = EditLog(Path(sys.argv[1]), Path(sys.argv[2]))
names = sorted(path.name for path in Path(sys.argv[2]).glob("*.txt"))
print("ready", flush=True)
if sys.argv[3] == "undo":
    log.undo()
else:
    log.apply("edit", [Change(name, "old " * 50, "new " * 60) for name in names])
"""


@pytest.mark.parametrize("act", ["apply", "undo"])
@pytest.mark.parametrize("written", [0, 1, 40, 150])
def test_a_process_killed_in_a_batch_edit_leaves_whole_captions(act: str, written: int, tmp_path: Path) -> None:
    """SIGKILL after the log, or after so many files: each holds the old or the new text, undo and redo finish."""
    old, new = "old " * 50, "new " * 60
    folder, log = _folder(tmp_path, **{f"{number:04}": old for number in range(300)})
    if act == "undo":
        log.apply("edit", [Change(f"{number:04}.txt", old, new) for number in range(300)])
    goal = new if act == "apply" else old
    process = subprocess.Popen(
        [sys.executable, "-c", EDITOR, str(tmp_path / "state"), str(folder), act], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    _wait_for_changes(folder, goal, written, tmp_path / "state")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert set(_texts(folder).values()) <= {old, new}

    log = EditLog(tmp_path / "state", folder)
    if act == "apply" and log.titles() == ("", "edit"):  # killed before the edit took effect: redo finishes it
        assert log.redo().conflicts == ()
    assert log.undo().conflicts == ()
    assert set(_texts(folder).values()) == {old}
    assert log.redo().conflicts == ()
    assert set(_texts(folder).values()) == {new}


def _wait_for_changes(folder: Path, goal: str, count: int, state: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if count == 0 and list(state.glob("*.jsonl")):
            return
        if count and (folder / f"{count:04}.txt").read_text(encoding="utf-8") == goal:
            return
    raise AssertionError("nothing was written")


@pytest.mark.parametrize(
    "line",
    [
        '["../outside.txt", null, "x"]', '["/outside.txt", null, "x"]', '["a/../../outside.txt", null, "x"]',
        '["C:\\\\outside.txt", null, "x"]', '["..\\\\outside.txt", null, "x"]',
        '{"source": "a.txt", "target": "../outside.txt", "displaced": null}',
        '{"source": "a.txt", "target": "b.txt", "displaced": "../outside.txt"}',
        '{"source": "a.txt", "target": null}', '{"source": null, "target": "a.txt"}',
        '["a.txt", 1, "x"]', '[1, null, "x"]', '["", null, "x"]', '["a.txt"]',
        '{"source": "a.txt"}', "1", "{", "[" * 20_000,
    ],
)  # fmt: skip
def test_what_a_damaged_or_forged_edit_says_is_not_done(line: str, tmp_path: Path) -> None:
    folder, log = _folder(tmp_path, a="2")
    log.apply("first", [Change("a.txt", "2", "3")])
    edit = tmp_path / "state" / "000001.jsonl"
    edit.write_text(edit.read_text().split("\n")[0] + f"\n{line}\n")
    with pytest.raises(UserError) as caught:
        log.undo()
    assert caught.value.problems[0].code == "edit.damaged"
    assert _texts(folder) == {"a": "3"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures", "state"]


@pytest.mark.parametrize(
    "heading", ["{", "[]", "{}", '{"title": 1, "time": 2.0}', '{"title": "x", "time": "soon"}', "\xff"]
)
def test_an_edit_with_a_damaged_heading_hides_no_other(heading: str, tmp_path: Path) -> None:
    folder, log = _folder(tmp_path, a="1")
    log.apply("first", [Change("a.txt", "1", "2")])
    log.apply("second", [Change("a.txt", "2", "3")])
    edit = tmp_path / "state" / "000002.jsonl"
    edit.write_bytes(heading.encode("latin-1") + b"\n" + edit.read_bytes().split(b"\n", 1)[1])
    assert log.titles() == ("", "")
    assert [past.title for past in log.history()] == ["first"]
    assert log.undo().title == ""
    assert _texts(folder) == {"a": "3"}


def test_without_a_readable_position_all_that_is_kept_is_in_effect(tmp_path: Path) -> None:
    folder, log = _folder(tmp_path, a="1")
    log.apply("first", [Change("a.txt", "1", "2")])
    (tmp_path / "state" / "position").write_text("x")
    assert log.titles() == ("first", "")
    log.undo()
    assert _texts(folder) == {"a": "1"}


def _full(*arguments: object, **options: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_an_edit_that_cannot_be_noted_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was taken back before it can still be done again."""
    folder, log = _folder(tmp_path, a="1")
    log.apply("first", [Change("a.txt", "1", "2")])
    log.undo()
    with monkeypatch.context() as patch:
        patch.setattr(edit_log, "write_text", _full)
        with pytest.raises(UserError, match=r"so nothing was changed: No space left on device") as caught:
            log.apply("second", [Change("a.txt", "1", "3")])
        assert caught.value.problems[0].code == "edit.unnoted" and str(tmp_path / "state") in str(caught.value)
        with log.growing("third") as do, pytest.raises(UserError, match="nothing was changed"):
            do(Change("a.txt", "1", "3"))
    assert _texts(folder) == {"a": "1"} and log.titles() == ("", "first")
    log.redo()
    assert _texts(folder) == {"a": "2"}


def test_an_undo_that_finds_no_room_can_be_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, log = _folder(tmp_path, a="1", b="1")
    log.apply("earlier", [Change("a.txt", "1", "2")])
    log.apply("both", [Change("a.txt", "2", "3"), Change("b.txt", "1", "3")])
    real = steps.write_caption
    with monkeypatch.context() as patch:
        patch.setattr(steps, "write_caption", lambda path, text: (_full if path.stem == "b" else real)(path, text))
        assert log.undo().failed == (("b.txt", "No space left on device"),)
    assert _texts(folder) == {"a": "2", "b": "3"} and log.titles() == ("both", "")
    assert log.undo().written == 1
    assert _texts(folder) == {"a": "2", "b": "1"} and log.titles() == ("earlier", "both")


def test_a_step_that_was_noted_by_half_does_not_spoil_those_after_it(tmp_path: Path) -> None:
    """As a full disk leaves it, on which there is room again later."""
    folder, log = _folder(tmp_path, a="1", b="1", c="1")
    with log.growing("job") as do:
        do(Change("a.txt", "1", "2"))
        [edit] = (tmp_path / "state").glob("*.jsonl")
        with edit.open("a", encoding="utf-8") as file:
            file.write('["b.txt", "1')
        do(Change("c.txt", "1", "2"))
    assert log.undo().written == 2
    assert _texts(folder) == {"a": "1", "b": "1", "c": "1"}
