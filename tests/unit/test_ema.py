"""The running mean against a float64 computation by hand, and that it changes places with the weights and back."""

from __future__ import annotations

import torch
from torch import nn

from trainer.ema import Ema


def test_the_mean_is_that_of_a_float64_computation() -> None:
    """``mean = d * mean + (1 - d) * weights`` with ``d = min(decay, (1 + n) / (10 + n))`` after n updates."""
    values = torch.randn(30, 5, generator=torch.Generator().manual_seed(2))
    parameter = nn.Parameter(values[0].clone())
    average, expected = Ema([parameter], 0.6), values[0].double()
    for step, value in enumerate(values[1:], start=1):
        parameter.data.copy_(value)
        average.take_in(torch.tensor(average.share_at(step)))
        decay = min(0.6, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value.double()
    torch.testing.assert_close(average.state()[0].double(), expected, rtol=1e-6, atol=1e-6)


def test_it_takes_the_weights_place_and_gives_it_back() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    average = Ema([parameter], 0.5)
    parameter.data.fill_(3.0)
    average.take_in(torch.tensor(average.share_at(1)))  # decay min(0.5, 2 / 11): 1 * 2 / 11 + 3 * 9 / 11
    with average.applied():
        torch.testing.assert_close(parameter.detach(), torch.tensor([29 / 11]))
    assert parameter.item() == 3.0
