"""The estimated memory against bytes that were counted: what a step's tensors take, and what optimizers keep."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.unit.step_memory import fused_layers_without_numbers, step_bytes
from trainer.config import Config, Optimizer
from trainer.estimates import Memory, training_memory
from trainer.model_sizes import ModelSizes
from trainer.optimizers import make_optimizer
from trainer.parameter_groups import ParameterGroup
from trainer.usual_models import CHANNELS, VAE_PARAMETERS, usual_model

USUAL = {"sd1": "sd15", "sdxl": "sdxl"}
"""Names that the usual sizes are found by."""


def estimated(
    side_px: int, usual_name: str = "sd15", processes: int = 1, *, fused: bool = False, **changes: Any
) -> tuple[Config, Memory]:
    """A step of a usual model in 16 bits on a GPU, in one of several processes."""
    config = Config.model_validate({"name": "x", **changes})
    usual = usual_model(usual_name)
    sizes = ModelSizes(
        denoiser=usual.denoiser,
        text=usual.text,
        vae=VAE_PARAMETERS,
        channels=CHANNELS,
        text_width=usual.text_width,
        lora=usual.lora(config.lora),
        units=usual.units,
        known=True,
        adapted=usual.adapted[config.lora.target],
    )
    return config, training_memory(config, sizes, side_px**2, processes=processes, fused=fused)


@pytest.mark.parametrize(
    ("family", "target", "side_px", "checkpointing"),
    [
        ("sd1", "attention_ff", 512, "off"),
        ("sd1", "attention", 512, "off"),
        ("sd1", "attention_ff", 512, "some"),
        ("sd1", "attention_ff", 512, "all"),
        ("sdxl", "attention_ff", 1024, "all"),
    ],
)
def test_activations_against_what_is_alive(family: str, target: str, side_px: int, checkpointing: str) -> None:
    train = {"mixed_precision": "bf16", "gradient_checkpointing": checkpointing}
    config, memory = estimated(side_px, usual_name=USUAL[family], lora={"target": target}, train=train)
    counted = step_bytes(family, config, side_px)
    assert memory.activations == pytest.approx(counted, rel=0.1)


@pytest.mark.parametrize(
    ("family", "target", "side_px", "checkpointing"),
    [
        ("sd1", "attention_ff", 512, "off"),
        ("sd1", "attention", 512, "some"),
        ("sdxl", "attention_ff", 1024, "off"),
    ],
)
def test_activations_of_fused_layers(family: str, target: str, side_px: int, checkpointing: str) -> None:
    train = {"mixed_precision": "bf16", "gradient_checkpointing": checkpointing}
    given: dict[str, Any] = {"usual_name": USUAL[family], "lora": {"target": target}, "train": train}
    config, memory = estimated(side_px, fused=True, **given)
    with fused_layers_without_numbers():
        counted = step_bytes(family, config, side_px)
    assert memory.activations == pytest.approx(counted, rel=0.1)
    assert memory.activations < estimated(side_px, **given)[1].activations


@pytest.mark.parametrize("optimizer", ["adamw", "lion", "sgd", "prodigy", "schedule_free_adamw", "dadapt_adam"])
def test_optimizers_keep_what_is_said(optimizer: Optimizer) -> None:
    settings = {"optimizer": optimizer, "learning_rate": 1.0, "lr_scheduler": "constant"}
    arguments = {"momentum": 0.9} if optimizer == "sgd" else {}
    config, memory = estimated(512, train={**settings, "optimizer_args": arguments})
    weights = nn.Parameter(torch.ones(640, 16))
    made = make_optimizer([ParameterGroup("unet", 1.0, [weights])], config.train)
    (weights**2).sum().backward()
    made.step()
    states = [each for each in made.state[weights].values() if isinstance(each, Tensor) and each.numel() > 1]
    kept = sum(each.numel() * each.element_size() for each in states)
    lora = memory.lora // 4
    assert memory.optimizer / lora == pytest.approx(kept / weights.numel(), rel=0.15)
    assert weights.grad is not None
    assert memory.gradients / lora == weights.grad.element_size() == weights.element_size()


def test_a_model_that_is_shared_out_counts_by_its_part_and_two_blocks() -> None:
    """Only where there is somebody to share it with; packed weights are shared out as they are."""
    usual = usual_model("sdxl")
    whole = estimated(1024, "sdxl")[1].weights
    alone, two, eight = (estimated(1024, "sdxl", count, model={"share_out": True})[1].weights for count in (1, 2, 8))
    places = 2 * 2 * usual.units.largest_block
    assert alone == whole == estimated(1024, "sdxl", 2)[1].weights
    assert whole - two == pytest.approx(usual.denoiser * 2 / 2 - places)
    assert two - eight == pytest.approx(usual.denoiser * 2 * (1 / 2 - 1 / 8))
    packed = estimated(1024, "sdxl", 2, model={"share_out": True, "quantize": "int8"})[1].weights
    assert two - packed == pytest.approx((usual.denoiser + places) / 2)
