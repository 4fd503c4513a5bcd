"""Which calls are replayed, how many graphs are kept, and what happens where there can be none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer import step_calls
from trainer.config import TrainSettings
from trainer.config_io import parse_config
from trainer.devices import SMALL_MODEL_PARAMETERS
from trainer.learning import Learning
from trainer.parameter_groups import ParameterGroup
from trainer.runs.events import Events
from trainer.step_calls import CALLED, Calls, calls_of, why_called

CPU = torch.device("cpu")


class Bed:
    """Calls with stand-ins for graphs, and what happened, in words: called, captured, replayed."""

    def __init__(self) -> None:
        group = ParameterGroup("unet", 0.1, [nn.Parameter(torch.ones(2))])
        self.learning = Learning([group], TrainSettings(), 10, scaled=True)
        self.done: list[str] = []
        self.told: list[str] = []
        self.makers = 0
        self.error: RuntimeError | None = None
        self.calls = Calls(self.learning, self.maker, self.told.append)

    def maker(self) -> Any:
        self.makers += 1
        return self.capture

    def capture(self, function: Any, inputs: Sequence[Tensor]) -> Any:
        if self.error is not None:
            raise self.error
        self.done.append("captured")
        bed = self

        class Graph:
            def replay(self, inputs: Sequence[Tensor]) -> Tensor:
                bed.done.append("replayed")
                return inputs[0] * 2

        return Graph()

    def function(self, given: Tensor) -> Tensor:
        self.done.append("called")
        return given * 2

    def run(self, *sizes: int, kind: str = "") -> list[str]:
        """What is done for inputs of these sizes, one after the other."""
        self.done.clear()
        for size in sizes:
            assert torch.equal(self.calls.run(kind, self.function, [torch.ones(size)], CPU), torch.full((size,), 2.0))
        return list(self.done)


class OfSize:
    """As much of a family as is looked at: how large its denoiser is."""

    def __init__(self, parameters: int) -> None:
        self.denoiser = nn.Linear(parameters, 1, bias=False, device="meta")


def test_on_a_processor_a_kind_is_captured_once_it_was_called_often_enough() -> None:
    bed = Bed()
    bed.calls = Calls(bed.learning, bed.maker, bed.told.append, called_first=3)
    assert bed.run(1, 1, 2, 1, 1) == ["called"] * 4 + ["captured", "replayed"]


def test_the_second_of_a_kind_is_captured() -> None:
    bed = Bed()
    assert bed.run(1, 1, 1) == ["called", "captured", "replayed", "replayed"]
    assert bed.run(2) == ["called"] and bed.run(1, kind="other") == ["called"]
    bed.calls.forget()
    assert bed.run(1, 2) == ["called", "called"], "where things lie now is settled by a step that is called"
    assert bed.run(1, 2) == ["captured", "replayed", "captured", "replayed"] and bed.makers == 2


def test_few_are_kept_and_those_of_use_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_calls, "MOST_GRAPHS", 2)
    monkeypatch.setattr(step_calls, "LATELY", 6)
    bed = Bed()
    bed.run(1, 1, 2, 2)
    assert bed.run(3, 3, 1, 2) == ["called", "called", "replayed", "replayed"], "both are of use"
    bed.run(1, 1, 1, 1, 1)
    assert bed.run(3, 3) == ["captured", "replayed", "replayed"], "2 was not any more"
    assert bed.run(2) == ["called"] and bed.calls.graphs == 2


def test_a_capture_that_fails_is_told_once_and_leaves_nothing() -> None:
    bed = Bed()
    (bed.learning._parameters[0] * 2).sum().backward()
    kept, scale = bed.learning.places(), bed.learning.state()["scaler"]
    bed.error = RuntimeError("no such operation\nin a graph")
    assert bed.run(1, 1, 1) == ["called"] * 3
    assert bed.told == ["RuntimeError: no such operation"] and bed.learning.places()[0] is kept[0]
    assert bed.learning.state()["scaler"] == scale and not bed.learning.stays_in_place


def test_graphs_give_way_to_a_step_without_them() -> None:
    bed, tries = Bed(), []
    bed.run(1, 1)

    def work() -> None:
        tries.append(bed.calls.graphs)
        if bed.calls.graphs:
            raise torch.OutOfMemoryError("CUDA out of memory")

    bed.calls.within_memory(work, lambda: tries.append(-1))
    assert tries == [1, -1, 0] and len(bed.told) == 1 and bed.run(1, 1) == ["called"] * 2

    def fails() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        bed.calls.within_memory(fails, lambda: None)


def test_steps_of_a_model_that_is_held_together_are_called() -> None:
    config = parse_config({"model": {"share_out": True}})
    assert why_called(config) is None and "share_out" in (why_called(config, in_step=True) or "")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"train": {"compile": "off"}}, "train.compile"),
        ({"model": {"offload": 0.5}}, "offload"),
        ({"train": {"gradient_checkpointing": "all"}}, None),
        ({"train": {"gradient_checkpointing": "all"}, "lora": {"dropout": 0.1}}, "checkpointing"),
        ({"lora": {"dropout": 0.1, "rank_dropout": 0.1}}, None),
        ({"lora": {"type": "loha", "rank_dropout": 0.1}}, "loha"),
    ],
)
def test_what_the_settings_rule_out_is_said(changes: dict[str, Any], said: str | None) -> None:
    config, bed, told = parse_config(changes), Bed(), []

    class Sink:
        def emit(self, kind: str, step: int = 0, **fields: Any) -> None:
            told.append(f"{kind} {fields.get('what')}")

    why = why_called(config)
    assert (why is None) == (said is None) and (said or "") in (why or "")
    calls = calls_of(config, bed.learning, OfSize(1), torch.device("cuda", 0), Sink())
    assert (calls is CALLED) == (said is not None) and len(told) == 1 and (said or "replayed") in told[0]
    assert (calls_of(config, bed.learning, OfSize(1), CPU, Events()) is CALLED) == (said is not None)
    assert calls_of(config, bed.learning, OfSize(SMALL_MODEL_PARAMETERS), CPU, Events()) is CALLED
