"""A UNet whose pictures stay as they lie in memory, against diffusers' own layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.unit.unet_answers import family_of, near, predicted
from trainer.families.side_by_side import (
    SideBySideResnetBlock,
    SideBySideTransformer,
    lay_pictures_side_by_side,
)
from trainer.pixels import as_picture, as_pixels


@pytest.mark.parametrize(
    ("kind", "lora", "quantize", "checkpointing"),
    [
        ("sd1", {"target": "attention"}, "none", "off"),  # 1x1 convolutions, frozen
        ("sd1", {"target": "full"}, "none", "some"),  # with LoRAs
        ("sd1", {"type": "lokr", "conv_rank": 4}, "none", "off"),  # adapters that add by hooks
        ("sd1", {"target": "attention"}, "int8", "all"),
        ("sdxl", {"target": "attention_ff"}, "none", "off"),  # linear projections
    ],
)
def test_a_whole_unet(kind: str, lora: dict[str, Any], quantize: str, checkpointing: Any, tmp_path: Path) -> None:
    family, parameters = family_of(kind, tmp_path, torch.float32, quantize, **lora)
    family.save_memory(checkpointing, draws=False)
    family.denoiser.train()
    wanted = predicted(family, parameters, torch.float32)
    lay_pictures_side_by_side(family.denoiser)
    got = predicted(family, parameters, torch.float32)
    assert len(got) == len(wanted) > 10
    assert all(near(one, other, 1e-5) for one, other in zip(got, wanted, strict=True))


def test_pictures_stay_as_they_lie_from_the_first_to_the_last_block(tmp_path: Path) -> None:
    family, parameters = family_of("sd1", tmp_path, torch.float32, target="attention")
    lay_pictures_side_by_side(family.denoiser)
    lies: list[bool] = []
    kinds = (SideBySideResnetBlock, SideBySideTransformer)

    def look(layer: nn.Module, given: Any, result: Any) -> None:
        for each in (given[0], result if isinstance(result, Tensor) else result[0]):
            lies.append(each.is_contiguous(memory_format=torch.channels_last))

    blocks = [each for each in family.denoiser.modules() if isinstance(each, kinds)]
    assert {type(each) for each in blocks} == set(kinds)
    for block in blocks:
        block.register_forward_hook(look)
    predicted(family, parameters, torch.float32)
    assert len(lies) == 2 * len(blocks) and all(lies)


def test_pixels_are_no_copy_of_the_picture() -> None:
    picture = torch.randn(2, 6, 3, 5).contiguous(memory_format=torch.channels_last)
    pixels = as_pixels(picture)
    assert pixels.is_contiguous() and pixels.data_ptr() == picture.data_ptr()
    assert torch.equal(pixels[1, 2 * 5 + 3], picture[1, :, 2, 3])
    assert torch.equal(as_picture(pixels, picture.shape[2:]), picture)


def test_other_blocks_are_left_alone(tmp_path: Path) -> None:
    """One that scales its output, as no model of Stable Diffusion does."""
    family, _ = family_of("sd1", tmp_path, torch.float32)
    first: Any = next(each for each in family.denoiser.modules() if type(each).__name__ == "ResnetBlock2D")
    first.output_scale_factor = 2.0
    lay_pictures_side_by_side(family.denoiser)
    kinds = [type(each).__name__ for each in family.denoiser.modules() if "ResnetBlock" in type(each).__name__]
    assert kinds[0] == "ResnetBlock2D" and set(kinds[1:]) == {"SideBySideResnetBlock"}
