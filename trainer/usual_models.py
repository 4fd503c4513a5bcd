"""The sizes of the usual models, for plans about a model that is not on this machine yet. Never torch.

Parameters were counted on models built from the published configs with diffusers 0.42 and transformers 5.23; a test
counts them again. A LoRA layer of m inputs and n outputs takes m + n parameters for each of its ranks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from trainer.activations import UnetUnits
from trainer.config import LoraSettings, Target

VAE_PARAMETERS = 83_653_863
"""The autoencoder is the same network in all of them."""
CHANNELS = 320
"""So is the width of the UNet's first level."""


@dataclass(frozen=True)
class UsualModel:
    """A model by its name.

    Attributes:
        name: as people call it.
        hub_ids: regular expression that finds it and models made from it by their hub id.
        denoiser: parameters.
        text: parameters of all text encoders.
        text_width: numbers per token that they give together.
        unet_rank: parameters per rank of a LoRA on the UNet, by target.
        unet_conv_rank: parameters per rank on its 3x3 convolutions.
        text_rank: parameters per rank on the text encoders, attention only and with the feed-forward layers.
        units: of the UNet.
        adapted: numbers in the UNet's weights that a LoRA goes on, by target.
    """

    name: str
    hub_ids: str
    denoiser: int
    text: int
    text_width: int
    unet_rank: dict[Target, int]
    unet_conv_rank: int
    text_rank: tuple[int, int]
    units: UnetUnits
    adapted: dict[Target, int]

    def lora(self, lora: LoraSettings) -> int:
        """Parameters of a LoRA; patterns are not looked at, as the layers' names are not known."""
        total = 0
        if lora.train != "text_encoder":
            total += self.unet_rank[lora.target] * lora.rank + self.unet_conv_rank * lora.conv_rank
        if lora.train != "unet":
            total += self.text_rank[lora.target != "attention"] * lora.rank
        return total


_SD_UNITS = UnetUnits(8.8125, 8.8125, 24.5625, True, 49_164_800)
USUAL_MODELS = (
    UsualModel(
        name="Stable Diffusion XL",
        hub_ids=r"XL|(?i:(^|[^a-z])xl([^a-z]|$)|sdxl|illustrious|noobai|pony)",
        denoiser=2_567_463_684,
        text=123_060_480 + 694_659_840,
        text_width=768 + 1280,
        unet_rank={"attention": 1_451_520, "attention_ff": 2_659_840, "full": 2_718_400},
        unet_conv_rank=355_840,
        text_rank=(73_728 + 327_680, 165_888 + 737_280),
        units=UnetUnits(20.0, 4.0, 24.5, False, 49_164_800),
        adapted={"attention": 955_187_200, "attention_ff": 2_207_744_000, "full": 2_238_771_200},
    ),
    UsualModel(
        name="Stable Diffusion 2",
        hub_ids=r"(?i)stable-diffusion-2",
        denoiser=865_910_724,
        text=340_387_840,
        text_width=1024,
        unet_rank={"attention": 207_488, "attention_ff": 432_128, "full": 515_008},
        unet_conv_rank=544_000,
        text_rank=(188_416, 423_936),
        units=_SD_UNITS,
        adapted={"attention": 99_901_440, "attention_ff": 273_367_040, "full": 322_416_640},
    ),
    UsualModel(
        name="Stable Diffusion 1.5",
        hub_ids="",
        denoiser=859_520_964,
        text=123_060_480,
        text_width=768,
        unet_rank={"attention": 199_296, "attention_ff": 423_936, "full": 506_816},
        unet_conv_rank=544_000,
        text_rank=(73_728, 165_888),
        units=_SD_UNITS,
        adapted={"attention": 93_511_680, "attention_ff": 266_977_280, "full": 316_026_880},
    ),
)
"""The last one stands in for whatever has no telling name."""


def usual_model(base: str) -> UsualModel:
    """The model that a hub id or file name most likely means."""
    return next(model for model in USUAL_MODELS if re.search(model.hub_ids, base))
