"""The time left against how long runs really took, from a tenth of them on."""

from __future__ import annotations

from typing import Any

import pytest

from trainer.config import Config
from ui.pace import Pace


def config(**changes: Any) -> Config:
    return Config.model_validate({"name": "x", **changes})


def told(pace: Pace, events: list[dict[str, Any]]) -> None:
    for event in events:
        if event["type"] == "metric":
            pace.steps([event])
        else:
            pace.other(event, event["step"])


def made_up(steps: int, step_s: float, pauses: dict[int, list[tuple[str, float]]]) -> list[dict[str, Any]]:
    """Events of a run: previews and the like take the seconds given, the first step of all takes ten times as long."""
    time, events = 1000.0, [{"type": "state", "state": "training", "step": 0, "time": 1000.0}]
    for step in range(steps + 1):
        if step:
            time += step_s * (10 if step == 1 else 1)
            events.append({"type": "metric", "step": step, "time": time})
        for kind, seconds in pauses.get(step, []):
            time += seconds
            events.append({"type": kind, "step": step, "time": time})
    return events


def test_what_is_still_to_be_drawn_saved_and_validated_counts() -> None:
    """200 steps of 1 s; previews of 2 x 10 s every 50, saving 3 s every 40, validation 5 s every 25; all at the end."""
    pauses: dict[int, list[tuple[str, float]]] = {step: [] for step in range(201)}
    for step in range(201):
        pauses[step] += [("validation", 5.0)] if step % 25 == 0 else []
        pauses[step] += [("checkpoint", 3.0)] if (step and step % 40 == 0) or step == 200 else []
        pauses[step] += [("sample", 10.0), ("sample", 10.0)] if step % 50 == 0 else []
    settings = config(
        train={"max_steps": 200},
        samples={"every_steps": 50, "prompts": ["a", "b"]},
        validation={"split": 0.1, "every_steps": 25},
        output={"save_every_steps": 40},
    )
    events = made_up(200, 1.0, pauses)
    end = events[-1]["time"]
    for step in range(60, 200, 7):
        pace = Pace()
        before = [event for event in events if event["step"] <= step]
        told(pace, before)
        assert pace.step_seconds == pytest.approx(1.0)
        assert pace.seconds_left(step, 200, settings) == pytest.approx(end - before[-1]["time"]), step


def test_previews_that_were_never_drawn_are_guessed_from_their_passes() -> None:
    """25 sampler steps with guidance are 50 passes; a step of two pictures is like 6."""
    settings = config(
        train={"max_steps": 100, "batch_size": 2},
        samples={"every_steps": 50, "at_start": False, "prompts": [{"prompt": "a", "steps": 25, "guidance": 7}]},
        output={"save_every_steps": 0},
    )
    pace = Pace()
    told(pace, made_up(10, 1.0, {}))
    assert pace.seconds_left(10, 100, settings) == pytest.approx(90 + 2 * 50 / 6)


def test_steps_told_several_at_a_time_after_warming_up() -> None:
    pace = Pace()
    told(pace, [{"type": "state", "step": 0, "time": 10.0}])
    groups = [[1], [2, 3, 4, 5], [6, 7, 8, 9], [10, 11]]
    for number, steps in enumerate(groups):
        pace.steps([{"type": "metric", "step": step, "time": 20.0 + 0.2 * number} for step in steps])
    assert pace.step_seconds == pytest.approx(0.6 / 10)
    many = Pace()
    many.steps([{"type": "metric", "step": step, "time": 5.0 * step} for step in range(1, 5000)])
    assert many.step_seconds == pytest.approx(5.0)


def test_a_pause_is_no_measure_and_nothing_is_known_before_the_second_step() -> None:
    pace = Pace()
    assert pace.step_seconds is None and pace.seconds_left(0, 10, None) is None
    told(pace, made_up(4, 1.0, {}))
    told(pace, [{"type": "state", "step": 4, "time": 9000.0}])
    assert pace.step_seconds is None
    told(pace, [{"type": "metric", "step": step, "time": 9010.0 + step} for step in range(5, 9)])
    assert pace.step_seconds == pytest.approx(1.0)
    assert pace.seconds_left(8, 10, None) == pytest.approx(2.0)
    assert pace.seconds_left(10, 10, None) is None


def test_by_epochs() -> None:
    settings = config(
        train={"epochs": 4}, samples={"every_epochs": 1, "prompts": ["a"]}, output={"save_every_steps": 0}
    )
    pace = Pace()
    told(pace, made_up(10, 1.0, {0: [("sample", 7.0)]}))
    assert pace.seconds_left(10, 40, settings) == pytest.approx(30 + 2 * 7 + 7)  # after epochs 2 and 3, and at the end
