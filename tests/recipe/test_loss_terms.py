"""A step's loss comes in terms, each with a backward pass of its own: the same gradients, one graph at a time."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from tests.recipe.single_steps import batch_of, made_of, values
from trainer.config import Config
from trainer.recipe import batch_inputs, batch_losses, train_step


class LiveGraph:
    """Counts the bytes that autograd keeps for backward passes, now and at most."""

    def __init__(self) -> None:
        self.now = self.peak = 0

    def watch(self) -> saved_tensors_hooks:
        return saved_tensors_hooks(self._pack, lambda kept: kept.tensor)

    def _pack(self, tensor: Tensor) -> _Kept:
        size = tensor.numel() * tensor.element_size()
        kept = _Kept(tensor)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(kept, self._forget, size)
        return kept

    def _forget(self, size: int) -> None:
        self.now -= size


class _Kept:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def preserving(config_of: Callable[..., Config], **changes: object) -> Config:
    preserve = {"class_word": "dog", "weight": 0.7}
    return config_of(loss__preserve=preserve, output__trigger="sks", lora__train="both", **changes)


@pytest.mark.parametrize("changes", [{}, {"lora__dropout": 0.3}, {"lora__type": "loha"}], ids=str)
def test_gradients_are_those_of_the_sum(config_of: Callable[..., Config], changes: dict[str, object]) -> None:
    ingredients, learning, trainables = made_of(preserving(config_of, **changes))
    parameters = values(trainables)
    terms = list(batch_losses(ingredients, batch_inputs(ingredients, batch_of(0), 0)))
    assert len(terms) == 2
    (terms[0] + terms[1]).backward()
    summed = [parameter.grad.double() for parameter in parameters if parameter.grad is not None]
    for parameter in parameters:
        parameter.grad = None
    for term in batch_losses(ingredients, batch_inputs(ingredients, batch_of(0), 0)):
        learning.backward(term)
    apart = [parameter.grad.double() for parameter in parameters if parameter.grad is not None]
    assert len(apart) == len(summed) == len(parameters)
    difference = torch.cat([(one - other).flatten() for one, other in zip(summed, apart, strict=True)]).norm()
    assert difference / torch.cat([each.flatten() for each in summed]).norm() < 1e-6


def test_no_two_graphs_are_alive_at_once(config_of: Callable[..., Config]) -> None:
    peaks = {}
    for name, config in {"plain": config_of(lora__train="both"), "preserving": preserving(config_of)}.items():
        ingredients, learning, _ = made_of(config)
        live = LiveGraph()
        with live.watch():
            train_step(ingredients, learning, batch_of)
        assert live.now == 0, "nothing is left of a step"
        peaks[name] = live.peak
    ingredients, _, _ = made_of(preserving(config_of))
    together = LiveGraph()
    with together.watch():
        terms = list(batch_losses(ingredients, batch_inputs(ingredients, batch_of(0), 0)))
    assert peaks["preserving"] < 1.05 * peaks["plain"]
    assert together.peak > 1.9 * peaks["plain"], "the measure sees two graphs"
    del terms
