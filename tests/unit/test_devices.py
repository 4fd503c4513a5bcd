"""Threads, number formats and generators."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from trainer.config import ModelSettings
from trainer.devices import compute_dtype, lacks_determinism, seeded_generator, use_deterministic, use_threads_for
from trainer.families import load_family
from trainer.session import _explain

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


@pytest.fixture
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    use_deterministic(False)


def test_deterministic_computing_is_set_and_given_up(as_before: None) -> None:
    torch.backends.cudnn.benchmark = True
    use_deterministic(True)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled(), "attention would only warn, and go on as it likes"
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    use_deterministic(False)
    assert not torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.deterministic


def test_what_cannot_be_computed_so_is_explained(as_before: None) -> None:
    use_deterministic(True)
    with pytest.raises(RuntimeError) as caught:
        torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))
    assert lacks_determinism(caught.value) and not lacks_determinism(RuntimeError("shapes differ"))
    problem = _explain(caught.value, in_steps=True)
    assert problem.field == "train.deterministic" and "put_" in problem.message and "Turn off" in problem.hint
