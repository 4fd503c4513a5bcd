"""Threads, number formats and generators."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from trainer.config import ModelSettings
from trainer.devices import compute_dtype, seeded_generator, use_threads_for
from trainer.families import load_family

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_small_model_gets_one_thread_and_a_large_one_keeps_what_there_is() -> None:
    torch.set_num_threads(2)
    use_threads_for(860_000_000)
    assert torch.get_num_threads() == 2
    load_family(ModelSettings(base="demo"), device=CPU, dtype=torch.float32)
    assert torch.get_num_threads() == 1


def test_formats_on_the_cpu() -> None:
    chosen = [compute_dtype(name, CPU) for name in ("auto", "no", "fp16", "bf16")]  # type: ignore[arg-type]
    assert chosen == [torch.float32, torch.float32, torch.float16, torch.bfloat16]


def test_a_draw_depends_on_every_part_of_its_purpose_and_on_nothing_else() -> None:
    purposes = [(1, 2, "noise"), (1, 3, "noise"), (1, 2, "timesteps"), (2, 2, "noise"), (1, 12, "noise")]
    draws = [torch.randn(4, generator=seeded_generator(*purpose)) for purpose in purposes]
    torch.manual_seed(0)
    again = torch.randn(4, generator=seeded_generator(*purposes[0]))
    assert torch.equal(draws[0], again)
    assert len({tuple(draw.tolist()) for draw in draws}) == len(draws)
