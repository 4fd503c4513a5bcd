"""A step's loss comes in terms, each with a backward pass of its own: the same gradients, one graph at a time."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from trainer.conditioning import caption_encoder
from trainer.config import Config
from trainer.data.training_set import Batch
from trainer.demo import MODEL_DIR
from trainer.families import load_family
from trainer.learning import Learning
from trainer.lora.adapter import add_adapters
from trainer.parameter_groups import parameter_groups
from trainer.recipe import Ingredients, batch_losses, train_step
from trainer.runs.events import Events
from trainer.upkeep import set_training_mode

CPU = torch.device("cpu")


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


def batch_of(index: int) -> Batch:
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(100 + index))
    sizes = torch.zeros(2, 6, dtype=torch.int64)
    return Batch(latents=latents, captions=["a sks", "sks, blue"], loss_weights=torch.ones(2), sizes=sizes, paths=[])


def made_of(config: Config) -> tuple[Ingredients, Learning, list[nn.Parameter]]:
    family = load_family(config.model, device=CPU, dtype=torch.float32)
    trainables = add_adapters(family, config.lora, seed=1)
    for number, trainable in enumerate(trainables):
        trainable.parameter.data.normal_(std=0.05, generator=torch.Generator().manual_seed(number))
    set_training_mode(family, config.train)
    encode = caption_encoder(family, config, [], MODEL_DIR, Events(), lambda: None)
    learning = Learning(parameter_groups(trainables, config.train), config.train, 10, scaled=False)
    ingredients = Ingredients(config, family, encode, CPU, torch.float32, family.alphas_cumprod)
    return ingredients, learning, [trainable.parameter for trainable in trainables]


def preserving(config_of: Callable[..., Config], **changes: object) -> Config:
    preserve = {"class_word": "dog", "weight": 0.7}
    return config_of(loss__preserve=preserve, output__trigger="sks", lora__train="both", **changes)


@pytest.mark.parametrize("changes", [{}, {"lora__dropout": 0.3}, {"lora__type": "loha"}], ids=str)
def test_gradients_are_those_of_the_sum(config_of: Callable[..., Config], changes: dict[str, object]) -> None:
    ingredients, learning, parameters = made_of(preserving(config_of, **changes))
    terms = list(batch_losses(ingredients, batch_of(0), 0))
    assert len(terms) == 2
    (terms[0] + terms[1]).backward()
    summed = [parameter.grad.double() for parameter in parameters if parameter.grad is not None]
    for parameter in parameters:
        parameter.grad = None
    for term in batch_losses(ingredients, batch_of(0), 0):
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
        terms = list(batch_losses(ingredients, batch_of(0), 0))
    assert peaks["preserving"] < 1.05 * peaks["plain"]
    assert together.peak > 1.9 * peaks["plain"], "the measure sees two graphs"
    del terms
