"""The time left against how long runs really took, from a tenth of them on."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.unit.replays import Event, Moment, read_recording, replay
from trainer.config import Config
from trainer.pace import Costs, Pace, Place, drawing_work, epochs_by, seconds_left, validation_guess

RECORDINGS = ROOT / "tests" / "data" / "paces"
WITHIN = 0.2
"""Of the time that was left; the very end, where a single step is as much, within so much of the whole:"""
AT_THE_END = 0.01


def config(**changes: Any) -> Config:
    return Config.model_validate({"name": "x", **changes})


class MadeUp:
    """Events of a run that goes as the settings say, with the times given.

    Args:
        settings: rhythms; previews take a second for each of 100 passes and 262144 pixels.
        steps: of the run.
        seconds_of: a step.
    """

    def __init__(self, settings: Config, steps: int, seconds_of: Callable[[int], float]) -> None:
        self.settings, self.steps, self.seconds_of = settings, steps, seconds_of
        self.time = 1000.0
        self.events: list[Event] = []

    def tell(self, kind: str, step: int, seconds: float, **fields: Any) -> None:
        self.time += seconds
        self.events.append({"type": kind, "step": step, "time": self.time, **fields})

    def begin(self, step: int = 0) -> None:
        self.tell("state", step, 0.0, state="starting")
        self.tell("state", step, 1.0, state="preparing")
        self.tell("state", step, 20.0, state="training")

    def between(self, step: int) -> None:
        """Validation, checkpoint, previews of a step, where they are due."""
        validation, output, samples = self.settings.validation, self.settings.output, self.settings.samples
        end = step == self.steps
        if end or step % validation.every_steps == 0:
            self.tell("validation", step, 5.0)
        if end or (step and step % output.save_every_steps == 0):
            self.tell("checkpoint", step, 2.0)
        if end or step % samples.every_steps == 0:
            for index, prompt in enumerate(samples.prompts):
                self.tell("sample", step, drawing_work(self.settings, prompt) / 100 / 2**18, index=index)

    def go(self, first: int = 1, last: int | None = None) -> None:
        for step in range(first, (last or self.steps) + 1):
            self.tell("metric", step, self.seconds_of(step))
            self.between(step)

    def whole(self) -> list[Event]:
        self.begin()
        self.between(0)
        self.go()
        self.tell("state", self.steps, 0.1, state="finished")
        return self.events


RHYTHMS: dict[str, Any] = {
    "samples": {"every_steps": 50, "prompts": ["a", {"prompt": "b", "steps": 40}]},
    "validation": {"split": 0.1, "every_steps": 25},
    "output": {"save_every_steps": 40},
}


def noisy(seed: int, speed_at: Callable[[int], float] = lambda step: 1.0) -> Callable[[int], float]:
    """Steps that differ by up to 30 % at random; the first two of all take ten times as long."""
    generator = random.Random(seed)
    return lambda step: speed_at(step) * generator.uniform(0.7, 1.3) * (10 if step < 3 else 1)


def worst(moments: list[Moment]) -> Moment:
    """Of those that are off by more than a hundredth of the whole."""
    return max(moments, key=lambda each: each.error if abs(each.estimate - each.truth) > AT_THE_END * each.whole else 0)


def check(moments: list[Moment]) -> None:
    assert len(moments) > 50
    found = worst(moments)
    assert found.error <= WITHIN or abs(found.estimate - found.truth) <= AT_THE_END * found.whole, found


@pytest.mark.parametrize("name", sorted(path.stem for path in RECORDINGS.glob("*.json")))
def test_recorded_runs(name: str) -> None:
    """The machine was busy with other things too: what a step took drifts by up to a third within a run."""
    recording = read_recording(RECORDINGS / f"{name}.json")
    moments = replay(recording.events, recording.settings, recording.batches)
    within = [each for each in moments if each.error <= WITHIN]
    assert len(moments) > 100 and len(within) >= 0.95 * len(moments)
    assert worst(moments).error <= 0.25, worst(moments)


def test_what_is_still_to_be_drawn_saved_and_validated_counts() -> None:
    """Steps of 1 s without noise: the estimate is the truth, whatever is just being done."""
    moments = replay(MadeUp(config(**RHYTHMS), 200, lambda step: 1.0).whole(), config(**RHYTHMS))
    assert {each.step for each in moments} >= {20, *range(25, 201, 25), *range(40, 201, 40)}
    for each in moments:
        assert each.estimate == pytest.approx(each.truth - 0.1, abs=1e-6), each


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("steps", [60, 400, 2000])
def test_noise_and_warming_up(seed: int, steps: int) -> None:
    check(replay(MadeUp(config(**RHYTHMS), steps, noisy(seed)).whole(), config(**RHYTHMS)))


@pytest.mark.parametrize(
    "speed_at",
    [
        lambda step: 1 + 0.3 * step / 1000,
        lambda step: 1.3 - 0.3 * step / 1000,
        lambda step: 2.0 if step < 60 else 1.0,
        lambda step: 1.0 if step < 60 else 2.0,
        lambda step: 1.5 if 300 < step < 330 else 1.0,
        lambda step: (1.0, 1.0, 4.0)[random.Random(step // 3).sample(range(3), 3)[step % 3]],
    ],
    ids=["slower", "faster", "fast soon", "slow soon", "a slow while", "two sizes"],
)
def test_speed_that_changes(speed_at: Callable[[int], float]) -> None:
    """Where it changes at once, a hundred steps at the new speed are waited for."""
    moments = replay(MadeUp(config(**RHYTHMS), 1000, noisy(1, speed_at)).whole(), config(**RHYTHMS))
    check([each for each in moments if each.step >= 160 or speed_at(1) < 1.5 > speed_at(999)])


def test_pauses_a_resume_and_a_laptop_asleep() -> None:
    settings = config(**RHYTHMS)
    run = MadeUp(settings, 400, noisy(7))
    run.begin()
    run.between(0)
    run.go(1, 70)
    run.tell("state", 70, 0.1, state="paused")
    run.tell("state", 70, 5000.0, state="training")
    run.go(71, 130)
    run.tell("state", 130, 2.0, state="stopping")
    run.tell("checkpoint", 130, 3.0)
    run.tell("state", 130, 0.1, state="stopped")
    run.time += 90_000
    run.begin(130)
    run.go(131, 240)
    run.time += 30_000  # asleep: the clock goes on
    run.go(241)
    run.tell("state", 400, 0.1, state="finished")
    moments = replay(run.events, settings)
    check([each for each in moments if each.step > 240])
    for each in moments:  # nobody knows beforehand how long it will sleep
        slept = 30_000 if each.step <= 240 else 0
        assert each.estimate == pytest.approx(each.truth - slept, rel=WITHIN, abs=5), each


def test_a_resume_on_a_faster_machine_is_soon_believed() -> None:
    settings = config(**RHYTHMS)
    run = MadeUp(settings, 400, noisy(3, lambda step: 4.0 if step <= 200 else 1.0))
    run.begin()
    run.between(0)
    run.go(1, 200)
    run.tell("state", 200, 0.1, state="stopped")
    run.begin(200)
    run.go(201)
    run.tell("state", 400, 0.1, state="finished")
    check([each for each in replay(run.events, settings) if each.step > 230])


def test_previews_that_were_never_drawn_are_guessed_from_their_passes() -> None:
    """25 sampler steps with guidance and decoding are 53 passes; a step of two pictures is like 6."""
    settings = config(
        train={"max_steps": 100, "batch_size": 2},
        samples={"every_steps": 50, "at_start": False, "prompts": [{"prompt": "a", "steps": 25, "guidance": 7}]},
        output={"save_every_steps": 0},
    )
    left = seconds_left(settings, Costs(1.0), Place(10), 100, epochs_by(settings, 100, None))
    assert left == pytest.approx(90 + 2 * 53 / 6 + 2)
    validated = config(train={"batch_size": 2}, validation={"split": 0.1, "timesteps": 4, "noises": 3})
    assert validation_guess(validated, 1.0, 5) == pytest.approx(5 * 4 * 3 / 6)


def test_steps_told_several_at_a_time() -> None:
    pace = Pace()
    pace.take([{"type": "state", "state": "training", "step": 0, "time": 10.0}])
    for number, steps in enumerate([[1], [2, 3, 4, 5], [6, 7, 8, 9], [10, 11]]):
        pace.take([{"type": "metric", "step": step, "time": 20.0 + 0.2 * number} for step in steps])
    costs = pace.costs(config())
    assert costs is not None and costs.step == pytest.approx(0.0625, rel=0.02)  # 0.05 six times, and 0.1 twice
    many = Pace()
    many.take([{"type": "metric", "step": step, "time": 5.0 * step} for step in range(1, 5000)])
    told = many.costs(config())
    assert told is not None and told.step == pytest.approx(5.0)


def test_nothing_is_known_before_a_few_steps() -> None:
    pace = Pace()
    assert pace.costs(config()) is None
    pace.take([{"type": "state", "state": "preparing", "step": 0, "time": 0.0}])
    pace.take([{"type": "state", "state": "training", "step": 0, "time": 8.0}])
    for step in range(1, 4):
        pace.take([{"type": "metric", "step": step, "time": 8.0 + 10 * step}])
    assert pace.costs(config()) is None
    pace.take([{"type": "metric", "step": step, "time": 38.0 + step - 3} for step in range(4, 40)])
    costs = pace.costs(config())
    assert costs is not None and costs.step == pytest.approx(1.0)
    assert costs.beginning == pytest.approx(8 + 3 * 9)
    whole = seconds_left(config(output={"save_every_steps": 0}), costs, Place(), 10, lambda step: 0)
    assert whole == pytest.approx(10 + 8 + 3 * 9 + 2)


def test_by_epochs() -> None:
    """40 steps of 10 an epoch, told as epochs or as batches; previews after epochs 1 to 3 and at the end."""
    rhythm: dict[str, Any] = {"samples": {"every_epochs": 1, "prompts": ["a"]}, "output": {"save_every_steps": 0}}
    settings = config(train={"epochs": 4}, **rhythm)
    costs = Costs(1.0, checkpoint=0.0, drawing=7 / drawing_work(settings, settings.samples.prompts[0]))
    assert seconds_left(settings, costs, Place(10, 3), 40, epochs_by(settings, 40, None)) == pytest.approx(30 + 3 * 7)
    settings = config(train={"max_steps": 40, "gradient_accumulation_steps": 2}, **rhythm)
    epochs_done = epochs_by(settings, 40, 20)
    assert seconds_left(settings, costs, Place(9), 40, epochs_done) == pytest.approx(31 + 4 * 7)
    assert seconds_left(settings, costs, Place(10), 40, epochs_done) == pytest.approx(30 + 4 * 7)
    assert seconds_left(settings, costs, Place(10, 2, 1), 40, epochs_done) == pytest.approx(30 + 3 * 7)


def test_damaged_events_are_no_harm() -> None:
    pace = Pace()
    pace.take([{"type": "metric"}, {"type": "metric", "time": "x", "step": -3}, {"type": "sample", "index": True}])
    pace.take([{"type": "state"}, {"type": "validation", "time": 3}])
    assert pace.costs(config()) is None and pace.place.step == 0
