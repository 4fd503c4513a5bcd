"""A denoiser of which each process keeps a part: what each holds, and that the parts are the whole."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.tiny_models import tiny_model
from trainer.block_fetching import ALIGNED_BYTES, PLACES
from trainer.config import ModelSettings, Quantize
from trainer.families import load_family
from trainer.families.base import Conditioning, Family
from trainer.quantize import quantize_denoiser
from trainer.shared_out import Parts, share_out_blocks

CPU = torch.device("cpu")


class _Gathered(Parts):
    """Parts of processes that are all in this one, and write their bytes where the block is asked for."""

    def __init__(self, index: int, size: int, everyone: list[_Gathered]) -> None:
        super().__init__(index, size, CPU, None)
        self.kept: list[Tensor] = []
        self._everyone = everyone
        everyone.append(self)

    def keep(self, block: Tensor) -> Tensor:
        self.kept.append(super().keep(block))
        return self.kept[-1]

    def start(self, kept: Tensor, target: Tensor) -> Tensor:
        number = next(number for number, each in enumerate(self.kept) if each is kept)
        target.fill_(255)
        return torch.cat([each.kept[number] for each in self._everyone], out=target)

    def wait(self, started: Tensor) -> None:
        """It is there already."""


def loaded(folder: Path, quantize: Quantize) -> Family:
    family = load_family(ModelSettings(base=str(folder)), device=CPU, dtype=torch.float32)
    quantize_denoiser(family.denoiser, quantize)
    return family


def predicted(family: Family) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    noisy = torch.randn(1, 4, 8, 8, generator=generator)
    texts: Conditioning = family.encode_captions(["a circle"], max_token_length=75, clip_skip=1, weighted=False)
    with torch.no_grad():
        return family.predict(noisy, torch.tensor([500]), texts, torch.tensor([[64, 64, 0, 0, 64, 64]]))


def alive_bytes() -> int:
    """Of all tensors of this process, each storage once."""
    gc.collect()
    storages = [each.untyped_storage() for each in gc.get_objects() if isinstance(each, Tensor)]
    return sum({each.data_ptr(): each.nbytes() for each in storages}.values())


def bytes_in_blocks(denoiser: nn.Module) -> int:
    """Of the weights of linear layers and convolutions in blocks."""
    blocks = {"resnets", "transformer_blocks", "downsamplers", "upsamplers"}
    parameters = denoiser.named_parameters()
    return sum(each.nbytes for name, each in parameters if each.ndim > 1 and blocks & set(name.split(".")))


@pytest.mark.parametrize(("kind", "size"), [("sd1", 2), ("sdxl", 2), ("sd1", 3)])
def test_each_process_holds_its_part_of_the_blocks(tmp_path: Path, kind: str, size: int) -> None:
    """Nearly all of a model is in blocks; what is let go is counted over all tensors that are alive."""
    tiny_model(kind, tmp_path)
    alive_before = alive_bytes()
    family = loaded(tmp_path, "none")
    held = alive_bytes() - alive_before
    inside = bytes_in_blocks(family.denoiser)
    assert inside > 0.8 * sum(each.nbytes for each in family.denoiser.parameters())
    everyone: list[_Gathered] = []
    share_out_blocks(family.denoiser, _Gathered(0, size, everyone), CPU)
    padding = len(everyone[0].kept) * 40 * ALIGNED_BYTES  # at most, of the weights of a block
    let_go = held - (alive_bytes() - alive_before)
    assert inside * (1 - 1 / size) - padding < let_go <= inside * (1 - 1 / size)


@pytest.mark.parametrize(("kind", "size", "quantize"), [("sd1", 2, "none"), ("sdxl", 3, "none"), ("sd1", 3, "nf4")])
def test_the_parts_are_the_whole(tmp_path: Path, kind: str, size: int, quantize: Quantize) -> None:
    """Also where a block cannot be divided evenly; and again when its owner was moved and came back."""
    tiny_model(kind, tmp_path)
    expected = predicted(loaded(tmp_path, quantize))
    everyone: list[_Gathered] = []
    families: list[Any] = []
    for index in range(size):
        families.append(loaded(tmp_path, quantize))
        fetching = share_out_blocks(families[-1].denoiser, _Gathered(index, size, everyone), CPU)
    for family in families:
        assert torch.allclose(predicted(family), expected, atol=1e-6)
    asked = fetching.asked
    assert asked >= len(everyone[0].kept) > PLACES
    families[-1].move(denoiser="cpu")
    assert torch.allclose(predicted(families[-1]), expected, atol=1e-6) and fetching.asked == 2 * asked
