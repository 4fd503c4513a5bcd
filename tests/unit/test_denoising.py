"""On a GPU nothing in the loop waits for the GPU, and the denoiser can be captured: found out on the meta device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from tests.tiny_models import tiny_model
from tests.unit.capture_checker import check_capturable
from tests.unit.test_drawing import lora_for
from trainer.config import ModelSettings, Prompt
from trainer.denoising import Denoising, Step, Texts
from trainer.families import load_family
from trainer.families.base import Conditioning, Family
from trainer.generate import Painter
from trainer.pictures import LoraUse
from trainer.sampler_names import SAMPLER_NAMES, Sampler

CPU, GPU = torch.device("cpu"), torch.device("meta")
STEPS = 3
DRAWS = {"euler_a", "dpm2_a", "dpmpp_2m_sde", "dpmpp_3m_sde", "dpmpp_sde", "ddpm", "lcm", "tcd"}
"""Samplers with noise of their own, which comes from the CPU's generators."""
SOLVES = {"unipc"}
"""Brings a small system of equations to the GPU for each step, inside diffusers."""
MOVES = {"ddim", "pndm", "ddpm", "lcm", "tcd"}
"""Hold their noise schedule on the GPU once they have noised a picture."""
STARTS = [
    *((sampler, False) for sampler in SAMPLER_NAMES if sampler not in SOLVES),
    *((sampler, True) for sampler in SAMPLER_NAMES if sampler in MOVES),
]


class Copies(TorchDispatchMode):
    """Counts copies between devices; numbers that are asked of the meta device are an error anyway."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if "copy" in str(func):
            tensors = [each for each in tree_flatten((args, result))[0] if isinstance(each, Tensor)]
            self.count += len({each.device for each in tensors}) > 1
        return result


def texts(family: Family, rows: int) -> Conditioning:
    width: int = family.denoiser.config.cross_attention_dim  # type: ignore[union-attr, assignment]
    extra = {"pooled": torch.empty(rows, 40, device=GPU)} if family.name == "sdxl" else {}
    return Conditioning(torch.empty(rows, 77, width, device=GPU), extra)


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Family]:
    folders = {kind: tiny_model(kind, tmp_path_factory.mktemp(kind) / "model") for kind in ("sd1", "sdxl")}
    return {
        kind: load_family(ModelSettings(base=str(folder)), device=GPU, dtype=torch.float32)
        for kind, folder in folders.items()
    }


def copies(family: Family, sampler: Sampler, *, from_picture: bool) -> list[int]:
    """How many copies between devices have been made after each step."""
    denoising = Denoising(family, Prompt(prompt="a", sampler=sampler, guidance=3.0), steps=STEPS)
    seen: list[int] = []
    latents = torch.empty(2, 4, 8, 8, device=GPU)
    with Copies() as counted:

        def after_step(step: Step) -> None:
            assert step.latents.device == step.predicted.device == GPU
            assert step.timestep.device == CPU
            seen.append(counted.count)

        start = denoising.from_picture(latents, latents) if from_picture else denoising.from_noise(latents)
        generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        denoising.run(start, Texts(texts(family, 2), texts(family, 2)), generators, after_step=after_step)
    assert len(seen) == len(denoising.timesteps)
    return seen


@pytest.mark.parametrize(("sampler", "from_picture"), STARTS)
def test_no_step_of_a_sampler_copies_anything_to_the_gpu(
    families: dict[str, Family], sampler: Sampler, from_picture: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(families["sd1"], "predict", lambda noisy, *_, **__: torch.empty_like(noisy))
    seen = copies(families["sd1"], sampler, from_picture=from_picture)
    if sampler not in DRAWS:
        assert set(seen) == {seen[0]}
    assert seen[-1] - seen[0] <= 2 * len(seen)  # at most the noise of each picture


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_no_call_of_the_denoiser_copies_anything_to_the_gpu(families: dict[str, Family], kind: str) -> None:
    assert len(set(copies(families[kind], "euler", from_picture=False))) == 1


def test_copies_are_counted() -> None:
    with Copies() as counted:
        torch.ones(3).to(GPU)
        torch.empty(3, device=GPU).copy_(torch.ones(3))
        torch.ones(3).to(torch.float64)
    assert counted.count == 2


@pytest.mark.parametrize("kind", ["sd1", "sdxl", "sd2-v"])
def test_the_denoiser_can_be_captured(kind: str, tmp_path: Path) -> None:
    """With adapters, on the device alone: nothing is copied to it, and nothing is asked of it."""
    painter = Painter(str(tiny_model(kind, tmp_path / "model")), CPU)
    painter.use([LoraUse(path=str(lora_for(painter.family, tmp_path / "a.safetensors", 1)), weight=0.5)])
    family = painter.family
    family.move(denoiser=GPU)
    conditioning = texts(family, 2)

    def predict(noisy: Tensor, timestep: Tensor, sizes: Tensor) -> Tensor:
        return family.predict(noisy, timestep, conditioning, sizes)

    timestep, sizes = torch.empty((), dtype=torch.int64, device=GPU), torch.empty(2, 6, dtype=torch.int64, device=GPU)
    with torch.no_grad():
        calls, _ = check_capturable(predict, [torch.empty(2, 4, 8, 8, device=GPU), timestep, sizes])
    assert len(calls) > 100
