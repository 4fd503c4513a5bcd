"""What a UNet keeps in a training step, counted by the parts it is made of. Never torch.

A unit is a number for each latent cell and channel of the UNet's first level: a layer of the second level, with a
quarter of the cells and twice the width, is half a unit. Bytes a unit were counted over the tensors that autograd keeps
and that are alive at the peak of forward and backward pass, at the full size of Stable Diffusion 1.5 and SDXL, with
the LoRA on it and the normalisations in float32, as autocast has them on a GPU. A test counts them again.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass

from trainer.config import Target
from trainer.config_training import Checkpointing
from trainer.single_file.header import Shapes

_DOWN_BLOCK = re.compile(r"down_blocks\.(\d+)\.")
_PLACE = re.compile(r"(down|mid|up)_blocks?\.(?:(\d+)\.)?")
_QUERY = re.compile(r"\.transformer_blocks\.\d+\.attn1\.to_q\.weight$")
_INTO = re.compile(r"\.attentions\.\d+\.proj_in\.weight$")
_FIRST_CONV = re.compile(r"\.resnets\.\d+\.conv1\.weight$")
BLOCK = re.compile(r"^(.+?\.(?:resnets|transformer_blocks|downsamplers|upsamplers)\.\d+)\.")
"""A layer's name begins with the smallest block that it is in."""


@dataclass(frozen=True)
class _Bytes:
    """Of each part, a unit.

    Attributes:
        attention: of a transformer block, its feed-forward layers aside.
        feed_forward: these, by the layers that have a LoRA.
        entry: of a transformer, outside of its blocks.
        resnet: of a ResNet block.
        lean_entry, lean_resnet: where frozen convolutions keep no inputs.
        checkpointed_resnet: where all is checkpointed.
    """

    attention: float
    feed_forward: dict[Target, float]
    entry: float
    resnet: float
    lean_entry: float
    lean_resnet: float
    checkpointed_resnet: float


_USUAL = _Bytes(
    attention=28.4,
    feed_forward={"attention": 26.1, "attention_ff": 33.3, "full": 33.3},
    entry=10.0,
    resnet=9.6,
    lean_entry=7.7,
    lean_resnet=6.8,
    checkpointed_resnet=1.2,
)
_FUSED = _Bytes(
    attention=23.4,
    feed_forward={"attention": 16.9, "attention_ff": 25.9, "full": 25.9},
    entry=6.6,
    resnet=4.2,
    lean_entry=5.2,
    lean_resnet=1.2,
    checkpointed_resnet=0.9,
)
"""With the layers of ``trainer.fused``, which keep 16 bits where autocast has normalisations keep 32."""
_WITHOUT_LORA = 4.2
"""Of an entry, less where its projections have no LoRA, and keep no inputs for one."""
_CHECKPOINTED_FEED_FORWARD_BYTES = 4.0
_CHECKPOINTED_BLOCK_BYTES = 2.0
_ENDS_BYTES: dict[Checkpointing, float] = {"off": 18.0, "some": 8.0, "all": 8.5}
_AT_ONCE_BYTES: dict[Checkpointing, tuple[float, float]] = {"off": (12, 24), "some": (23, 38), "all": (36, 38)}
"""What the backward pass needs besides; and what more where the first level has transformers, the widest of all."""


@dataclass(frozen=True)
class UnetUnits:
    """A UNet's parts, in units.

    Attributes:
        blocks: transformer blocks.
        transformers: stacks of them, with a projection at both ends.
        resnets: ResNet blocks, what goes in and what comes out together.
        first_level: whether there are transformers in the first level.
        largest_block: weights of the largest block.
    """

    blocks: float
    transformers: float
    resnets: float
    first_level: bool
    largest_block: int


def unet_units(unet: Shapes) -> UnetUnits:
    """The parts of a UNet, from its shapes in diffusers' names. Raises KeyError where it is none."""
    first = unet["conv_in.weight"][0]
    levels = 1 + max(int(found[1]) for name in unet if (found := _DOWN_BLOCK.match(name)))
    blocks, transformers, resnets = 0.0, 0.0, 0.0
    weights: Counter[str] = Counter()
    first_level = False
    for name, shape in unet.items():
        if inside := BLOCK.match(name):
            weights[inside[1]] += math.prod(shape)
        if not (place := _PLACE.match(name)):
            continue
        number = int(place[2] or 0)
        level = {"down": number, "mid": levels - 1, "up": levels - 1 - number}[place[1]]
        unit = 1 / first / 4**level
        if _QUERY.search(name):
            blocks += shape[0] * unit
            first_level |= level == 0
        elif _INTO.search(name):
            transformers += shape[0] * unit
        elif _FIRST_CONV.search(name):
            resnets += (shape[0] + shape[1]) * unit
    return UnetUnits(blocks, transformers, resnets, first_level, max(weights.values(), default=0))


def activation_bytes(units: UnetUnits, target: Target, choice: Checkpointing, *, fused: bool = False) -> float:
    """Bytes at the peak of a step, for each latent cell and channel of the first level, in 16 bits.

    Args:
        units: of the UNet.
        target: the layers that have a LoRA.
        choice: of gradient checkpointing.
        fused: whether the layers of ``trainer.fused`` compute.
    """
    at_once, wide = _AT_ONCE_BYTES[choice]
    kept = _kept(units, target, choice, _FUSED if fused else _USUAL)
    return kept + _ENDS_BYTES[choice] + at_once + wide * units.first_level


def _kept(units: UnetUnits, target: Target, choice: Checkpointing, each: _Bytes) -> float:
    entry = each.lean_entry if choice != "off" else each.entry
    if target == "attention":
        entry -= _WITHOUT_LORA
    kept = units.transformers * entry
    if choice == "all":
        return kept + units.blocks * _CHECKPOINTED_BLOCK_BYTES + units.resnets * each.checkpointed_resnet
    forward = each.feed_forward[target] if choice == "off" else _CHECKPOINTED_FEED_FORWARD_BYTES
    resnet = each.resnet if choice == "off" else each.lean_resnet
    return kept + units.blocks * (each.attention + forward) + units.resnets * resnet
