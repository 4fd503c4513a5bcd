"""When a run is said to hang, by times worked out by hand: never in a pause, in sleep, or while it is only slow."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from trainer.errors import Problem
from trainer.watchdog import COLD_SECONDS, STEADY_SECONDS, TICK_SECONDS, TIMES_THE_USUAL, Watchdog


def watchdog(end_after_seconds: float | None = None) -> Watchdog:
    return Watchdog(Path("train.log"), end_after_seconds)


def pass_time(dog: Watchdog, seconds: float) -> list[Problem]:
    """What is said meanwhile, in ticks; the one at which the last sign is noticed does not count."""
    told = [dog.tick(TICK_SECONDS) for _ in range(round(seconds / TICK_SECONDS))]
    return [each for each in told if each is not None]


def steady(dog: Watchdog) -> None:
    dog.emit("metric", 7, loss=0.5)
    pass_time(dog, TICK_SECONDS)


@pytest.mark.parametrize(("is_steady", "limit"), [(False, COLD_SECONDS), (True, STEADY_SECONDS)])
def test_it_is_told_once_after_the_limit(is_steady: bool, limit: float) -> None:
    dog = watchdog()
    if is_steady:
        steady(dog)
    assert pass_time(dog, limit - TICK_SECONDS) == []
    [problem] = pass_time(dog, TICK_SECONDS)
    assert problem.code == "run.hangs"
    assert f"Nothing has been done for {limit / 60:.0f} minutes" in problem.message
    assert ("after step 7" in problem.message) == is_steady
    assert "train.log says where each thread is" in problem.hint
    assert pass_time(dog, 100 * limit) == [], "it is not ended where that is not asked for, nor told again"


def test_a_run_that_goes_on_after_all_says_so_and_may_hang_again() -> None:
    dog = watchdog()
    steady(dog)
    assert len(pass_time(dog, STEADY_SECONDS + 60)) == 1
    dog.emit("metric", 8, loss=0.5)
    [problem] = pass_time(dog, TICK_SECONDS)
    assert (problem.code, problem.message) == ("run.goes_on", "The run goes on after 11 minutes.")
    assert len(pass_time(dog, STEADY_SECONDS)) == 1, "a hang is not taken for the usual pace"


def test_slow_steps_set_the_pace() -> None:
    dog = watchdog()
    steady(dog)
    for step in range(8, 11):
        pass_time(dog, 100)
        dog.emit("metric", step)
    pass_time(dog, TICK_SECONDS)
    assert pass_time(dog, TIMES_THE_USUAL * 100 - TICK_SECONDS) == []
    assert [each.code for each in pass_time(dog, TICK_SECONDS)] == ["run.hangs"]


def test_a_pause_and_a_wait_for_the_device_are_no_hang() -> None:
    """Their loops look for requests."""
    dog = watchdog(end_after_seconds=60)
    for _ in range(1000):
        dog.sign()
        assert pass_time(dog, 10) == []


def test_a_machine_that_slept_is_no_hang() -> None:
    dog = watchdog(end_after_seconds=60)
    steady(dog)
    assert dog.tick(8 * 3600.0) is None
    assert pass_time(dog, STEADY_SECONDS - 3 * TICK_SECONDS) == []


@pytest.mark.parametrize(("asked", "seconds"), [(3600.0, 3600.0), (60.0, 3 * STEADY_SECONDS)])
def test_it_is_ended_after_the_limit_that_was_asked_for(asked: float, seconds: float) -> None:
    dog = watchdog(asked)
    steady(dog)
    assert [each.code for each in pass_time(dog, seconds - TICK_SECONDS)] == ["run.hangs"]
    [problem] = pass_time(dog, TICK_SECONDS)
    assert problem.code == "run.hung" and "Resume goes on" in problem.hint


@pytest.mark.parametrize(("name", "told"), [("watchdog", ["run.hangs"]), ("a download", [])])
def test_its_own_words_are_no_sign_of_life(name: str, told: list[str]) -> None:
    dog = watchdog()
    steady(dog)
    pass_time(dog, STEADY_SECONDS - TICK_SECONDS)
    thread = threading.Thread(target=dog.emit, args=("warning",), name=name)
    thread.start()
    thread.join()
    assert [each.code for each in pass_time(dog, TICK_SECONDS)] == told
