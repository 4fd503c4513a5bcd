"""Atomic writing."""

from __future__ import annotations

import json
import linecache
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import pytest

from trainer import files
from trainer.files import atomic_path, last_log_line, read_json, write_bytes, write_json, write_text

ROOT = Path(__file__).resolve().parents[2]


def test_written_files_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "new" / "a.json", {"ü": [1, None]})
    assert read_json(tmp_path / "new" / "a.json") == {"ü": [1, None]}
    write_text(tmp_path / "t.txt", "a\r\nb\n")
    assert (tmp_path / "t.txt").read_bytes() == b"a\r\nb\n"
    write_bytes(tmp_path / "t.txt", b"")
    assert (tmp_path / "t.txt").read_bytes() == b""


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(type(error)), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_signal_at_any_line_leaves_the_old_or_the_new_file_and_nothing_else(tmp_path: Path) -> None:
    target, ends = tmp_path / "a.txt", set()
    for line in range(1, 30):
        write_text(target, "old")
        with _signal_at_line(line):
            write_text(target, "new")
        assert list(tmp_path.iterdir()) == [target], f"signal at line {line}"
        ends.add(target.read_text())
    assert ends == {"old", "new"}


@contextmanager
def _signal_at_line(number: int) -> Iterator[None]:
    """Raise KeyboardInterrupt, as a signal does, when the ``number``-th line of ``trainer/files.py`` is reached.

    The line that cleans up is spared: a signal in the instant before it cannot be answered.
    """
    seen = 0

    def trace(frame: FrameType, event: str, argument: object) -> object:
        nonlocal seen
        if frame.f_code.co_filename != files.__file__:
            return None
        if event == "line" and "unlink" not in linecache.getline(files.__file__, frame.f_lineno):
            seen += 1
            if seen == number:
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        sys.settrace(None)


@pytest.mark.parametrize("value", [float("nan"), {"a": float("inf")}, object()])
def test_what_json_cannot_hold_leaves_the_old_file(tmp_path: Path, value: object) -> None:
    write_json(tmp_path / "a.json", {"old": True})
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == {"old": True}


def test_a_reader_meets_the_old_or_the_new_file_but_never_half_of_one(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_json(target, {"number": 0, "filling": ["x" * 1000] * 200})
    script = (
        "import sys; from pathlib import Path; from trainer.files import write_json\n"
        "for number in range(60): write_json(Path(sys.argv[1]), {'number': number, 'filling': ['x' * 1000] * 200})"
    )
    writer = subprocess.Popen([sys.executable, "-c", script, str(target)], cwd=ROOT)
    seen = set()
    while writer.poll() is None:
        seen.add(json.loads(target.read_text())["number"])
    assert writer.returncode == 0
    assert json.loads(target.read_text())["number"] == 59
    assert seen


def test_a_writer_killed_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    script = (
        "import os, sys; from pathlib import Path; from trainer.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(target)], cwd=ROOT)
    assert target.read_text() == "old"


@pytest.mark.skipif(os.name == "nt", reason="file modes are POSIX")
def test_others_may_read_what_is_written_as_usual(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "x")
    (tmp_path / "plain.txt").write_text("x")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.txt", "plain.txt")}
    assert len(modes) == 1


def test_last_log_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_log_line(log) == ""
    log.write_bytes(b"x" * 100_000 + b"\nlast \xff words\n \n")
    assert last_log_line(log) == "last \ufffd words"
