"""Settings that a whole run has to hand on: the format of the step's products, the noise schedule."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.recipe.single_steps import batch_of, made_of
from tests.recipe.tiny_runs import train_here
from trainer import recipe
from trainer.config import Config
from trainer.recipe import train_step
from trainer.runs.store import Workspace


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_products_are_computed_in_the_chosen_format(config_of: Callable[..., Config], dtype: torch.dtype) -> None:
    """Those with the LoRA's float32 weights too; gradients and weights stay float32."""
    ingredients, learning, trainables = made_of(config_of(lora__target="attention"))
    seen: set[torch.dtype] = set()
    layers: list[Any] = [module for name, module in ingredients.family.denoiser.named_modules() if "lora_A." in name]
    for layer in layers:
        layer.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    train_step(dataclasses.replace(ingredients, dtype=dtype), learning, batch_of)
    assert layers and seen == {dtype}
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
