"""What killed processes left is removed; what living ones are about to put in place is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trainer import unfinished
from trainer.files import atomic_path, write_text
from trainer.outputs import new_output
from trainer.processes import start_mark
from trainer.unfinished import clear_left, set_aside

ROOT = Path(__file__).resolve().parents[2]
KILLED = """
import os, sys; from pathlib import Path; from trainer.unfinished import set_aside, unfinished
target = Path(sys.argv[1]); path = unfinished(target)
if target.is_dir(): target.rename(set_aside(path))
path.write_text("half"); print(path, flush=True); sys.stdin.read()
"""


def killed_while_writing(target: Path) -> Path:
    """The path that a killed process was writing to."""
    command = [sys.executable, "-c", KILLED, str(target)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    path = Path(process.stdout.readline().strip())
    clear_left(target.parent)
    assert path.read_text() == "half", "it is of a living process"
    process.kill()
    process.communicate()
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_process_left_goes_when_another_writes_there(tmp_path: Path) -> None:
    left = killed_while_writing(tmp_path / "a cat. in a box.txt")
    assert left.exists()
    clear_left(tmp_path)
    assert names(tmp_path) == []
    killed_while_writing(tmp_path / "b.txt")
    subprocess.run(
        [sys.executable, "-c", "import sys; from pathlib import Path; from trainer.files import write_text\n"
         "write_text(Path(sys.argv[1]), 'whole')", str(tmp_path / "c.txt")],
        cwd=ROOT, check=True,
    )  # fmt: skip
    assert names(tmp_path) == ["c.txt"]


def test_a_folder_that_was_about_to_be_replaced_goes_back(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    target.mkdir()
    (target / "kept.txt").write_text("old")
    killed_while_writing(target)
    assert not target.exists()
    clear_left(tmp_path)
    assert names(tmp_path) == ["adapter"] and (target / "kept.txt").read_text() == "old"


def test_own_files_and_those_of_others_stay(tmp_path: Path) -> None:
    for name in (".notes.tmp", "a.tmp", ".a.txt.0a1b2c3d4e5f.tmp", ".a.1.tmp"):
        (tmp_path / name).write_text("somebody's")
    before = names(tmp_path)
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("mine")
        clear_left(tmp_path)
        assert temporary.exists()
    assert names(tmp_path) == sorted([*before, "a.txt"])


def test_a_process_is_not_taken_for_a_later_one_with_its_number(tmp_path: Path) -> None:
    mine = unfinished.unfinished(tmp_path / "a.txt")
    mark = start_mark(os.getpid())
    assert mark is not None
    earlier = mine.with_name(mine.name.replace(f"-{mark}-", f"-{mark - 1}-"))
    for path in (mine, earlier):
        path.write_text("half")
    clear_left(tmp_path)
    assert names(tmp_path) == [mine.name]


def test_processes_of_other_machines_have_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = unfinished.unfinished(tmp_path / "a.txt")
    place = here.name.split(".")[3].split("-")[0]
    theirs = here.with_name(here.name.replace(place, "0000" if place != "0000" else "1111"))
    theirs.write_text("half")
    clear_left(tmp_path)
    assert theirs.exists()
    os.utime(theirs, (0, 0))
    clear_left(tmp_path)
    assert names(tmp_path) == []


def test_a_mark_is_of_one_process(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mark = start_mark(process.pid)
    assert mark is not None and mark == start_mark(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert start_mark(process.pid) is None


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_a_folder_is_replaced_whole_or_stays(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    write_text(target / "old.txt", "old")
    with pytest.raises(type(error)), new_output(target) as made:
        made.mkdir()
        raise error
    assert names(target) == ["old.txt"]
    with new_output(target) as made:
        made.mkdir()
        (made / "new.txt").write_text("new")
    assert names(target) == ["new.txt"] and names(tmp_path) == ["folder"]
    assert set_aside(Path(".a.x.tmp")) == Path(".a.x.old.tmp")
