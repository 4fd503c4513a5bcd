"""Gradients of real steps on the demo model: checkpointing changes nothing, accumulation is the larger batch."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trainer import recipe
from trainer.conditioning import CaptionEncoder
from trainer.config import Config
from trainer.data.training_set import Batch
from trainer.families import load_family
from trainer.lora.adapter import add_adapters
from trainer.recipe import Ingredients, batch_inputs, batch_losses
from trainer.together import set_training_mode

CPU = torch.device("cpu")
PICTURES = 4
LATENTS = torch.randn(PICTURES, 4, 8, 8, generator=torch.Generator().manual_seed(1))
NOISE = torch.randn(PICTURES, 4, 8, 8, generator=torch.Generator().manual_seed(2))
TIMESTEPS = torch.tensor([10, 300, 600, 950])
CAPTIONS = ["a red circle", "a blue square", "", "two green stars"]


def batch_of(start: int, end: int) -> Batch:
    return Batch(
        latents=LATENTS[start:end],
        captions=CAPTIONS[start:end],
        loss_weights=torch.ones(end - start),
        sizes=torch.full((end - start, 6), 64),
        paths=[Path("x.png")] * (end - start),
    )


def gradients(parts: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch, **train: Any) -> list[Tensor]:
    """Gradients of the mean loss over batches of given pictures, each with its own noise and noise level."""
    config = Config.model_validate({"lora": {"rank": 4, "train": "both"}, "train": train})
    family = load_family(config.model, device=CPU, dtype=torch.float32)
    add_adapters(family, config.lora, seed=3)
    parameters = [p for module in (family.denoiser, *family.text_encoders.values()) for p in module.parameters()]
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    for number, parameter in enumerate(parameters):  # both factors count: the second would start at zero
        parameter.data.normal_(std=0.05, generator=torch.Generator().manual_seed(number))
    set_training_mode(family, config)

    tokens = partial(family.tokenize_captions, max_token_length=75, weighted=False)
    encode = CaptionEncoder(tokens, partial(family.encode_tokens, clip_skip=1, weighted=False))
    ingredients = Ingredients(config, family, encode, CPU, torch.float32, family.alphas_cumprod)
    for index, (start, end) in enumerate(parts):
        monkeypatch.setattr(recipe, "draw_noise", lambda *_, rows=slice(start, end): NOISE[rows])
        monkeypatch.setattr(recipe, "draw_timesteps", lambda *_, rows=slice(start, end): TIMESTEPS[rows])
        for loss in batch_losses(ingredients, batch_inputs(ingredients, batch_of(start, end), index)):
            (loss / len(parts)).backward()
    found = [parameter.grad for parameter in parameters]
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in found)
    return [gradient for gradient in found if gradient is not None]


def difference(first: list[Tensor], second: list[Tensor]) -> float:
    """Length of the difference relative to the first's length."""
    one, other = (torch.cat([gradient.double().flatten() for gradient in each]) for each in (first, second))
    return float((one - other).norm() / one.norm())


def test_accumulation_is_the_larger_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gradients([(0, 4)], monkeypatch)
    assert difference(whole, gradients([(0, 2), (2, 4)], monkeypatch)) < 1e-5
    assert difference(whole, gradients([(0, 2)], monkeypatch)) > 0.01, "the comparison sees a missing half"


@pytest.mark.parametrize("choice", ["some", "all"])
def test_gradient_checkpointing_changes_no_gradient(monkeypatch: pytest.MonkeyPatch, choice: str) -> None:
    plain = gradients([(0, 2)], monkeypatch)
    assert difference(plain, gradients([(0, 2)], monkeypatch, gradient_checkpointing=choice)) < 1e-6


def test_gradient_checkpointing_keeps_less_for_the_way_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers that autograd holds between forward and backward pass, those inside of checkpoints left out."""

    def held(**train: Any) -> int:
        sizes: list[int] = []

        def pack(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            gradients([(0, 2)], monkeypatch, **train)
        return sum(sizes)

    kept, some = held(), held(gradient_checkpointing="some")
    assert held(gradient_checkpointing="all") < 0.8 * some < 0.5 * kept
