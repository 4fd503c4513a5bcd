"""Numbers of steps come back in their order, the latest few only when all are asked for."""

from __future__ import annotations

import time

import pytest
import torch

from trainer import late_numbers
from trainer.late_numbers import LateNumbers, milliseconds, moment, steps_ahead

CPU = torch.device("cpu")


def test_a_processor_is_never_ahead_of_itself() -> None:
    assert steps_ahead(CPU) == 0 and steps_ahead(torch.device("cuda", 0)) == late_numbers.STEPS_AHEAD > 0
    late: LateNumbers[int] = LateNumbers(CPU)
    late.add(1, torch.tensor([0.5, 2.0]), moment(CPU))
    [read] = late.ready()
    assert (read.facts, read.numbers) == (1, [0.5, 2.0]) and list(late.all()) == []


def test_the_latest_few_wait_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_numbers, "steps_ahead", lambda device: 2)
    late: LateNumbers[int] = LateNumbers(CPU)
    numbers, told = torch.zeros(1), []
    for step in range(5):
        numbers.fill_(step)  # the next replay writes over it
        late.add(step, numbers, moment(CPU))
        told.append([(read.facts, read.numbers[0]) for read in late.ready()])
    assert told == [[], [], [(0, 0.0)], [(1, 1.0)], [(2, 2.0)]]
    assert [(read.facts, read.numbers[0]) for read in late.all()] == [(3, 3.0), (4, 4.0)]


def test_the_time_is_that_of_the_step() -> None:
    begin = moment(CPU)
    time.sleep(0.02)
    late: LateNumbers[int] = LateNumbers(CPU)
    late.add(1, torch.zeros(1), begin)
    time.sleep(0.05)
    [read] = late.all()
    assert 20 <= read.step_ms < milliseconds(begin, moment(CPU)) - 40
