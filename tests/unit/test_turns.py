"""Turns on a device, with real processes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.runs.store import Workspace
from trainer.runs.turns import Holder, Turn, busy_words, cpu_turn, gpu_turn, wait_for

ROOT = Path(__file__).resolve().parents[2]


def _other_process(path: Path, script: str) -> subprocess.Popen[str]:
    code = (
        f"from pathlib import Path; from trainer.runs.turns import Turn\nturn = Turn(Path({str(path)!r}), 'a test')\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code + script], cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )


def _wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def test_one_at_a_time_and_who_waits_is_seen(tmp_path: Path) -> None:
    """A process waits for the turn, is seen to wait, gets it, and is killed: then it is free at once."""
    mine = Turn(tmp_path / "gpu.lock")
    assert mine.take()
    assert mine.held
    assert not mine.wanted
    other = _other_process(tmp_path / "gpu.lock", "while not turn.take(0.05): pass\nprint('mine', flush=True)\ninput()")
    _wait(lambda: mine.wanted)
    mine.give_back()
    assert other.stdout is not None
    assert other.stdout.readline() == "mine\n"
    assert not mine.take(0)
    assert mine.holder is not None and (mine.holder.what, mine.holder.pid) == ("a test", other.pid)
    assert abs(mine.holder.since - time.time()) < 30
    assert busy_words("cuda:0", mine.holder).startswith("Another job is using cuda:0 (a test, since ")
    other.kill()
    other.wait()
    assert mine.holder is None
    assert busy_words("cuda:0", None) == "Another job is using cuda:0."
    assert mine.take_if_idle()
    assert not mine.wanted
    mine.give_back()


def test_a_wish_ends_when_it_is_given_up(tmp_path: Path) -> None:
    holder, waiting, second = (Turn(tmp_path / "gpu.lock") for _ in range(3))
    assert holder.take(0)
    assert not waiting.take(0)
    assert not second.take(0)
    assert holder.wanted
    waiting.give_back()
    second.give_back()
    assert not holder.wanted
    assert not waiting.held
    holder.give_back()
    assert waiting.take(0)
    waiting.give_back()


def test_each_holder_is_told_once_and_a_wait_can_be_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.runs.turns._LOOK_SECONDS", 0)
    first, second, waiting = (Turn(tmp_path / "gpu.lock", what) for what in ("first", "second", "third"))
    assert first.take()
    told: list[str] = []
    looks = iter(range(100))

    def look() -> None:
        number = next(looks)
        if number == 1:
            first.give_back()
            assert second.take()
        if number == 3:
            raise TimeoutError

    def tell(holder: Holder | None) -> None:
        told.append("" if holder is None else holder.what)

    with pytest.raises(TimeoutError):
        wait_for(waiting, tell, look)
    assert told == ["first", "second"]
    assert not waiting.held
    monkeypatch.setattr("trainer.runs.turns._GIVE_WAY_SECONDS", 0.1)
    assert not first.take_if_idle()
    waiting.give_back()
    assert not second.wanted
    second.give_back()
    assert second.holder is None


def test_a_day_old_job_has_its_date(tmp_path: Path) -> None:
    old = Holder(what="training of cats", since=time.mktime((2026, 1, 5, 14, 5, 0, 0, 0, -1)), pid=1, pid_started=None)
    assert str(old) == "training of cats, since Jan 05, 14:05"


def test_turns_on_a_gpu_are_of_the_machine_and_on_the_cpu_of_the_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    from_driver, from_torch, other = gpu_turn("GPU-12-34"), gpu_turn("12-34"), gpu_turn("GPU-56")
    assert from_driver.take(0)
    assert not from_torch.take(0)
    assert other.take(0)
    one, two = cpu_turn(Workspace(tmp_path / "one")), cpu_turn(Workspace(tmp_path / "two"))
    assert one.take(0)
    assert two.take(0)
