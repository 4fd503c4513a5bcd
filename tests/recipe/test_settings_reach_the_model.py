"""Settings that a whole run has to hand on: the format of the step's products, the noise schedule."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.recipe.single_steps import batch_of, made_of
from tests.recipe.tiny_runs import train_here
from trainer import recipe
from trainer.config import Config
from trainer.recipe import train_step
from trainer.runs.store import Workspace

aten = torch.ops.aten


class Products(TorchDispatchMode):
    """Notes the formats that matrix products and convolutions are computed in, from ``begin`` on."""

    KINDS = (aten.mm, aten.addmm, aten.addmm_, aten.bmm, aten.convolution)

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()
        self.begun = False

    def begin(self, *_: Any) -> None:
        self.begun = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if self.begun and func.overloadpacket in self.KINDS:
            self.seen.add(output.dtype)
        return output


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_products_are_computed_in_the_chosen_format(config_of: Callable[..., Config], dtype: torch.dtype) -> None:
    """Those with the LoRA's float32 weights too; gradients and weights stay float32."""
    ingredients, learning, trainables = made_of(config_of(lora__target="attention"))
    with Products() as products:
        ingredients.family.denoiser.register_forward_pre_hook(products.begin)  # captions are encoded before
        train_step(dataclasses.replace(ingredients, dtype=dtype), learning, batch_of)
    assert products.seen == {dtype}
    assert {item.parameter.dtype for item in trainables} == {torch.float32}
    assert {gradient.dtype for gradient in learning.gradients.values()} == {torch.float32}


def test_a_run_takes_over_format_and_noise_schedule(
    workspace: Workspace, config_of: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Any] = []
    steps: list[recipe.Ingredients] = []
    load, step = recipe.load_family, recipe.train_step

    def watched_load(*arguments: Any, **settings: Any) -> Any:
        loaded.append(load(*arguments, **settings))
        return loaded[-1]

    def watched_step(ingredients: recipe.Ingredients, *arguments: Any) -> torch.Tensor:
        steps.append(ingredients)
        return step(ingredients, *arguments)

    monkeypatch.setattr(recipe, "load_family", watched_load)
    monkeypatch.setattr(recipe, "train_step", watched_step)
    changes = {"loss__zero_terminal_snr": True, "train__mixed_precision": "bf16", "train__max_steps": 1}
    train_here(workspace.create_run(config_of(**changes, lora__target="attention")))
    [family], [ingredients] = loaded, steps
    assert float(family.alphas_cumprod[-1]) == pytest.approx(0, abs=1e-6)
    assert float(ingredients.alphas[-1]) == pytest.approx(0, abs=1e-6)
    assert ingredients.dtype == family.denoiser.dtype == torch.bfloat16
