"""What a step reads, as a list of tensors and back."""

from __future__ import annotations

import torch

from trainer.step_inputs import StepInputs


def test_the_way_there_and_back() -> None:
    one = torch.ones(1)
    plain = StepInputs(one, one * 2, one * 3, one * 4, one * 5, texts={"ids": one * 6})
    whole = StepInputs(
        one, one * 2, one * 3, one * 4, one * 5, {"b": one * 6, "a": one * 7}, one * 8, one * 9, {"b": one * 10}
    )
    for inputs in (plain, whole):
        names, tensors = inputs.tensors()
        assert StepInputs.from_tensors(names, tensors) == inputs
    assert len(whole.tensors()[1]) == 10 and plain.tensors()[0] != whole.tensors()[0]
