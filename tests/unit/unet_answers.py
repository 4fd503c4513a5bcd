"""What a small UNet with a LoRA answers, and the gradients of it: to be held against the same from other layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.tiny_models import tiny_model
from trainer.config import LoraSettings, ModelSettings
from trainer.families import load_family
from trainer.families.base import Conditioning, Family
from trainer.lora.adapter import add_adapters
from trainer.quantize import quantize_denoiser

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def near(got: Tensor, wanted: Tensor, share: float) -> bool:
    """Whether the difference is this share of the whole at most, in length."""
    wanted = wanted.double()
    return bool((got.double() - wanted).norm() <= share * wanted.norm())


def family_of(
    kind: str, folder: Path, dtype: torch.dtype, quantize: Any = "none", **lora: Any
) -> tuple[Family, list[nn.Parameter]]:
    """A tiny model with a LoRA that says something; ``lora`` are settings of it."""
    model = ModelSettings(base=str(tiny_model(kind, folder / kind)))
    family = load_family(model, device=DEVICE, dtype=dtype, prediction_type="auto")
    quantize_denoiser(family.denoiser, quantize)
    settings = LoraSettings(**{"rank": 4, "alpha": 4, "target": "full", **lora})
    parameters = [each.parameter for each in add_adapters(family, settings, seed=1)]
    generator = torch.Generator().manual_seed(5)
    for each in parameters:
        each.data = (torch.randn(each.shape, generator=generator) * 0.05).to(DEVICE)
    return family, parameters


def predicted(family: Family, parameters: list[nn.Parameter], dtype: torch.dtype) -> list[Tensor]:
    """The denoiser's answer, and the gradients."""
    generator = torch.Generator().manual_seed(2)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(DEVICE)

    config: Any = family.denoiser.config
    second: Any = family.text_encoders.get("text_encoder_2")
    pooled = {} if second is None else {"pooled": drawn(2, second.config.projection_dim)}
    condition = Conditioning(drawn(2, 77, config.cross_attention_dim), pooled)
    sizes = torch.full((2, 6), 64, device=DEVICE)
    with torch.autocast(DEVICE.type, dtype=dtype, enabled=dtype != torch.float32):
        answer = family.predict(drawn(2, 4, 8, 8), torch.tensor([3, 700], device=DEVICE), condition, sizes)
    for each in parameters:
        each.grad = None
    (answer.float() * drawn(2, 4, 8, 8)).mean().backward()
    return [answer.detach(), *(each.grad for each in parameters if each.grad is not None)]
